"""New content of a checkpoint: written in the workplace, laid where it is exchanged."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ckptrules.storage import reading, streams
from ckptrules.storage.copying import clone
from ckptrules.storage.dressing import PRIVATE, dress_or_refuse
from ckptrules.storage.looking import identity_of
from ckptrules.storage.moving import CHANGED, rename
from ckptrules.storage.reading import Progress
from ckptrules.storage.state import WORK, Folders, open_directory
from ckptrules.storage.writing import remove, skip, temporary_name, write

if TYPE_CHECKING:  # what reads torch files is imported by the one command that needs it
    from ckptrules.engine.actions import Piece, Rewrite


def stage_rewrite(outputs_dir: str, path: str, recipe: Rewrite, progress: Progress) -> str:
    """Write a file anew into the workplace, dressed like it, with its time and its holes, and return its name there.

    Raises:
        SourceError: the file cannot be read, or was written to meanwhile.
        OSError: the copy cannot be written, or would not keep what the file has; nothing is left of it.
    """
    name = temporary_name("state-")
    with reading.open_file(outputs_dir, path) as origin, open_directory(outputs_dir, WORK, make=True) as work:
        before = os.fstat(origin)
        try:
            cloned = clone(origin, work, name)
            flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | (0 if cloned else os.O_CREAT | os.O_EXCL)
            with open(os.open(name, flags, PRIVATE, dir_fd=work), "wb", buffering=0) as copy:
                _write_parts(origin, copy.fileno(), recipe.parts, progress, cloned=cloned)
                os.ftruncate(copy.fileno(), recipe.size)
                dress_or_refuse(copy.fileno(), origin, path)
                os.utime(copy.fileno(), ns=(before.st_atime_ns, before.st_mtime_ns))
                os.fsync(copy.fileno())
            if identity_of(os.fstat(origin)) != identity_of(before):
                raise reading.SourceError(errno.ESTALE, CHANGED, path)  # noqa: TRY301 - the copy goes, whatever failed
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=work)
            raise
    return name


def lay_in_trash(outputs_dir: str, staged: str, folder: str, name: str) -> None:
    """Move a staged file into the trash, where it waits to be exchanged.

    Raises:
        FileExistsError: the name is taken there.
    """
    with Folders(outputs_dir) as folders:
        work, trash = folders.descriptor(WORK), folders.descriptor(folder, create=True)
        rename(work, staged, name, trash)


def drop_staged(outputs_dir: str, staged: str, folder: str = WORK) -> None:
    """Remove what was staged and is of no use; it may have left the workplace, and the next run clears that."""
    with contextlib.suppress(OSError), open_directory(outputs_dir, folder) as work:
        remove(work, staged)


def _write_parts(origin: int, copy: int, parts: Sequence[Piece], progress: Progress, *, cloned: bool) -> None:
    """Write the parts one behind the other; what a clone holds at its place already is left as it is.

    From where a part has another place than in the clone, what the clone holds is cut off: holes are only skipped.
    """
    at = 0
    for part in parts:
        if isinstance(part, bytes):
            os.lseek(copy, at, os.SEEK_SET)
            write(copy, part)
            at += len(part)
            continue
        start, end = part
        if cloned and start != at:
            os.ftruncate(copy, at)
            cloned = False
        if not cloned:
            os.lseek(copy, at, os.SEEK_SET)
            for chunk, is_hole in streams.pieces(origin, start, end):
                skip(copy, len(chunk)) if is_hole else write(copy, chunk)
                progress(len(chunk))
        at += end - start
