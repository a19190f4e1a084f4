"""`doit unarchive`: bring archived experiments back."""

from __future__ import annotations

import contextlib
import glob
import os
import stat
from collections.abc import Sequence
from functools import partial
from itertools import groupby

from ckptrules.changes.units import cannot
from ckptrules.commands.archive import Results, change, in_batches
from ckptrules.commands.backup import expected, lock
from ckptrules.engine.actions import Step, Unit
from ckptrules.engine.measures import count_of, human_size, visible
from ckptrules.report.style import Style
from ckptrules.run.options import Common, OptionError, option, some_text
from ckptrules.run.outcome import Done, Prepared
from ckptrules.run.session import Session
from ckptrules.stopping import KilledError, StoppedError
from ckptrules.storage import making, unfinished
from ckptrules.storage.base import FULL
from ckptrules.vault import space, tar, unpacking
from ckptrules.vault.backups import difference
from ckptrules.vault.report import doubt_lines, lost_lines
from ckptrules.vault.tar import ArchiveError
from ckptrules.vault.unpacking import Unpacked, Unpacking
from ckptrules.workers.pieces import Lost

PRESENT_HINT = "move it away first; nothing is overwritten"


class Options(Common, takes="wait executor max_rate"):
    """The options of `doit unarchive`."""

    finds_outputs = False
    archive: str | None = option(None, some_text, "the archive to bring back, or a pattern: /archive/old_*.tar.zst")


def prepare(session: Session, options: Options) -> Prepared:
    """Find the archives to bring back, and create an ``outputs_dir`` that does not exist."""
    if options.archive is None:
        raise OptionError("unarchive needs archive=PATH", "archive=/archive/old_1.tar.zst")
    paths = chosen_archives(options.archive)
    lock(session, options, os.mkdir)
    return Prepared(partial(bring_all, session, options, paths))


def chosen_archives(pattern: str) -> list[str]:
    """Return the archive of this name, or all that the pattern fits.

    An experiment comes before those that lie in it: these would create its folder.

    Raises:
        OptionError: there is no such archive.
    """
    if os.path.lexists(pattern):
        return [pattern]
    if not (paths := archives_at(pattern)):
        there = visible(", ".join(archives_at(os.path.join(os.path.dirname(pattern), "*"))))
        raise OptionError(f"no archive is named '{visible(pattern)}'", there and f"there are: {there}")
    return sorted(paths, key=depth)


def depth(path: str) -> int:
    """Return how deep the experiment of an archive lies, by the name of the archive."""
    return os.path.basename(path).count("%2F")


def archives_at(pattern: str) -> list[str]:
    """List the archives whose paths a shell pattern fits."""
    return sorted(path for path in glob.glob(pattern) if path.endswith(tar.ENDINGS))


# --- what the task does ----------------------------------------------------------------------------------------------


class BroughtBack(Results):
    """The results of all archives, by path.

    ``archive_of`` maps each experiment that was brought back, or would be, to its archive. ``needed`` are the bytes for
    these, in a preview.
    """

    def __init__(self, style: Style) -> None:
        super().__init__(style)
        self.archive_of: dict[str, str] = {}
        self.needed = 0


def bring_all(session: Session, options: Options, paths: list[str]) -> Done:
    """Bring experiments back; an error does not stop the others.

    Several are unpacked at once, as many as there is room for. One that needs more than its share comes last, alone.
    """
    back, unpackings = BroughtBack(session.style(options)), list[Unpacking]()
    try:
        for path in paths:
            with back.trying(path):
                unpackings.append(unpacking.unpacking_of(path, options.outputs_dir))
        for _, level in groupby(unpackings, lambda one: depth(one.path)):
            batches = in_batches(level, lambda: space.room(options.outputs_dir))
            large = [one for batch in batches for one in bring_batch(session, options, back, batch)]
            for one in large:
                bring_batch(session, options, back, [one])
    except (StoppedError, KilledError) as error:
        back.stop(error, paths, "brought back")
    except OSError as error:  # the workplace cannot be made
        for path in (path for path in paths if path not in back.lines):
            with back.trying(path):
                raise error from None
    return back.done(paths, expected(options, "unarchive", back.to_come))


