"""Reads and writes the pins, in ``rules/pins.yaml``. People read the file; commands write it as a whole."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable, Iterable, Sequence

from ckptrules.engine.measures import NS
from ckptrules.engine.pins import Pin
from ckptrules.engine.ruleset import Fault, Location, RuleError
from ckptrules.engine.shapes import Keys, ListOf, Number, Text
from ckptrules.rules.shape import MAX_BYTES, path_fault, read_yaml
from ckptrules.rules.shipped import may_be_there, pins_file, readable
from ckptrules.storage import believing, writing

HEAD = """\
# Checkpoints that are never deleted. 'doit pin' and 'doit unpin' write this file anew, without comments of yours;
# time is in seconds since 1970.
"""
Change = Callable[[tuple[Pin, ...]], Iterable[Pin]]
_TIME = re.compile(r"-?\d{1,12}\.\d{9}", re.ASCII)


def _time_fault(text: str) -> str:
    return "" if _TIME.fullmatch(text) else f"'{text}' must be seconds with nine decimals"


SHAPE = Keys(
    "What is pinned.",
    {
        "pins": ListOf(
            "The checkpoints.",
            Keys(
                "A pinned checkpoint.",
                {
                    "path": Text("Where it is, below outputs_dir.", path_fault),
                    "size": Number("Its bytes.", 0),
                    "time": Text("When it was written, in seconds since 1970.", _time_fault),
                    "note": Text("What it is kept for."),
                },
                ("path", "size", "time"),
            ),
        )
    },
    ("pins",),
)


def read_pins(rules_dir: str | None) -> tuple[Pin, ...]:
    """Read the pins; there are none without the file.

    Raises:
        RuleError: the file cannot be read, or is invalid. Then nothing may be deleted.
    """
    path = pins_file(rules_dir)
    if not may_be_there(path):
        return ()
    with readable(Location(path, 1, 1)):
        return from_yaml(believing.read_plain(path), path)


def change_pins(rules_dir: str | None, change: Change) -> None:
    """Change the pins, durably.

    Raises:
        OSError: the file cannot be written, and is as before.
        RuleError: the file is invalid.
    """
    path = pins_file(rules_dir)

    def changed(text: str) -> str:
        new = to_yaml(sorted(change(from_yaml(text, path) if text else ())))
        if len(new) > MAX_BYTES:
            raise OSError(errno.EFBIG, f"it would be larger than {MAX_BYTES:,} bytes; 'protected' takes a pattern")
        return new

    writing.change_file(path, changed)


def from_yaml(text: str, file: str) -> tuple[Pin, ...]:
    """Parse the text of the file.

    Raises:
        RuleError: it is invalid.
    """
    faults: list[Fault] = []
    read = read_yaml(text, file, SHAPE, faults)
    if not faults and not (read and read.data):
        faults.append(Fault(Location(file, 1, 1), "the file has no 'pins'", "'pins: []' says that nothing is pinned"))
    if faults or read is None:
        raise RuleError(faults)
    rows = [({key: item.data for key, item in row.items()}, row.place) for row in read.data["pins"].data]
    pins = tuple(
        Pin(pin["path"], pin["size"], _nanoseconds(pin["time"]), pin.get("note", ""), place) for pin, place in rows
    )
    first: dict[str, Location | None] = {}
    for pin in pins:
        if pin.path in first and pin.place:
            raise RuleError([Fault(pin.place, f"'{pin.path}' is pinned above already")])
        first[pin.path] = pin.place
    return pins


def to_yaml(pins: Sequence[Pin]) -> str:
    """Return the text that `from_yaml` parses."""
    lines = [HEAD, "pins:\n" if pins else "pins: []\n"]
    for pin in pins:
        seconds, rest = divmod(pin.mtime_ns, NS)
        lines.append(f"- path: {_quoted(pin.path)}\n  size: {pin.size}\n  time: {seconds}.{rest:09}\n")
        lines += [f"  note: {_quoted(pin.note)}\n"] * bool(pin.note)
    return "".join(lines)


def _nanoseconds(text: str) -> int:
    seconds, _, rest = text.partition(".")
    return int(seconds) * NS + int(rest)


def _quoted(text: str) -> str:
    """Quote a text for YAML; escape what cannot be printed, and surrogates (bytes that are not UTF-8)."""
    letters = json.dumps(text, ensure_ascii=False)
    return "".join(letter if letter.isprintable() else f"\\U{ord(letter):08x}" for letter in letters)
