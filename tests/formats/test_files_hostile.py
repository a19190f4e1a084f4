"""Hostile and broken content in every format: it costs what it weighs, it is told in words, and it is never verified."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import pickle
import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptrules import stopping
from ckptrules.engine.entries import Entry, Listing
from ckptrules.engine.names.companions import Sidecar
from ckptrules.formats import pickled as formats_pickled
from ckptrules.formats import torchstate, zips
from ckptrules.formats.content import FileContent, UnsoundError
from ckptrules.formats.files import check_file
from ckptrules.formats.folders import check_folder
from ckptrules.formats.limits import REPORT_EVERY
from ckptrules.formats.pickled import LONGEST_VALUE, MOST_OPCODES
from ckptrules.formats.torchfile import MAGIC_NUMBER
from ckptrules.formats.torchstate import NotRewritableError, rewrite
from ckptrules.formats.zips import UNPACKS_TO
from ckptrules.outputs import evidence, find
from ckptrules.outputs.listing import scan
from ckptrules.rules.load import load_rules
from ckptrules.rules.shipped import rule_texts
from ckptrules.stopping import StoppedError
from ckptrules.verify.check import begin
from ckptrules.verify.portion import Depth, read_one
from tests.commands.test_verify import hdf5, lightning, problem_ids, put, result
from tests.conftest import Project
from tests.support import crash, weights
from tests.support.tables import every, every_row
from tests.support.torch_files import in_torch, zipped

MB = 2**20
NINES = "9" * 4300


def checked(content: bytes, *, quick: bool = False) -> FileContent | str:
    """Return what is known of a file, or the id of what is wrong."""
    try:
        return check_file(io.BytesIO(content), len(content), lambda _: None, quick=quick)
    except UnsoundError as fault:
        return fault.id if fault.args[0] and "\n" not in fault.args[0] else "not told in words"


# --- pickles ---------------------------------------------------------------------------------------------------------


def storage(elements: bytes, key: bytes = b"0") -> bytes:
    """Return the opcodes with which torch speaks of a tensor's data."""
    text = b"X" + struct.pack("<I", len(key)) + key
    return b"(U\x07storagectorch\nFloatStorage\n" + text + b"U\x03cpu" + elements + b"tQ"


def legacy(state: bytes, keys: object, behind: bytes) -> bytes:
    start = pickle.dumps(MAGIC_NUMBER, 2) + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)
    return start + b"\x80\x02" + state + b"." + (keys if isinstance(keys, bytes) else pickle.dumps(keys, 2)) + behind


def huge() -> bytes:
    """Return a number of 16 MB."""
    return b"\x8b" + struct.pack("<i", 16 * MB) + b"\x7f" * (16 * MB)


def seven_million() -> bytes:
    """Return a list of as many references."""
    return b"\x80\x02](" + b"X\x01\0\0\x000q\x01" + b"h\x01" * 7_000_000 + b"e."


BOMBS: dict[str, Callable[[], bytes]] = {
    "32 MB of dictionaries": lambda: b"\x80\x02" + b"}" * 32 * MB + b".",
    "32 MB of notes": lambda: b"\x80\x04}" + b"\x94" * 32 * MB + b".",
    "noted dictionaries": lambda: b"\x80\x04" + b"}\x94" * 16 * MB + b".",
    "calls": lambda: b"\x80\x02" + b"NN\x81" * 10 * MB + b".",
    "marks": lambda: b"\x80\x02" + b"(" * MB + b".",
    "duplicates": lambda: b"\x80\x02}" + b"2" * MB + b".",
    "one in the other": lambda: b"\x80\x02)" + b"\x85" * MB + b".",
    "states": lambda: b"\x80\x02}NN\x81}X\x0d\0\0\0relative_pathK\x01sq\x01" + b"bh\x01" * 10 * MB + b".",
    "sets": lambda: b"\x80\x02]" + b"(K\x01K\x02K\x03e" * 100_000 + b".",
    "more names than can be": lambda: b"\x80\x04"
    + b"".join(b"X" + struct.pack("<I", 490) + b"%03d" % n + b"m" * 487 + b"\x94" for n in range(200))
    + b"".join(b"h%ch%c\x93" % pair for pair in itertools.product(range(200), repeat=2)) + b".",
    "a long key, many times": lambda: b"\x80\x02}X" + struct.pack("<I", MB) + b"k" * MB + b"q\x01" + b"h\x01Ns" * 5 * MB + b".",
    "a note with a huge number": lambda: b"\x80\x02}r\xff\xff\xff\xff" * 10 + b".",
    "a note with a long number": lambda: b"\x80\x02}p" + b"9" * 4000 + b"\n.",
    "objects of protocol 0": lambda: b"\x80\x02" + b"P\n" * MB + b".",
}  # fmt: skip
LEGACY: dict[str, Callable[[], bytes]] = {
    "a number of 16 MB, 7 million references": lambda: legacy(storage(huge()), seven_million(), bytes(100)),
    "7 million references": lambda: legacy(storage(b"K\x03"), seven_million(), bytes(100)),
    "a number of 255 bytes": lambda: legacy(storage(b"\x8a\xff" + b"\x7f" * 255), ["0"], bytes(100)),
    "a negative number": lambda: legacy(storage(b"J\xff\xff\xff\xff"), ["0"], bytes(100)),
    "true as a number": lambda: legacy(storage(b"\x88"), ["0"], bytes(100)),
    "a text as a number": lambda: legacy(storage(b"U\x011"), ["0"], bytes(100)),
    "a tensor twice": lambda: legacy(storage(b"K\x03"), ["0", "0"], bytes(100)),
    "a tensor that is not there": lambda: legacy(storage(b"K\x03"), ["1"], bytes(100)),
    "no list": lambda: legacy(storage(b"K\x03"), {"0": 1}, bytes(100)),
    "another number than there": lambda: legacy(storage(b"K\x03"), ["0"], struct.pack("<Q", 4) + bytes(100)),
    "more than there is": lambda: legacy(storage(b"\x8a\x08" + b"\xff" * 7 + b"\x7f"), ["0"], bytes(100)),
}


