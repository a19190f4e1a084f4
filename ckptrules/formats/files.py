"""Tells a file's format by its first bytes and checks it; nothing of it is executed."""

from __future__ import annotations

import functools
import os
import re
from importlib import import_module
from typing import BinaryIO

from ckptrules.formats.content import FileContent, Format, Tell, UnsoundError, told_as_fault

HEAD = 512  # bytes by which a format is told
BLOCK = 4096  # bytes; the least that a crash leaves zeros in place of
WEB_PAGE = (b"<!doctype html", b"<html")
LFS_POINTER = b"version https://"  # .../spec/v1: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
HEADER = 64 << 10  # bytes; few are longer
HEADER_ONLY = re.compile(r".*\.(?:safetensors|h5|hdf5|npy|msgpack|gguf|ply|data-\d{5}-of-\d{5})", re.DOTALL)  # is read
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
)  # one that comes first is asked first


def open_file(directory: int, path: str) -> BinaryIO:
    """Open a file below a directory for reading. A link is refused, a pipe does not block."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return open(os.open(path, flags, dir_fd=directory), "rb")


def check_file(file: BinaryIO, size: int, tell: Tell, *, quick: bool) -> FileContent:
    """Check one file. What that costs is bounded by its bytes, whatever they say.

    ``tell`` takes the bytes read, and may end the reading by raising something; ``quick`` leaves the checksums out.

    Raises:
        UnsoundError: it is no whole file of a known format; ``unknown_format`` where the first bytes fit none,
            ``not_read`` where it is too long to be understood.
    """
    with told_as_fault(tell) as heard:
        if form := _format_of(file):
            return form.check(file, size, heard, quick)
        names = [form.name for form in all_formats()]
        raise UnsoundError("unknown_format", "is in no known format", f"these are known: {', '.join(names)}")


def glance(file: BinaryIO, size: int) -> str:
    """Look at the beginning and the end of a file, as far as its format says there what must be; others pass.

    Return the name of the format, or nothing where it is none that is known.

    Raises:
        UnsoundError: it is plain that it is not whole; ``not_read`` as for `check_file`.
    """
    with told_as_fault(lambda _: None):
        form = _format_of(file)
        if form and form.glance:
            form.glance(file, size)
        return form.name if form else ""


def _format_of(file: BinaryIO) -> Format | None:
    """Tell a file's format; nothing of it has been read then.

    Raises:
        UnsoundError: it begins as no file does that is whole.
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
    """Guess by the name of a file how much of it is read to check it."""
    return min(size, HEADER) if HEADER_ONLY.fullmatch(path) else size


@functools.cache
def all_formats() -> tuple[Format, ...]:
    """Return the formats that are known, in the order in which they are asked."""
    places = (row.partition(".") for row in FORMATS)
    return tuple(getattr(import_module(f"ckptrules.formats.{file}"), name) for file, _, name in places)
