"""Tar files that are damaged or hostile, or hold what is, are found."""

from __future__ import annotations

import io
import tarfile

import pytest

from ckptrules.formats import tars
from ckptrules.formats.content import UnsoundError
from ckptrules.formats.files import check_file, glance
from tests.commands.test_verify import checked, lightning, numpy
from tests.support.tables import every_row
from tests.support.weights import tarred

NEMO = {"model_config.yaml": b"target: nemo\n", "model_weights.ckpt": lightning(3, 352)}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_is_in_a_tar_file_is_read(form: int) -> None:
    content = tarred({**NEMO, "a/" + "long" * 20 + ".npy": numpy()}, form)
    facts = check_file(io.BytesIO(content), len(content), lambda _: None, quick=False)
    assert facts[:5] == ("tar", 3, 352, "2.6.6", False)  # an array of numpy has no checksums


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_weights.ckpt": lightning(3, 352)[:-9]}, "truncated: its part 'model_weights.ckpt' is cut off"),
        ({"model_weights.ckpt": lightning(3, 352).replace(b"ww", b"wx", 1)}, "damaged: its part 'model_weights.ckpt' is damaged in"),
        ({"model_weights.ckpt": b""}, "damaged: its part 'model_weights.ckpt' begins with nothing but zeros"),
        ({"model_weights.ckpt": b"text"}, "unknown_format: its part 'model_weights.ckpt' is in no known format"),
        ({"other.ckpt": tarred(NEMO)}, "not_read: its part 'other.ckpt' is not verified: a tar file in a tar file"),
        ({"x.npy": b"\x93NUMPY\x01\x00\xff\xff"}, "not_read: its part 'x.npy' is not verified: a numpy header"),
        ({"tokenizer.model": b"whatever", "model_weights/0.0": b"w"}, "tar"),
    ],
)  # fmt: skip
def test_a_fault_in_a_tar_file_is_told_of_its_part(change: dict[str, bytes], said: str) -> None:
    assert checked(tarred({**NEMO, **change})).startswith(said)


def test_a_tar_file_without_weights_is_incomplete() -> None:
    assert checked(tarred({"model_config.yaml": b"a: 1"})).startswith("incomplete: has no weights")


def test_a_glance_sees_that_a_tar_file_is_cut_off() -> None:
    content = tarred(NEMO)
    size = len(content.rstrip(b"\0"))
    assert glance(io.BytesIO(content), len(content)) == "tar"
    with pytest.raises(UnsoundError, match="is cut off: its end is missing"):
        glance(io.BytesIO(content[:size]), size)


def test_a_bit_that_changes_in_a_header_is_seen() -> None:
    """`tarfile` itself takes a damaged header for the end of the file."""
    content = tarred(NEMO, tarfile.USTAR_FORMAT)
    for header in (0, 512, 1536):
        for place in (header, header + 124, header + 150, header + 340):
            changed = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
            assert checked(changed).startswith("damaged: has a damaged header, behind '")


def _header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


@every_row(
    "content",
    [
        _header("w", 2**60),
        _header("w", 2**60, tarfile.XHDTYPE),
        _header("w", -(2**60), tarfile.XHDTYPE),
        _header("w", -512) + bytes(1024),
        _header("w", 2**33, tarfile.GNUTYPE_LONGNAME) + bytes(4096),
        _header("w", 512, tarfile.GNUTYPE_SPARSE) + bytes(2048),
        _header("w", 100, tarfile.XHDTYPE) + b"30 GNU.sparse.map=0,1,2,x\n".ljust(512, b"\0") + _header("w", 0) + bytes(1024),
        _header("w", 0, tarfile.XHDTYPE) * 3000 + bytes(1024),
        _header("w", 0) * 3000,
    ],
)  # fmt: skip
def test_a_tar_file_that_lies_is_not_verified(content: bytes) -> None:
    assert checked(content).partition(":")[0] in ("damaged", "truncated", "not_read", "unknown_format")


def test_headers_without_end_are_given_up_by_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tars, "LONGEST_HEADERS", 2**16)
    for content in (_header("w", 0) * 500, _header("w", 2**17, tarfile.GNUTYPE_LONGNAME) + bytes(2**18)):
        assert checked(content).startswith("not_read: is not verified: headers of more than")
