"""`doit archive`: old experiments into one file each."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import datetime
from functools import partial
from itertools import groupby, islice
from typing import TypeVar

from ckptrules.changes.transaction import Workplace, transact
from ckptrules.changes.units import cannot
from ckptrules.commands.backup import expected
from ckptrules.engine.actions import Step, Unit
from ckptrules.engine.entries import Entry, Identity, Item, lies_in
from ckptrules.engine.measures import human_size, visible
from ckptrules.engine.state_folder import trash_folder, trash_name
from ckptrules.outputs.in_use import in_use
from ckptrules.outputs.links import Links
from ckptrules.report.style import Style, count_of
from ckptrules.run import finding, records, refusing
from ckptrules.run.options import (
    ARCHIVE_DIR,
    EXECUTOR,
    EXPERIMENTS,
    MAX_RATE,
    WAIT,
    Common,
    OneOf,
    OptionError,
    flag,
    option,
)
from ckptrules.run.outcome import Done, Output, Prepared
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


class Options(Common):
    """What `doit archive` may be told."""

    changes = True
    experiments: str | None = EXPERIMENTS
    archive_dir: str | None = ARCHIVE_DIR
    keep_source: bool = flag("leave the experiment where it is")
    format: str = option("zst", OneOf(tuple(tar.FORMATS)), f"how it is packed: {' or '.join(tar.FORMATS)}")
    wait: int = WAIT
    max_rate: str | None = MAX_RATE
    executor: str | None = EXECUTOR

    @property
    def folders(self) -> tuple[str, ...]:
        """The outputs, and where archives lie."""
        return (self.outputs_dir, self.archive_dir or self.outputs_dir)


def prepare(session: Session, options: Options) -> Prepared:
    """Find out what is to be packed, and where to."""
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
        refuse_to_take_along(set(chosen), experiments)
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


def refuse_to_take_along(chosen: Collection[str], experiments: Iterable[str]) -> None:
    """Refuse to put away with an experiment what lies inside and is another one, which was not chosen.

    Raises:
        OptionError: with both.
    """
    for inner in map(os.path.normpath, experiments):  # one folder may have a second name, `a/.`
        if inner in chosen:
            continue
        parts = inner.split("/")
        for outer in ("/".join(parts[:length]) for length in range(1, len(parts))):
            if outer in chosen:
                fact = f"'{visible(outer)}' holds another experiment, '{visible(inner)}'"
                raise OptionError(fact, "archive that one too, or say keep_source=1")


# --- what the tasks do -----------------------------------------------------------------------------------------------


class Fates:
    """What came of each experiment or archive, by its name, to be told; ``failed`` are those that could not be done.

    ``to_come`` are the bytes that would pass, in a preview; ``killed`` is set when no worker is left.
    """

    def __init__(self, style: Style) -> None:
        self.style = style
        self.lines: dict[str, str] = {}
        self.failed: list[str] = []
        self.to_come = 0
        self.killed: KilledError | None = None

    @contextlib.contextmanager
    def trying(self, name: str) -> Iterator[None]:
        """Tell what goes wrong with one; the others are done."""
        try:
            yield
        except (ArchiveError, OSError) as error:
            why = why_of(error) if isinstance(error, OSError) else str(error)
            shown, sign = self.style.name(name), self.style.paint(self.style.signs["problem"], "red")
            self.fail(name, f"{sign} Problem: {shown}: {self.style.name(why)}")

    def fail(self, name: str, line: str) -> None:
        """Tell that one could not be done."""
        self.lines[name] = line
        self.failed.append(name)

    def stop(self, error: StoppedError | KilledError, names: Iterable[str], done: str) -> None:
        """Tell of each one that is not done, as all ends before its time."""
        self.killed = error if isinstance(error, KilledError) else None
        for name in (name for name in names if name not in self.lines):
            self.fail(name, f"Stopped: {self.style.name(name)} is not {done}.")

    def done(self, names: Iterable[str], more: str) -> Done:
        """Return all lines, in the order of names, and what is to be told below them."""
        lines = [self.lines[name] for name in names if name in self.lines]
        return Done(Output("\n".join([*lines, ""]) + more), failed=bool(self.failed), killed=self.killed)


def pack_all(session: Session, options: Options, packings: list[Packing]) -> Done:
    """Pack experiments, some at once, and those that hold others after these; what fails is told, the rest is done."""
    told, names = Fates(session.style(options)), [place.experiment for place in packings]
    try:
        for places_here in at_once(packings):
            ready = [one for place in places_here if (one := prepare_one(session, options, told, place))]
            for batch in that_fit(ready, lambda: space.free(str(options.archive_dir))):
                pack_batch(session, options, told, batch)
    except (StoppedError, KilledError) as error:
        for place in packings:
            if place.experiment not in told.lines and os.path.lexists(place.path):  # one worker may be ahead of others
                what = (
                    f"{told.style.name(place.experiment)} is where it was, and {told.style.name(place.path)} is there"
                )
                told.fail(place.experiment, f"Stopped: {what}.")
        told.stop(error, names, "archived")
    return told.done(names, expected(options, "archive", told.to_come))


def at_once(packings: Iterable[Packing]) -> Iterator[list[Packing]]:
    """Divide experiments into some of which none lies in another one, the inner first."""
    for _, level in groupby(packings, lambda place: place.experiment.count("/")):
        while some := list(islice(level, FILES)):
            yield some


Some = TypeVar("Some", Ready, Unpacking)


def that_fit(some: Iterable[Some], free: Callable[[], int]) -> Iterator[list[Some]]:
    """Divide what is to be done into as many as there is room for, when it is their turn; one is always tried.

    Args: ``free`` tells the bytes that are there.
    """
    waiting = deque(some)
    while waiting:
        batch = [waiting.popleft()]
        left = free() - batch[0].needed
        while waiting and waiting[0].needed <= left:
            left -= waiting[0].needed
            batch.append(waiting.popleft())
        yield batch


def prepare_one(session: Session, options: Options, told: Fates, place: Packing) -> Ready | None:
    """Find out whether an experiment is to be packed and may be; if not, that is told.

    Raises:
        StoppedError: Ctrl-C or SIGTERM came.
    """
    with told.trying(place.experiment):
        if inner := next((name for name in told.failed if name.startswith(f"{place.experiment}/")), None):
            raise ArchiveError(f"holds {inner}, which could not be archived")
        items = packing.listing(place)
        with session.shown(sum(item.size for item in items)) as progress:
            before = packing.packed_before(place, items, progress)
        shown, archive = told.style.name(place.experiment), told.style.name(place.path)
        if before and options.keep_source:
            told.lines[place.experiment] = f"Up to date: {shown} is in {archive}."
        elif options.dry_run:
            line = f"Would archive: {shown} to {archive} ({amount(items)})"
            told.lines[place.experiment] = "\n".join([line, *left_outside(place, items, told.style)])
            told.to_come += 2 * sum(item.size for item in items)  # on the way there, and on the way back
        else:
            busy(session, options, place)
            if not options.keep_source:
                refuse_linked(options, place)
            created = datetime.now().astimezone().isoformat(timespec="seconds")
            return Ready(place, items, created)
    return None


def amount(items: Collection[Item]) -> str:
    """Write how much an experiment is."""
    files = count_of(sum(item.kind != "directory" for item in items), "file")
    return f"{files}, {human_size(sum(item.size for item in items))}"


def left_outside(place: Packing, items: Collection[Item], style: Style) -> list[str]:
    """Tell of what an archive does not hold, as links in the experiment lead out of it."""
    return report.outside_lines(backing_up.leading_out(place.root, place.top, items), style)


def pack_batch(session: Session, options: Options, told: Fates, batch: list[Ready]) -> None:
    """Have experiments packed by whoever is free, and put each away as soon as that is done.

    Raises:
        StoppedError: Ctrl-C or SIGTERM came.
        KilledError: no worker is left.
    """
    work = partial(packing.pack_apart, max(1, cores() // len(batch)))
    with session.each(work, batch) as answers:
        for ready, why in zip(batch, answers, strict=True):
            with told.trying(ready.place.experiment):
                if isinstance(why, Lost):
                    unfinished.drop_partial(ready.place.path)
                    raise ArchiveError(f"was not packed: {why.why}")
                if why:
                    raise ArchiveError(why)
                told.lines[ready.place.experiment] = put_away(session, options, told.style, ready)


def put_away(session: Session, options: Options, style: Style, ready: Ready) -> str:
    """Move a packed experiment to the trash unless it is to stay; return what to tell.

    Raises:
        ArchiveError, OSError: it was not done.
    """
    place, items = ready.place, ready.items
    line = f"{style.paint(style.signs['rename'], 'green')} Archived: {style.name(place.experiment)} to"
    line += f" {style.name(place.path)} ({amount(items)}, packed {human_size(os.path.getsize(place.path))})"
    notes = left_outside(place, items, style)
    if options.keep_source:
        return "\n".join([line, *notes])
    busy(session, options, place)  # once more: others may have been packed for hours
    with reading.open_below(place.root, "") as root:
        identity = looking.identify(root, place.top)
    if packing.listing(place) != items:
        raise ArchiveError("has changed since it was packed: it stays; move the archive away, and run again")
    to_trash(session, options, place, sum(item.size for item in items), identity)
    return "\n".join([f"{line}; the source is in the trash", *notes])


def busy(session: Session, options: Options, place: Packing) -> None:
    """Refuse an experiment that somebody writes into.

    Raises:
        ArchiveError: with what is known.
        OSError: it cannot be opened.
    """
    settle = finding.load(session, options).settle
    with reading.open_below(place.root, "") as root:
        identity = looking.identify(root, place.top)
        if why := in_use(root, Entry(place.top, *identity), settle, session.started_ns):
            raise ArchiveError(f"is in use: a file in it {why}")


def refuse_linked(options: Options, place: Packing) -> None:
    """Refuse to put away what links from elsewhere lead to, or may lead to.

    Raises:
        ArchiveError: with one of the links, or with where they could not be looked for.
    """
    outputs, top = options.outputs_dir, os.path.realpath(os.path.join(place.root, place.top))
    links = Links(outputs)
    for real, leading in links.leading().links.items():
        for folder, entry in leading:
            leads_there = lies_in(f"{real}/{entry.sibling}", top)
            if leads_there and not lies_in(folder, place.experiment):
                link = f"{folder}/{entry.name}".lstrip("/")
                raise ArchiveError(f"{link} leads into it: re-point or remove it, or say keep_source=1")
    for folder, why in links.unsearched.items():
        fact = f"{folder} could not be searched for links that lead into it: {why}"
        raise ArchiveError(f"{fact}; let somebody run this who may read all, or say keep_source=1")


def to_trash(session: Session, options: Options, place: Packing, size: int, identity: Identity) -> None:
    """Move a packed experiment to the trash, recorded, so that `doit undo` brings it back.

    Raises:
        ArchiveError: it could not be recorded, or moved.
        OSError: the journal cannot be opened.
    """
    parent = os.path.dirname(place.experiment)
    to = trash_folder(session.run_id, parent)
    step = Step("move", parent, place.top, to, trash_name(place.top), identity=identity)
    if why := change(session, options, "archive", place.experiment, Unit("trash", size, (step,))):
        raise ArchiveError(cannot("be moved to the trash", why))


def change(session: Session, options: Common, command: str, experiment: str, unit: Unit) -> str:
    """Do the one thing that is to happen with an experiment; say why that could not be (`cannot`), or nothing.

    Raises:
        OSError: the journal cannot be opened.
    """
    place = Workplace(options.outputs_dir, records.open_journal(session, command, options))
    return transact(place, experiment, experiment, [unit]).why
