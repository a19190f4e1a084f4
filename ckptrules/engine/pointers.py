"""Read pointer files (``last_checkpoint``, ``latest``): find the names in them, and replace them. Pure."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import cycle
from typing import NamedTuple

from ckptrules.engine.checkpoints import Mention, numbers_told

LONGEST = 16 * 1024  # bytes; pointer files have a few lines
LONGEST_LIST = 64 * 1024  # bytes of a list of checksums: each rename puts a copy of the file into the trash
_NO_TEXT = re.compile(rb"[^\t\n\f\r\x20-\x7e\x80-\xff]")
_CHECKSUM = rb"[0-9A-Fa-f]{32,128}"
_LIST = re.compile(rb"(?:(?:\\?%b [ *][^\n]+|[\w/-]+ ?\([^\n]+\) = %b|[#;][^\n]*|)\n)*" % (_CHECKSUM, _CHECKSUM))
_DIGIT, _LETTER = re.compile("[0-9]"), re.compile(r"[^\W\d_]")
_NUMBER = re.compile(
    rb"(?:(?<![\w.-])([\"']?)([A-Za-z_][\w.-]*+)\1[ \t]*+[:=][ \t]*+)?"
    rb"([\"']?)(?<![\d.])([+-]?\d{1,18}(?:\.\d*+)?)(?![\d.])\3"
)
_COUNTED = re.compile(
    rb"(?<![\w./\\-])([\"']?)((?:(?:best|last|latest|global|current)[-_]?(?:[a-z]{1,20}[-_])?)?"
    rb"(?:epoch|step|iteration|iter)(?:_(?:idx|index|num|number))?)\1"
    rb"(?:[ \t]*+[:=][ \t]*+|[ \t]++)([\"']?)(\d{1,18}(?:\.0*+)?)(?![\w./\\-])\3",
    re.IGNORECASE,
)
_FLOAT = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?")
_FEW = 3  # numbers after such keys; a file with more is a history
_BETWEEN = b" \t\r\n{}[],;"  # what may separate numbers in a file of nothing but numbers
_MARK = b"\xef\xbb\xbf"  # the byte order mark of UTF-8, which Windows writes
_KEY = re.compile(rb"[ \t]*(?:export[ \t]+)?[A-Za-z_][\w.]*=[\"']?")
_STARTS, _ENDS = re.compile(rb"(?<![\w.=+\-])"), re.compile(rb"(?![\w=+\-]|\.\w)")  # of a word
_LEAD = re.compile(r"[-_.]+[A-Za-z]*[-_.]*$")
FieldsOf = Callable[[str], Mapping[str, str]]
Texts = Mapping[str, Sequence["PointerText"]]  # by the name that they name
Renames = Mapping[str, str]  # old to new names of one checkpoint with its parts and sidecars


def is_text(content: bytes) -> bool:
    """Return whether this may be the content of a pointer file: text of at most `LONGEST` bytes, no control bytes.

    A file that is only a list of checksums may have `LONGEST_LIST` bytes.
    """
    size = len(content)
    is_short = size <= LONGEST or (size <= LONGEST_LIST and _LIST.fullmatch(content.rstrip(b"\n") + b"\n") is not None)
    return is_short and _NO_TEXT.search(content) is None


class PointerText(NamedTuple):
    """A text in a pointer file, and all names that it names."""

    pointer: str
    text: str
    names: tuple[str, ...]


class Index:
    """Finds the names of a directory that a file names, in a time that is independent of their number."""

    def __init__(self, names: Iterable[str], fields_of: FieldsOf) -> None:
        self._fields_of = fields_of
        self._named: dict[bytes, list[tuple[str, str]]] = defaultdict(list)
        self._telling: dict[int | None, list[str]] = defaultdict(list)
        for name in names:
            fields = fields_of(name)
            for text in _texts_for(name, fields):
                for spelled in set(_spellings(text)):
                    self._named[spelled].append((name, text))
            for number in _numbers_and_epoch(fields):
                self._telling[number].append(name)
        self._sizes = sorted({len(text) for text in self._named})

    def mentioned(self, content: bytes, *, protects: bool = True, called: str = "") -> tuple[Mention, ...]:
        """Return which names a file names, and by which texts.

        A text is the whole name, one of its `stems`, or a number in the name (`numbers_in`). A name after a key
        (``best=epoch_12.pth``) counts, but gets no text: it cannot follow a rename, since nobody knows where the key
        ends.

        Without ``protects``, only whole names count. ``called`` is the name of the file.
        """
        words = self._words(content, called)
        if not protects:
            return tuple(Mention(name, text, protects) for name, text in sorted(words) if text == name)
        behind = set[str]()  # names after keys, in lines that hold no whole name
        for line, start in _behind_keys(content):
            if not any(name == text for name, text in self._words(line, called)):
                behind.update(name for name, _ in self._words(line[start:], called))
        numbers = numbers_in(content, called)
        telling = {name for digits, _ in numbers for name in self._telling.get(int(digits), ())} - {called}
        found = []
        for name in sorted(telling.union(behind, (name for name, _ in words))):
            fields = self._fields_of(name)
            there = [text for text in _texts_for(name, fields) if (name, text) in words] or [""] * (name in behind)
            if not there:
                own, with_epoch = _numbers(fields), _numbers_and_epoch(fields)
                there = [digits for digits, is_epoch in numbers if int(digits) in (with_epoch if is_epoch else own)]
            found += [Mention(name, text) for text in there]
        return tuple(found)

    def _words(self, content: bytes, but: str) -> set[tuple[str, str]]:
        """Return the names that words or parts of paths in a text name, each with its text."""
        found = set[tuple[str, str]]()
        for start in (match.start() for match in _STARTS.finditer(content)):
            for size in self._sizes:
                named = self._named.get(content[start : start + size])
                if named and _ENDS.match(content, start + size):
                    found.update(pair for pair in named if pair[0] != but)
        return found


def mentions(content: bytes, name: str) -> bool:
    """Return whether a file has a name as a word, or as a part of a path."""
    return any(text in content and _as_word(text).search(content) for text in set(_spellings(name)))


def numbers_in(content: bytes, called: str = "") -> list[tuple[str, bool]]:
    """Return the whole numbers by which a file may name checkpoints, and whether each is called an epoch.

    If a file has nothing but numbers (one, one a line, or after keys), all count. In any other file, numbers after a
    key for epoch or step count. The key, or the name of the file (``called``), calls a number an epoch.
    """
    content = content.removeprefix(_MARK)
    is_bare = not _NUMBER.sub(b"", content).strip(_BETWEEN)
    found: dict[str, bool] = {}
    for match in (_NUMBER if is_bare else _COUNTED).finditer(content):
        whole, _, rest = match[4].decode().partition(".")
        if whole.isdigit() and not rest.strip("0"):
            says_epoch = "epoch" in called.lower() or b"epoch" in (match[2] or b"").lower()
            found[whole] = found.get(whole, False) or says_epoch
    return [*found.items()] if is_bare or len(found) <= _FEW else []


def named_alone(content: bytes, fields_of: FieldsOf) -> str:
    """Return the name or number that is all of a file's content; empty if there is more, or no rule reads the name."""
    words = content.removeprefix(_MARK).decode("utf-8", "surrogateescape").split()
    name = re.split(r"[/\\]", words[0])[-1] if len(words) == 1 else ""
    return name if _FLOAT.fullmatch(name) or (name and fields_of(name)) else ""


