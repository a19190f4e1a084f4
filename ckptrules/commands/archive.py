"""`doit archive`: pack old experiments into one file each."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import datetime
from functools import partial
from itertools import groupby, islice
from pathlib import PurePath
from typing import TypeVar

from ckptrules.changes.transaction import JournalledTree, transact
from ckptrules.changes.units import cannot
from ckptrules.commands.backup import expected
from ckptrules.engine.actions import Step, Unit
from ckptrules.engine.entries import Entry, Identity, Item
from ckptrules.engine.measures import count_of, human_size, visible
from ckptrules.engine.state_folder import trash_folder, trash_name
from ckptrules.outputs.in_use import in_use
from ckptrules.outputs.links import Links
from ckptrules.report.style import Style
from ckptrules.run import finding, records, refusing
from ckptrules.run.options import ARCHIVE_DIR, Common, OneOf, OptionError, flag, option
from ckptrules.run.outcome import Done, Prepared
from ckptrules.run.session import Session
from ckptrules.run.tasks import chosen_of, selects
from ckptrules.stopping import KilledError, StoppedError
from ckptrules.storage import looking, reading, unfinished
from ckptrules.storage.reading import why_of
from ckptrules.vault import backing_up, packing, report, space, tar
from ckptrules.vault.backups import paths_of
from ckptrules.vault.packing import Packing, Ready
from ckptrules.vault.tar import ArchiveError
from ckptrules.vault.unpacking import Unpacking
from ckptrules.workers.pieces import FILES, Lost
from ckptrules.workers.workers import cores


class Options(Common, takes="experiments wait executor max_rate"):
    """The options of `doit archive`."""

    changes = True
    archive_dir: str | None = ARCHIVE_DIR
    keep_source: bool = flag("leave the experiment where it is")
    format: str = option("zst", OneOf(tuple(tar.FORMATS)), f"how it is packed: {' or '.join(tar.FORMATS)}")

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders of the outputs and of the archives."""
        return (self.outputs_dir, self.archive_dir or self.outputs_dir)


def prepare(session: Session, options: Options) -> Prepared:
    """Choose the experiments to pack, and refuse what cannot be packed."""
    if not selects(session, "archive", options) or options.archive_dir is None:
        missing = "archive_dir" if selects(session, "archive", options) else "experiments"
        raise OptionError(f"archive needs {missing}=…", "'doit archive experiments=PATTERN archive_dir=DIR'")
    if not os.path.isdir(options.archive_dir):
        hint = "the folder for the archives must be there already"
        raise OptionError(f"archive_dir={options.archive_dir}: is no folder", hint)
    if refusing.is_inside(options.archive_dir, options.outputs_dir):
        hint = "name another folder with archive_dir=DIR"
        raise OptionError(f"archive_dir '{options.archive_dir}' is inside outputs_dir", hint)
    experiments = finding.names_of(session, options)
    names = chosen_of(session, "archive", options, experiments)
    chosen = paths_of(names)
    if not options.keep_source:
        refuse_inner(set(chosen), experiments)
    try:
        if options.format == "zst":
            tar.zstd_library()
    except ArchiveError as error:
        raise OptionError(f"format={options.format}: {error}") from None
    inner_first = sorted(chosen, key=lambda experiment: (-experiment.count("/"), experiment))
    packings = [
        Packing(options.outputs_dir, experiment, options.archive_dir, options.format) for experiment in inner_first
    ]
    return Prepared(partial(pack_all, session, options, packings), names)


def refuse_inner(chosen: Collection[str], experiments: Iterable[str]) -> None:
    """Refuse to move an experiment to the trash if another one lies in it that was not chosen.

    Raises:
        OptionError: with the names of both.
    """
    for inner in map(os.path.normpath, experiments):  # one folder may have a second name, `a/.`
        outer = next((str(above) for above in PurePath(inner).parents if str(above) in chosen), "")
        if outer and inner not in chosen:
            fact = f"'{visible(outer)}' holds another experiment, '{visible(inner)}'"
            raise OptionError(fact, "archive that one too, or say keep_source=1")


# --- what the tasks do -----------------------------------------------------------------------------------------------


