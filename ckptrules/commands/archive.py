"""`doit archive`: old experiments into one file each."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime

from doit.exceptions import TaskFailed
from doit.task import Task

from ckptrules import stopping
from ckptrules.changes.transaction import Workplace, transact
from ckptrules.commands.backup import Prepared, chosen_experiments, known_experiments, one_task, selects
from ckptrules.engine.measures import human_size, visible
from ckptrules.engine.values import Entry, Identity, Step, Unit, trash_folder, trash_name
from ckptrules.outputs.evidence import Links, in_use
from ckptrules.report.style import Style, count_of
from ckptrules.run import jobs, places, records
from ckptrules.run.options import ARCHIVE_DIR, EXPERIMENTS, MAX_RATE, WAIT, Common, OneOf, OptionError, flag, option
from ckptrules.run.outcome import Output
from ckptrules.run.session import Session
from ckptrules.run.startup import TaskDict
from ckptrules.stopping import StoppedError
from ckptrules.storage import reading
from ckptrules.storage.reading import why_of
from ckptrules.vault import archives
from ckptrules.vault.archives import ArchiveError, Packing
from ckptrules.vault.backups import choose


class Options(Common):
    """What `doit archive` may be told."""

    changes = True
    experiments: str | None = EXPERIMENTS
    archive_dir: str | None = ARCHIVE_DIR
    keep_source: bool = flag("leave the experiment where it is")
    format: str = option("zst", OneOf(tuple(archives.FORMATS)), f"how it is packed: {' or '.join(archives.FORMATS)}")
    wait: int = WAIT
    max_rate: str | None = MAX_RATE


def tasks(session: Session, options: Options) -> Iterator[TaskDict]:
    """Make the task that packs experiments."""
    return one_task(session, "archive", prepare_archive, options)


def prepare_archive(session: Session, options: Options) -> Prepared:
    """Find out what is to be packed, and where to.

    Raises:
        OptionError: that is not said, or cannot be.
    """
    places.outputs_dir(options)
    if not selects(session, "archive", options) or options.archive_dir is None:
        missing = "archive_dir" if selects(session, "archive", options) else "experiments"
        hint = "'doit archive experiments=PATTERN archive_dir=DIR'"
        raise OptionError(f"command line: archive needs {missing}=…\n    hint: {hint}")
    if not os.path.isdir(options.archive_dir):
        hint = "the folder for the archives must be there already"
        raise OptionError(f"command line: archive_dir={options.archive_dir}: is no folder\n    hint: {hint}")
    if places.is_inside(options.archive_dir, options.outputs_dir):
        hint = "name another folder with archive_dir=DIR"
        raise OptionError(f"command line: archive_dir '{options.archive_dir}' is inside outputs_dir\n    hint: {hint}")
    experiments = known_experiments(session, options)
    names = chosen_experiments(session, "archive", options, experiments)
    chosen = choose(names, None)
    if not options.keep_source:
        refuse_to_take_along(set(chosen), experiments)
    try:
        archives.needed_library(options.format)
    except ArchiveError as error:
        raise OptionError(f"command line: format={options.format}: {error}") from None
    inner_first = sorted(chosen, key=lambda experiment: (-experiment.count("/"), experiment))
    packings = [
        Packing(options.outputs_dir, experiment, options.archive_dir, options.format) for experiment in inner_first
    ]
    return (pack_all, [session, options, jobs.style(session, options), packings]), names


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
                raise OptionError(f"command line: {fact}\n    hint: archive that one too, or say keep_source=1")


# --- what the tasks do -----------------------------------------------------------------------------------------------


def pack_all(
    session: Session, options: Options, style: Style, packings: list[Packing], task: Task
) -> TaskFailed | None:
    """Pack experiments one after the other; what fails is told, the others are done."""
    lines: list[str] = []
    failed: list[str] = []
    for place in packings:
        shown = style.name(place.experiment)
        try:
            if inner := next((name for name in failed if name.startswith(f"{place.experiment}/")), None):
                raise ArchiveError(f"holds {inner}, which could not be archived")  # noqa: TRY301 - told like the others
            lines.append(pack_one(session, options, style, place))
        except StoppedError:
            lines.append(f"Stopped: {shown} is not archived.")
            records.note_stop(session)
            failed.append(place.experiment)
            break
        except (ArchiveError, OSError) as error:
            why = why_of(error) if isinstance(error, OSError) else str(error)
            lines.append(f"{style.paint(style.signs['problem'], 'red')} Problem: {shown}: {style.name(why)}")
            failed.append(place.experiment)
    task.meta = {"output": Output("\n".join([*lines, ""]))}
    return TaskFailed("problems left", report=False) if failed else None


def pack_one(session: Session, options: Options, style: Style, place: Packing) -> str:
    """Pack one experiment, and move it to the trash unless it is to stay; return what to tell.

    Raises:
        ArchiveError, OSError, StoppedError: it was not done.
    """
    items = archives.listing(place)
    size, shown = sum(item.size for item in items), style.name(place.experiment)
    amount = f"{count_of(sum(item.kind != 'directory' for item in items), 'file')}, {human_size(size)}"
    with session.shown(size) as progress:
        before = archives.packed_before(place, items, progress)
    if before:
        archives.refuse_other(place, items, before)
    if before and options.keep_source:
        return f"Up to date: {shown} is in {style.name(place.path)}."
    if options.dry_run:
        return f"Would archive: {shown} to {style.name(place.path)} ({amount})"
    busy(session, options, place)
    if not options.keep_source:
        refuse_linked(options, place)
    if before:
        with session.shown(2 * size) as progress:
            archives.prove(place, items, progress)
    else:
        created = datetime.now().astimezone().isoformat(timespec="seconds")
        archives.pack(place, items, created, session.shown)
    line = f"{style.paint(style.signs['rename'], 'green')} Archived: {shown} to {style.name(place.path)}"
    line += f" ({amount}, packed {human_size(os.path.getsize(place.path))})"
    if options.keep_source:
        return line
    with reading.open_below(place.root, "") as root:
        identity = reading.identify(root, place.top)
    if archives.listing(place) != items:
        raise ArchiveError("has changed since it was packed: it stays; move the archive away, and run again")
    to_trash(session, options, place, size, identity)
    return f"{line}; the source is in the trash"


def busy(session: Session, options: Options, place: Packing) -> None:
    """Refuse an experiment that somebody writes into.

    Raises:
        ArchiveError: with what is known.
        OSError: it cannot be opened.
    """
    settle = jobs.load(session, options.rules_dir, options.outputs_dir).settle
    with reading.open_below(place.root, "") as root:
        identity = reading.identify(root, place.top)
        if why := in_use(root, Entry(place.top, *identity), settle, session.started_ns):
            raise ArchiveError(f"is in use: a file in it {why}")


def refuse_linked(options: Options, place: Packing) -> None:
    """Refuse to put away what links from elsewhere lead to, or may lead to.

    Raises:
        ArchiveError: with one of the links, or with where they could not be looked for.
    """
    outputs, top = options.outputs_dir, os.path.realpath(os.path.join(place.root, place.top))
    links = Links(outputs)
    for real, leading in links.by_target().items():
        for folder, entry in leading:
            leads_there = f"{real}/{entry.sibling}/".startswith(f"{top}/")
            if leads_there and not f"{folder}/".startswith(f"{place.experiment}/"):
                link = f"{folder}/{entry.name}".lstrip("/")
                raise ArchiveError(f"{link} leads into it: re-point or remove that link, or say keep_source=1")
    for folder, why in links.unsearched.items():
        fact = f"{folder} could not be searched for links that lead into it: {why}"
        raise ArchiveError(f"{fact}; let somebody run this who may read all, or say keep_source=1")


def to_trash(session: Session, options: Options, place: Packing, size: int, identity: Identity) -> None:
    """Move a packed experiment to the trash, recorded, so that `doit undo` brings it back.

    Raises:
        OSError: it could not be recorded, or moved.
    """
    parent = os.path.dirname(place.experiment)
    to = trash_folder(session.run_id, parent)
    step = Step("move", parent, place.top, to, trash_name(place.top), identity=identity)
    change(session, options, "archive", place.experiment, Unit("trash", size, (step,)))


def change(session: Session, options: Common, command: str, experiment: str, unit: Unit) -> None:
    """Do the one thing that is to happen with an experiment.

    Raises:
        OSError: it could not be recorded, or done.
    """
    journal = records.open_journal(session, options.outputs_dir, records.run_header(session, command, options))
    place = Workplace(options.outputs_dir, session.run_id, journal, 1, stopping.stopped)
    if why := transact(place, experiment, experiment, [unit]).why:
        raise OSError(errno.EIO, why)
