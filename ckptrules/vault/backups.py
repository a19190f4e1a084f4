"""Backups of ``outputs_dir``: made, found, checked, restored. What changes the disk is in the storage."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from fnmatch import fnmatchcase
from functools import partial
from typing import Literal, NamedTuple

from ckptrules.changes.journal import Journal
from ckptrules.changes.transaction import Workplace, transact
from ckptrules.changes.units import cannot
from ckptrules.engine.measures import human_size
from ckptrules.engine.values import STATE, Identity, Item, Problem, Step, Unit, trash_folder, trash_name
from ckptrules.storage import believing, copying, dressing, reading, staging, writing
from ckptrules.storage.attributes import disbelieved
from ckptrules.storage.copying import Tell, untold
from ckptrules.storage.posix import Disk
from ckptrules.storage.reading import Progress, SourceError, why_of
from ckptrules.vault.manifest import LONGEST, Manifest, ManifestError, from_json, to_json
from ckptrules.workers.pieces import Each, Lost
from ckptrules.workers.side_by_side import each as by_threads

MANIFEST = f"{STATE}/manifest.json"
COPIES = f"{MANIFEST}.copies"  # a folder in which copies wait until they are moved to their places
MANIFEST_ROW = 512  # bytes that one name takes in a manifest, generously
AHEAD = 16 << 30  # bytes that may be brought back into the workplace before an earlier file has its place
MISSING = "is missing"
TOO_LONG = f"its {MANIFEST} is longer than {human_size(LONGEST)}"
CHANGED_HINT = "back it up again when nothing writes into it"
LOST_HINT = "back it up again, with executor=none if it happens again"
FORCE_HINT = "force=1 brings back the backup's; what is here goes to the trash"
DAMAGED_HINT = "'doit backups verify=1' tells what else is damaged; take this one from another backup"

Bar = Callable[[int], AbstractContextManager[Progress]]  # given the bytes to come, shows how far it is
Decision = Literal["bring", "replace", "identical", "failed"]
COMES: tuple[Decision, ...] = ("bring", "replace")


class NoBackupError(Exception):
    """A folder that is no sound backup of ours; the message is one fact."""


class NotOursError(NoBackupError):
    """A folder that never was a backup of ours."""


class NoSpaceError(Exception):
    """There is not enough space for a backup; nothing is left of it. The message is one fact."""


class Order(NamedTuple):
    """What is to be backed up, and where to.

    ``experiments`` are the paths of those in it; ``whole`` says that all the rest of ``outputs_dir`` comes along.
    ``path`` is where the backup will be, ``created`` is for its manifest.
    """

    outputs_dir: str
    path: str
    mode: str
    experiments: tuple[str, ...]
    whole: bool
    created: str


class Held(NamedTuple):
    """A backup in a list; ``manifest`` is None where it cannot be believed. ``damage`` is what a check found."""

    name: str
    manifest: Manifest | None
    damage: tuple[Problem, ...] = ()


class Way(NamedTuple):
    """How files are copied side by side: out of the folder ``origin`` into ``folder`` below ``root``, where they wait.

    ``as_item`` is that of `copying.copy_file`, and ``how`` as well.
    """

    origin: str
    root: str
    folder: str
    how: str
    as_item: bool = False


class Copied(NamedTuple):
    """A copy that waits under a path of its own, how it came there, and what of the original it has not got."""

    item: Item
    path: str
    how: str
    lost: tuple[str, ...]


class NotCopied(NamedTuple):
    """Why a file could not be copied: an error number and words; ``in_origin``: it cannot be read, else not written."""

    number: int | None
    why: str
    in_origin: bool


class RestoreStep(NamedTuple):
    """What is to happen, or has happened, with one name of a backup; one that failed has a problem."""

    item: Item
    verdict: Decision
    problem: Problem | None = None


# --- names and scope -------------------------------------------------------------------------------------------------


def backup_name(outputs_dir: str, now: datetime) -> str:
    """Name a backup that is made now: ``outputs_backup_20251015_101500``."""
    return f"{os.path.basename(os.path.abspath(outputs_dir))}_backup_{now:%Y%m%d_%H%M%S}"


def hidden_path(path: str) -> str:
    """Say where a backup is while it is made or removed; one that was left there stays there."""
    folder, name = os.path.split(path)
    return path if name.startswith(".") else os.path.join(folder, f".{name}.partial")


def backups_folder(outputs_dir: str, to: str | None) -> str:
    """Say in which folder backups lie: ``to``, or beside ``outputs_dir``."""
    return to or os.path.normpath(os.path.join(outputs_dir, os.pardir))


def choose(experiments: Iterable[str], pattern: str | None) -> tuple[str, ...]:
    """Return the paths of the experiments whose name a shell pattern fits; of all where there is none."""
    return tuple(sorted({os.path.normpath(e) for e in experiments if pattern is None or fnmatchcase(e, pattern)}))


def belongs(path: str, experiments: Collection[str]) -> bool:
    """Say whether a path is in one of the experiments, or is a directory on the way to one."""
    return any(f"{path}/".startswith(f"{name}/") or name.startswith(f"{path}/") for name in experiments)


# --- making ----------------------------------------------------------------------------------------------------------


def collect(order: Order) -> tuple[list[Item], list[Problem]]:
    """List what is to be backed up, directories before what is in them."""
    items, unreadable = reading.read_tree(order.outputs_dir)
    problems = [
        _unreadable(path or order.outputs_dir, why_of(error))
        for path, error in sorted(unreadable.items())
        if order.whole or belongs(path, order.experiments)
    ]
    return [item for item in items if order.whole or belongs(item.path, order.experiments)], problems


def make_backup(order: Order, bar: Bar, tell: Tell = untold, each: Each = by_threads) -> tuple[Manifest, list[Problem]]:
    """Make a backup: under a hidden name first, under its own when it is whole. What could not be read is a problem.

    ``tell`` is called with what the copies could not be given; the manifest holds it. ``each`` has files copied; what
    none of those who do that has finished is a problem, too.

    Raises:
        NoSpaceError: it would not fit.
        OSError: it cannot be written. Nothing of it is left, if that can be removed.
    """
    items, problems = collect(order)
    source = os.path.realpath(order.outputs_dir)
    to_come = tuple(item for item in items if item.kind != "other")
    manifest = Manifest(order.created, source, order.mode, complete=False, experiments=order.experiments, items=to_come)
    hidden = hidden_path(order.path)
    writing.make_folder(hidden, dressing.PRIVATE)
    try:
        copying.write_manifest(hidden, MANIFEST, _text(manifest))
        how = _way(order, items, hidden)
        if how == "copy":
            check_space(items, hidden)
        held = _directories(order.outputs_dir, items, hidden, problems)
        with bar(sum(item.size for item in items)) as progress, copying.waiting(hidden, COPIES):
            work = partial(copy_apart, Way(order.outputs_dir, hidden, COPIES, how))
            with contextlib.closing(each(work, _apart(items), progress)) as answers:
                modes = _place_all(hidden, items, answers, held, problems, tell)
        held.sort()
        for item in reversed(held):
            if item.kind == "directory":
                copying.dress_directory(hidden, item, tell)
        manifest = manifest._replace(
            mode=" and ".join(sorted(modes)) or order.mode,
            complete=True,
            items=tuple(held),
            missing=tuple(name for problem in problems if problem.id != "changed" for name in problem.names),
        )
        copying.write_manifest(hidden, MANIFEST, _text(manifest))
        copying.finish_backup(hidden, order.path, order.outputs_dir, tell)
    except BaseException:
        with contextlib.suppress(OSError):
            copying.remove_backup(hidden, hidden)
        raise
    return manifest, problems


def check_space(items: Iterable[Item], folder: str) -> None:
    """Refuse copies that would not fit, where the file system says how large it is.

    Raises:
        NoSpaceError: with how much is needed and how much there is.
    """
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize
    needed = space_needed(items, status.f_frsize)
    if needed > free and status.f_blocks:
        raise NoSpaceError(f"needs {human_size(needed)}, but only {human_size(free)} are free")


def space_needed(items: Iterable[Item], block: int) -> int:
    """Sum up the bytes that copies take: their holes take none.

    Args: ``block`` is the step in which the file system gives space away.
    """
    return sum(
        MANIFEST_ROW + (-(-(item.size - item.holes) // block) * block if item.kind == "file" else block)
        for item in items
    )


def _way(order: Order, items: Iterable[Item], partial: str) -> str:
    """Decide how files come into the backup: clones are tried with the first file that can be read."""
    if order.mode != "auto":
        return order.mode
    for item in items:
        with contextlib.suppress(SourceError):
            if item.kind == "file" and item.size:
                probe = f"{partial}/{MANIFEST}.probe"
                return "clone" if copying.can_clone(order.outputs_dir, item.path, probe) else "copy"
    return "copy"


def copy_apart(way: Way, item: Item, progress: Progress = lambda _: None) -> Copied | NotCopied:
    """Copy a file or a link to where it waits, or make an empty directory there, under a name that nobody else takes.

    So it is of no matter who dies of it, or still goes on with the same when another one has begun it anew.
    """
    path, lost, how = f"{way.folder}/{writing.temporary_name('')}", list[str](), ""

    def hear(_: str, words: tuple[str, ...]) -> None:
        lost.extend(words)

    try:
        if item.kind == "directory":
            copying.make_directory(way.root, item._replace(path=path))
        elif item.kind == "link":
            copying.make_link(way.root, item._replace(path=path), hear)
        else:
            to = (way.root, path, way.how)
            item, how = copying.copy_file(way.origin, item, *to, progress, hear, as_item=way.as_item)
    except OSError as error:
        return NotCopied(error.errno, why_of(error), in_origin=isinstance(error, SourceError))
    return Copied(item, path, how, tuple(lost))


def _apart(items: Iterable[Item]) -> list[Item]:
    return [item for item in items if item.kind in ("file", "link")]


def _place_all(
    hidden: str,
    items: Iterable[Item],
    answers: Iterator[Copied | NotCopied | Lost],
    held: list[Item],
    problems: list[Problem],
    tell: Tell,
) -> set[str]:
    """Give copies their places as they come, and return how the files came there.

    What is in its place is added to ``held``. What cannot be read, or was not copied, is a problem.

    Raises:
        OSError: one cannot be written; the message names it.
    """
    modes = set[str]()
    for item in items:
        if item.kind == "other":
            fact = "is neither a file nor a directory nor a link: left out"
            problems.append(Problem("not_a_file", (item.path,), fact))
        if item.kind not in ("file", "link"):
            continue
        try:
            copied = _copied(item, next(answers))
            if isinstance(copied, Problem):
                problems.append(copied)
                continue
            copying.place_copy(hidden, copied.path, item.path)
        except OSError as error:
            raise OSError(error.errno, f"{reading.printable(item.path)}: {why_of(error)}") from None
        if copied.item.changed:
            problems.append(Problem("changed", (item.path,), "changed while it was copied", CHANGED_HINT))
        if copied.lost:
            tell(item.path, copied.lost)
        held.append(copied.item)
        modes |= {copied.how} - {""}
    return modes


def _copied(item: Item, answer: Copied | NotCopied | Lost) -> Copied | Problem:
    """Return what was copied, or why it is left out.

    Raises:
        OSError: it cannot be written.
    """
    if isinstance(answer, Lost):
        return Problem("unreadable", (item.path,), f"was not copied: {answer.why}; left out", LOST_HINT)
    if isinstance(answer, NotCopied):
        if not answer.in_origin:
            raise OSError(answer.number, answer.why)
        return _unreadable(item.path, answer.why)
    return answer


def _directories(outputs_dir: str, items: Iterable[Item], hidden: str, problems: list[Problem]) -> list[Item]:
    """Make all directories, and return them as the backup holds them."""
    held = []
    for item in items:
        if item.kind == "directory":
            copying.make_directory(hidden, item)
            held.append(_directory(outputs_dir, item, problems))
    return held


def _directory(outputs_dir: str, item: Item, problems: list[Problem]) -> Item:
    """Return a directory with its attributes; what cannot be read may have a list, so only its owner keeps rights."""
    try:
        return dressing.described_below(outputs_dir, item)
    except SourceError as error:
        if not any(item.path in problem.names for problem in problems):
            problems.append(_unreadable(item.path, why_of(error)))
        return item._replace(mode=item.mode & ~0o077)


# --- finding, checking -----------------------------------------------------------------------------------------------


def read_backup(folder: str) -> Manifest:
    """Read the manifest of a backup and check it.

    Raises:
        NoBackupError: the folder has none, or it cannot be believed.
    """
    if os.path.islink(folder) or not os.path.isdir(folder):
        raise NotOursError("is a link" if os.path.islink(folder) else "is no directory")
    try:
        with reading.open_file(folder, MANIFEST) as file, open(file, encoding="utf-8", closefd=False) as text:
            if os.fstat(file).st_size > LONGEST:
                raise NoBackupError(TOO_LONG)
            return from_json(text.read(LONGEST))
    except SourceError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise NotOursError("carries no manifest of ckptrules") from None
        raise NoBackupError(f"its {MANIFEST} cannot be read: {why_of(error)}") from None
    except UnicodeDecodeError:
        raise NoBackupError(f"its {MANIFEST} is not UTF-8 text") from None
    except ManifestError as error:
        raise NoBackupError(f"its {MANIFEST}: {error}") from None


def believed(folder: str, manifest: Manifest) -> Manifest:
    """Return the manifest of a backup without owners and access lists if somebody else could have written it."""
    with (
        contextlib.suppress(OSError, ValueError),
        reading.open_file(folder, MANIFEST) as file,
        open(file, encoding="utf-8", closefd=False) as text,
    ):
        if believing.is_trusted(os.fstat(file)) and from_json(text.read()) == manifest:
            return manifest
    return manifest._replace(items=tuple(map(disbelieved, manifest.items)))


def find_backups(folder: str, outputs_dir: str) -> list[Held]:
    """List the backups in a folder, oldest first; ``outputs_dir`` is none, even if it was one before."""
    held = []
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        try:
            manifest = None if os.path.realpath(path) == os.path.realpath(outputs_dir) else read_backup(path)
        except NotOursError:
            continue
        except NoBackupError as error:
            held.append(Held(name, None, (Problem("damaged", (name,), str(error)),)))
        else:
            held += [Held(name, manifest)] if manifest else []
    return sorted(held, key=lambda backup: (backup.manifest.created if backup.manifest else "", backup.name))


def check_backup(folder: str, manifest: Manifest, progress: Progress, each: Each = by_threads) -> tuple[Problem, ...]:
    """Compare everything in a backup with its manifest, files by their checksum."""
    with contextlib.closing(each(partial(difference, folder), manifest.items, progress)) as faults:
        pairs = zip(manifest.items, map(_fault, faults), strict=True)
        return tuple(Problem("damaged", (item.path,), fault) for item, fault in pairs if fault)


def _fault(answer: str | Lost) -> str:
    return f"was not read: {answer.why}" if isinstance(answer, Lost) else answer


def foreign_names(folder: str, manifest: Manifest) -> list[str]:
    """List what lies in the folder of a backup, finished or not, and is not of it: dropping it would lose that.

    Raises:
        OSError: a part of the folder cannot be read.
    """
    ours = {item.path for item in manifest.items}
    (items, unreadable), (state, _) = reading.read_tree(folder), reading.read_tree(folder, STATE)
    for error in unreadable.values():
        raise error
    foreign = [item.path for item in items if item.path not in ours]
    return foreign + [item.path for item in state if not item.path.startswith(MANIFEST)]


def difference(root: str, item: Item, progress: Progress) -> str:
    """Say how what is below a folder differs from an item of a manifest, or return an empty text."""
    fault = unlike(root, item)
    if fault is not None:
        return fault
    try:
        checksum = reading.checksum(root, item.path, progress, item.checksum)
    except OSError as error:
        return f"cannot be read: {why_of(error)}"
    return "" if checksum == item.checksum else "has another checksum"


def unlike(root: str, item: Item, *, by_time: bool = False) -> str | None:
    """Say at a glance how what is below a folder differs from an item of a manifest; None: only its content can tell.

    A file of the same size and time is taken as the same ``by_time``.
    """
    try:
        there = reading.look(root, item.path)
    except OSError as error:
        return f"cannot be read: {why_of(error)}"
    if there is None:
        return MISSING
    if there.kind != item.kind:
        return f"is a {there.kind}, not a {item.kind}"
    if there.link != item.link:
        return f"leads to '{there.link}', not to '{item.link}'"
    if there.size != item.size:
        return f"has {there.size} bytes, not {item.size}"
    return "" if item.kind != "file" or (by_time and there.mtime_ns == item.mtime_ns) else None


# --- restoring -------------------------------------------------------------------------------------------------------


def plan_restore(
    outputs_dir: str,
    manifest: Manifest,
    chosen: Collection[str] | None,
    *,
    force: bool,
    progress: Progress,
    each: Each = by_threads,
) -> list[RestoreStep]:
    """Decide for every name of a backup, or for those of the chosen experiments; nothing is changed.

    What lies below a directory that cannot be brought back is left out.
    """
    steps: list[RestoreStep] = []
    unread: list[Item] = []
    new: set[str] = set()
    blocked: set[str] = set()
    for item in manifest.items:
        if chosen is not None and not belongs(item.path, chosen):
            continue
        parent = os.path.dirname(item.path)
        if parent in blocked:
            blocked.add(item.path)
            continue
        fault = MISSING if parent in new else unlike(outputs_dir, item, by_time=True)
        unread += [item] if fault is None else []
        step = _decide(item, fault or "", force=force)
        if step.problem:
            blocked.add(item.path)
        elif fault:
            new.add(item.path)
        steps.append(step)
    with contextlib.closing(each(partial(difference, outputs_dir), unread, progress)) as answers:
        read = {item.path: fault for item, fault in zip(unread, map(_fault, answers), strict=True)}
    return [_decide(step.item, read[step.item.path], force=force) if step.item.path in read else step for step in steps]


def _decide(item: Item, fault: str, *, force: bool) -> RestoreStep:
    if not fault:
        return RestoreStep(item, "identical")
    if fault == MISSING:
        return RestoreStep(item, "bring")
    if force:
        return RestoreStep(item, "replace")
    below = "; nothing below it was brought back" * (item.kind == "directory")
    return _failed(item, "differs", f"differs from the backup: {fault}{below}", FORCE_HINT)


def restore(
    outputs_dir: str,
    backup: str,
    run: str,
    steps: Sequence[RestoreStep],
    bar: Bar,
    tell: Tell = untold,
    journal: Journal | None = None,
    stopped: Callable[[], bool] = lambda: False,
    each: Each = by_threads,
) -> list[RestoreStep]:
    """Carry out what was decided, and return what came of it.

    What is replaced goes to the trash of ``run``; ``journal`` is its record; ``stopped`` says whether it is to end
    before the next change. ``tell`` is called with what a copy has lost. ``each`` has files copied into the workplace,
    a few ahead of those that have their places.

    Raises:
        OSError: the workplace of the restore, or a directory that was just made, cannot be written.
    """
    journal = journal or Journal(Disk(outputs_dir), run, os.getpid(), {"command": "restore"})
    place = Workplace(outputs_dir, run, journal, 1, stopped)
    coming = [step.item for step in steps if step.verdict in COMES]
    if coming:
        with bar(sum(item.size for item in coming)) as progress, copying.staging(outputs_dir, "restore-") as folder:
            way = Way(backup, outputs_dir, folder, "clone", as_item=True)
            with contextlib.closing(each(partial(copy_apart, way), _apart(coming), progress, room=AHEAD)) as answers:
                steps = [
                    _carry_out(step, place, way, answers, tell) if step.verdict in COMES else step for step in steps
                ]
    for step in reversed(steps):
        if step.item.kind == "directory" and step.verdict in COMES:
            copying.dress_directory(outputs_dir, step.item, tell)
    return list(steps)


def _carry_out(
    step: RestoreStep, place: Workplace, way: Way, answers: Iterator[Copied | NotCopied | Lost], tell: Tell
) -> RestoreStep:
    """Bring back one name; a file is known to be sound before what is in its place is touched."""
    item = step.item
    answer = copy_apart(way, item) if item.kind == "directory" else next(answers)
    if isinstance(answer, Lost):
        return _failed(item, "refused", f"was not brought back: {answer.why}")
    if isinstance(answer, NotCopied) and answer.in_origin:
        return _failed(item, "damaged", f"cannot be read in the backup: {answer.why}", DAMAGED_HINT)
    if isinstance(answer, NotCopied):
        return _failed(item, "refused", f"cannot be brought back: {answer.why}")
    name = os.path.basename(answer.path)
    try:
        if answer.item.checksum != item.checksum:
            text = "is damaged in the backup: its checksum is not that of the manifest"
            return _failed(item, "damaged", text, DAMAGED_HINT)
        if why := _put_in_place(step, place, way.folder, name):
            return _failed(item, "refused", cannot("be brought back", why))
    finally:
        staging.drop_staged(place.outputs_dir, name, way.folder)
    if answer.lost:
        tell(item.path, answer.lost)
    return step


def _put_in_place(step: RestoreStep, place: Workplace, waits_in: str, staged: str) -> str:
    """Move what was staged to where it belongs, and what stands there to the trash; say why that could not be."""
    folder, name = os.path.split(step.item.path)
    try:
        bring = Step("move", waits_in, staged, folder, name, identity=_identity(place, waits_in, staged))
        unit = Unit("restore", step.item.size, (bring,))
        if step.verdict == "replace":
            trash, there = trash_folder(place.run, folder), _identity(place, folder, name)
            away = Step("move", folder, name, trash, trash_name(name), identity=there)
            unit = Unit("replace", step.item.size, (away, bring))
    except OSError as error:
        return why_of(error)
    top = step.item.path.partition("/")[0]  # what lies in one another is taken back in one task, the inner first
    return transact(place, top, top, [unit]).why


def _identity(place: Workplace, folder: str, name: str) -> Identity:
    with reading.open_below(place.outputs_dir, folder) as directory:
        return reading.identify(directory, name)


# --- inside ----------------------------------------------------------------------------------------------------------


def _text(manifest: Manifest) -> str:
    """Write a manifest that `read_backup` reads.

    Raises:
        NoSpaceError: it is too long.
    """
    text = to_json(manifest)
    if len(text) > LONGEST:
        raise NoSpaceError(f"holds too many names for one backup: {TOO_LONG}; take fewer experiments=…")
    return text


def _unreadable(path: str, why: str) -> Problem:
    return Problem("unreadable", (path,), f"cannot be read: {why}; left out", "ls -ld tells its owner")


def _failed(item: Item, identity: str, text: str, hint: str = "") -> RestoreStep:
    return RestoreStep(item, "failed", Problem(identity, (item.path,), text, hint))
