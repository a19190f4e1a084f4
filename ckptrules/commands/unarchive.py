"""`doit unarchive`: brings one archived experiment back."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from collections.abc import Iterator
from typing import NamedTuple

from doit.exceptions import TaskFailed
from doit.task import Task

from ckptrules import stopping
from ckptrules.changes.units import NO_RECORD
from ckptrules.commands.archive import change
from ckptrules.commands.backup import Prepared, expected, one_task
from ckptrules.engine.actions import Step, Unit
from ckptrules.engine.measures import human_size, visible
from ckptrules.report.style import Style, count_of
from ckptrules.run import jobs, places
from ckptrules.run.options import MAX_RATE, WAIT, Common, OptionError, option, some_text
from ckptrules.run.outcome import Output
from ckptrules.run.session import Session
from ckptrules.run.startup import TaskDict
from ckptrules.stopping import StoppedError
from ckptrules.storage import making
from ckptrules.storage.reading import why_of
from ckptrules.vault import tar, unpacking
from ckptrules.vault.manifest import Manifest
from ckptrules.vault.report import doubt_lines, lost_lines
from ckptrules.vault.tar import ArchiveError


class Options(Common):
    """What `doit unarchive` may be told."""

    changes = True
    archive: str | None = option(None, some_text, "the archive to bring back")
    wait: int = WAIT
    max_rate: str | None = MAX_RATE


def tasks(session: Session, options: Options) -> Iterator[TaskDict]:
    """Make the task that brings one experiment back."""
    return one_task(session, "unarchive", prepare, options)


def prepare(session: Session, options: Options) -> Prepared:
    """Find the archive to bring back, read it whole, and unpack it into the workplace unless nothing is to change.

    Raises:
        OptionError: it is not there, or cannot be believed; nothing of it is left.
        SystemExit: Ctrl-C or SIGTERM came.
    """
    places.outputs_dir(options)
    if options.archive is None:
        raise OptionError("command line: unarchive needs archive=PATH\n    hint: archive=/archive/old_1.tar.zst")
    fact = f"command line: archive '{options.archive}'"
    try:
        with contextlib.ExitStack() as stack:
            unpacked = read(session, options.archive, options, stack)
            (experiment,) = unpacked.manifest.experiments
            if os.path.lexists(os.path.join(options.outputs_dir, experiment)):
                hint = "move it away first; nothing is overwritten"
                fact = f"{fact}: '{visible(experiment)}' is in {options.outputs_dir} already"
                raise OptionError(f"{fact}\n    hint: {hint}")
            kept = stack.pop_all()
    except ArchiveError as error:
        raise OptionError(f"{fact}: {visible(str(error))}") from None
    except OSError as error:
        raise OptionError(f"{fact}: {why_of(error)}") from None
    except StoppedError:
        print("Stopped: nothing was changed.", file=sys.stderr)
        raise SystemExit(stopping.exit_code()) from None
    atexit.register(kept.close)  # the task may never be done
    return (bring_back, [session, options, jobs.style(session, options), unpacked, kept]), ()


class Unpacked(NamedTuple):
    """What an archive holds, and where it lies in the workplace, below ``outputs_dir``; nowhere in a preview."""

    manifest: Manifest
    staged: str = ""


def read(session: Session, path: str, options: Options, stack: contextlib.ExitStack) -> Unpacked:
    """Read and prove an archive; when the stack ends, what was unpacked of it is gone.

    Raises:
        ArchiveError, OSError, StoppedError: it cannot be believed, or read, or unpacked.
    """
    form = tar.format_of(path)
    if not os.path.isfile(path):
        raise ArchiveError("is no file")
    with session.shown(os.path.getsize(path)) as progress:
        if not options.dry_run:
            staged, manifest = stack.enter_context(unpacking.unpacked(path, options.outputs_dir, progress))
            return Unpacked(manifest, staged)
        manifest = unpacking.check(path, form, progress, unpacking.room(options.outputs_dir))
    unpacking.refuse_full(options.outputs_dir, manifest.items)
    return Unpacked(manifest)


def bring_back(
    session: Session, options: Options, style: Style, unpacked: Unpacked, kept: contextlib.ExitStack, task: Task
) -> TaskFailed | None:
    """Bring one experiment back, or say that it would be."""
    stated = unpacked.manifest
    (experiment,) = stated.experiments
    top = stated.items[0].path
    what = f"{style.name(experiment)} ({count_of(stated.files, 'file')}, {human_size(stated.size)})"
    if options.dry_run:
        task.meta = {"output": Output(f"Would bring back: {what}\n{expected(options, 'unarchive', stated.size)}")}
        return None
    lost: dict[str, tuple[str, ...]] = {}
    try:
        with kept, session.shown(stated.size) as progress:
            manifest = unpacking.believed(str(options.archive), stated)
            identity = unpacking.dress(options.outputs_dir, unpacked.staged, manifest, progress, lost.__setitem__)
            making.make_parents(options.outputs_dir, experiment)
            step = Step("move", unpacked.staged, top, os.path.dirname(experiment), top, identity=identity)
            change(session, options, "unarchive", experiment, Unit("restore", stated.size, (step,)))
    except (ArchiveError, OSError, StoppedError) as error:
        why = why_of(error) if isinstance(error, OSError) else str(error) or "stopped"
        text = f"Brought back: {what}. It {why}" if why.startswith(NO_RECORD) else f"Not brought back: {what}: {why}"
        task.meta = {"output": Output(f"{style.name(text)}\n")}
        return TaskFailed("not brought back", report=False)
    lines = [f"Brought back: {what}", *doubt_lines(stated, manifest, "this archive", os.geteuid())]
    task.meta = {"output": Output("\n".join([*lines, *lost_lines(lost, style), ""]))}
    return None