def stems(name: str, part: str) -> list[str]:
    """Return the stems of a name, the longest first: up to each dot, up to its part, and the name without its part.

    The word before the part belongs to it: ``-rank`` in ``ep1-ba9-rank0.pt``. A stem has a digit and a letter.
    """
    found = {name[:place] for place, letter in enumerate(name) if letter == "."}
    before, there, behind = name.rpartition(part) if part else ("", "", "")
    if there:
        found |= {start + end for start in (before, _LEAD.sub("", before)) for end in ("", behind)}
    return sorted(filter(_is_stem, found - {name}), key=lambda stem: (-len(stem), stem))


def _numbers(fields: Mapping[str, str]) -> set[int | None]:
    """Return the numbers that may stand for a name: its step and number, and its epoch if it has no step."""
    numbers = numbers_told(fields)
    return {numbers.get("step", numbers.get("epoch")), numbers.get("number")}


def _numbers_and_epoch(fields: Mapping[str, str]) -> set[int | None]:
    """Return these numbers, and the epoch of a name that has a step as well."""
    return _numbers(fields) | {numbers_told(fields).get("epoch")}


def _texts_for(name: str, fields: Mapping[str, str]) -> list[str]:
    return [name, *stems(name, fields.get("part", ""))]


def _behind_keys(content: bytes) -> list[tuple[bytes, int]]:
    """Return the lines that begin with a key, each with the place where its value begins."""
    return [(line, key.end()) for line in content.splitlines() if (key := _KEY.match(line))]


