"""Pure: text files that name checkpoints (``last_checkpoint``, ``latest``): which ones, and others in their place."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from ckptrules.engine.values import Mention, number

LONGEST = 16 * 1024  # bytes; such files have a few lines
LONGEST_LIST = 64 * 1024  # bytes of a list of checksums: what it held goes to the trash once for each rename
_NO_TEXT = re.compile(rb"[^\t\n\f\r\x20-\x7e\x80-\xff]")
_CHECKSUM = rb"[0-9A-Fa-f]{32,128}"
_LIST = re.compile(rb"(?:(?:\\?%b [ *][^\n]+|[\w/-]+ ?\([^\n]+\) = %b|[#;][^\n]*|)\n)*" % (_CHECKSUM, _CHECKSUM))
_DIGIT, _LETTER = re.compile("[0-9]"), re.compile(r"[^\W\d_]")
_NUMBER = re.compile(rb"\s*(\d{1,18})\s*")
FieldsOf = Callable[[str], Mapping[str, str]]
Renames = Mapping[str, str]  # of what is renamed together, all or none: old names, and the new ones


def is_text(content: bytes) -> bool:
    """Say whether this can be the content of a pointer file: text of some kB, without control bytes.

    A list of checksums, and nothing else, may be longer.
    """
    size = len(content)
    is_short = size <= LONGEST or (size <= LONGEST_LIST and _LIST.fullmatch(content.rstrip(b"\n") + b"\n") is not None)
    return is_short and _NO_TEXT.search(content) is None


def mentions(content: bytes, name: str) -> bool:
    """Say whether a file names a checkpoint: as a word, or as a part of a path of this machine or another."""
    return any(text in content and _as_word(text).search(content) for text in set(_spellings(name)))


def mentioned(
    content: bytes, names: Iterable[str], fields_of: FieldsOf, *, protects: bool = True
) -> tuple[Mention, ...]:
    """Return which names a file names, and each text that stands there for it.

    That is the whole name; or a stem, from which the name goes on with a dot or with what its format captures as
    ``part``; or, where the file holds nothing else, a number that the name tells. A stem has a digit and a letter.

    Args:
        content: of the file.
        names: those beside it.
        fields_of: the fields that the rules capture of a name.
        protects: whether what is named stays; else only whole names count.
    """
    alone = _NUMBER.fullmatch(content) if protects else None
    digits = alone[1].decode() if alone else ""
    found = []
    for name in sorted(names):
        texts = [name, *stems(name, fields_of(name).get("part", ""))] if protects else [name]
        said = [text for text in texts if mentions(content, text)]
        if not said and digits and tells(fields_of(name), int(digits)):
            said = [digits]
        found += [Mention(name, text, protects) for text in said]
    return tuple(found)


def stems(name: str, part: str) -> list[str]:
    """Return the stems of a name, the longest first: without its part, and up to each dot."""
    starts = {name[:place] for place, letter in enumerate(name) if letter == "."}
    starts |= {name.removesuffix(part)} - {name}
    return sorted(filter(_is_stem, starts), key=len, reverse=True)


def tells(fields: Mapping[str, str], wanted: int) -> bool:
    """Say whether a name tells a number as its step or number, or as its epoch where it tells no step."""
    step = number(fields.get("step"))
    return wanted in (step, number(fields.get("number"))) or (step is None and number(fields.get("epoch")) == wanted)


def with_other_name(content: bytes, name: str, other: str) -> bytes:
    """Put another name in the place of one; everything else stays as it is, byte by byte."""
    for text, instead in zip(_spellings(name), _spellings(other), strict=True):
        content = _as_word(text).sub(instead.replace(b"\\", b"\\\\"), content)
    return content


def repoints(pointers: Mapping[str, Sequence[Mention]], renames: Renames) -> Iterator[tuple[str, str, str]]:
    """Yield what is to be put into pointer files by renames that belong together: the file, old text, new text."""
    for pointer, said in sorted(pointers.items()):
        for text, names in _by_text(said).items():
            if new := _new_text(text, names, renames):
                yield pointer, text, new


def cannot_follow(pointers: Mapping[str, Sequence[Mention]], renames: Renames, fields: Mapping[str, str]) -> str:
    """Return the pointer file that could not follow some renames that belong together, or nothing.

    Args:
        pointers: what each says.
        renames: old and new names.
        fields: what the new names tell.
    """
    for pointer, said in sorted(pointers.items()):
        for text, names in _by_text(said).items():
            if text in names or not renames.keys() & set(names):
                continue
            if not (tells(fields, int(text)) if _is_number(text) else _new_text(text, names, renames)):
                return pointer
    return ""


def _by_text(said: Iterable[Mention]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for mention in said:
        found[mention.text].append(mention.name)
    return found


def _new_text(text: str, names: Sequence[str], renames: Renames) -> str:
    """Return what is to stand in the place of a text, or nothing: it stays true, or nothing can stand for all names."""
    if text in names or _is_number(text):
        return renames.get(text, "") if text in names else ""
    ends = {name: name[len(text) :] for name in names}
    new = {renames.get(name, "").removesuffix(end) for name, end in ends.items() if renames.get(name, "").endswith(end)}
    stem = new.pop() if len(new) == 1 else ""
    return stem if _is_stem(stem) and all(renames.get(name) == stem + end for name, end in ends.items()) else ""


def _is_stem(text: str) -> bool:
    return _DIGIT.search(text) is not None and _LETTER.search(text) is not None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _as_word(text: bytes) -> re.Pattern[bytes]:
    return re.compile(rb"(?<![\w.=+\-])" + re.escape(text) + rb"(?![\w=+\-]|\.\w)")


def _spellings(name: str) -> tuple[bytes, ...]:
    """Return a name as it is, and as JSON and YAML write what is not ASCII."""
    raw = name.encode("utf-8", "surrogateescape")
    if name.isascii():
        return raw, raw, raw
    return raw, json.dumps(name)[1:-1].encode(), "".join(map(_in_yaml, name)).encode()


def _in_yaml(letter: str) -> str:
    code = ord(letter)
    if code < 0x80:  # noqa: PLR2004 - ASCII
        return letter
    return f"\\x{code:02X}" if code <= 0xFF else f"\\u{code:04X}" if code <= 0xFFFF else f"\\U{code:08X}"  # noqa: PLR2004 - the three widths
