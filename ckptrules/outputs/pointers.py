"""Read the files that name checkpoints: pointer files, which follow a rename, and trackers, which do not."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache

from ckptrules.engine.checkpoints import Mention, number, numbers_told
from ckptrules.engine.entries import Listing, in_part_folder
from ckptrules.engine.measures import and_more
from ckptrules.engine.names.naming import reader
from ckptrules.engine.names.sorting import name_of
from ckptrules.engine.names.words import KEYS
from ckptrules.engine.pointers import LONGEST, Index, is_text, named_alone
from ckptrules.engine.ruleset import Reason, RuleSet, pattern_of
from ckptrules.engine.shapes import in_line
from ckptrules.outputs.links import tracks
from ckptrules.storage.looking import WEIGHTS
from ckptrules.storage.reading import why_of
from ckptrules.storage.streams import read_pointer, read_text_behind

LONGEST_PATH = 4096  # bytes: PATH_MAX of Linux
STRUCTURED = (".json", ".yaml", ".yml")
_VALUES = re.compile(
    rb"(?<![\w.-])([\w.-]++)[\"']?[ \t]*+:\s*+(?=(\{[^{}]*\}|\[[^\[\]]*\]|[^\n,{}\[\]]+))"
)  # behind keys
_BEST = re.compile(
    r"best[-_]?(?:[a-z]{1,20}[-_]|val|valid|validation|test|dev|eval|model)?"
    rf"({'|'.join(KEYS)})(?:_(?:idx|index|num|number))?",
    re.IGNORECASE,
)
_LETTER = re.compile(b"[A-Za-z]")
NO_POINTER = "no_pointer"  # id of a note
ABOVE = "../"  # before the name of a tracker, once for each folder above the checkpoint directory


def read_pointers(
    directory: int, listing: Listing, rules: RuleSet, above: Sequence[str] = ()
) -> tuple[dict[str, tuple[Mention, ...]], tuple[Reason, ...]]:
    """Return the names that each pointer file and tracker of a directory names, and notes on these files.

    ``above`` are trackers in folders above, as paths from the directory.

    Raises:
        OSError: a file that protects cannot be read, so the names in it are unknown.
    """
    found, notes = {}, list[Reason]()
    ignored = {pattern.text for pattern in rules.ignored}
    pointers, others = pointer_files(listing, rules), one_word_files(listing, rules)
    others = [*others, *(path for path in above if in_part_folder(path)[1] not in ignored)]
    if not (pointers or others):
        return {}, ()
    links = {entry.name for entry in listing.entries if entry.kind == "link"}
    texts = _Texts(listing, rules)
    for pointer, protects in pointers.items():
        content = _pointer_text(directory, pointer, is_link=pointer in links, protects=protects)
        if content is None:
            text = f"{pointer} is no pointer, as it is no short text: left as it is"
            notes += [Reason(text, id=NO_POINTER)] * (pointer not in links)  # and it protects nothing
        elif mentions := texts.mentioned(content, pointer, protects=protects):
            # The target of a link is not ours to change, and a text that grows too long would name nothing any more.
            can_follow = pointer not in links and is_text(content + b"\n#" + b"x" * (len(content) // 3))
            found[pointer] = mentions if can_follow else tuple({m._replace(text=""): None for m in mentions})
        elif name := texts.named_alone(content):
            notes.append(Reason(f"{pointer} names {name}: nothing beside it is called so"))
    for other in others:
        says_more, is_above = _says_more(other), other.startswith(ABOVE)
        content = _pointer_text(directory, other, is_link=False, protects=says_more and not is_above) or b""
        if is_above:
            content = _meant_here(content, other.count(ABOVE), listing)
        names = texts.every[texts.named_alone(content)]
        if says_more:
            names = [*names, *(one.name for one in texts.mentioned(content, other))]
        elif other.endswith(STRUCTURED):
            names = [*names, *texts.behind_keys(content, other)]
        if other not in pointers and names:
            found[other] = tuple(Mention(name, "") for name in sorted({*names}))
            notes.append(_stays_note(other, [one.name for one in found[other]]))
    return found, tuple(sorted(notes))


@lru_cache(maxsize=2)  # asked before the files are read, and by what reads them
def pointer_files(listing: Listing, rules: RuleSet) -> dict[str, bool]:
    """Map the pointer files of a directory to whether they protect the checkpoints that they name.

    A link that leads out of the directory may be a pointer file, too.
    """
    is_special, parted = rules.may_be_special, bool(listing.part_folders)  # rules out most names at once
    names = ((entry, in_part_folder(entry.name)[1] if parted else entry.name) for entry in listing.entries)
    special = [(entry, base) for entry, base in names if is_special(base)]
    files = [(e, b) for e, b in special if e.kind == "file" or (e.kind == "link" and not (e.sibling or e.dangling))]
    fitting = {e.name: [p.protects for p in rules.pointers if p.fits(base)] for e, base in files}
    return {name: any(protects) for name, protects in fitting.items() if protects}


@lru_cache(maxsize=2)  # as above
def one_word_files(listing: Listing, rules: RuleSet) -> list[str]:
    """Return the files that no rule knows and that may be trackers.

    A file without a digit in its name (``resume.txt``) may contain the name of one checkpoint and nothing else. A file
    that is a tracker by its name (``best_f1.json``) may contain more. A tracker protects what it names, but only a rule
    lets it follow a rename. A file whose whole name is in ``ignored`` is none.
    """
    read, ignored = reader(rules, len(listing.entries)), {pattern.text for pattern in rules.ignored}
    has_digit = re.compile("[0-9]").search
    files = [one for one in listing.entries if one.kind == "file" and 0 < one.size <= LONGEST]
    paths = {one.name for one in files if one.size <= LONGEST_PATH and not has_digit(one.name)}
    small = [one for one in files if one.name not in ignored and (one.name in paths or _says_more(one.name))]
    texts = ((one.name, name_of(one, read).claim.kind) for one in small)
    others = ("unrecognised", "ignored")  # best_* protects best_step.txt, a tracker, and also best_1.pt, which is none
    return [name for name, kind in texts if kind in others or (kind == "protected" and not name.endswith(WEIGHTS))]


class _Texts:
    """Finds the names in small files of one directory."""

    def __init__(self, listing: Listing, rules: RuleSet) -> None:
        self._read = reader(rules, len(listing.entries))
        self.every: dict[str, list[str]] = defaultdict(list)
        for entry in listing.entries:
            self.every[in_part_folder(entry.name)[1]].append(entry.name)

    @cached_property
    def _index(self) -> Index:
        return Index(self.every, self._fields_of)

    def _fields_of(self, name: str) -> Mapping[str, str]:
        return self._read(name, None).claim.fields

    def named_alone(self, content: bytes) -> str:
        """Return the name or number that is all of a file's content; else an empty text."""
        return named_alone(content, self._fields_of)

    def behind_keys(self, content: bytes, file: str) -> list[str]:
        """Return what is named behind keys that say so: ``{"best_checkpoint": "out/epoch_2.pth", "best_epoch": 2}``."""
        pairs = [(key.decode("latin-1"), value.strip(b" \t\r\"'")) for key, value in _VALUES.findall(content)]
        texts = b"\n".join(value for key, value in pairs if tracks(key) and _LETTER.search(value))
        named = [one.name for one in self.mentioned(texts, file)] if texts else []
        inner = [(f"{key}_{one.decode('latin-1')}", n) for key, value in pairs for one, n in _VALUES.findall(value)]
        best = [(KEYS[match[1].lower()], value) for key, value in (*pairs, *inner) if (match := _BEST.fullmatch(key))]
        counts = [(field, number(os.fsdecode(value))) for field, value in best]
        numbers = {(field, n) for key, n in counts if n is not None for field in (key, "number")}
        told = ((name, numbers_told(self._fields_of(name)).items()) for name in self.every if numbers)
        return [*named, *(name for one, own in told if own & numbers for name in self.every[one])]

    def mentioned(self, content: bytes, file: str, *, protects: bool = True) -> tuple[Mention, ...]:
        """Return the names in a file, each in every part folder that has it."""
        mentions = self._index.mentioned(content, protects=protects, called=in_part_folder(file)[1])
        return tuple(one._replace(name=name) for one in mentions for name in self.every[one.name])


