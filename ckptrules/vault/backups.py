"""Backups of ``outputs_dir``: made, found, checked, restored. What changes the disk is in the storage."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from fnmatch import fnmatchcase
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
from ckptrules.storage.state import WORK, clear_work
from ckptrules.vault.manifest import LONGEST, Manifest, ManifestError, from_json, to_json
from ckptrules.workers.side_by_side import each

MANIFEST = f"{STATE}/manifest.json"
MANIFEST_ROW = 512  # bytes that one name takes in a manifest, generously
MISSING = "is missing"
TOO_LONG = f"its {MANIFEST} is longer than {human_size(LONGEST)}"
CHANGED_HINT = "back it up again when nothing writes into it"
FORCE_HINT = "force=1 brings back the backup's; what is here goes to the trash"
DAMAGED_HINT = "'doit backups verify=1' tells what else is damaged; take this one from another backup"

Bar = Callable[[int], AbstractContextManager[Progress]]  # given the bytes to come, shows how far it is
Decision = Literal["bring", "replace", "identical", "failed"]


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
        _unreadable(path or order.outputs_dir, error)
        for path, error in sorted(unreadable.items())
        if order.whole or belongs(path, order.experiments)
    ]
    return [item for item in items if order.whole or belongs(item.path, order.experiments)], problems


def make_backup(order: Order, bar: Bar, tell: Tell = untold) -> tuple[Manifest, list[Problem]]:
    """Make a backup: under a hidden name first, under its own when it is whole. What could not be read is a problem.

    ``tell`` is called with what the copies could not be given; the manifest holds it.

    Raises:
        NoSpaceError: it would not fit.
        OSError: it cannot be written. Nothing of it is left, if that can be removed.
    """
    items, problems = collect(order)
    source = os.path.realpath(order.outputs_dir)
    to_come = tuple(item for item in items if item.kind != "other")
    manifest = Manifest(order.created, source, order.mode, complete=False, experiments=order.experiments, items=to_come)
    partial = hidden_path(order.path)
    writing.make_folder(partial, dressing.PRIVATE)
    try:
        copying.write_manifest(partial, MANIFEST, _text(manifest))
        how = _way(order, items, partial)
        if how == "copy":
            check_space(items, partial)
        with bar(sum(item.size for item in items)) as progress:
            held, modes = _copy_all(order.outputs_dir, items, partial, how, progress, problems, tell)
        for item in reversed(held):
            if item.kind == "directory":
                copying.dress_directory(partial, item, tell)
        manifest = manifest._replace(
            mode=" and ".join(sorted(modes)) or order.mode,
            complete=True,
            items=tuple(held),
            missing=tuple(name for problem in problems if problem.id != "changed" for name in problem.names),
        )
        copying.write_manifest(partial, MANIFEST, _text(manifest))
        copying.finish_backup(partial, order.path, order.outputs_dir, tell)
    except BaseException:
        with contextlib.suppress(OSError):
            copying.remove_backup(partial, partial)
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


def _copy_all(
    outputs_dir: str,
    items: Sequence[Item],
    partial: str,
    how: str,
    progress: Progress,
    problems: list[Problem],
    tell: Tell,
) -> tuple[list[Item], set[str]]:
    """Copy everything; return what the backup holds, and how its files came there. What cannot be read is a problem."""
    held: list[Item] = []
    modes: set[str] = set()
    for item in items:
        if item.kind == "directory":
            copying.make_directory(partial, item)
            held.append(_directory(outputs_dir, item, problems))

    def bring(item: Item, progress: Progress) -> tuple[Item, str] | Problem:
        return _bring(outputs_dir, item, partial, how, progress, tell)

    with contextlib.closing(each(bring, [item for item in items if item.kind != "directory"], progress)) as brought:
        for one in brought:
            if isinstance(one, Problem):
                problems.append(one)
                continue
            copied, mode = one
            if copied.changed:
                problems.append(Problem("changed", (copied.path,), "changed while it was copied", CHANGED_HINT))
            held.append(copied)
            modes |= {mode} - {""}
    return sorted(held), modes


def _bring(
    outputs_dir: str, item: Item, partial: str, how: str, progress: Progress, tell: Tell
) -> tuple[Item, str] | Problem:
    """Copy a file or a link, and return what the backup holds, and how a file came there.

    What cannot be read is a problem.

    Raises:
        OSError: it cannot be written; the message names it.
    """
    if item.kind == "other":
        return Problem("not_a_file", (item.path,), "is neither a file nor a directory nor a link: left out")
    try:
        if item.kind == "link":
            copying.make_link(partial, item, tell)
            return item, ""
        return copying.copy_file(outputs_dir, item, partial, item.path, how, progress, tell)
    except SourceError as error:
        return _unreadable(item.path, error)
    except OSError as error:
        raise OSError(error.errno, f"{reading.printable(item.path)}: {why_of(error)}") from None


def _directory(outputs_dir: str, item: Item, problems: list[Problem]) -> Item:
    """Return a directory with its attributes; what cannot be read may have a list, so only its owner keeps rights."""
    try:
        return dressing.described_below(outputs_dir, item)
    except SourceError as error:
        if not any(item.path in problem.names for problem in problems):
            problems.append(_unreadable(item.path, error))
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


def check_backup(folder: str, manifest: Manifest, progress: Progress) -> tuple[Problem, ...]:
    """Compare everything in a backup with its manifest, files by their checksum."""
    faults = each(lambda item, progress: difference(folder, item, progress), manifest.items, progress)
    pairs = zip(manifest.items, faults, strict=True)
    return tuple(Problem("damaged", (item.path,), fault) for item, fault in pairs if fault)


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


def difference(root: str, item: Item, progress: Progress, *, by_time: bool = False) -> str:
    """Say how what is below a folder differs from an item of a manifest, or return an empty text.

    A file of the same size and time is taken as the same ``by_time``, without reading it.
    """
    try:
        there = reading.look(root, item.path)
        if there is None:
            return MISSING
        if there.kind != item.kind:
            return f"is a {there.kind}, not a {item.kind}"
        if there.link != item.link:
            return f"leads to '{there.link}', not to '{item.link}'"
        if item.kind != "file" or (by_time and (there.size, there.mtime_ns) == (item.size, item.mtime_ns)):
            return ""
        if there.size != item.size:
            return f"has {there.size} bytes, not {item.size}"
        checksum = reading.checksum(root, item.path, progress, item.checksum)
    except OSError as error:
        return f"cannot be read: {why_of(error)}"
    return "" if checksum == item.checksum else "has another checksum"


# --- restoring -------------------------------------------------------------------------------------------------------


def plan_restore(
    outputs_dir: str, manifest: Manifest, chosen: Collection[str] | None, *, force: bool, progress: Progress
) -> list[RestoreStep]:
    """Decide for every name of a backup, or for those of the chosen experiments; nothing is changed.

    What lies below a directory that cannot be brought back is left out.
    """
    steps: list[RestoreStep] = []
    new: set[str] = set()
    blocked: set[str] = set()
    for item in manifest.items:
        if chosen is not None and not belongs(item.path, chosen):
            continue
        parent = os.path.dirname(item.path)
        if parent in blocked:
            blocked.add(item.path)
            continue
        fault = MISSING if parent in new else difference(outputs_dir, item, progress, by_time=True)
        step = _decide(item, fault, force=force)
        if step.problem:
            blocked.add(item.path)
        elif fault:
            new.add(item.path)
        steps.append(step)
    return steps


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
) -> list[RestoreStep]:
    """Carry out what was decided, and return what came of it.

    What is replaced goes to the trash of ``run``; ``journal`` is its record; ``stopped`` says whether it is to end
    before the next change. ``tell`` is called with what a copy has lost.

    Raises:
        OSError: the workplace of the restore, or a directory that was just made, cannot be written.
    """
    journal = journal or Journal(Disk(outputs_dir), run, os.getpid(), {"command": "restore"})
    place = Workplace(outputs_dir, run, journal, 1, stopped)
    with bar(sum(step.item.size for step in steps if step.verdict in ("bring", "replace"))) as progress:
        done = [
            _carry_out(step, place, backup, progress, tell) if step.verdict in ("bring", "replace") else step
            for step in steps
        ]
    clear_work(outputs_dir)
    for step in reversed(done):
        if step.item.kind == "directory" and step.verdict in ("bring", "replace"):
            copying.dress_directory(outputs_dir, step.item, tell)
    return done


def _carry_out(step: RestoreStep, place: Workplace, backup: str, progress: Progress, tell: Tell) -> RestoreStep:
    """Bring back one name; a file is known to be sound before what is in its place is touched."""
    item = step.item
    try:
        staged, checksum = copying.stage(backup, item, place.outputs_dir, progress, tell)
    except SourceError as error:
        return _failed(item, "damaged", f"cannot be read in the backup: {why_of(error)}", DAMAGED_HINT)
    except OSError as error:
        return _failed(item, "refused", f"cannot be brought back: {why_of(error)}")
    try:
        if checksum != item.checksum:
            text = "is damaged in the backup: its checksum is not that of the manifest"
            return _failed(item, "damaged", text, DAMAGED_HINT)
        why = _put_in_place(step, place, staged)
        return _failed(item, "refused", cannot("be brought back", why)) if why else step
    finally:
        staging.drop_staged(place.outputs_dir, staged)


def _put_in_place(step: RestoreStep, place: Workplace, staged: str) -> str:
    """Move what was staged to where it belongs, and what stands there to the trash; say why that could not be."""
    folder, name = os.path.split(step.item.path)
    try:
        bring = Step("move", WORK, staged, folder, name, identity=_identity(place, WORK, staged))
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


def _unreadable(path: str, error: OSError) -> Problem:
    return Problem("unreadable", (path,), f"cannot be read: {why_of(error)}; left out", "ls -ld tells its owner")


def _failed(item: Item, identity: str, text: str, hint: str = "") -> RestoreStep:
    return RestoreStep(item, "failed", Problem(identity, (item.path,), text, hint))
