"""Pure: text files that name checkpoints (``last_checkpoint``, ``latest``): which ones, and others in their place."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import cycle
from typing import NamedTuple

from ckptrules.engine.checkpoints import Mention, numbers_told

LONGEST = 16 * 1024  # bytes; such files have a few lines
LONGEST_LIST = 64 * 1024  # bytes of a list of checksums: what it held goes to the trash once for each rename
_NO_TEXT = re.compile(rb"[^\t\n\f\r\x20-\x7e\x80-\xff]")
_CHECKSUM = rb"[0-9A-Fa-f]{32,128}"
_LIST = re.compile(rb"(?:(?:\\?%b [ *][^\n]+|[\w/-]+ ?\([^\n]+\) = %b|[#;][^\n]*|)\n)*" % (_CHECKSUM, _CHECKSUM))
_DIGIT, _LETTER = re.compile("[0-9]"), re.compile(r"[^\W\d_]")
_NUMBER = re.compile(
    rb"(?:(?<![\w.-])([\"']?)([A-Za-z_][\w.-]*+)\1[ \t]*+[:=][ \t]*+)?"
    rb"([\"']?)(?<![\d.])([+-]?\d{1,18}(?:\.\d*+)?)(?![\d.])\3"
)
_COUNTED = re.compile(
    rb"(?<![\w./\\-])([\"']?)((?:best_|last_|latest_|global_|current_)?(?:epoch|step|iteration|iter))\1"
    rb"[ \t]*+[:=][ \t]*+([\"']?)(\d{1,18}(?:\.0*+)?)(?![\w./\\-])\3",
    re.IGNORECASE,
)
_FEW = 3  # numbers behind such keys; more are those of a history
_BETWEEN = b" \t\r\n{}[],;"  # what may stand between numbers where a file holds nothing else
_MARK = b"\xef\xbb\xbf"  # of UTF-8, which Windows puts in front
_KEY = re.compile(rb"[ \t]*(?:export[ \t]+)?[A-Za-z_][\w.]*=[\"']?")
_STARTS, _ENDS = re.compile(rb"(?<![\w.=+\-])"), re.compile(rb"(?![\w=+\-]|\.\w)")  # of a word, whatever it holds
_LEAD = re.compile(r"[-_.]+[A-Za-z]*[-_.]*$")
FieldsOf = Callable[[str], Mapping[str, str]]
Texts = Mapping[str, Sequence["PointerText"]]  # by what they name
Renames = Mapping[str, str]  # of what is renamed together, all or none: old names, and the new ones


def is_text(content: bytes) -> bool:
    """Say whether this can be the content of a pointer file: text of some kB, without control bytes.

    A list of checksums, and nothing else, may be longer.
    """
    size = len(content)
    is_short = size <= LONGEST or (size <= LONGEST_LIST and _LIST.fullmatch(content.rstrip(b"\n") + b"\n") is not None)
    return is_short and _NO_TEXT.search(content) is None


class PointerText(NamedTuple):
    """A text in a pointer file, and all that it names."""

    pointer: str
    text: str
    names: tuple[str, ...]


class Index:
    """Finds the names of a directory that a file may name, in a time that does not grow with their number."""

    def __init__(self, names: Iterable[str], fields_of: FieldsOf) -> None:
        self._named: dict[bytes, list[str]] = defaultdict(list)
        self._telling: dict[int | None, list[str]] = defaultdict(list)
        for name in names:
            fields = fields_of(name)
            for text in {spelled for one in _texts_for(name, fields) for spelled in _spellings(one)}:
                self._named[text].append(name)
            for told in _may_be_told(fields):
                self._telling[told].append(name)
        self._sizes = sorted({len(text) for text in self._named})

    def near(self, content: bytes) -> set[str]:
        """Return all names that `mentioned` would find in a file, and few others."""
        found = {name for digits, _ in numbers_in(content) for name in self._telling.get(int(digits), ())}
        for text in (content, b"\n".join(line[start:] for line, start in _behind_keys(content))):
            for start in (match.start() for match in _STARTS.finditer(text)):
                for size in self._sizes:
                    names = self._named.get(text[start : start + size])
                    if names and _ENDS.match(text, start + size):
                        found.update(names)
        return found


def mentions(content: bytes, name: str) -> bool:
    """Say whether a file names a checkpoint: as a word, or as a part of a path of this machine or another."""
    return any(text in content and _as_word(text).search(content) for text in set(_spellings(name)))


def mentioned(
    content: bytes, names: Iterable[str], fields_of: FieldsOf, *, protects: bool = True, called: str = ""
) -> tuple[Mention, ...]:
    """Return which names a file names, and each text that stands there for it.

    That is the whole name; or a stem, from which the name goes on with a dot or with what its format captures as
    ``part``, or the name without that; or numbers that the name tells (`numbers_in`). A stem has a digit and a letter.
    What stands behind a key (``best=epoch_12.pth``) is meant, and has no text: it cannot follow.

    Where what is named does not stay (``protects``), only whole names count. The file is ``called`` so.
    """
    numbers = numbers_in(content, called) if protects else []
    lines = _behind_keys(content) if protects else []
    values = b"\n".join(line[start:] for line, start in lines)
    beside = sorted(names)
    found = []
    for name in beside:
        texts = _texts_for(name, fields_of(name)) if protects else [name]
        said = [text for text in texts if mentions(content, text)]
        behind = [] if said else [text for text in texts if mentions(values, text)]
        meant = [line for line, start in lines if behind and any(mentions(line[start:], text) for text in behind)]
        if any(not any(mentions(line, other) for other in beside) for line in meant):
            said = [""]  # it stays, and nothing is written there: who knows where a key ends
        if not said:
            told, with_epoch = _told(fields_of(name)), _may_be_told(fields_of(name))
            said = [digits for digits, is_epoch in numbers if int(digits) in (with_epoch if is_epoch else told)]
        found += [Mention(name, text, protects) for text in said]
    return tuple(found)


def numbers_in(content: bytes, called: str = "") -> list[tuple[str, bool]]:
    """Return the whole numbers by which a file may name checkpoints, and whether each may be an epoch beside a step.

    Those of a file that holds nothing but numbers: one, one a line, or such behind keys; else what stands behind a key
    for an epoch or a step. The key says that it is an epoch, or how the file is ``called``.
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
    """Return the one name that a file holds and nothing else, if the rules read it; or the one number."""
    words = content.removeprefix(_MARK).decode("utf-8", "surrogateescape").split()
    name = re.split(r"[/\\]", words[0])[-1] if len(words) == 1 else ""
    return name if _is_number(name) or (name and fields_of(name)) else ""