class Results:
    """The results of all experiments or archives: a text for each, by name, and the names of those that ``failed``.

    ``to_come`` are the bytes that would be read or written, in a preview. ``killed`` is the error if no worker is left.
    """

    def __init__(self, style: Style) -> None:
        self.style = style
        self.lines: dict[str, str] = {}
        self.failed: list[str] = []
        self.to_come = 0
        self.killed: KilledError | None = None

    @contextlib.contextmanager
    def trying(self, name: str) -> Iterator[None]:
        """Note an error as the result of this one; the others go on."""
        try:
            yield
        except (ArchiveError, OSError) as error:
            why = why_of(error) if isinstance(error, OSError) else str(error)
            shown, sign = self.style.name(name), self.style.paint(self.style.signs["problem"], "red")
            self.fail(name, f"{sign} Problem: {shown}: {self.style.name(why)}")

    def fail(self, name: str, line: str) -> None:
        """Note that one failed, and the line for it."""
        self.lines[name] = line
        self.failed.append(name)

    def stop(self, error: StoppedError | KilledError, names: Iterable[str], done: str) -> None:
        """Note for each one without a result that it is not done, as all work has ended early."""
        self.killed = error if isinstance(error, KilledError) else None
        for name in (name for name in names if name not in self.lines):
            self.fail(name, f"Stopped: {self.style.name(name)} is not {done}.")

    def done(self, names: Iterable[str], more: str) -> Done:
        """Return all lines, in the order of ``names``, with ``more`` below them."""
        lines = [self.lines[name] for name in names if name in self.lines]
        return Done("\n".join([*lines, ""]) + more, failed=bool(self.failed), killed=self.killed)


def pack_all(session: Session, options: Options, packings: list[Packing]) -> Done:
    """Pack experiments, several at once, inner ones before those that hold them; an error does not stop the others."""
    results, names = Results(session.style(options)), [place.experiment for place in packings]
    try:
        for group in by_depth(packings):
            ready = [one for place in group if (one := prepare_one(session, options, results, place))]
            for batch in in_batches(ready, lambda: space.free(str(options.archive_dir))):
                pack_batch(session, options, results, batch)
    except (StoppedError, KilledError) as error:
        shown = results.style.name
        for place in packings:
            if place.experiment not in results.lines and os.path.lexists(place.path):  # a worker has finished it
                what = f"{shown(place.experiment)} is where it was, and {shown(place.path)} is there"
                results.fail(place.experiment, f"Stopped: {what}.")
        results.stop(error, names, "archived")
    return results.done(names, expected(options, "archive", results.to_come))


def by_depth(packings: Iterable[Packing]) -> Iterator[list[Packing]]:
    """Divide experiments, the inner ones first, into groups in which none lies in another one."""
    for _, level in groupby(packings, lambda place: place.experiment.count("/")):
        while group := list(islice(level, FILES)):
            yield group


Some = TypeVar("Some", Ready, Unpacking)


def in_batches(some: Iterable[Some], free: Callable[[], int]) -> Iterator[list[Some]]:
    """Divide work into batches for which there is room when they are yielded; a batch has at least one.

    ``free`` returns the free bytes.
    """
    waiting = deque(some)
    while waiting:
        batch = [waiting.popleft()]
        left = free() - batch[0].needed
        while waiting and waiting[0].needed <= left:
            left -= waiting[0].needed
            batch.append(waiting.popleft())
        yield batch


def prepare_one(session: Session, options: Options, results: Results, place: Packing) -> Ready | None:
    """Return an experiment that is to be packed; None if it is packed already, cannot be, or this is a dry run.

    Raises:
        StoppedError: Ctrl-C or SIGTERM came.
    """
    with results.trying(place.experiment):
        if inner := next((name for name in results.failed if name.startswith(f"{place.experiment}/")), None):
            raise ArchiveError(f"holds {inner}, which could not be archived")
        items = packing.listing(place)
        with session.shown(sum(item.size for item in items)) as progress:
            before = packing.packed_before(place, items, progress)
        shown, archive = results.style.name(place.experiment), results.style.name(place.path)
        if before and options.keep_source:
            results.lines[place.experiment] = f"Up to date: {shown} is in {archive}."
            return None
        refuse_busy(session, options, place)
        if not options.keep_source:
            refuse_linked(options, place)
        ready = Ready(place, items, datetime.now().astimezone().isoformat(timespec="seconds"))
        if not options.dry_run:
            return ready
        packing.refuse_without_room(ready)
        line = f"Would archive: {shown} to {archive} ({amount(items)})"
        results.lines[place.experiment] = "\n".join([line, *left_outside(place, items, results.style)])
        results.to_come += 2 * sum(item.size for item in items)  # packed, and then read back
    return None


