"""Checks files packed by gzip (such as old ``.nemo``) or zstd: unpacks all of it, and looks at nothing in it."""

from __future__ import annotations

import gzip
import sys
from typing import Any, BinaryIO

from ckptrules.formats.content import CHUNK, FileContent, Format, Tell, UnsoundError, not_read
from ckptrules.formats.machine import TooLongError
from ckptrules.formats.zips import UNPACKS_ALWAYS, UNPACKS_TO


def check_gzip(file: BinaryIO, size: int, tell: Tell, *_: object) -> FileContent:
    """Check the checksum and the end of what is packed by gzip; both stand behind it, so ``quick`` reads it as well.

    Raises:
        UnsoundError: it is cut off.
        TooLongError: it unpacks to far more than the file has.
    """
    return _unpack("gzip", gzip.GzipFile(fileobj=file), file, size, tell)._replace(checksums=True)


def check_zstd(file: BinaryIO, size: int, tell: Tell, *_: object) -> FileContent:
    """Check what is packed by zstd; a checksum is there only where it was asked for.

    Raises:
        UnsoundError: it is cut off; ``not_read`` where the library for it is not installed.
        TooLongError: it unpacks to far more than the file has.
    """
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError:
        raise not_read("to unpack it needs 'ckptrules[archive]'") from None
    return _unpack("zstd", zstd.ZstdFile(file), file, size, tell)


def _unpack(kind: str, content: Any, file: BinaryIO, size: int, tell: Tell) -> FileContent:
    unpacked = told = 0
    with content:
        try:
            while piece := content.read(CHUNK):
                unpacked += len(piece)
                tell(file.tell() - told)
                told = file.tell()
                if unpacked > UNPACKS_ALWAYS + UNPACKS_TO * size:
                    raise TooLongError(f"what unpacks to more than {UNPACKS_TO} times its bytes is not unpacked")
        except EOFError:
            raise UnsoundError("truncated", "is cut off: it does not unpack to its end") from None
    return FileContent(kind)


GZIP = Format("gzip", lambda head: head.startswith(b"\x1f\x8b\x08"), check_gzip)
ZSTD = Format("zstd", lambda head: head.startswith(b"\x28\xb5\x2f\xfd"), check_zstd)
