"""``doit archive`` and ``doit unarchive``: old experiments into one file each, and back."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime

from doit.exceptions import TaskFailed
from doit.task import Task

from ckptrules import stopping
from ckptrules.changes.transaction import Workplace, transact
from ckptrules.commands.backup import Prepared, chosen_experiments, known_experiments, one_task, progress_bar, selects
from ckptrules.engine.measures import human_size, visible
from ckptrules.engine.values import Entry, Identity, Step, Unit, trash_folder, trash_name
from ckptrules.outputs.evidence import in_use, links_elsewhere, unsearched
from ckptrules.report.style import Style, count_of
from ckptrules.run import jobs, startup
from ckptrules.run.options import OptionError, Options
from ckptrules.run.reporter import Told
from ckptrules.stopping import StoppedError
from ckptrules.storage import copying, reading
from ckptrules.storage.reading import told
from ckptrules.vault import archives
from ckptrules.vault.archives import ArchiveError, Place
from ckptrules.vault.backups import choose
from ckptrules.vault.manifest import Manifest
from ckptrules.vault.report import doubt_lines, lost_lines


def archive(options: Options) -> Iterator[startup.TaskDict]:
    """Make the task that packs experiments."""
    return one_task("archive", prepare_archive, options)


def unarchive(options: Options) -> Iterator[startup.TaskDict]:
    """Make the task that brings one experiment back."""
    return one_task("unarchive", prepare_unarchive, options)


def prepare_archive(options: Options) -> Prepared:
    """Find out what is to be packed, and where to.

    Raises:
        OptionError: that is not said, or cannot be.
    """
    jobs.outputs_dir(options)
    form = "zst" if options.format == "table" else options.format
    if not selects("archive", options) or options.archive_dir is None:
        missing = "archive_dir" if selects("archive", options) else "experiments"
        hint = "'doit archive experiments=PATTERN archive_dir=DIR'"
        raise OptionError(f"command line: archive needs {missing}=…\n    hint: {hint}")
    if form not in archives.FORMATS:  # it stands in doit's configuration
        raise OptionError(f"format={form}: must be one of {', '.join(archives.FORMATS)} for archive")
    if not os.path.isdir(options.archive_dir):
        hint = "the folder for the archives must be there already"
        raise OptionError(f"command line: archive_dir={options.archive_dir}: is no folder\n    hint: {hint}")
    if jobs.is_inside(options.archive_dir, options.outputs_dir):
        hint = "name another folder with archive_dir=DIR"
        raise OptionError(f"command line: archive_dir '{options.archive_dir}' is inside outputs_dir\n    hint: {hint}")
    experiments = known_experiments(options)
    names = chosen_experiments("archive", options, experiments)
    chosen = choose(names, None)
    if not options.keep_source:
        refuse_to_take_along(set(chosen), experiments)
    try:
        archives.needed_library(form)
    except ArchiveError as error:
        raise OptionError(f"command line: format={form}: {error}") from None
    inner_first = sorted(chosen, key=lambda experiment: (-experiment.count("/"), experiment))
    places = [Place(options.outputs_dir, experiment, options.archive_dir, form) for experiment in inner_first]
    return (pack_all, [options, jobs.style(options), places]), names


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


def prepare_unarchive(options: Options) -> Prepared:
    """Find the archive to bring back, and read it whole.

    Raises:
        OptionError: it is not there, or cannot be believed.
        SystemExit: Ctrl-C or SIGTERM came.
    """
    jobs.outputs_dir(options)
    if options.archive is None:
        raise OptionError("command line: unarchive needs archive=PATH\n    hint: archive=/archive/old_1.tar.zst")
    fact = f"command line: archive '{options.archive}'"
    try:
        form = archives.format_of(options.archive)
        if not os.path.isfile(options.archive):
            raise ArchiveError("is no file")  # noqa: TRY301 - told like the others
        with progress_bar(os.path.getsize(options.archive)) as progress:
            manifest = archives.check(options.archive, form, progress, archives.room(options.outputs_dir))
        archives.refuse_full(options.outputs_dir, manifest.items)
    except ArchiveError as error:
        raise OptionError(f"{fact}: {visible(str(error))}") from None
    except OSError as error:
        raise OptionError(f"{fact}: {told(error)}") from None
    except StoppedError:
        print("Stopped: nothing was changed.", file=sys.stderr)
        raise SystemExit(stopping.EXIT_CODE) from None
    (experiment,) = manifest.experiments
    if os.path.lexists(os.path.join(options.outputs_dir, experiment)):
        hint = "move it away first; nothing is overwritten"
        raise OptionError(f"{fact}: '{visible(experiment)}' is in {options.outputs_dir} already\n    hint: {hint}")
    return (bring_back, [options, jobs.style(options), manifest]), ()


# --- what the tasks do -----------------------------------------------------------------------------------------------


def pack_all(options: Options, style: Style, places: list[Place], task: Task) -> TaskFailed | None:
    """Pack experiments one after the other; what fails is told, the others are done."""
    lines: list[str] = []
    failed: list[str] = []
    for place in places:
        shown = style.name(place.experiment)
        try:
            if inner := next((name for name in failed if name.startswith(f"{place.experiment}/")), None):
                raise ArchiveError(f"holds {inner}, which could not be archived")  # noqa: TRY301 - told like the others
            lines.append(pack_one(options, style, place))
        except StoppedError:
            lines.append(f"Stopped: {shown} is not archived.")
            jobs.note_stop()
            failed.append(place.experiment)
            break
        except (ArchiveError, OSError) as error:
            why = told(error) if isinstance(error, OSError) else str(error)
            lines.append(f"{style.paint(style.signs['problem'], 'red')} Problem: {shown}: {style.name(why)}")
            failed.append(place.experiment)
    task.meta = {"told": Told("\n".join([*lines, ""]))}
    return TaskFailed("problems left", report=False) if failed else None


def pack_one(options: Options, style: Style, place: Place) -> str:
    """Pack one experiment, and move it to the trash unless it is to stay; return what to tell.

    Raises:
        ArchiveError, OSError, StoppedError: it was not done.
    """
    items = archives.listing(place)
    size, shown = sum(item.size for item in items), style.name(place.experiment)
    amount = f"{count_of(sum(item.kind != 'directory' for item in items), 'file')}, {human_size(size)}"
    with progress_bar(size) as progress:
        before = archives.packed_before(place, items, progress)
    if before:
        archives.refuse_other(place, items, before)
    if before and options.keep_source:
        return f"Up to date: {shown} is in {style.name(place.path)}."
    if options.dry_run:
        return f"Would archive: {shown} to {style.name(place.path)} ({amount})"
    busy(options, place)
    if not options.keep_source:
        refuse_linked(options, place)
    if before:
        with progress_bar(2 * size) as progress:
            archives.prove(place, items, progress)
    else:
        created = datetime.now().astimezone().isoformat(timespec="seconds")
        archives.pack(place, items, created, progress_bar)
    line = f"{style.paint(style.signs['rename'], 'green')} Archived: {shown} to {style.name(place.path)}"
    line += f" ({amount}, packed {human_size(os.path.getsize(place.path))})"
    if options.keep_source:
        return line
    with reading.open_below(place.root, "") as root:
        identity = reading.identify(root, place.top)
    if archives.listing(place) != items:
        raise ArchiveError("has changed since it was packed: it stays; move the archive away, and run again")
    to_trash(options, place, size, identity)
    return f"{line}; the source is in the trash"


def busy(options: Options, place: Place) -> None:
    """Refuse an experiment that somebody writes into.

    Raises:
        ArchiveError: with what is known.
        OSError: it cannot be opened.
    """
    settle = jobs.load(options.rules_dir, options.outputs_dir).settle
    with reading.open_below(place.root, "") as root:
        identity = reading.identify(root, place.top)
        if why := in_use(root, Entry(place.top, *identity), settle, jobs.started_ns()):
            raise ArchiveError(f"is in use: a file in it {why}")


def refuse_linked(options: Options, place: Place) -> None:
    """Refuse to put away what links from elsewhere lead to, or may lead to.

    Raises:
        ArchiveError: with one of the links, or with where they could not be looked for.
    """
    outputs, top = options.outputs_dir, os.path.realpath(os.path.join(place.root, place.top))
    for real, links in links_elsewhere(outputs).items():
        for folder, entry in links:
            leads_there = f"{real}/{entry.sibling}/".startswith(f"{top}/")
            if leads_there and not f"{folder}/".startswith(f"{place.experiment}/"):
                link = f"{folder}/{entry.name}".lstrip("/")
                raise ArchiveError(f"{link} leads into it: re-point or remove that link, or say keep_source=1")
    for folder, why in unsearched().items():
        fact = f"{folder} could not be searched for links that lead into it: {why}"
        raise ArchiveError(f"{fact}; let somebody run this who may read all, or say keep_source=1")


def to_trash(options: Options, place: Place, size: int, identity: Identity) -> None:
    """Move a packed experiment to the trash, recorded, so that `doit undo` brings it back.

    Raises:
        OSError: it could not be recorded, or moved.
    """
    parent = os.path.dirname(place.experiment)
    to = trash_folder(jobs.run_id(), parent)
    step = Step("move", parent, place.top, to, trash_name(place.top), identity=identity)
    change(options, "archive", place.experiment, Unit("trash", size, (step,)))


def change(options: Options, command: str, experiment: str, unit: Unit) -> None:
    """Do the one thing that is to happen with an experiment.

    Raises:
        OSError: it could not be recorded, or done.
    """
    journal = jobs.open_journal(options.outputs_dir, jobs.run_id(), jobs.run_header(command, options))
    place = Workplace(options.outputs_dir, jobs.run_id(), journal, 1, stopping.stopped)
    if why := transact(place, experiment, experiment, [unit]).why:
        raise OSError(errno.EIO, why)


def bring_back(options: Options, style: Style, manifest: Manifest, task: Task) -> TaskFailed | None:
    """Bring one experiment back, or say that it would be."""
    (experiment,) = manifest.experiments
    top = manifest.items[0].path
    what = f"{style.name(experiment)} ({count_of(manifest.files, 'file')}, {human_size(manifest.size)})"
    if options.dry_run:
        task.meta = {"told": Told(f"Would bring back: {what}\n")}
        return None
    lost: dict[str, tuple[str, ...]] = {}
    try:
        stated, manifest = manifest, archives.believed(str(options.archive), manifest)
        path, tell = str(options.archive), lost.__setitem__
        with (
            progress_bar(manifest.size) as progress,
            archives.unpacked(path, manifest, options.outputs_dir, progress, tell) as (staged, identity),
        ):
            copying.make_parents(options.outputs_dir, experiment)
            step = Step("move", staged, top, os.path.dirname(experiment), top, identity=identity)
            change(options, "unarchive", experiment, Unit("restore", manifest.size, (step,)))
    except (ArchiveError, OSError, StoppedError) as error:
        why = told(error) if isinstance(error, OSError) else str(error) or "stopped"
        task.meta = {"told": Told(f"Not brought back: {what}: {style.name(why)}\n")}
        return TaskFailed("not brought back", report=False)
    lines = [f"Brought back: {what}", *doubt_lines(stated, manifest, "this archive", os.geteuid())]
    task.meta = {"told": Told("\n".join([*lines, *lost_lines(lost, style), ""]))}
    return None
