"""A stack machine that runs a pickle's opcodes and does nothing.

``pickletools`` in the standard library describes every opcode. The machine knows those for plain values; where the
real one would import a name or call it, it puts an inert stand-in on the stack. No opcode copies more than it takes
from the stack, no value is kept twice, and no made-up value is hashed, compared or printed, so that values nested in
each other a million times cost no more than their opcodes: some 80 bytes each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeGuard

LONGEST_KEY = 1000  # characters
LONGEST_NUMBER = 63  # bits
HIGHEST_MEMO = 3_000_000  # picklers number what they note from 0, one by one; the largest real ones reach some 100,000
MOST_NAMES = 10_000  # different ones, of up to 1000 characters; a checkpoint has some dozens


class UnreadableError(ValueError):
    """A pickle that is damaged, cut off, too long, or uses what a checkpoint does not need; the message is one fact."""


class TooLongError(UnreadableError):
    """What is longer than is read: nothing is known against it, and nothing for it either."""


class Name(NamedTuple):
    """The stand-in of an imported name: only its text, ``module.attribute``."""

    text: str


class Made:
    """The stand-in of whatever a call, a class or a persistent id would have given; ``items`` were put in by key."""

    __slots__ = ("items",)

    def __init__(self) -> None:
        self.items: dict[object, object] | None = None


def entries_of(value: object) -> Mapping[object, object]:
    """Return the entries of a dictionary, or of what stands for one; none of anything else."""
    items = value.items if isinstance(value, Made) else value
    return items if isinstance(items, dict) else {}


class TensorData(NamedTuple):
    """A tensor's data as a torch pickle speaks of it: the class that says the type, the key, the number of elements."""

    type: str
    key: str
    elements: int


_MARK = object()
_NOTHING = object()  # under a number of the memo that was left out


class Machine:
    """The stack, the memo, and what was seen on the way. A step takes an opcode's name and its argument."""

    def __init__(self) -> None:
        self.value: object = None
        self.names: dict[str, Name] = {}
        self.storages: dict[str, TensorData] = {}
        self.states: list[Mapping[object, object]] = []
        self.stack: list[object] = []
        self.memo: list[object] = []

    def run(self, name: str, argument: object) -> None:
        """Do one opcode."""
        step = _STEPS.get(name)
        if step is None:
            raise UnreadableError(f"its pickle uses {name}, which no checkpoint needs")
        step(self, argument)

    def take(self, count: int) -> list[object]:
        """Return the top of the stack without taking it off."""
        top = self.stack[-count:]
        if len(top) != count or any(item is _MARK for item in top):
            raise IndexError
        return top

    def pop(self) -> object:
        """Take one value off the stack."""
        item = self.stack.pop()
        if item is _MARK:
            raise IndexError
        return item

    def pop_to_mark(self) -> list[object]:
        """Take everything down to the last mark off the stack, and the mark."""
        items: list[object] = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        items.reverse()
        return items

    def push(self, item: object) -> None:
        """Put a value on the stack."""
        self.stack.append(item)

    def push_tuple(self, count: int) -> None:
        """Put so many values together."""
        self.stack[-count:] = [tuple(self.take(count))]

    def note(self, index: object) -> None:
        """Note the top under a number of the memo."""
        if not (isinstance(index, int) and 0 <= index < HIGHEST_MEMO):
            raise IndexError
        left_out = index - len(self.memo) + 1
        if left_out > 0:
            self.memo += [_NOTHING] * left_out
        self.memo[index] = self.stack[-1]

    def push_noted(self, index: object) -> None:
        """Put on the stack what was noted under a number."""
        item = self.memo[index] if isinstance(index, int) and index >= 0 else _NOTHING
        if item is _NOTHING:
            raise IndexError
        self.stack.append(item)

    def put_in(self, items: Iterable[object]) -> None:
        """Put values into what is on top: a list, or a stand-in, which lets them go."""
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Made):
            raise TypeError

    def dictionary(self, _: object) -> None:
        """Make a dictionary of the pairs behind a mark."""
        pairs = self.pop_to_mark()
        self.stack.append({})
        self.fill(pairs)

    def set_item(self, _: object) -> None:
        """Put one pair into a dictionary."""
        value, key = self.pop(), self.pop()
        self.fill([key, value])

    def fill(self, flat: list[object]) -> None:
        """Put pairs into a dictionary. Only short texts and numbers serve as keys; other pairs are passed over."""
        target = self.stack[-1]
        if isinstance(target, Made) and target.items is None:
            target.items = {}
        items = target.items if isinstance(target, Made) else target
        if not isinstance(items, dict) or len(flat) % 2:
            raise TypeError
        for key, value in zip(flat[::2], flat[1::2], strict=True):
            if _is_cheap(key):
                items[key] = value

    def make(self, *_: object) -> None:
        """Put a stand-in on the stack for what a real machine would make of these, by a call or otherwise."""
        self.stack.append(Made())

    def build(self, _: object) -> None:
        """Where a real machine fills an object: note what it would have been filled with."""
        state, _ = self.pop(), self.stack[-1]  # it fails where there is none
        if isinstance(state, dict) and "relative_path" in state:
            self.states.append(state)

    def named(self, argument: object) -> Name:
        """Note a name that would be imported; ``pickletools`` gives it as ``module attribute``."""
        text = ".".join(str(argument).split(" ", 1))
        if len(text) > LONGEST_KEY + 1:
            raise UnreadableError("its pickle names what has a name of more than 1000 characters")
        if text not in self.names and len(self.names) == MOST_NAMES:
            raise TooLongError(f"a pickle that names more than {MOST_NAMES} things is not read")
        return self.names.setdefault(text, Name(text))

    def stack_global(self, _: object) -> None:
        """Where a real machine imports what is named on the stack: put the name there."""
        attribute, module = self.pop(), self.pop()
        if not (isinstance(attribute, str) and isinstance(module, str)):
            raise TypeError
        self.stack.append(self.named(f"{module} {attribute}"))

    def persistent(self, _: object) -> None:
        """Note the storage that a torch pickle speaks of."""
        said = self.pop()
        match said:
            case ("storage", Name(kind), str(key), _, int(elements), *_) if _is_cheap(key) and is_count(elements):
                self.storages[key] = TensorData(kind, key, elements)
            case ("storage", *_):
                raise UnreadableError("its pickle speaks of a tensor's data in a way that torch does not")
        self.make()

    def stop(self, _: object) -> None:
        """Take the result."""
        self.value = self.pop()