def bring_batch(session: Session, options: Options, back: BroughtBack, batch: Sequence[Unpacking]) -> list[Unpacking]:
    """Unpack archives in workers, and move each to its place as soon as it is unpacked.

    Returns those that need more than their share of the room.

    Raises:
        StoppedError: Ctrl-C or SIGTERM came.
        KilledError: no worker is left.
        OSError: the workplace cannot be made.
    """
    large, room = [], space.room(options.outputs_dir)
    with (
        contextlib.nullcontext("") if options.dry_run else unfinished.staging(options.outputs_dir) as folder,
        session.each(unpacking.unpack_in_worker, unpacking.in_shares(batch, folder, room)) as answers,
    ):
        for one, answer in zip(batch, answers, strict=True):
            if isinstance(answer, OSError) and answer.errno in FULL and folder and len(batch) > 1:
                large.append(one)
                continue
            with back.trying(one.path):
                if isinstance(answer, Lost):
                    raise ArchiveError(f"was not unpacked: {answer.why}")
                if isinstance(answer, Exception):
                    raise answer
                try:
                    give_place(session, options, back, one.path, answer)
                finally:
                    unpacking.drop(options.outputs_dir, answer.staged)
    return large


def give_place(session: Session, options: Options, back: BroughtBack, path: str, unpacked: Unpacked) -> None:
    """Move an unpacked experiment to its place, unless this is a preview, and note the result.

    Raises:
        ArchiveError: the experiment exists and differs, has no room beside those before it, or cannot be moved.
        OSError: it cannot be written.
        StoppedError: Ctrl-C or SIGTERM came.
    """
    stated = unpacked.manifest
    (experiment,) = stated.experiments
    what = f"{back.style.name(experiment)} ({count_of(stated.files, 'file')}, {human_size(stated.size)})"
    if first := back.archive_of.get(experiment):
        raise ArchiveError(f"holds '{experiment}', as {first} does, which comes first")
    if os.path.lexists(place := os.path.join(options.outputs_dir, experiment)):
        with session.shown(stated.size) as progress:  # the experiment may hold more than the archive
            differs = any(difference(os.path.dirname(place), item, progress) for item in stated.items)
        if differs:
            raise ArchiveError(f"'{experiment}' is in {options.outputs_dir} already: {PRESENT_HINT}")
        back.lines[path] = f"There already, with the same content: {what}"
        return
    if options.dry_run:
        needed = back.needed + space.needed(stated.items, options.outputs_dir)
        space.refuse_more(needed, space.room(options.outputs_dir), options.outputs_dir)
        back.needed = needed
        back.to_come += stated.size
        back.lines[path] = f"Would bring back: {what}"
    else:
        notes = bring_back(session, options, path, unpacked)
        back.lines[path] = "\n".join([f"Brought back: {what}", *notes])
    back.archive_of[experiment] = path


def bring_back(session: Session, options: Options, path: str, unpacked: Unpacked) -> list[str]:
    """Move an unpacked experiment to its place; return lines on rights and owners that it could not get."""
    stated, lost = unpacked.manifest, dict[str, tuple[str, ...]]()
    (experiment,), top = stated.experiments, stated.items[0]
    with session.shown(stated.size) as progress:
        manifest = unpacking.believed(path, stated)
        identity = unpacking.finish(options.outputs_dir, unpacked.staged, manifest, progress, lost.__setitem__)
        making.make_parents(options.outputs_dir, experiment)
        step = Step("move", unpacked.staged, top.path, os.path.dirname(experiment), top.path, identity=identity)
        if why := change(session, options, "unarchive", experiment, Unit("restore", stated.size, (step,))):
            raise ArchiveError(f"{experiment} {cannot('be brought back', why)}")
        if not top.mode & stat.S_IWUSR:
            making.set_item_metadata(os.path.join(options.outputs_dir, step.to_directory), manifest.items[0])
    return [*doubt_lines(stated, manifest, "this archive", os.geteuid()), *lost_lines(lost, session.style(options))]
