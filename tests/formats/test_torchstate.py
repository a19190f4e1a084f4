"""The recipe for a torch file with other texts: the zip stays whole, and all else where it was."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from ckptrules.engine.actions import Recipe
from ckptrules.formats.torchstate import NotRewritableError, edit, read_state, rewrite
from tests.conftest import ROOT
from tests.support.tables import every
from tests.support.torch_files import torch_zip, zipped

FILES = sorted(path for path in (ROOT / "tests" / "real" / "outputs").glob("*/checkpoints/*.ckpt") if path.is_file())
CHANGES: dict[str, Callable[[str], str]] = {
    "shorter": lambda text: text.replace("/checkpoints/", "/"),
    "longer": lambda text: text.replace("/checkpoints/", "/more/checkpoints/"),
    "by one": lambda text: text + "x",
    "much longer": lambda text: "x" * 70_000 + text,
    "as long": lambda text: text.replace("checkpoints", "stniopkcehc"),
}


def built(content: bytes, recipe: Recipe) -> bytes:
    return b"".join(part if isinstance(part, bytes) else content[part[0] : part[1]] for part in recipe.parts)


def starts(content: bytes) -> dict[str, int]:
    """Return where the bytes of each entry begin."""
    found = {}
    for entry in zipfile.ZipFile(io.BytesIO(content)).infolist():
        name, extra = struct.unpack_from("<HH", content, entry.header_offset + 26)
        found[entry.filename] = entry.header_offset + 30 + name + extra
    return found


def entries(content: bytes) -> dict[str, bytes]:
    archive = zipfile.ZipFile(io.BytesIO(content))
    assert archive.testzip() is None
    return {name: archive.read(name) for name in archive.namelist()}


def only_paths(change: Callable[[str], str]) -> Callable[[str], str | None]:
    return lambda text: change(text) if ".ckpt" in text else None


@every([*product(FILES, CHANGES)])
def test_only_the_texts_change_no_tensor_moves_and_texts_can_be_changed_back(row: tuple[Path, str]) -> None:
    path, change = row[0], CHANGES[row[1]]
    content = path.read_bytes()
    recipe = rewrite(io.BytesIO(content), only_paths(change))
    if not recipe.changes:
        assert recipe.parts == ()
        return
    new = built(content, recipe)
    assert len(new) == recipe.size
    old_entries, new_entries = entries(content), entries(new)
    assert list(old_entries) == list(new_entries)
    state = next(name for name in old_entries if name.endswith("/data.pkl"))
    assert {n: c for n, c in new_entries.items() if n != state} == {n: c for n, c in old_entries.items() if n != state}
    assert new_entries[state] == edit(old_entries[state], only_paths(change))[0] != old_entries[state]
    before, after = starts(content), starts(new)
    assert before.pop(state) != after.pop(state)
    assert before == after
    back = rewrite(io.BytesIO(new), {after: before for before, after in recipe.changes.items()}.get)
    old = built(new, back)
    assert entries(old) == old_entries
    assert built(old, rewrite(io.BytesIO(old), only_paths(change))) == new  # it has grown once


def test_a_file_that_was_written_without_checksums_is_rewritten(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(zipfile, "crc32", lambda *_: 0)
        content = torch_zip({"best_model_path": "a.ckpt"})
    recipe = rewrite(io.BytesIO(content), only_paths(CHANGES["by one"]))
    new = built(content, recipe)
    assert read_state(io.BytesIO(new)).fields == {"best_model_path": "a.ckptx"}
    assert not any(entry.CRC for entry in zipfile.ZipFile(io.BytesIO(new)).infolist())


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is no zip file of torch, or damaged"),
        (b"\x80\x02}q\x00.", "is no zip file of torch, or damaged"),
        (b"PK\x03\x04" + b"\0" * 100, "is no zip file of torch, or damaged"),
    ],
)
def test_what_is_no_torch_file_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(NotRewritableError, match=why):
        rewrite(io.BytesIO(content), lambda text: text)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (zipped({"a/b.pkl": b"N."}), "is no zip file of torch"),
        (zipped({"a/data.pkl": b"N."}, zipfile.ZIP_DEFLATED), "its state is compressed, or too long to be read"),
        (zipped({"a/data.pkl": b"\x80\x04\x95\x02" + b"\0" * 7 + b"N."}), "its state is framed"),
        (zipped({"a/data.pkl": b"\x80\x02X\xff\xff\xff\x7fa."}), "is no zip file of torch, or damaged"),
    ],
)
def test_a_zip_file_that_torch_did_not_write_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(NotRewritableError, match=why):
        rewrite(io.BytesIO(content), lambda text: f"{text}x")


@every(range(0, 741, 13))
def test_a_damaged_directory_is_refused_or_gives_a_file_that_says_so(damage: int) -> None:
    content = bytearray(FILES[0].read_bytes())
    content[-1 - damage] ^= 0xFF
    try:
        recipe = rewrite(io.BytesIO(bytes(content)), only_paths(CHANGES["longer"]))
    except NotRewritableError:
        return
    assert sum(len(p) if isinstance(p, bytes) else p[1] - p[0] for p in recipe.parts) == recipe.size


def test_strings_of_every_length_are_found() -> None:
    data = b"\x80\x04" + b"\x8c\x01a" + b"X\x01\0\0\0b" + b"\x8d\x01" + b"\0" * 7 + b"c" + b"."
    new, changes = edit(data, lambda text: text * 300)
    assert changes == {letter: letter * 300 for letter in "abc"}
    assert all(letter.encode() * 300 in new for letter in "abc")