@every_row("name", [name for name in LEGACY if "7 million" not in name])  # those are among HEAVY
def test_a_torch_file_of_old_that_lies_about_its_tensors_is_not_verified(name: str) -> None:
    assert checked(LEGACY[name]()) in ("damaged", "incomplete", "truncated", "not_read")


def test_a_torch_file_of_old_that_is_whole_is() -> None:
    tensors = struct.pack("<Q", 3) + bytes(12) + struct.pack("<Q", 2) + bytes(8)
    content = legacy(storage(b"K\x03") + storage(b"K\x02", b"1"), ["0", "1"], tensors)
    assert isinstance(checked(content), FileContent)
    assert checked(content[:-1]) == "truncated"


@pytest.mark.parametrize(
    "name", ["a number of 255 bytes", "a negative number", "true as a number", "a text as a number"]
)
def test_so_is_one_of_today(name: str) -> None:
    number = {"a number of 255 bytes": b"\x8a\xff" + b"\x7f" * 255, "a negative number": b"J\xff\xff\xff\xff",
              "true as a number": b"\x88", "a text as a number": b"U\x011"}[name]  # fmt: skip
    assert checked(zipped({"x/data.pkl": b"\x80\x02" + storage(number) + b".", "x/data/0": bytes(99)})) == "damaged"


@pytest.mark.parametrize("wrap", [bytes, in_torch], ids=["alone", "in torch"])
@pytest.mark.parametrize("name", ["more names than can be", "a note with a huge number", "a note with a long number"])
def test_a_small_bomb_is_not_verified(name: str, wrap: Callable[[bytes], bytes]) -> None:
    assert checked(wrap(BOMBS[name]())) in ("damaged", "not_read")


CHILD = """
import json, re, resource, sys
from ckptrules.formats.content import UnsoundError
from ckptrules.formats.files import check_file
resource.setrlimit(resource.RLIMIT_CPU, (100, 100))  # against a reader that never ends
def peak():
    with open("/proc/self/status") as file:
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", file.read())[1])
before = peak()
told = []
try:
    with open(sys.argv[1], "rb") as file:
        result = check_file(file, int(sys.argv[2]), told.append, quick=sys.argv[3] == "quick").kind
except UnsoundError as fault:
    result = fault.id
print(json.dumps({"result": result, "memory": (peak() - before) * 1024, "told": len(told)}))
"""


def cost(path: Path, content: bytes, how: str = "whole") -> dict[str, Any]:
    """Check a file in a process of its own; return what came of it, the memory in bytes, and how often it told."""
    path.write_bytes(content)
    command = [sys.executable, "-c", CHILD, str(path), str(len(content)), how]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


HEAVY: dict[str, Callable[[], bytes]] = {
    **{name: BOMBS[name] for name in ("32 MB of dictionaries", "32 MB of notes", "noted dictionaries", "states")},
    "in torch": lambda: in_torch(BOMBS["calls"]()),
    **{name: LEGACY[name] for name in list(LEGACY)[:2]},
    "a directory of 40 MB": lambda: _directory(600_000),
    "32 MB of JSON": lambda: _header(b'{"a":[' + b"[]," * 11 * MB + b"0]}"),
    "as much JSON as is read": lambda: _header(b'{"a":[' + b"{}," * 999_990 + "😀".encode() * 3 * MB + b"0]}"),
    "as long a directory as is read": lambda: _directory(120_000),
    "128 MB of zeros": lambda: _zip_bomb(zipfile.ZIP_DEFLATED),
    "128 MB of zeros, otherwise packed": lambda: _zip_bomb(zipfile.ZIP_BZIP2),
}


@pytest.mark.whole
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs the peak of a process's memory in /proc")
@pytest.mark.parametrize("name", HEAVY)
def test_a_bomb_costs_what_it_weighs_and_is_not_verified(name: str, tmp_path: Path) -> None:
    content = HEAVY[name]()
    found = cost(tmp_path / "bomb", content)
    assert found["result"] in ("not_read", "damaged")
    assert found["memory"] < 256 * MB + 2 * len(content)
    assert found["told"] <= MOST_OPCODES // REPORT_EVERY + len(content) // MB + 10


