"""Reads YAML into checked values that know their place.

YAML's own types are not used: a text stays as it is written (``010`` is not 8, ``no`` is not False).
"""

# Without `from __future__ import annotations`, as NamedTuple would then compile every annotation at every start.

import contextlib
import re
import unicodedata
from collections.abc import Iterable
from typing import Any, NamedTuple

import yaml

from ckptrules.engine.ruleset import Fault, Location
from ckptrules.engine.shapes import Choice, Either, Keys, ListOf, MapOf, Number, Shape, Text
from ckptrules.engine.spelling import closest, one_of

MAX_BYTES = 1_000_000
ALIAS = "an alias (*name) is not allowed in rules"
MAX_DEPTH = 12
IN_NO_NAME = re.compile(r"[\0\ud800-\udc7f\udd00-\udfff]")  # other surrogates stand for bytes that are not UTF-8
NO_SPACE = r"\s*(?:- )?\w+:[^\s/].*"  # a key and its value without a space between them
ODD = "“”„‟‘’‚‛«»\u200b\u200e\u200f\u2060\ufeff"  # look like quotes, or like nothing; to YAML they are text
FAST = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, if PyYAML was built with it
MAX_DIGITS = 18
KINDS: dict[type, type] = {yaml.MappingNode: dict, yaml.SequenceNode: list}
YAML_HINTS = {
    "unknown escape character": "put a regular expression in 'single quotes', where a backslash is a backslash",
    "'\\t' that cannot start any token": "indent with spaces, not with tabs",
    "expected alphabetic or numeric character": "put a pattern that begins with '*' in quotes",
    "expected ',' or ']'": "a list ends with ']', and a comma stands between two values",
    "expected ',' or '}'": "a mapping ends with '}', and a comma stands between two keys",
    "unexpected end of stream": "a quote is not closed",
    "mapping values are not allowed": "put a text that holds ': ' in quotes; or the line above lacks its ':'",
    "could not find expected ':'": "the line above lacks its ':'",
    "expected <block end>": "what belongs together begins in one column; nothing stands behind a closing quote",
    "sequence entries are not allowed": "a list begins on a line of its own, or stands in [brackets]",
    "that cannot start any token": "put a text that begins with it in quotes",
}
SPACE_HINT = "put a space behind the ':' of a key"


def path_fault(text: str) -> str:
    """Return why a text can be no path below outputs_dir."""
    is_bad = not {"", ".", ".."}.isdisjoint(text.split("/"))
    return f"'{text}' must be a path below outputs_dir, without '..' or empty parts" if is_bad else ""


def name_fault(text: str) -> str:
    """Return why a shell pattern can fit no name: it is one for paths, or a regular expression."""
    if "\\" in text:
        return f"'{text}' has a '\\': this is a shell pattern, and no regular expression"
    return f"'{text}' has a '/', and no name has one" if "/" in text else ""


class Value(NamedTuple):
    """A checked value.

    Attributes:
        data: a text, a number, a list of values, or a mapping of them.
        place: where it stands.
        key_place: where its key stands.
        quoted: whether it is a text in quotes, which begins one column behind its place.
        given: all keys of a mapping, also those that were refused.
        whole: whether a mapping has all required keys; others are left out of lists.
    """

    data: Any
    place: Location
    key_place: Location | None = None
    quoted: bool = False
    given: frozenset[str] = frozenset()
    whole: bool = True

    @property
    def several(self) -> "list[Value]":
        """The values of a list; of any other value, itself."""
        return self.data if isinstance(self.data, list) else [self]

    def items(self) -> "Iterable[tuple[str, Value]]":
        """Return the items of a mapping."""
        mapping: dict[str, Value] = self.data
        return mapping.items()

    def get(self, key: str) -> "Value | None":
        """Return one value of a mapping, or None."""
        mapping: dict[str, Value] = self.data
        return mapping.get(key)


def read_yaml(text: str, file: str, shape: Shape, faults: list[Fault]) -> Value | None:
    """Read one YAML document; add what is wrong to ``faults``, and return the rest."""
    start = Location(file, 1, 1)
    if len(text) > MAX_BYTES:
        faults.append(Fault(start, f"the file is larger than {MAX_BYTES:,} bytes"))
        return None
    try:
        node = _parsed(text, file)
        if isinstance(node, Fault):
            faults.append(node)
            return None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Location(file, mark.line + 1, mark.column + 1) if mark else start
        problem = str(error.problem or error.context)
        hint = next((hint for part, hint in YAML_HINTS.items() if part in problem), "")
        if any(re.fullmatch(NO_SPACE, line) for line in text.splitlines()[max(place.line - 2, 0) : place.line]):
            hint = SPACE_HINT
        faults.append(Fault(place, f"not valid YAML: {problem}", hint))
        return None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        place = Location(file, before.count("\n") + 1, error.position - before.rfind("\n"))
        faults.append(Fault(place, f"not valid YAML: character U+{ord(text[error.position]):04X} is not allowed"))
        return None
    if node is None:
        return Value({}, start)
    return _Checker(text.splitlines(), file, faults).read(node, shape, "the file")