def _is_cheap(key: object) -> bool:
    """Say whether hashing and comparing a key costs next to nothing, however often it is done."""
    if isinstance(key, str):
        return len(key) <= LONGEST_KEY
    return type(key) is int and key.bit_length() <= LONGEST_NUMBER


def is_count(value: object) -> TypeGuard[int]:
    """Say whether a value is a number of things: whole, 0 or more, of 63 bits at most; true and false are none."""
    return type(value) is int and value >= 0 and value.bit_length() <= LONGEST_NUMBER


_LITERALS = (
    "INT LONG LONG1 LONG4 BININT BININT1 BININT2 STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 "
    "BYTEARRAY8 UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 FLOAT BINFLOAT"
)
_STEPS: Mapping[str, Callable[[Machine, object], object]] = {
    **dict.fromkeys(_LITERALS.split(), Machine.push),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), Machine.note),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), Machine.push_noted),
    **dict.fromkeys(("PROTO", "FRAME"), lambda *_: None),
    "NONE": lambda machine, _: machine.stack.append(None),
    "NEWTRUE": lambda machine, _: machine.stack.append(True),
    "NEWFALSE": lambda machine, _: machine.stack.append(False),
    "MARK": lambda machine, _: machine.stack.append(_MARK),
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_SET": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "TUPLE1": lambda machine, _: machine.push_tuple(1),
    "TUPLE2": lambda machine, _: machine.push_tuple(2),
    "TUPLE3": lambda machine, _: machine.push_tuple(3),
    "MEMOIZE": lambda machine, _: machine.memo.append(machine.stack[-1]),
    "POP": lambda machine, _: machine.stack.pop(),  # it may be a mark
    "POP_MARK": lambda machine, _: machine.pop_to_mark(),
    "DUP": lambda machine, _: machine.push(machine.take(1)[0]),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_to_mark())),
    "LIST": lambda machine, _: machine.push(machine.pop_to_mark()),
    "FROZENSET": lambda machine, _: machine.push(machine.pop_to_mark()),
    "DICT": Machine.dictionary,
    "APPEND": lambda machine, _: machine.put_in([machine.pop()]),
    "APPENDS": lambda machine, _: machine.put_in(machine.pop_to_mark()),
    "ADDITEMS": lambda machine, _: machine.put_in(machine.pop_to_mark()),
    "SETITEM": Machine.set_item,
    "SETITEMS": lambda machine, _: machine.fill(machine.pop_to_mark()),
    "GLOBAL": lambda machine, name: machine.push(machine.named(name)),  # a real one would import it
    "STACK_GLOBAL": Machine.stack_global,
    "REDUCE": lambda machine, _: machine.make(machine.pop(), machine.pop()),
    "NEWOBJ": lambda machine, _: machine.make(machine.pop(), machine.pop()),
    "NEWOBJ_EX": lambda machine, _: machine.make(machine.pop(), machine.pop(), machine.pop()),
    "OBJ": lambda machine, _: machine.make(machine.pop_to_mark()[0]),
    "INST": lambda machine, name: machine.make(machine.named(name), machine.pop_to_mark()),
    "BUILD": Machine.build,
    "PERSID": Machine.make,
    "BINPERSID": Machine.persistent,
    "STOP": Machine.stop,
}