def with_other_name(content: bytes, name: str, other: str) -> bytes:
    """Return the content with one name replaced by another, and every other byte as it was."""
    for text, instead in zip(_spellings(name), cycle(_spellings(other)[:3])):
        content = _as_word(text).sub(instead.replace(b"\\", b"\\\\"), content)
    return content


def by_name(pointers: Mapping[str, Sequence[Mention]]) -> Texts:
    """Return the texts of pointer files by the names that they name."""
    found: dict[str, list[PointerText]] = defaultdict(list)
    for pointer, mentions_there in pointers.items():
        names: dict[str, list[str]] = defaultdict(list)
        for mention in mentions_there:
            names[mention.text].append(mention.name)
        for text, named in names.items():
            for name in named:
                found[name].append(PointerText(pointer, text, tuple(named)))
    return found


def repoints(texts: Texts, renames: Renames) -> Iterator[tuple[str, str, str]]:
    """Yield pointer file, old text and new text for each text that these renames change."""
    for pointer, text, names in _touched(texts, renames):
        if new := _new_text(text, names, renames):
            yield pointer, text, new


def cannot_follow(texts: Texts, renames: Renames, fields: Mapping[str, str]) -> str:
    """Return the pointer file that could not follow these renames; empty where all could.

    ``fields`` are those of the new name.
    """
    for pointer, text, names in _touched(texts, renames):
        if text in names:
            continue
        if not (int(text) in _numbers_and_epoch(fields) if _is_number(text) else _new_text(text, names, renames)):
            return pointer
    return ""


def _touched(texts: Texts, renames: Renames) -> list[PointerText]:
    return sorted({text for name in renames for text in texts.get(name, ())})


def _new_text(text: str, names: Sequence[str], renames: Renames) -> str:
    """Return the text that replaces a text; empty if the old one stays true, or no text fits all its names."""
    if not text:
        return ""
    if text in names or _is_number(text):
        return renames.get(text, "") if text in names else ""
    ends = {name: name[len(text) :] for name in names if name.startswith(text)}
    if len(ends) < len(names):
        return ""
    new = {renames.get(name, "").removesuffix(end) for name, end in ends.items() if renames.get(name, "").endswith(end)}
    stem = new.pop() if len(new) == 1 else ""
    return stem if _is_stem(stem) and all(renames.get(name) == stem + end for name, end in ends.items()) else ""


def _is_stem(text: str) -> bool:
    return _DIGIT.search(text) is not None and _LETTER.search(text) is not None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _as_word(text: bytes) -> re.Pattern[bytes]:
    return re.compile(_STARTS.pattern + re.escape(text) + _ENDS.pattern)


def _spellings(name: str) -> tuple[bytes, ...]:
    """Return a name as it is and as JSON and YAML escape it, then the same for the other Unicode forms.

    A disk, an archive or a copy may have changed the Unicode form of a name.
    """
    if name.isascii():
        return (name.encode(),) * 3
    forms = dict.fromkeys((name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD"))))
    spelled = ((one, json.dumps(one)[1:-1], "".join(map(_in_yaml, one))) for one in forms)
    return tuple(text.encode("utf-8", "surrogateescape") for form in spelled for text in form)


def _in_yaml(letter: str) -> str:
    code = ord(letter)
    if code < 0x80:  # noqa: PLR2004 - ASCII
        return letter
    return f"\\x{code:02X}" if code <= 0xFF else f"\\u{code:04X}" if code <= 0xFFFF else f"\\U{code:08X}"  # noqa: PLR2004 - the three widths