@pytest.mark.parametrize("name", ["marks", "duplicates", "one in the other", "sets", "objects of protocol 0"])
def test_opcodes_are_counted_whatever_they_are(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up by count, long before its end, and the reader has told of it all along."""
    monkeypatch.setattr(formats_pickled, "MOST_OPCODES", 10 * REPORT_EVERY)
    calls: list[int] = []
    content = BOMBS[name]()
    with pytest.raises(UnsoundError, match="opcodes is not read") as caught:
        check_file(io.BytesIO(content), len(content), calls.append, quick=False)
    assert caught.value.id == "not_read"
    assert len(calls) == 11


@pytest.mark.whole
def test_a_checkpoint_of_10_000_tensors_is_read() -> None:
    tensors = b"".join(
        b"X\x05\0\0\0%05dctorch._utils\n_rebuild_tensor_v2\n(" % n + storage(b"K\x01", b"%d" % n)
        + b"K\x00K\x01\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR" for n in range(10_000)
    )  # fmt: skip
    content = zipped({
        "x/data.pkl": b"\x80\x02}(X\x05\0\0\0epochK\x03X\x01\0\0\0w}(" + tensors + b"uu.",
        **{f"x/data/{n}": b"wwww" for n in range(10_000)},
    })  # fmt: skip
    known = checked(content)
    assert isinstance(known, FileContent)
    assert (known.kind, known.epoch) == ("torch", 3)
    at = content.index(b"x/data/9999") + len("x/data/9999")
    assert checked(content[:at] + b"W" + content[at + 1 :]) == "damaged"


def test_a_pickle_with_long_values_is_read_to_its_end_without_keeping_them() -> None:
    numbers = b"n" * (4 * LONGEST_VALUE)
    for protocol in (2, 4, 5):
        whole = pickle.dumps({"epoch": 3, "w": numbers.decode() if protocol == 2 else numbers}, protocol)
        known = checked(whole)
        assert isinstance(known, FileContent)
        assert (known.kind, known.epoch) == ("pickle", 3)
        assert checked(whole[: -LONGEST_VALUE - 10]) == "damaged"
        assert isinstance(checked(in_torch(whole)), FileContent)


# --- zip files -------------------------------------------------------------------------------------------------------


def _zip_bomb(method: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive, archive.open("w.npy", "w") as entry:
        entry.write(npy("(134217728,)", "'|u1'", b""))
        for _ in range(128):
            entry.write(bytes(MB))
    return file.getvalue()


def _record(name: bytes, offset: int = 0, size: int = 0, method: int = 0, unpacked: int | None = None) -> bytes:
    unpacked = size if unpacked is None else unpacked
    return struct.pack("<4s4B4HL2L5H2L", b"PK\x01\x02", 20, 3, 20, 0, 0, method, 0, 0, 0, size, unpacked, len(name),
                       0, 0, 0, 0, 0, offset) + name  # fmt: skip


def _end(count: int, size: int, start: int) -> bytes:
    return struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count & 0xFFFF, count & 0xFFFF, size, start, 0)


def _directory(count: int) -> bytes:
    """Return a zip file that is all directory."""
    start = b"PK\x03\x04" + bytes(26)
    records = b"".join(_record(b"%020d" % number) for number in range(count))
    return start + records + _end(count, len(records), len(start))


def _by_hand(*records: bytes, content: bytes = b"") -> bytes:
    start = b"PK\x03\x04" + bytes(22) + struct.pack("<HH", 1, 0) + b"a" + content
    return start + b"".join(records) + _end(len(records), sum(map(len, records)), len(start))


def packed_lies() -> bytes:
    """Return a file whose entry unpacks to more than its directory says."""
    content = bytearray(zipped({"w.npy": bytes(MB)}, zipfile.ZIP_DEFLATED))
    at = content.index(b"PK\x01\x02")
    struct.pack_into("<L", content, at + 24, 100)
    return bytes(content)


ZIPS: dict[str, Callable[[], bytes]] = {
    "nothing in it": lambda: b"PK\x03\x04" + _end(0, 0, 4),
    "entries that overlap": lambda: _by_hand(_record(b"a", 0, 5), _record(b"b", 0, 5), content=b"wwwww"),
    "entries that overlap in part": lambda: _by_hand(_record(b"a", 0, 50), _record(b"b", 20, 5), content=b"w" * 90),
    "the same name twice": lambda: _by_hand(_record(b"a", 0), _record(b"a", 31), content=b"w" * 90),
    "two sizes of one thing": lambda: _by_hand(_record(b"a", 0, 5, unpacked=4_000_000_000), content=b"wwwww"),
    "sizes of 64 bits, not there": lambda: _by_hand(_record(b"a", 0, 0xFFFFFFFF), content=b"wwwww"),
    "a place behind the end": lambda: _by_hand(_record(b"a", 0xFFFFFFF0, 5), content=b"wwwww"),
    "4 GB in 5 bytes": lambda: _by_hand(_record(b"a", 0, 5, 8, 0xFFFFFFF0), content=b"wwwww"),
    "packed in a way that nobody knows": lambda: _by_hand(_record(b"a", 0, 5, 99), content=b"wwwww"),
    "more than it says": packed_lies,
    "numbers of numpy that are too few": lambda: zipped({"w.npy": npy("(100,)", "'<f4'", bytes(399))}),
    "numbers of numpy that are no numbers": lambda: zipped({"w.npy": b"no numbers"}),
    "another name than in its directory": lambda: zipped({"a": b"w"}).replace(b"PK\x03\x04", b"PK\x03\x04", 1)[:30] + b"b" + zipped({"a": b"w"})[31:],
    "locked": lambda: zipped({"a": b"w"})[:6] + b"\x01" + zipped({"a": b"w"})[7:].replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"),
    "bytes of bzip2": lambda: zipped({"a": b"w"}, zipfile.ZIP_BZIP2),
    "bytes of lzma": lambda: zipped({"a": b"w"}, zipfile.ZIP_LZMA),
}  # fmt: skip


@every([*ZIPS])
def test_a_zip_file_that_lies_is_not_verified(name: str) -> None:
    assert checked(ZIPS[name]()) in ("damaged", "truncated", "not_read")


@pytest.mark.parametrize("where", ["x/data.pkl", "x/data/0", "x.npy"])
def test_what_unpacks_to_far_more_than_it_has_is_not_unpacked(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zips, "UNPACKS_ALWAYS", MB)  # with as much as it is, two of `HEAVY` are unpacked
    read: list[int] = []
    content = zipped({"x/data.pkl": b"N.", where: bytes(2 * MB)}, zipfile.ZIP_DEFLATED)
    assert len(content) * UNPACKS_TO < MB
    with pytest.raises(UnsoundError, match="what unpacks to more than 32 times its bytes is not unpacked"):
        check_file(io.BytesIO(content), len(content), read.append, quick=False)
    assert sum(read) == 0


LAST = b"PK\x05\x06"


@pytest.mark.parametrize(
    ("record", "at", "change", "left"),
    [(1, 32, 51, 2), (1, 34, 2, 3), (0, 38, 0x10, 3), (0, 9, 0x20, 3)],
    ids=["a comment that hides the next entry", "another disk", "a file that is a folder", "a name that is masked"],
)
def test_a_bit_that_changes_in_the_directory_is_seen(record: int, at: int, change: int, left: int) -> None:
    array = npy("()", "'<f8'", bytes(8))
    content = bytearray(zipped({"a.npy": array, "b.npy": array, "c.npy": array}))
    start = content.index(b"PK\x01\x02") + record * 51
    content[start + at] ^= change
    assert len(zipfile.ZipFile(io.BytesIO(content)).infolist()) == left
    assert checked(bytes(content)) == "damaged"


@every([*range(16, 56), 60, *range(64, 76)])
def test_so_is_one_behind_the_directory_of_a_large_file(at: int) -> None:
    """Torch writes the longer form always, and refuses what disagrees with it; `zipfile` reads some of it only."""
    small = zipped({"x/data.pkl": b"N.", "x/version": b"3\n"})
    *_, size, start, _ = struct.unpack("<4s4H2LH", small[small.index(LAST) :])
    longer = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 2, 2, size, start)
    longer += struct.pack("<4sLQL", b"PK\x06\x07", 0, start + size, 1)
    content = bytearray(small[: start + size] + longer + small[start + size :])
    assert isinstance(checked(bytes(content)), FileContent)
    content[start + size + at] ^= 0x40
    assert checked(bytes(content)) in ("damaged", "truncated")


def test_nothing_is_known_against_an_array_whose_header_is_too_long() -> None:
    assert checked(zipped({"w.npy": b"\x93NUMPY\x01\x00\xff\xff"})) == "not_read"


def test_arrays_whose_names_differ_in_case_are_two_arrays() -> None:
    array = npy("()", "'<f8'", bytes(8))
    assert isinstance(checked(zipped({"W.npy": array, "w.npy": array})), FileContent)
    assert checked(zipped({"x/data.pkl": b"N.", "x/data/W": b"", "x/data/w": b""})) == "damaged"


@pytest.mark.parametrize("protocol", [2, 4])
def test_nothing_is_known_of_arrays_that_joblib_writes_into_a_pickle(protocol: int) -> None:
    name = (
        b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n" if protocol == 2 else b"\x8c\x13joblib.numpy_pickle\x8c\x01N\x93"
    )
    whole = (
        b"\x80" + bytes([protocol]) + b"}X\x01\x00\x00\x00w" + name + b")\x81}b\x05" + b"\xff" * 5 + bytes(80) + b"s."
    )
    assert checked(whole) == "not_read"


def test_what_was_packed_by_numpy_is_unpacked() -> None:
    zeros = npy("(1000000,)", "'<f4'", bytes(4_000_000))
    packed = zipped({"w.npy": zeros}, zipfile.ZIP_DEFLATED)
    assert len(packed) * UNPACKS_TO < len(zeros)
    known = checked(packed)
    assert isinstance(known, FileContent)
    assert known.kind == "numpy"


# --- safetensors -----------------------------------------------------------------------------------------------------


def _header(header: bytes, behind: int = 0) -> bytes:
    return len(header).to_bytes(8, "little") + header + b"w" * behind


def tensors(behind: int, **entries: str) -> bytes:
    rows = (f'"{name}":{{{entry}}}' for name, entry in entries.items())
    return _header(f"{{{','.join(rows)}}}".encode(), behind)


def tensor(offsets: str, shape: str = "[1]", dtype: str = '"F32"') -> str:
    return f'"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}'


BROKEN_OFFSETS = [
    "[NaN,4]", "[0,NaN]", "[0,Infinity]", "[0,-Infinity]", "[0,4.0]", "[0.0,4]", "[false,4]", "[0,true]", '["0",4]', "[0,null]",
    "[-4,0]", "[0,-4]", "[4,0]", "[4]", "[0,4,4]", "[]", "{}", "4", "null", '"04"', "[[0],4]", f"[0,{NINES}]", f"[-{NINES},4]",
    f"[0,1{'0' * 5000}]", "[0,1e400]", "[0,18446744073709551616]", "[0,9223372036854775808]", "[0,5]", "[0,3]", "[1,5]", "[0,0]",
]  # fmt: skip


@every([*BROKEN_OFFSETS])
def test_the_places_in_safetensors_are_whole_numbers_that_fit(offsets: str) -> None:
    for behind in (4, 0, 5):
        assert checked(tensors(behind, w=tensor(offsets))) in ("damaged", "truncated")
    assert checked(tensors(8, a=tensor("[0,4]"), w=tensor(offsets))) in ("damaged", "truncated")


SAFETENSORS: dict[str, Callable[[], bytes]] = {
    "overlap": lambda: tensors(6, a=tensor("[0,4]"), b=tensor("[2,6]")),
    "the same place": lambda: tensors(4, a=tensor("[0,4]"), b=tensor("[0,4]")),
    "a gap": lambda: tensors(12, a=tensor("[0,4]"), b=tensor("[8,12]")),
    "a gap at the start": lambda: tensors(8, a=tensor("[4,8]")),
    "a name twice": lambda: _header(
        b'{"w":{' + tensor("[0,4]").encode() + b'},"w":{' + tensor("[4,8]").encode() + b"}}", 8
    ),
    "another shape": lambda: tensors(4, a=tensor("[0,4]", "[2]")),
    "a negative shape": lambda: tensors(4, a=tensor("[0,4]", "[-1,-1]")),
    "a shape of floats": lambda: tensors(4, a=tensor("[0,4]", "[1.0]")),
    "true as a shape": lambda: tensors(4, a=tensor("[0,4]", "[true]")),
    "a shape of nines": lambda: tensors(4, a=tensor("[0,4]", f"[{NINES}]")),
    "a million sides": lambda: tensors(4, a=tensor("[0,4]", f"[{'1,' * 1_000_000}1]")),
    "sides that are huge together": lambda: tensors(4, a=tensor("[0,4]", f"[{'9223372036854775807,' * 60}1]")),
    "half a byte": lambda: tensors(1, a=tensor("[0,1]", "[1]", '"F4"')),
    "no type": lambda: tensors(4, a='"shape":[1],"data_offsets":[0,4]'),
    "no shape": lambda: tensors(4, a='"dtype":"F32","data_offsets":[0,4]'),
    "a number in place of a tensor": lambda: _header(b'{"w":5}'),
    "a list": lambda: _header(b'{"w":[]}'),
    "cut off JSON": lambda: _header(b'{"w":{'),
    "deep": lambda: _header(b'{"a":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}"),
    "deep, and not closed": lambda: _header(b'{"a":' * 100_000),
    "no UTF-8": lambda: _header(b'{"\xff":{}}'),
    "a header of 20 MB": lambda: _header(b'{"a":"' + b"a" * 20 * MB + b'"}'),
}


@every([*SAFETENSORS])
def test_safetensors_that_lie_are_not_verified(name: str) -> None:
    assert checked(SAFETENSORS[name]()) in ("damaged", "truncated", "not_read")


@pytest.mark.parametrize(
    "content",
    [
        _header(b"{}"),
        _header(b'{"__metadata__":{"format":"pt"}}   '),
        tensors(4, w=tensor("[0,4]", "[]")),
        tensors(12, b=tensor("[4,12]", "[2,1]"), a=tensor("[0,4]"), e=tensor("[4,4]", "[0,7]")),
        tensors(3, w=tensor("[0,3]", "[6]", '"F4"')),
        tensors(5, w=tensor("[0,5]", "[7]", '"A_TYPE_OF_TOMORROW"')),
    ],
)
def test_safetensors_that_are_whole_are(content: bytes) -> None:
    assert isinstance(checked(content), FileContent)


@pytest.mark.parametrize(
    ("told", "epoch", "step"),
    [
        (b'{"ss_epoch":"7","ss_steps":"0420"}', 7, 420),
        (b'{"ss_epoch":"None","ss_steps":"1e3"}', None, None),
        (b'{"ss_epoch":7,"ss_steps":["1"]}', None, None),
        (b'{"ss_epoch":"' + b"9" * 5000 + b'"}', None, None),
        (b'"text"', None, None),
    ],
)
def test_what_kohya_writes_beside_the_tensors_is_read(told: bytes, epoch: int | None, step: int | None) -> None:
    content = checked(_header(b'{"__metadata__":' + told + b"}"))
    assert isinstance(content, FileContent)
    assert (content.epoch, content.step) == (epoch, step)


# --- numpy and HDF5 --------------------------------------------------------------------------------------------------


def npy(shape: str, descr: str, behind: bytes, version: int = 1) -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode("latin-1")
    return (
        b"\x93NUMPY" + bytes([version, 0]) + len(header).to_bytes(2 if version == 1 else 4, "little") + header + behind
    )


NUMPY = {
    "sides of 4,000 digits": npy(f"({'9' * 4000}, {'9' * 4000})", "'<f4'", bytes(99), 2),
    "sides of 4,300 digits": npy(f"({NINES},)", "'<f4'", bytes(99), 2),
    "sides of 5,000 digits": npy(f"({'9' * 5000},)", "'<f4'", bytes(99), 2),
    "an item of 4,000 digits": npy("(1,)", f"'<f{'9' * 4000}'", bytes(99), 2),
    "negative": npy("(-1,)", "'<f4'", bytes(99)),
    "two negative sides": npy("(-5, -5)", "'<f4'", bytes(100)),
    "a float": npy("(1.0,)", "'<f4'", bytes(99)),
    "infinite": npy("(1e999,)", "'<f4'", bytes(99)),
    "true": npy("(True,)", "'<f4'", bytes(99)),
    "a text": npy("('25',)", "'<f4'", bytes(100)),
    "a list": npy("[25]", "'<f4'", bytes(100)),
    "none": npy("None", "'<f4'", bytes(100)),
    "a thousand sides": npy(f"({'1,' * 1000})", "'<f4'", bytes(4)),
    "a type that nobody knows": npy("(1,)", "'whatever'", bytes(99)),
    "fields that are too few": npy("(9,)", "[('a', '<f8'), ('b', '<i4', (2,))]", bytes(9 * 16 - 1)),
    "fields that nobody knows": npy("(9,)", "[('a', '?!')]", bytes(99)),
    "fields that are none": npy("(9,)", "[1, 2]", bytes(99)),
    "deep": npy("(" * 3000 + ")" * 3000, "'<f4'", bytes(99), 2),
    "deep minus": npy("(" + "-" * 9000 + "1,)", "'<f4'", bytes(99), 2),
    "deep plus": npy("(1" + "+1" * 4000 + ",)", "'<f4'", bytes(99), 2),
    "a header of 60 kB": npy(" " * 60_000 + "(1,)", "'<f4'", bytes(4)),
    "a header of 4 GB": b"\x93NUMPY\x02\x00\xff\xff\xff\xff{",
    "NUL": npy("(1,\0)", "'<f4'", bytes(4)),
    "an odd escape": npy("(1,)", "'<f4\\d'", bytes(4)),
    "objects that are cut off": npy("(1,)", "'|O'", b"\x80\x04]q"),
    "objects that act": npy("(1,)", "'|O'", b"\x80\x02cos\nsystem\nU\x01a\x85R."),
}


@every([*NUMPY])
def test_numpy_that_lies_is_not_verified(name: str) -> None:
    said = checked(NUMPY[name])
    assert said == "runs_code" if name == "objects that act" else said in ("damaged", "truncated", "not_read")


@pytest.mark.parametrize(
    "content",
    [
        npy("()", "'<f8'", bytes(8)),
        npy("(3, 0)", "'<f8'", b""),
        npy("(2,)", "'<U5'", bytes(40)),
        npy("(2,)", "'<M8[ns]'", bytes(16)),
        npy("(9,)", "[('a', '<f8'), ('b', '<i4', (2,)), ('c', [('d', '|u1')])]", bytes(9 * 17), 3),
        npy("(1,)", "'|O'", pickle.dumps([1, 2])),
    ],
)
def test_numpy_that_is_whole_is(content: bytes) -> None:
    assert isinstance(checked(content), FileContent)


# --- whatever a reader raises ----------------------------------------------------------------------------------------

ODD = {
    "epoch-01_step-000001.ckpt": NUMPY["sides of 4,000 digits"],
    "epoch-02_step-000001.ckpt": tensors(4, w=tensor(f"[0,{NINES}]")),
    "epoch-03_step-000001.ckpt": tensors(4, w=tensor("[0,NaN]")),
    "epoch-04_step-000001.ckpt": SAFETENSORS["deep"](),
    "epoch-05_step-000001.ckpt": ZIPS["locked"](),
    "epoch-06_step-000001.ckpt": NUMPY["sides of 5,000 digits"],
}


def test_one_odd_file_is_told_and_the_rest_of_the_directory_is_verified(project: Project) -> None:
    for name, content in ODD.items():
        put(project, name, content)
    put(project, "epoch-07_step-000001.ckpt/a.npy", NUMPY["sides of 5,000 digits"])
    put(project, "epoch-08_step-000001.ckpt/a\0b.npy".replace("\0", "\x01"), tensors(4, w=tensor("[0,NaN]")))
    put(project, "epoch-09_step-000352.ckpt", lightning(9, 352))
    found = result(project, check=1)
    assert problem_ids(found) == ["damaged"] * 8
    assert [row["name"] for row in found["experiments"][0]["checkpoints"] if row["verified"]] == [
        "epoch-09_step-000352.ckpt"
    ]


RAISED = [
    ValueError("x"), TypeError(), KeyError("x"), IndexError(), OverflowError(), RecursionError(), MemoryError(), AssertionError(), EOFError(),
    UnicodeDecodeError("utf-8", b"x", 0, 1, "x"), struct.error(), zipfile.BadZipFile(), OSError("no number"), OSError(22, "Invalid argument"),
    StopIteration(), NotImplementedError(), ArithmeticError(), AttributeError(), LookupError(), RuntimeError(), SyntaxError(), BufferError(),
]  # fmt: skip


class Raises(io.BytesIO):
    """A file that raises something where it is read from some byte on."""

    def __init__(self, content: bytes, error: Exception) -> None:
        super().__init__(content)
        self.error = error

    def read(self, count: int | None = -1, /) -> bytes:
        if self.tell() > 0:
            raise self.error
        return super().read(count)


@every([*RAISED])
def test_whatever_a_reader_raises_is_a_fault_of_its_file(error: Exception) -> None:
    for content in (
        lightning(3, 352),
        tensors(4, w=tensor("[0,4]")),
        npy("(1,)", "'<f4'", bytes(4)),
        pickle.dumps({"a": 1}),
    ):
        with pytest.raises(UnsoundError) as caught:
            check_file(Raises(content, error), len(content), lambda _: None, quick=False)
        assert caught.value.id in ("damaged", "not_read", "truncated")
        assert "Success" not in str(caught.value)


def test_what_the_system_refuses_is_no_fault_of_the_file() -> None:
    with pytest.raises(OSError, match="Input/output error"):
        check_file(Raises(pickle.dumps({"a": 1}), OSError(5, "Input/output error")), 50, lambda _: None, quick=False)


# --- the paths inside, and sidecars ----------------------------------------------------------------------------------


NOT_EDITED: dict[str, Callable[[], bytes]] = {
    "4 MB of dictionaries": lambda: in_torch(b"\x80\x02" + b"}" * 4 * MB + b"."),
    "a long directory": lambda: _directory(200_000),
    **ZIPS,
}


@pytest.mark.parametrize("name", NOT_EDITED)
def test_no_bomb_and_no_lie_is_edited(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchstate, "MOST_OPCODES", REPORT_EVERY)
    with pytest.raises(NotRewritableError, match=r"\w"):
        rewrite(io.BytesIO(NOT_EDITED[name]()), lambda text: f"{text}x")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b'{"loss": 1.5, "n": 3, "yes": true, "name": "x"}', {"loss": "1.5", "n": "3"}),
        (b'{"metrics": {"loss": 2}}', {"loss": "2"}),
        (b'{"loss": 1.5, "big": ' + b"9" * 4400 + b"}", {"loss": "1.5", "big": "inf"}),
        (b'{"loss": ' + b"9" * 900_000 + b"}", {"loss": "inf"}),
        (b'{"loss": 1.5', {}),
        (b"[" * 900_000, {}),
        (b'{"a":' * 100_000, {}),
        (b'{"loss": 1.5}' + b" " * 2 * MB, {"loss": "1.5"}),
        (b'"\xff"', {}),
        (b"[1, 2]", {}),
        (b"", {}),
    ],
    ids=lambda value: str(value)[:30],  # they are printed, and sent from process to process
)
def test_a_sidecar_tells_numbers_or_nothing(tmp_path: Path, text: bytes, told: dict[str, str]) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.json").write_bytes(text)
    listing = Listing("x", "x", (Entry("a.json", "file", len(text), 0),))
    found = evidence.read_metrics(str(tmp_path), listing, {"a": [Sidecar("a.json", ".json", shared=False)]})
    assert found.get("a", {}) == told


# --- it can be stopped -----------------------------------------------------------------------------------------------


class StopError(Exception):
    """As `StoppedError`."""


def stopper(at: int) -> Callable[[int], None]:
    calls = itertools.count(1)

    def tell(_: int) -> None:
        if (number := next(calls)) >= at:
            assert number == at, "it went on"
            raise StopError

    return tell


LONG: dict[str, Callable[[], bytes]] = {
    "a long pickle": lambda: pickle.dumps(list(range(300, 65_000)), 2),
    "a pickle with a long value": lambda: pickle.dumps(b"n" * 20 * MB, 4),
    "a torch file with a long pickle": lambda: in_torch(pickle.dumps(list(range(300, 65_000)), 2)),
    "a torch file with a long tensor": lambda: zipped({"x/data.pkl": b"\x80\x02N.", "x/data/0": bytes(20 * MB)}),
    "a torch file with many tensors": lambda: zipped({"x/data.pkl": b"\x80\x02N.", **{f"x/data/{n}": b"w" for n in range(20)}}),
    "packed numbers": lambda: zipped({"w.npy": npy("(20971520,)", "'|u1'", bytes(20 * MB))}, zipfile.ZIP_DEFLATED),
    "a torch file of old": lambda: legacy(b"".join(storage(b"K\x01", b"%d" % n) + b"0" for n in range(50)) + b"N", [str(n) for n in range(50)], (struct.pack("<Q", 1) + b"wwww") * 50),
}  # fmt: skip


@pytest.mark.parametrize("name", LONG)
def test_reading_ends_as_soon_as_that_is_wished(name: str) -> None:
    content = LONG[name]()
    assert isinstance(checked(content), FileContent)
    for at in (1, 2, 5, 15):
        with pytest.raises(StopError):
            check_file(io.BytesIO(content), len(content), stopper(at), quick=False)


@pytest.mark.parametrize("at", [1, 2, 5, 15])
def test_so_does_reading_a_directory(tmp_path: Path, at: int) -> None:
    (tmp_path / "c").mkdir()
    for number in range(20):
        (tmp_path / "c" / f"{number}.safetensors").write_bytes(tensors(4, w=tensor("[0,4]")))
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(StopError):
            check_folder(directory, "c", stopper(at), quick=False)
    finally:
        os.close(directory)


def test_a_wish_to_stop_ends_verify_within_a_file(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(project, "epoch-03_step-000352.ckpt", LONG["a torch file with a long tensor"]())
    rules = load_rules(rule_texts(None))
    (found,) = find.survey(str(project.outputs), rules.layout)[0]
    listing = scan(str(project.outputs), found)
    asked = itertools.count()
    monkeypatch.setattr(stopping, "stopped", lambda: next(asked) > 5)
    begun = begin(str(project.outputs), rules, listing, Depth(), path.stat().st_mtime_ns + 10**11)
    with pytest.raises(StoppedError):
        read_one(begun.context, begun.new[0], lambda _: stopping.heed())
    assert next(asked) == 7
    assert not (project.outputs / ".ckptrules").exists()


# --- any damage ------------------------------------------------------------------------------------------------------

SMALL: dict[str, bytes] = {
    "torch": zipped({"x/data.pkl": b"\x80\x02}U\x01w" + storage(b"K\x03") + b"s.", "x/data/0": bytes(12), "x/version": b"3\n"}),
    "torch of old": legacy(b"}U\x01w" + storage(b"K\x03") + b"s", ["0"], struct.pack("<Q", 3) + bytes(12)),
    "pickle": pickle.dumps({"epoch": 3, "a": [1, (2, "x")], "b": {1.5, None}}, 4),
    "safetensors": tensors(12, a=tensor("[0,4]"), b=tensor("[4,12]", "[2]")),
    "HDF5": hdf5(2),
    "numpy": npy("(5, 5)", "'<f4'", bytes(100)),
    "msgpack": weights.flax(),
    "TensorFlow": weights.INDEX,
    "tar": weights.tarred({"a.npy": npy("(5, 5)", "'<f4'", bytes(100)), "b.yaml": b"x: 1"}),
    "packed": zipped({"a.npy": npy("(50, 5)", "'<f4'", bytes(1000))}, zipfile.ZIP_DEFLATED),
}  # fmt: skip


def mutations() -> st.SearchStrategy[list[tuple[int, bytes, int]]]:
    """Draw changes: where, what is put there, how many bytes it takes away."""
    odd = st.sampled_from(
        [b"\xff" * 8, b"\0" * 8, b"\xff\xff\xff\x7f", b"9" * 50, b"-1", b"NaN", b"[" * 50, b"}", b"\x94" * 9]
    )
    return st.lists(
        st.tuples(st.integers(0, 2**16), st.binary(max_size=8) | odd, st.integers(0, 12)), min_size=1, max_size=6
    )


def mutated(content: bytes, changes: list[tuple[int, bytes, int]]) -> bytes:
    for place, new, gone in changes:
        at = place % (len(content) + 1)
        content = content[:at] + new + content[at + gone :]
    return content


@pytest.mark.parametrize("kind", SMALL)
@settings(derandomize=True, max_examples=3 * settings().max_examples // 5)
@given(changes=mutations())
def test_any_damage_gives_facts_or_a_fault(kind: str, changes: list[tuple[int, bytes, int]]) -> None:
    content = mutated(SMALL[kind], changes)
    for quick in (True, False):
        checked(content, quick=quick)
    with contextlib.suppress(NotRewritableError):
        rewrite(io.BytesIO(content), lambda text: f"{text}x")


def test_the_small_files_are_whole() -> None:
    assert [kind for kind, content in SMALL.items() if not isinstance(checked(content), FileContent)] == []


@pytest.mark.whole
def test_folders_in_folders_without_end_are_no_checkpoint(project: Project) -> None:
    """They would need more calls in calls than Python makes."""
    project.make({"one/checkpoints/epoch=2-step=2.ckpt": 9})
    deep = project.outputs / "one/checkpoints/epoch=1-step=2.ckpt"
    deep.mkdir()
    inner = os.open(deep, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=inner)
        below = os.open("d", os.O_RDONLY, dir_fd=inner)
        os.close(inner)
        inner = below
    os.close(inner)
    for command in ("plan", "verify", "usage", "migrate"):
        ended = crash.run_in_turn(project.folder, command)
        assert "Traceback" not in ended.output, command
        if command in ("plan", "migrate"):
            # From Python 3.13 on, `os.fwalk` needs no calls in calls, and finds that there is nothing.
            assert re.search("Problem: epoch=1-step=2.ckpt is (neither a file nor a|an empty) directory", ended.output)
    assert "epoch-02_step-000002.ckpt" in project.names("one")
    subprocess.run(["rm", "-rf", str(deep)], check=True)  # pytest's own clean-up would stumble as well
