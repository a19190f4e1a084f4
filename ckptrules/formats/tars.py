"""Checks tar files, such as those of NVIDIA NeMo (``.nemo``), and the weights in them."""

from __future__ import annotations

import contextlib
import tarfile
from typing import BinaryIO

from ckptrules.engine.whole.weights import NO_WEIGHTS, may_be_weights
from ckptrules.formats.content import FileContent, Format, Progress, UnsoundError, combine, faults_of_part
from ckptrules.formats.files import HEAD, check_file
from ckptrules.formats.folders import WHOLE_FILES
from ckptrules.formats.limits import Bounded, NotReadError

LONGEST_HEADERS = 16 * 2**20  # bytes, all together; a member has 512, and takes 1 KB in memory: 30,000 files
END = 2 * tarfile.BLOCKSIZE  # bytes, all zero


def check_tar(file: BinaryIO, size: int, progress: Progress, quick: bool) -> FileContent:  # noqa: FBT001 - as `Format.check`
    """Check the headers, that the end is there, and each member whose format is known."""
    tar, members = _read_headers(file, size, progress)
    if not any(may_be_weights(name) for name, _ in members):
        raise UnsoundError("incomplete", f"has {NO_WEIGHTS}")
    contents = []
    for name, member in members:
        content = tar.extractfile(member) if name.endswith(WHOLE_FILES) else None
        if content:
            with faults_of_part(name), content:
                if is_tar(content.read(HEAD)):
                    raise NotReadError("a tar file in a tar file is not read")
                content.seek(0)
                contents.append(check_file(content, member.size, progress, quick=quick))  # type: ignore[arg-type] # has what is used
    found = combine("tar", contents)
    return found._replace(checksums=bool(contents) and found.checksums)


def is_tar(head: bytes) -> bool:
    """Say by its first bytes whether a file is a tar file."""
    return head[257:262] == b"ustar"


def _read_headers(
    file: BinaryIO, size: int, progress: Progress, *_: object
) -> tuple[tarfile.TarFile, list[tuple[str, tarfile.TarInfo]]]:
    """Return the members that are files. `tarfile` itself takes a damaged header for the end."""
    fact = f"headers of more than {LONGEST_HEADERS >> 20} MB are not read"
    bounded, members, end, last = Bounded(file, LONGEST_HEADERS, fact, progress), [], 0, ""
    with contextlib.suppress(tarfile.TarError):
        tar = tarfile.open(fileobj=bounded, mode="r:")  # type: ignore[call-overload] # noqa: SIM115 - has what is used; opens nothing
        for member in tar:
            if member.issparse():
                raise NotReadError("a tar file with holes is not read")
            content = -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE if member.isreg() else 0
            end, last = member.offset_data + content, member.name.removeprefix("./")  # as NeMo calls them
            members += [(last, member)] * member.isreg()
    if end + END > size:
        raise UnsoundError("truncated", "is cut off: its end is missing")
    file.seek(end)
    if file.read(END).strip(b"\0"):  # without members, this is the first header
        raise UnsoundError("damaged", f"has a damaged header, behind '{last[:80]}'")
    bounded.read = file.read
    return tar, members


TAR = Format("tar", is_tar, check_tar, glance=_read_headers)