def stems(name: str, part: str) -> list[str]:
    """Return the stems of a name, the longest first: up to each dot, up to its part, and the name without its part.

    A word that leads to the part belongs to it: of ``ep1-ba9-rank0.pt`` that is ``-rank``.
    """
    found = {name[:place] for place, letter in enumerate(name) if letter == "."}
    before, there, behind = name.rpartition(part) if part else ("", "", "")
    if there:
        found |= {start + end for start in (before, _LEAD.sub("", before)) for end in ("", behind)}
    return sorted(filter(_is_stem, found - {name}), key=lambda stem: (-len(stem), stem))


def _told(fields: Mapping[str, str]) -> set[int | None]:
    """Return the numbers that a name tells: its step and number, and its epoch where it tells no step."""
    told = numbers_told(fields)
    return {told.get("step", told.get("epoch")), told.get("number")}


def _may_be_told(fields: Mapping[str, str]) -> set[int | None]:
    """Return also the epoch beside a step, which a file of epochs tells."""
    return _told(fields) | {numbers_told(fields).get("epoch")}


def _texts_for(name: str, fields: Mapping[str, str]) -> list[str]:
    return [name, *stems(name, fields.get("part", ""))]


def _behind_keys(content: bytes) -> list[tuple[bytes, int]]:
    """Return the lines that begin with a key, each with where its value begins."""
    return [(line, key.end()) for line in content.splitlines() if (key := _KEY.match(line))]


def with_other_name(content: bytes, name: str, other: str) -> bytes:
    """Put another name in the place of one; everything else stays as it is, byte by byte."""
    for text, instead in zip(_spellings(name), cycle(_spellings(other)[:3])):
        content = _as_word(text).sub(instead.replace(b"\\", b"\\\\"), content)
    return content


def by_name(pointers: Mapping[str, Sequence[Mention]]) -> Texts:
    """Map what pointer files name to the texts by which they do."""
    found: dict[str, list[PointerText]] = defaultdict(list)
    for pointer, said in pointers.items():
        names: dict[str, list[str]] = defaultdict(list)
        for mention in said:
            names[mention.text].append(mention.name)
        for text, named in names.items():
            for name in named:
                found[name].append(PointerText(pointer, text, tuple(named)))
    return found


def repoints(texts: Texts, renames: Renames) -> Iterator[tuple[str, str, str]]:
    """Yield what is to be put into pointer files by renames that belong together: the file, old text, new text."""
    for pointer, text, names in _touched(texts, renames):
        if new := _new_text(text, names, renames):
            yield pointer, text, new


def cannot_follow(texts: Texts, renames: Renames, fields: Mapping[str, str]) -> str:
    """Return the pointer file that could not follow some renames that belong together, or nothing.

    The fields are those that the new names tell.
    """
    for pointer, text, names in _touched(texts, renames):
        if text in names:
            continue
        if not (int(text) in _may_be_told(fields) if _is_number(text) else _new_text(text, names, renames)):
            return pointer
    return ""


def _touched(texts: Texts, renames: Renames) -> list[PointerText]:
    return sorted({text for name in renames for text in texts.get(name, ())})


def _new_text(text: str, names: Sequence[str], renames: Renames) -> str:
    """Return what is to stand in the place of a text, or nothing: it stays true, or nothing can stand for all names."""
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
    """Return a name as it is, and as JSON and YAML write what is not ASCII; then in other forms of Unicode.

    A disk, an archive or a copy may have composed the letters of a name, or taken them apart.
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