def _parsed(text: str, file: str) -> yaml.Node | Fault | None:
    """Parse the text. If libyaml refuses it, PyYAML's own parser words the error, so that all users see the same."""
    with contextlib.suppress(yaml.YAMLError, UnicodeError):
        return parsed_by(FAST, text, file)
    return parsed_by(yaml.SafeLoader, text, file)


def parsed_by(loader: Any, text: str, file: str) -> yaml.Node | Fault | None:
    """Parse the text with one of the two parsers.

    Raises:
        yaml.YAMLError: it is not valid YAML.
    """
    return _refused_event(loader, text, file) or yaml.compose(text, Loader=loader)


def _refused_event(loader: Any, text: str, file: str) -> Fault | None:
    """Return the fault of the first alias, second document, deep nesting or bad escape, before anything is built."""
    depth = documents = 0

    def refused(fact: str, hint: str = "") -> Fault:
        mark = event.start_mark
        place = Location(file, mark.line + 1, mark.column + 1) if mark else Location(file, 1, 1)
        return Fault(place, fact, hint)

    for event in yaml.parse(text, Loader=loader):
        if isinstance(event, yaml.AliasEvent):
            return refused(ALIAS, "write the value out; a pattern that begins with '*' wants quotes")
        if isinstance(event, yaml.ScalarEvent) and IN_NO_NAME.search(event.value):
            return refused("not valid YAML: an escape stands for NUL, or for half of a letter")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.DocumentStartEvent):
            documents += 1
        if depth > MAX_DEPTH:
            return refused(f"nested deeper than {MAX_DEPTH} levels")
        if documents > 1:
            return refused("a second document in one file", "put it in a file of its own")
    return None


class _Checker(NamedTuple):
    """Checks nodes of one file by shapes; ``what`` is the name of a node in messages."""

    lines: list[str]
    file: str
    faults: list[Fault]

    def read(self, node: yaml.Node, shape: Shape, what: str) -> Value | None:
        match shape:
            case Text():
                return self.text(node, shape, what)
            case Number():
                return self.number(node, shape, what)
            case Choice():
                return self.choice(node, shape, what)
            case ListOf():
                return self.list(node, shape, what)
            case Keys() | MapOf():
                return self.mapping(node, shape, what)
            case Either():
                return self.read(node, shape.meant(KINDS.get(type(node), str)), what)

    def place(self, node: yaml.Node) -> Location:
        return Location(self.file, node.start_mark.line + 1, node.start_mark.column + 1)

    def refuse(self, node: yaml.Node, fact: str, hint: str = "") -> None:
        self.faults.append(Fault(self.place(node), fact, hint))

    def scalar(self, node: yaml.Node, what: str, wanted: str) -> str | None:
        if not isinstance(node, yaml.ScalarNode):
            self.refuse(node, f"{what} must be {wanted}, not {_called(node)}")
        elif not node.style and self.is_cut(node):
            hint = "put the text in quotes, or a space behind the '#' of a comment"
            self.refuse(node, f"{what} is cut off at ' #' (YAML takes the rest for a comment)", hint)
        elif not node.style and (odd := _odd(node.value)):
            hint = "type it anew, with ' as quote and plain spaces; if it is meant, put all of it in 'quotes'"
            self.refuse(node, f"{what} has a {odd} at one end, which is a letter like any other to YAML", hint)
        elif node.value == "":
            self.refuse(node, f"{what} is empty")
        else:
            return str(node.value)
        return None

    def is_cut(self, node: yaml.ScalarNode) -> bool:
        end = node.end_mark
        rest = self.lines[end.line][end.column :].lstrip() if end.line < len(self.lines) else ""
        return len(rest) > 1 and rest[0] == "#" and not rest[1].isspace()

    def text(self, node: yaml.Node, shape: Text, what: str) -> Value | None:
        is_quoted = getattr(node, "style", None) in ("'", '"')
        if shape.empty and is_quoted and node.value == "":
            return Value("", self.place(node), quoted=True)
        text = self.scalar(node, what, "text")
        if text is None:
            return None
        if fault := shape.fault(text):
            self.refuse(node, f"{what}: {fault}")
            return None
        return Value(text, self.place(node), quoted=is_quoted)

    def number(self, node: yaml.Node, shape: Number, what: str) -> Value | None:
        wanted = f"a whole number, {shape.minimum} {'or more' if shape.maximum is None else f'to {shape.maximum}'}"
        wanted += "" if shape.also is None else f", or {shape.also}"
        text = self.scalar(node, what, wanted)
        if text is None:
            return None
        if shape.also is not None and text == str(shape.also):
            return Value(shape.also, self.place(node))
        is_number = text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS
        if not (is_number and shape.minimum <= int(text) <= (shape.maximum or int(text))):
            self.refuse(node, f"{what} must be {wanted}, not '{text}'")
            return None
        return Value(int(text), self.place(node))

    def choice(self, node: yaml.Node, shape: Choice, what: str) -> Value | None:
        wanted = " or ".join(shape.words)
        text = self.scalar(node, what, wanted)
        if text is None:
            return None
        if text not in shape.words:
            self.refuse(node, f"{what} must be {wanted}, not '{text}'", closest(text, shape.words))
            return None
        return Value(shape.words[text], self.place(node))

    def list(self, node: yaml.Node, shape: ListOf, what: str) -> Value | None:
        if not isinstance(node, yaml.SequenceNode) and _is_empty(node):
            self.refuse(node, f"{what} is empty")
            return None
        if not isinstance(node, yaml.SequenceNode):
            self.refuse(node, f"{what} must be a list, not {_called(node)}", _as_list(node, shape.item))
            return None
        if not node.value and not shape.empty:
            self.refuse(node, f"{what} is empty")
        values = [self.read(item, shape.item, f"{what}[{index}]") for index, item in enumerate(node.value)]
        return Value([value for value in values if value and value.whole], self.place(node))

    def mapping(self, node: yaml.Node, mapping: Keys | MapOf, what: str) -> Value | None:
        if not isinstance(node, yaml.MappingNode):
            fact = "is empty" if _is_empty(node) else f"must be a mapping, not {_called(node)}"
            hint = SPACE_HINT if re.fullmatch(NO_SPACE, str(node.value)) else _as_mapping(mapping, what)
            self.refuse(node, f"{what} {fact}", hint)
            return None
        if isinstance(mapping, MapOf) and not node.value:
            self.refuse(node, f"{what} is empty")
            return None
        values: dict[str, Value] = {}
        seen: set[str] = set()
        for key_node, value_node in node.value:
            key = self.scalar(key_node, f"a key of {what}", "text")
            if key is None:
                continue
            shape = mapping.keys.get(key) if isinstance(mapping, Keys) else mapping.item
            if key in seen:
                both = (
                    "" if isinstance(value_node, yaml.ScalarNode) else f"put what stands below both under one '{key}:'"
                )
                self.refuse(key_node, f"{what} has '{key}' twice", both)
            elif shape is None and isinstance(mapping, Keys):
                self.refuse(key_node, f"{what} has no key '{key}'", _belongs(key, mapping))
            elif shape and (value := self.read(value_node, shape, key if what == "the file" else f"{what}: {key}")):
                values[key] = value._replace(key_place=self.place(key_node))
            seen.add(key)
        found = Value(values, self.place(node), given=frozenset(seen))
        if isinstance(mapping, MapOf):
            return found
        if lacks := [f"'{key}'" for key in mapping.required if key not in seen]:
            self.refuse(node, f"{what} has no {' and no '.join(lacks)}", f"write {_keys_of(mapping)}")
        return found._replace(whole=values.keys() >= set(mapping.required))