def _meant_here(content: bytes, up: int, listing: Listing) -> bytes:
    """Return the content of a tracker ``up`` folders above a directory, as far as it is about this directory.

    Names after the path of this directory count; one folder above, names without a path count, too. Names after any
    other path are of another directory.
    """
    own = "/".join(listing.directory.split("/")[-up:])
    elsewhere = b"".join(b"(?<!%b)" % re.escape(os.fsencode(place)) for place in (own, *listing.part_folders))
    content = re.sub(rb"[/\\]+", b"/", content)
    if up > 1:
        content = b"\n".join(re.findall(rb"%b/([^\n]*)" % re.escape(os.fsencode(own)), content))
    return re.sub(elsewhere + rb"(?<!\.)/", b"/.", content)  # a name with a dot before it does not count


def _says_more(file: str) -> bool:
    return not file.endswith(WEIGHTS) and tracks(in_part_folder(file)[1])


def _stays_note(file: str, named: Sequence[str]) -> Reason:
    """Return the note that the checkpoints in a tracker stay as they are, and the line that would change this."""
    stays = "which stays as it is" if len(named) == 1 else "which stay as they are"
    return Reason(f"{file} names {and_more(named)}, {stays}: {line_for(file)}")


def line_for(tracker: str) -> str:
    """Return the line of a rule file that lets a tracker follow; one above the directory can only name nothing."""
    called = in_line(pattern_of(in_part_folder(tracker)[1]))
    line, does = ("ignored", "name nothing") if tracker.startswith(ABOVE) else ("pointers", "follow")
    return f"'{line}: [{called}]' lets it {does}"


def _pointer_text(directory: int, pointer: str, *, is_link: bool, protects: bool) -> bytes | None:
    """Return the content of a pointer file; empty if it is gone or cannot be read, None if it is no short text.

    Raises:
        OSError: a file that protects cannot be read.
    """
    try:
        return read_text_behind(directory, pointer) if is_link else read_pointer(directory, pointer)
    except FileNotFoundError:
        return b""
    except OSError as error:
        if protects:
            raise OSError(error.errno, f"{why_of(error)} ({pointer})") from None
        return b""
