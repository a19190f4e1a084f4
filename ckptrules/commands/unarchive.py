"""`doit unarchive`: brings one archived experiment back."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from doit.exceptions import TaskFailed
from doit.task import Task

from ckptrules import stopping
from ckptrules.changes.units import NO_RECORD
from ckptrules.commands.archive import change
from ckptrules.commands.backup import Prepared, one_task, progress_bar
from ckptrules.engine.measures import human_size, visible
from ckptrules.engine.values import Step, Unit
from ckptrules.report.style import Style, count_of
from ckptrules.run import jobs
from ckptrules.run.options import WAIT, Common, OptionError, option, some_text
from ckptrules.run.reporter import Output
from ckptrules.run.session import Session
from ckptrules.run.startup import TaskDict
from ckptrules.stopping import StoppedError
from ckptrules.storage import copying
from ckptrules.storage.reading import why_of
from ckptrules.vault import archives
from ckptrules.vault.archives import ArchiveError
from ckptrules.vault.manifest import Manifest
from ckptrules.vault.report import doubt_lines, lost_lines


class Options(Common):
    """What `doit unarchive` may be told."""

    changes = True
    archive: str | None = option(None, some_text, "the archive to bring back")
    wait: int = WAIT


def tasks(session: Session, options: Options) -> Iterator[TaskDict]:
    """Make the task that brings one experiment back."""
    return one_task(session, "unarchive", prepare, options)


def prepare(session: Session, options: Options) -> Prepared:
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
        raise OptionError(f"{fact}: {why_of(error)}") from None
    except StoppedError:
        print("Stopped: nothing was changed.", file=sys.stderr)
        raise SystemExit(stopping.EXIT_CODE) from None
    (experiment,) = manifest.experiments
    if os.path.lexists(os.path.join(options.outputs_dir, experiment)):
        hint = "move it away first; nothing is overwritten"
        raise OptionError(f"{fact}: '{visible(experiment)}' is in {options.outputs_dir} already\n    hint: {hint}")
    return (bring_back, [session, options, jobs.style(session, options), manifest]), ()


def bring_back(session: Session, options: Options, style: Style, manifest: Manifest, task: Task) -> TaskFailed | None:
    """Bring one experiment back, or say that it would be."""
    (experiment,) = manifest.experiments
    top = manifest.items[0].path
    what = f"{style.name(experiment)} ({count_of(manifest.files, 'file')}, {human_size(manifest.size)})"
    if options.dry_run:
        task.meta = {"output": Output(f"Would bring back: {what}\n")}
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
            change(session, options, "unarchive", experiment, Unit("restore", manifest.size, (step,)))
    except (ArchiveError, OSError, StoppedError) as error:
        why = why_of(error) if isinstance(error, OSError) else str(error) or "stopped"
        text = f"Brought back: {what}. It {why}" if why.startswith(NO_RECORD) else f"Not brought back: {what}: {why}"
        task.meta = {"output": Output(f"{style.name(text)}\n")}
        return TaskFailed("not brought back", report=False)
    lines = [f"Brought back: {what}", *doubt_lines(stated, manifest, "this archive", os.geteuid())]
    task.meta = {"output": Output("\n".join([*lines, *lost_lines(lost, style), ""]))}
    return None