def _is_empty(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.value == ""


def _odd(text: str) -> str:
    """Name the sign at an end of a plain text that only looks like a quote or a space; empty where there is none."""
    odd = (one for one in text[:1] + text[-1:] if one in ODD or one.isspace())
    return next((f"{unicodedata.name(one, 'space')} (U+{ord(one):04X})" for one in odd), "")


def _called(node: yaml.Node) -> str:
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    return "a mapping" if isinstance(node, yaml.MappingNode) else f"'{node.value}'"


def _as_list(node: yaml.Node, item: Shape) -> str:
    """Return the hint on how to write a list of such items in place of the node."""
    if isinstance(item, Keys):
        return f"begin each with a dash: - {_keys_of(item)}"
    if isinstance(item, Text) and isinstance(node, yaml.MappingNode):
        return f"write [{', '.join(str(key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode))}]"
    return "put the value in [brackets]"


def _as_mapping(shape: Keys | MapOf, what: str) -> str:
    """Return the hint on how to write a mapping; if one of its keys stands where a name belongs, on that name."""
    if isinstance(shape, MapOf):
        return f"write {{NAME: {'{KEY: …}' if isinstance(shape.item, Keys | MapOf) else '…'}}}"
    key = what.rpartition(": ")[2]
    if key in shape.keys:
        return f"a name stands above it: default: {{{key}: …}}"
    return f"write {_keys_of(shape)}" if shape.required else ""


def _belongs(key: str, mapping: Keys) -> str:
    """Return the hint for a key that a mapping does not have: where it belongs, or which one may be meant."""
    for name, inner in mapping.keys.items():
        if isinstance(inner, MapOf) and isinstance(inner.item, Keys) and key in inner.item.keys:
            return f"it belongs below a name: {name}: {{default: {{{key}: …}}}}"
    return one_of(key, tuple(mapping.keys))


def _keys_of(shape: Keys) -> str:
    return "{" + ", ".join(f"{key}: …" for key in shape.required or shape.keys) + "}"
