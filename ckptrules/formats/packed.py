"""Checks files packed by gzip (such as old ``.nemo``) or zstd: unpacks them, and does not look at the content."""

from __future__ import annotations

import gzip
from typing import Any, BinaryIO

from ckptrules import zstd
from ckptrules.formats.content import CHUNK, FileContent, Format, Progress, UnsoundError
from ckptrules.formats.limits import NotReadError
from ckptrules.formats.zips import UNPACKS_ALWAYS, UNPACKS_TO


def check_gzip(file: BinaryIO, size: int, progress: Progress, *_: object) -> FileContent:
    """Check the checksum and the end of a gzip file. To find its end, all is unpacked, by ``quick`` too."""
    return _unpack("gzip", gzip.GzipFile(fileobj=file), file, size, progress)._replace(checksums=True)


def check_zstd(file: BinaryIO, size: int, progress: Progress, *_: object) -> FileContent:
    """Check a zstd file, and its checksum if its writer asked for one."""
    try:
        plain = zstd.library().ZstdFile(file)
    except ImportError:
        raise NotReadError("to unpack it needs 'ckptrules[archive]'") from None
    return _unpack("zstd", plain, file, size, progress)


def _unpack(kind: str, content: Any, file: BinaryIO, size: int, progress: Progress) -> FileContent:
    unpacked = reported = 0
    with content:
        try:
            while piece := content.read(CHUNK):
                unpacked += len(piece)
                progress(file.tell() - reported)
                reported = file.tell()
                if unpacked > UNPACKS_ALWAYS + UNPACKS_TO * size:
                    raise NotReadError(f"what unpacks to more than {UNPACKS_TO} times its bytes is not unpacked")
        except EOFError:
            raise UnsoundError("truncated", "is cut off: it does not unpack to its end") from None
    return FileContent(kind)


GZIP = Format("gzip", lambda head: head.startswith(b"\x1f\x8b\x08"), check_gzip)
ZSTD = Format("zstd", lambda head: head.startswith(b"\x28\xb5\x2f\xfd"), check_zstd)
