"""A stack machine that goes through a pickle's opcodes, and neither imports nor calls anything.

``pickletools`` in the standard library describes every opcode. Opcodes for plain values do what they do in `pickle`.
Opcodes that import or call something put an inert stand-in on the stack. No opcode copies more than it takes from the
stack, no value is kept twice, and no stand-in is hashed, compared or printed. So values nested in each other a million
times cost no more than their opcodes: some 80 bytes each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from ckptrules.formats.content import UnsoundError
from ckptrules.formats.limits import LONGEST_NUMBER, NotReadError, is_count

LONGEST_KEY = 1000  # characters
HIGHEST_MEMO = 3_000_000  # the memo is numbered from 0, one by one; in the largest real pickles, to some 100,000
MOST_NAMES = 10_000  # different ones, of up to 1000 characters; a checkpoint has some dozens


class Name(NamedTuple):
    """The stand-in for an imported name: only its text, ``module.attribute``."""

    text: str


class StandIn:
    """The stand-in for the result of a call, a class or a persistent id; ``items`` are those that were set by key."""

    __slots__ = ("items",)

    def __init__(self) -> None:
        self.items: dict[object, object] | None = None


def entries_of(value: object) -> Mapping[object, object]:
    """Return the entries of a dictionary, or of the stand-in for one; none for any other value."""
    items = value.items if isinstance(value, StandIn) else value
    return items if isinstance(items, dict) else {}


class TensorData(NamedTuple):
    """How a torch pickle refers to the data of a tensor: its storage class, its key, and how many elements it has."""

    type: str
    key: str
    elements: int


_MARK = object()
_NOTHING = object()  # fills numbers of the memo that were skipped


class Machine:
    """The stack and the memo, and what the opcodes so far have named: imports, tensors, states of objects."""

    def __init__(self) -> None:
        self.value: object = None
        self.names: dict[str, Name] = {}
        self.storages: dict[str, TensorData] = {}
        self.states: list[Mapping[object, object]] = []
        self.stack: list[object] = []
        self.memo: list[object] = []

    def run(self, name: str, argument: object) -> None:
        """Run one opcode."""
        step = _STEPS.get(name)
        if step is None:
            raise UnsoundError("damaged", f"its pickle uses {name}, which no checkpoint needs")
        step(self, argument)

    def pop(self, count: int) -> list[object]:
        """Take so many values off the stack; return them in the order in which they were put there."""
        items = self.stack[-count:]
        if len(items) != count or any(item is _MARK for item in items):
            raise IndexError
        del self.stack[-count:]
        return items

    def pop_to_mark(self) -> list[object]:
        """Take off the stack everything above the last mark, and the mark; return the former."""
        items: list[object] = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        items.reverse()
        return items

    def push(self, item: object) -> None:
        """Put a value on the stack."""
        self.stack.append(item)

    def push_stand_in(self, *_: object) -> None:
        """Put a stand-in on the stack for the object that `pickle` would make of these values."""
        self.stack.append(StandIn())

    def put_memo(self, index: object) -> None:
        """Put the top of the stack into the memo under a number."""
        if not (isinstance(index, int) and 0 <= index < HIGHEST_MEMO):
            raise IndexError
        self.memo += [_NOTHING] * (index + 1 - len(self.memo))
        self.memo[index] = self.stack[-1]

    def get_memo(self, index: object) -> None:
        """Put on the stack the entry of the memo under a number."""
        item = self.memo[index] if isinstance(index, int) and index >= 0 else _NOTHING
        if item is _NOTHING:
            raise IndexError
        self.stack.append(item)

    def extend_top(self, items: Iterable[object]) -> None:
        """Append values to the list on top; a stand-in ignores them."""
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, StandIn):
            raise TypeError

    def dictionary(self, _: object) -> None:
        """Make a dictionary of the keys and values above the last mark."""
        pairs = self.pop_to_mark()
        self.stack.append({})
        self.set_items(pairs)

    def set_items(self, flat: list[object]) -> None:
        """Set items of the dictionary on top. Items whose keys are not short texts or numbers are left out."""
        target = self.stack[-1]
        if isinstance(target, StandIn) and target.items is None:
            target.items = {}
        items = target.items if isinstance(target, StandIn) else target
        if not isinstance(items, dict) or len(flat) % 2:
            raise TypeError
        for key, value in zip(flat[::2], flat[1::2], strict=True):
            if _is_cheap(key):
                items[key] = value

    def build(self, _: object) -> None:
        """Note the state that `pickle` would give to the object below it."""
        (state,), _ = self.pop(1), self.stack[-1]  # fails where there is no object
        if isinstance(state, dict) and "relative_path" in state:
            self.states.append(state)

    def note_import(self, argument: object) -> Name:
        """Note a name that `pickle` would import, and return its stand-in; ``argument`` is ``module attribute``."""
        text = ".".join(str(argument).split(" ", 1))
        if len(text) > LONGEST_KEY + 1:
            raise UnsoundError("damaged", "its pickle names what has a name of more than 1000 characters")
        if text not in self.names and len(self.names) == MOST_NAMES:
            raise NotReadError(f"a pickle that names more than {MOST_NAMES} things is not read")
        return self.names.setdefault(text, Name(text))

    def stack_global(self, _: object) -> None:
        """Replace module and attribute on the stack by the stand-in for what `pickle` would import."""
        module, attribute = self.pop(2)
        if not (isinstance(attribute, str) and isinstance(module, str)):
            raise TypeError
        self.stack.append(self.note_import(f"{module} {attribute}"))

    def persistent_id(self, _: object) -> None:
        """Note the data of a tensor, to which a torch pickle refers by a tuple."""
        match self.pop(1)[0]:
            case ("storage", Name(kind), str(key), _, int(elements), *_) if _is_cheap(key) and is_count(elements):
                self.storages[key] = TensorData(kind, key, elements)
            case ("storage", *_):
                raise UnsoundError("damaged", "its pickle speaks of a tensor's data in a way that torch does not")
        self.push_stand_in()

    def stop(self, _: object) -> None:
        """Take the result off the stack."""
        (self.value,) = self.pop(1)


def _is_cheap(key: object) -> bool:
    """Say whether a key is a short text or number, which costs next to nothing to hash and compare."""
    if isinstance(key, str):
        return len(key) <= LONGEST_KEY
    return type(key) is int and key.bit_length() <= LONGEST_NUMBER


_LITERALS = (
    "INT LONG LONG1 LONG4 BININT BININT1 BININT2 STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 "
    "BYTEARRAY8 UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 FLOAT BINFLOAT"
)
_STEPS: Mapping[str, Callable[[Machine, object], object]] = {
    **dict.fromkeys(_LITERALS.split(), Machine.push),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), Machine.put_memo),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), Machine.get_memo),
    **dict.fromkeys(("PROTO", "FRAME"), lambda *_: None),
    "NONE": lambda machine, _: machine.stack.append(None),
    "NEWTRUE": lambda machine, _: machine.stack.append(True),
    "NEWFALSE": lambda machine, _: machine.stack.append(False),
    "MARK": lambda machine, _: machine.stack.append(_MARK),
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_SET": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "TUPLE1": lambda machine, _: machine.push(tuple(machine.pop(1))),
    "TUPLE2": lambda machine, _: machine.push(tuple(machine.pop(2))),
    "TUPLE3": lambda machine, _: machine.push(tuple(machine.pop(3))),
    "MEMOIZE": lambda machine, _: machine.memo.append(machine.stack[-1]),
    "POP": lambda machine, _: machine.stack.pop(),  # it may be a mark
    "POP_MARK": lambda machine, _: machine.pop_to_mark(),
    "DUP": lambda machine, _: machine.stack.extend(2 * machine.pop(1)),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_to_mark())),
    "LIST": lambda machine, _: machine.push(machine.pop_to_mark()),
    "FROZENSET": lambda machine, _: machine.push(machine.pop_to_mark()),
    "DICT": Machine.dictionary,
    "APPEND": lambda machine, _: machine.extend_top(machine.pop(1)),
    "APPENDS": lambda machine, _: machine.extend_top(machine.pop_to_mark()),
    "ADDITEMS": lambda machine, _: machine.extend_top(machine.pop_to_mark()),
    "SETITEM": lambda machine, _: machine.set_items(machine.pop(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_to_mark()),
    "GLOBAL": lambda machine, name: machine.push(machine.note_import(name)),  # `pickle` would import it
    "STACK_GLOBAL": Machine.stack_global,
    "REDUCE": lambda machine, _: machine.push_stand_in(machine.pop(2)),
    "NEWOBJ": lambda machine, _: machine.push_stand_in(machine.pop(2)),
    "NEWOBJ_EX": lambda machine, _: machine.push_stand_in(machine.pop(3)),
    "OBJ": lambda machine, _: machine.push_stand_in(machine.pop_to_mark()[0]),
    "INST": lambda machine, name: machine.push_stand_in(machine.note_import(name), machine.pop_to_mark()),
    "BUILD": Machine.build,
    "PERSID": Machine.push_stand_in,
    "BINPERSID": Machine.persistent_id,
    "STOP": Machine.stop,
}
