"""Reads the texts that name checkpoints: pointers, which follow a rename, and trackers, which do not."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from ckptrules.engine.checkpoints import Mention
from ckptrules.engine.entries import Listing, in_part_folder
from ckptrules.engine.naming import reader
from ckptrules.engine.pointers import LONGEST, Index, mentioned, named_alone
from ckptrules.engine.ruleset import Reason, RuleSet, pattern_of
from ckptrules.engine.shapes import in_line
from ckptrules.engine.sorting import name_of
from ckptrules.outputs.links import tracks
from ckptrules.storage.looking import WEIGHTS
from ckptrules.storage.reading import why_of
from ckptrules.storage.streams import read_pointer, read_text_behind

LONGEST_PATH = 4096  # bytes: PATH_MAX of Linux
ABOVE = "../"  # in front of the name of a file in the folder that a directory lies in; twice, in the one around that


def read_pointers(
    directory: int, listing: Listing, rules: RuleSet, above: Sequence[str] = ()
) -> tuple[dict[str, tuple[Mention, ...]], tuple[Reason, ...]]:
    """Return which names of a directory its pointer files name, and what to tell of such that name nothing.

    ``above`` are trackers in folders that it lies in, as paths from it.

    Raises:
        OSError: one of them cannot be read: what it names is not known.
    """
    found, notes = {}, list[Reason]()
    ignored = {pattern.text for pattern in rules.ignored}
    pointers, others = pointer_files(listing, rules), one_word_files(listing, rules)
    others += [path for path in above if in_part_folder(path)[1] not in ignored]
    if not (pointers or others):
        return {}, ()
    links = {entry.name for entry in listing.entries if entry.kind == "link"}
    texts = _Texts(listing, rules, (*pointers, *filter(_says_more, others)))
    for pointer, protects in pointers.items():
        content = _pointer_text(directory, pointer, is_link=pointer in links, protects=protects)
        if content is None:
            what = f"{pointer} is no pointer, as it is no short text: left as it is"  # so it protects nothing
            notes += [Reason(what)] * (pointer not in links)
        elif said := texts.mentioned(content, pointer, protects=protects):
            # what is behind a link is not ours to change
            found[pointer] = tuple({m._replace(text=""): None for m in said}) if pointer in links else said
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
        if other not in pointers and names:
            found[other] = tuple(Mention(name, "") for name in sorted({*names}))
            notes.append(_stays_note(other, [one.name for one in found[other]]))
    return found, tuple(sorted(notes))


def pointer_files(listing: Listing, rules: RuleSet) -> dict[str, bool]:
    """Map the names of the pointer files of a directory to whether they protect what they name.

    A link that leads elsewhere may be one as well.
    """
    is_special, parted = rules.may_be_special, bool(listing.part_folders)  # of most names that is all
    names = ((entry, in_part_folder(entry.name)[1] if parted else entry.name) for entry in listing.entries)
    special = [(entry, base) for entry, base in names if is_special(base)]
    files = [(e, b) for e, b in special if e.kind == "file" or (e.kind == "link" and not (e.sibling or e.dangling))]
    fitting = {e.name: [p.protects for p in rules.pointers if p.fits(base)] for e, base in files}
    return {name: any(protects) for name, protects in fitting.items() if protects}


def one_word_files(listing: Listing, rules: RuleSet) -> list[str]:
    """Return the names of files that no rule knows, and that may hold the name of a checkpoint and nothing else.

    Such a tracker has no digit in its own name (``resume.txt``), and protects: to change it is for rules to say. One
    whose own name says that it is a tracker (``best_f1.json``) may hold more. One that ``ignored`` lists by its whole
    name says nothing.
    """
    read, ignored = reader(rules, len(listing.entries)), {pattern.text for pattern in rules.ignored}
    has_digit = re.compile("[0-9]").search
    files = [one for one in listing.entries if one.kind == "file" and 0 < one.size <= LONGEST]
    paths = {one.name for one in files if one.size <= LONGEST_PATH and not has_digit(one.name)}
    small = [one for one in files if one.name not in ignored and (one.name in paths or _says_more(one.name))]
    texts = ((one.name, name_of(one, read).claim.kind) for one in small)
    others = ("unrecognised", "ignored")  # best_* protects best_step.txt as well, and best_1.pt, which is no text
    return [name for name, kind in texts if kind in others or (kind == "protected" and not name.endswith(WEIGHTS))]


class _Texts:
    """Finds what small files of one directory name, some ``indexed`` ones more than one word."""

    def __init__(self, listing: Listing, rules: RuleSet, indexed: Sequence[str]) -> None:
        self._read = reader(rules, len(listing.entries))
        self.every: dict[str, list[str]] = defaultdict(list)
        for entry in listing.entries:
            self.every[in_part_folder(entry.name)[1]].append(entry.name)
        self._index = Index(self.every if indexed else (), self._fields_of)

    def _fields_of(self, name: str) -> Mapping[str, str]:
        return self._read(name, None).claim.fields

    def named_alone(self, content: bytes) -> str:
        """Return the one name or number that a file holds, if it holds nothing else."""
        return named_alone(content, self._fields_of)

    def mentioned(self, content: bytes, file: str, *, protects: bool = True) -> tuple[Mention, ...]:
        """Return what a file names, in whichever part folders that lies."""
        called = in_part_folder(file)[1]
        near = self._index.near(content) - {called}
        said = mentioned(content, near, self._fields_of, protects=protects, called=called)
        return tuple(one._replace(name=name) for one in said for name in self.every[one.name])


def _meant_here(content: bytes, up: int, listing: Listing) -> bytes:
    """Return what a file so many folders above a directory says of it.

    That is what stands behind its path from there; and one folder above what stands behind no path. What stands behind
    another one is none of its names.
    """
    own = "/".join(listing.directory.split("/")[-up:])
    elsewhere = b"".join(b"(?<!%b)" % re.escape(os.fsencode(place)) for place in (own, *listing.part_folders))
    content = re.sub(rb"[/\\]+", b"/", content)
    if up > 1:
        content = b"\n".join(re.findall(rb"%b/([^\n]*)" % re.escape(os.fsencode(own)), content))
    return re.sub(elsewhere + rb"(?<!\.)/", b"/.", content)  # what has a dot in front is no name


def _says_more(file: str) -> bool:
    return not file.endswith(WEIGHTS) and tracks(in_part_folder(file)[1])


def _stays_note(file: str, named: Sequence[str]) -> Reason:
    """Say that what a file names that no rule knows stays as it is, and by which line the file would do otherwise."""
    called = in_line(pattern_of(in_part_folder(file)[1]))
    line, does = ("ignored", "name nothing") if file.startswith(ABOVE) else ("pointers", "follow")
    more = f" and {len(named) - 1} more" * (len(named) > 1)
    stays = "which stays as it is" if len(named) == 1 else "which stay as they are"
    return Reason(f"{file} names {named[0]}{more}, {stays}: '{line}: [{called}]' lets it {does}")


def _pointer_text(directory: int, pointer: str, *, is_link: bool, protects: bool) -> bytes | None:
    """Read a pointer file; nothing where it is gone, None where it is no short text.

    Raises:
        OSError: what it names, and protects, is not known.
    """
    try:
        return read_text_behind(directory, pointer) if is_link else read_pointer(directory, pointer)
    except FileNotFoundError:
        return b""
    except OSError as error:
        if protects:
            raise OSError(error.errno, f"{why_of(error)} ({pointer})") from None
        return b""