def amount(items: Collection[Item]) -> str:
    """Return the number of files and bytes as text."""
    files = count_of(sum(item.kind != "directory" for item in items), "file")
    return f"{files}, {human_size(sum(item.size for item in items))}"


def left_outside(place: Packing, items: Collection[Item], style: Style) -> list[str]:
    """Return lines on what the archive does not hold, because it is only linked from the experiment."""
    return report.outside_lines(backing_up.leading_out(place.root, place.top, items), style)


def pack_batch(session: Session, options: Options, results: Results, batch: list[Ready]) -> None:
    """Pack experiments in workers, and put each away as soon as it is packed.

    Raises:
        StoppedError: Ctrl-C or SIGTERM came.
        KilledError: no worker is left.
    """
    work = partial(packing.pack_in_worker, max(1, cores() // len(batch)))
    with session.each(work, batch) as answers:
        for ready, why in zip(batch, answers, strict=True):
            with results.trying(ready.place.experiment):
                if isinstance(why, Lost):
                    unfinished.drop_archive(ready.place.path)
                    raise ArchiveError(f"was not packed: {why.why}")
                if why:
                    raise ArchiveError(why)
                results.lines[ready.place.experiment] = put_away(session, options, results.style, ready)


def put_away(session: Session, options: Options, style: Style, ready: Ready) -> str:
    """Move a packed experiment to the trash, unless ``keep_source``; return its result as text.

    Raises:
        ArchiveError, OSError: the experiment stays.
    """
    place, items = ready.place, ready.items
    line = f"{style.paint(style.signs['rename'], 'green')} Archived: {style.name(place.experiment)} to"
    line += f" {style.name(place.path)} ({amount(items)}, packed {human_size(os.path.getsize(place.path))})"
    notes = left_outside(place, items, style)
    if options.keep_source:
        return "\n".join([line, *notes])
    refuse_busy(session, options, place)  # again, as the packing may have taken hours
    identity = looking.identify_at(place.root, place.top)
    if packing.listing(place) != items:
        raise ArchiveError("has changed since it was packed: it stays; move the archive away, and run again")
    to_trash(session, options, place, sum(item.size for item in items), identity)
    return "\n".join([f"{line}; the source is in the trash", *notes])


def refuse_busy(session: Session, options: Options, place: Packing) -> None:
    """Refuse an experiment that is in use.

    Raises:
        ArchiveError: a file in it is open for writing, or has just changed.
        OSError: the folder cannot be opened.
    """
    settle = finding.load(session, options).settle
    with reading.open_below(place.root, "") as root:
        identity = looking.identify(root, place.top)
        if why := in_use(root, Entry(place.top, *identity), settle, session.started_ns):
            raise ArchiveError(f"is in use: a file in it {why}")


def refuse_linked(options: Options, place: Packing) -> None:
    """Refuse to put away an experiment into which links from elsewhere lead, or may lead.

    Raises:
        ArchiveError: with one of the links, or with a folder that could not be searched for links.
    """
    links = Links(options.outputs_dir)
    for folder, entry in links.below(place.experiment):
        link = os.path.join(folder, entry.name)
        raise ArchiveError(f"{link} leads into it: re-point or remove it, or say keep_source=1")
    for folder, why in links.unsearched.items():
        fact = f"{folder} could not be searched for links that lead into it: {why}"
        raise ArchiveError(f"{fact}; let somebody run this who may read all, or say keep_source=1")


def to_trash(session: Session, options: Options, place: Packing, size: int, identity: Identity) -> None:
    """Move a packed experiment to the trash, with a journal, so that `doit undo` brings it back.

    Raises:
        ArchiveError: it could not be journalled, or not be moved.
        OSError: the journal cannot be opened.
    """
    parent = os.path.dirname(place.experiment)
    to = trash_folder(session.run_id, parent)
    step = Step("move", parent, place.top, to, trash_name(place.top), identity=identity)
    if why := change(session, options, "archive", place.experiment, Unit("trash", size, (step,))):
        raise ArchiveError(cannot("be moved to the trash", why))


def change(session: Session, options: Common, command: str, experiment: str, unit: Unit) -> str:
    """Make one change of an experiment through `transact`; return why it failed (`cannot`), or an empty text.

    Raises:
        OSError: the journal cannot be opened.
    """
    tree = JournalledTree(options.outputs_dir, records.open_journal(session, command, options))
    return transact(tree, experiment, experiment, [unit]).why
