"""Real hostile pickles: none runs anything, none costs more than its bytes, each is told of."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import sys
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptrules.formats.content import UnsoundError
from ckptrules.formats.files import check_file, glance
from ckptrules.formats.limits import NotReadError
from ckptrules.formats.machine import StandIn
from ckptrules.formats.pickled import Limited, read_pickle
from tests.conftest import Project
from tests.support.tables import every, every_row
from tests.support.torch_files import in_torch

MARKER = "ran"


class Calls:
    """Pickled as a call: running it makes a file."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def hostile(marker: str) -> dict[str, bytes]:
    """Return pickles each of which makes the marker when it is unpickled; by their opcodes."""
    command = f"touch {marker}"
    by_protocol = {
        f"reduce in protocol {n}": pickle.dumps({"epoch": Calls(os.system, command)}, protocol=n) for n in range(6)
    }
    text = command.encode()
    return {
        **by_protocol,
        "eval": pickle.dumps(Calls(eval, f"__import__('os').mkdir({marker!r})"), protocol=2),
        "exec": pickle.dumps(Calls(exec, f"__import__('os').mkdir({marker!r})"), protocol=4),
        "inst": b"(S'" + text + b"'\nios\nsystem\n.",
        "obj": b"\x80\x02(cos\nsystem\nX" + len(text).to_bytes(4, "little") + text + b"o.",
        "a name with dots": b"\x80\x04\x8c\x05torch\x8c\x17serialization.os.system\x93X"
        + len(text).to_bytes(4, "little") + text + b"\x85R.",
        "popped": b"\x80\x02cos\nsystem\nX" + len(text).to_bytes(4, "little") + text + b"\x85R0}.",
    }  # fmt: skip


SHAPES = list(hostile(""))


def read(data: bytes) -> Any:
    return read_pickle(Limited(io.BytesIO(data)))


@every_row("shape", [shape for shape in SHAPES if shape != "a name with dots"])
def test_the_pickles_are_really_hostile(shape: str, tmp_path: Path) -> None:
    marker = tmp_path / MARKER
    pickle.loads(hostile(str(marker))[shape])
    assert marker.exists()


@every_row("shape", SHAPES)
def test_a_hostile_pickle_never_runs_and_is_told_of(shape: str, tmp_path: Path) -> None:
    content = in_torch(hostile(str(tmp_path / MARKER))[shape])
    with pytest.raises(UnsoundError, match=r"would run '(posix|os|torch|builtins|__builtin__)\.") as caught:
        check_file(io.BytesIO(content), len(content), lambda _: None, quick=False)
    assert caught.value.id == "runs_code"
    assert not (tmp_path / MARKER).exists()


@pytest.mark.parametrize("words", ["verify", "verify quick=1", "migrate"])
def test_no_command_runs_one(project: Project, words: str) -> None:
    marker = project.folder / MARKER
    for number, pickled in enumerate(hostile(str(marker)).values()):
        for name, content in (
            ("epoch-03_step-00035{}.ckpt", in_torch(pickled)),
            ("epoch-04_step-00035{}.ckpt", pickled),
        ):
            path = project.outputs / f"exp{number}/checkpoints" / name.format(number % 10)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    project.doit(*words.split(), check=0 if words == "migrate" else 1)
    assert not marker.exists()


def test_reading_imports_no_module() -> None:
    before = set(sys.modules)
    contents = read(b"\x80\x02cthis\ns\n)R}(X\x01\x00\x00\x00acantigravity\nfly\nub.")
    assert set(sys.modules) - before == set()
    assert contents.names == {"this.s", "antigravity.fly"}
    assert isinstance(contents.value, StandIn)


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
        b"\x80\x04)\x94" + b"".join(b"h%ch%c\x86\x94" % (n, n) for n in range(200)) + b".",
        b"\x80\x04})\x94" + b"".join(b"h%ch%c\x86\x94" % (n, n) for n in range(200)) + b"K\x01s.",
        b"\x80\x04}" + b"\x8a\xff" + b"\x7f" * 255 + b"\x94" + b"h\x00K\x01s" + b".",
        b"\x80\x02]q\x00h\x00a.",
    ],
    ids=["nested deeply", "doubled 200 times", "such a thing as a key", "a long number as a key", "holds itself"],
)
def test_what_would_blow_up_costs_no_more_than_its_bytes(pickled: bytes) -> None:
    try:
        read(pickled)
    except UnsoundError:
        assert b"s" in pickled


