"""Recognises the format of a file by its first bytes, and checks the file. Nothing in it is executed."""

from __future__ import annotations

import functools
import os
import re
from importlib import import_module
from typing import BinaryIO

from ckptrules.formats.content import FileContent, Format, Progress, UnsoundError, errors_as_faults

HEAD = 512  # bytes that show the format
BLOCK = 4096  # bytes; a crash leaves zeros in whole blocks
WEB_PAGE = (b"<!doctype html", b"<html")
LFS_POINTER = b"version https://"  # .../spec/v1: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
HEADER = 64 << 10  # bytes; few headers are longer
# Of files with these endings, only the header is read
HEADER_ONLY = re.compile(r".*\.(?:safetensors|h5|hdf5|npy|msgpack|gguf|ply|data-\d{5}-of-\d{5})", re.DOTALL)
FORMATS = (
    "torchfile.ZIP",
    "safetensors.SAFETENSORS",
    "hdf5.HDF5",
    "numpyfile.NUMPY",
    "torchfile.LEGACY",
    "msgpacked.MSGPACK",
    "tensorflow.INDEX",
    "tars.TAR",
    "ply.PLY",
    "gguf.GGUF",
    "packed.GZIP",
    "packed.ZSTD",
)  # the first one that fits decides


def open_file(directory: int, path: str) -> BinaryIO:
    """Open a file in or below a directory for reading. A link is refused; a pipe does not block."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return open(os.open(path, flags, dir_fd=directory), "rb")


def check_file(file: BinaryIO, size: int, progress: Progress, *, quick: bool) -> FileContent:
    """Check one file. Time and memory are bounded by its size, whatever it says of itself.

    ``quick`` leaves the checksums out.

    Raises:
        UnsoundError: it is not a whole file of a known format; ``unknown_format`` where no format fits its first
            bytes, ``not_read`` where it goes beyond the limits of what is read.
    """
    with errors_as_faults(progress) as guarded:
        if form := _format_of(file):
            return form.check(file, size, guarded, quick)
        names = [form.name for form in all_formats()]
        raise UnsoundError("unknown_format", "is in no known format", f"these are known: {', '.join(names)}")


def glance(file: BinaryIO, size: int) -> str:
    """Look for damage at the beginning and the end of a file, if its format has a `glance`.

    Return the name of the format; an empty text if it is unknown.

    Raises:
        UnsoundError: the file is not whole; ``not_read`` as for `check_file`.
    """
    with errors_as_faults(lambda _: None) as no_progress:
        form = _format_of(file)
        if form and form.glance:
            form.glance(file, size, no_progress, True)  # noqa: FBT003 - quick, as `Format.check`
        return form.name if form else ""


def _format_of(file: BinaryIO) -> Format | None:
    """Return the format of a file, which is left at its beginning; None if it is unknown.

    Raises:
        UnsoundError: no whole file begins like this one.
    """
    block = file.read(BLOCK)
    head = block[:HEAD]
    file.seek(0)
    if head.startswith(LFS_POINTER):
        hint = "'git lfs pull' brings it"
        raise UnsoundError("incomplete", "is a pointer of Git LFS: the file that it stands for is not here", hint)
    if block.lstrip().lower().startswith(WEB_PAGE):
        fact = "is a page of the web: the server that was asked for the file told something else"
        raise UnsoundError("damaged", fact)
    form = next((form for form in all_formats() if form.fits(head)), None)
    if not (form or block.strip(b"\0")):
        raise UnsoundError("damaged", "begins with nothing but zeros: a crash or a bad disk leaves such files")
    return form


def bytes_to_read(path: str, size: int) -> int:
    """Estimate by the name of a file how many of its bytes a check reads."""
    return min(size, HEADER) if HEADER_ONLY.fullmatch(path) else size


@functools.cache
def all_formats() -> tuple[Format, ...]:
    """Return the known formats, in the order in which they are tried."""
    places = (row.partition(".") for row in FORMATS)
    return tuple(getattr(import_module(f"ckptrules.formats.{file}"), name) for file, _, name in places)