@every(
    [
        b"\x80\x05\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x02\x8b\xff\xff\xff\x7f.",
        b"c" + b"a" * 5000 + b"\n.",
        b"\x80\x02\x82\x01.",
        b"\x80\x05\x97.",
        b"\x80\x04" + b"\x8c\xff" + b"m" * 255 + b"\x94" + b"X\x00\x10\x00\x00" + b"n" * 4096 + b"\x93.",
        b"\x80\x02a.",
        b"\x80\x02(.",
        b"\x80\x02",
        b"",
        b"\x80\x02}(K\x01u.",
        b"\x80\x02h\x05.",
        b"\x80\x02R.",
        b"\x80\x02K\x01K\x02a.",
    ]
)
def test_what_no_checkpoint_needs_is_refused_in_words(pickled: bytes) -> None:
    with pytest.raises(UnsoundError):
        read(pickled)


def test_keys_that_cost_are_passed_over() -> None:
    value = {"a" * 1001: 1, 1 << 100: 2, "b" * 1000: 3, 1 << 62: 4, (1,): 5, None: 6}
    assert read(pickle.dumps(value)).value == {"b" * 1000: 3, 1 << 62: 4}


def test_a_pickle_that_is_too_long_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ckptrules.formats.pickled.LONGEST_PICKLE", 1 << 20)
    with pytest.raises(NotReadError, match="more than 1 MB"):
        read(pickle.dumps(["a" * 600_000, "b" * 600_000]))


@given(st.binary(max_size=200), st.sampled_from([b"", b"\x80\x02", b"\x80\x04}("]))
def test_any_bytes_are_read_or_refused(noise: bytes, start: bytes) -> None:
    with contextlib.suppress(UnsoundError, NotReadError):
        read(start + noise + b".")


@given(st.integers(0, 2**20), st.integers(0, 255))
def test_any_damage_of_a_file_is_told_in_words(place: int, byte: int) -> None:
    for whole in (in_torch(pickle.dumps({"epoch": 3, "a": [1, (2, "x")]}, protocol=2)), pickle.dumps({"epoch": 3})):
        at = place % len(whole)
        content = whole[:at] + bytes([byte]) + whole[at + 1 :]
        with contextlib.suppress(UnsoundError):
            check_file(io.BytesIO(content), len(content), lambda _: None, quick=False)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=9), inner) | st.tuples(inner, inner),
        max_leaves=20,
    ),
    st.integers(0, 5),
)
def test_plain_values_are_read_as_pickle_reads_them(value: object, protocol: int) -> None:
    if protocol >= 2 or not isinstance(value, bytes | list | dict | tuple):
        contents = read(pickle.dumps(value, protocol=protocol))
        if not contents.names:
            assert contents.value == value


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_of_any_protocol_is_known_and_read_to_its_end(protocol: int) -> None:
    """One of protocol 0 or 1 was in no known format, so a half of it counted as whole."""
    values = ({"epoch": 3, "w": [0.5]}, OrderedDict(epoch=3), Namespace(epoch=3), [1, 2])
    for value in values:
        content = pickle.dumps(value, protocol)
        found = check_file(io.BytesIO(content), len(content), lambda _: None, quick=False)
        assert (found.kind, found.epoch) == ("pickle", 3 if isinstance(value, dict) else None)
        for end in (1, len(content) // 3):
            with pytest.raises(UnsoundError, match="cut off"):
                glance(io.BytesIO(content[:-end]), len(content) - end)
    content = pickle.dumps({"w": "x" * 5000}, protocol)
    with pytest.raises(UnsoundError, match="is not verified") if protocol == 0 else contextlib.nullcontext():
        check_file(io.BytesIO(content), len(content), lambda _: None, quick=False)
    glance(io.BytesIO(content), len(content))
