"""Reads what a plan needs to know beyond names: identical contents, links from elsewhere, files in use."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from ckptrules.engine.actions import Plan, Problem
from ckptrules.engine.checkpoints import Evidence, Mention
from ckptrules.engine.companions import Sidecar
from ckptrules.engine.entries import Entry, Listing, in_part_folder
from ckptrules.engine.naming import reader
from ckptrules.engine.pointers import Index, mentioned, named_alone
from ckptrules.engine.ruleset import Reason, RuleSet, asked_inside, pattern_of
from ckptrules.engine.shapes import in_line
from ckptrules.engine.sorting import Sorted, name_of, sort_entries
from ckptrules.engine.wholeness import fitted
from ckptrules.outputs.glancing import Glances
from ckptrules.outputs.in_use import in_use
from ckptrules.outputs.links import Links, tracks
from ckptrules.outputs.listing import into_part_folders
from ckptrules.stopping import heed
from ckptrules.storage.believing import owner_of_other
from ckptrules.storage.looking import WEIGHTS, holds_something
from ckptrules.storage.reading import open_below, open_file_in, why_of
from ckptrules.storage.streams import CHUNK, chunks, read_pointer, read_text_behind

if TYPE_CHECKING:
    from ckptrules.engine.plan import Basis

LONGEST_PATH = 4096  # bytes: PATH_MAX of Linux
ABOVE = "../"  # in front of the name of a file in the folder that a directory lies in; twice, in the one around that
JOURNAL_BYTES = 2000  # more than an action takes in the journal
CONFLICTS = ("same_target", "target_exists")


def to_look_at(plan: Plan) -> set[str]:
    """Return the names that a plan would touch, that are in conflict, or that must be whole for others to go."""
    touched = {action.name for action in plan.actions if not action.follows}
    return touched.union(plan.rests_on, *_disputed(plan))


def _disputed(plan: Plan) -> list[tuple[str, ...]]:
    return [problem.names for problem in plan.problems if problem.id in CONFLICTS]


class Looks:
    """One directory that was read and is open: what plans of it ask is looked at once, whatever their policies.

    ``told`` is what files tell, and ``bases`` are what no policy changes: `ckptrules.run.deciding` knows both.
    """

    def __init__(self, directory: int, listing: Listing, rules: RuleSet, links: Links, now_ns: int) -> None:
        self.directory, self.listing, self.rules, self.links, self._now_ns = directory, listing, rules, links, now_ns
        self.told: dict[tuple[object, ...], tuple[Evidence, tuple[Reason, ...]]] = {}
        self.bases: list[Basis] = []
        self.glances = Glances(directory)
        self._used: dict[str, str] = {}

    @cached_property
    def entries(self) -> Mapping[str, Entry]:
        """What was read, by name."""
        return {entry.name: entry for entry in self.listing.entries}

    @cached_property
    def found(self) -> Sorted:
        """What was read, sorted by the rules."""
        return sort_entries(self.rules, self.listing)

    @cached_property
    def inside(self) -> Mapping[str, frozenset[str]]:
        """What formats ask for inside of folders, as `look_inside`."""
        return look_inside(self.directory, self.listing, self.rules)

    @cached_property
    def metrics(self) -> Mapping[str, Mapping[str, str]]:
        """What sidecars tell, as `read_metrics`."""
        return read_metrics(self.links.outputs_dir, self.listing, self.found.sidecars)

    @cached_property
    def pointers(self) -> tuple[Mapping[str, tuple[Mention, ...]], tuple[Reason, ...]]:
        """What the pointer files name, and what is odd about them, as `read_pointers`."""
        return read_pointers(self.directory, self.listing, self.rules, self.links.above(self.listing.directory))

    @cached_property
    def foreign(self) -> Mapping[str, str]:
        """Whom the pointer files belong to that we cannot replace."""
        found = self.pointers[0].items()
        named = [name for name, said in found if any(one.text for one in said)]
        return {name: owner for name in named if (owner := _other_owner(self.directory, name))}

    def why_in_use(self, name: str) -> str:
        """Say why something may still be written to, or nothing."""
        if name not in self._used:
            self._used[name] = in_use(self.directory, self.entries[name], self.rules.settle, self._now_ns)
        return self._used[name]


def look(looks: Looks, plan: Plan, known: Evidence) -> Evidence:
    """Find out what may change a plan, and add it to what is known.

    Only what the plan is about is looked at: what would be done if nothing more were known.
    """
    listing = looks.listing
    same = {
        name: number
        for group in _disputed(plan)
        for name, number in same_content(looks.directory, group, looks.entries).items()
    }
    used = {name: why for name in to_look_at(plan) if (why := looks.why_in_use(name))}
    used |= _by_sidecars(looks, plan)
    resting, going = [name for name in plan.rests_on if name not in used], plan.going
    broken = looks.glances.broken(
        (looks.entries[name] for name in resting), (one for one in listing.entries if one.name in going)
    )
    pointers, notes = looks.pointers
    telling = {name: said for name, said in pointers.items() if any(one.protects for one in said)}
    return known._replace(
        same={**known.same, **same},
        links=into_part_folders(looks.links.into(listing.directory), listing),
        in_use={**known.in_use, **used},
        broken={**known.broken, **broken},
        pointers={**pointers, **known.pointers, **telling},  # what facts call the best stays in any case
        notes=notes,
        foreign=looks.foreign,
    )


def _by_sidecars(looks: Looks, plan: Plan) -> dict[str, str]:
    """Say which checkpoints are in use because something that goes with them is."""
    owners = {name: action.name for action in plan.actions for name, _ in action.with_it}
    names = [name for name in looks.entries if name in owners] if owners else []
    return {owners[name]: f"{name} {why}" for name in names if (why := looks.why_in_use(name))}


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
        elif protects and (name := texts.named_alone(content)):
            notes.append(Reason(f"{pointer} names {name}: nothing beside it is called so"))
    for other in others:
        with contextlib.suppress(OSError):  # nothing says that it is a pointer
            content = read_pointer(directory, other) or b""
            if other.startswith(ABOVE):
                content = _meant_here(content, other.count(ABOVE), listing)
            names = texts.every[texts.named_alone(content)]
            if _says_more(other):
                names = [*names, *(one.name for one in texts.mentioned(content, other))]
            if other not in pointers and names:
                found[other] = tuple(Mention(name, "") for name in sorted({*names}))
                notes.append(_stays_note(other, [one.name for one in found[other]]))
    return found, tuple(sorted(notes))


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
    except PermissionError as error:
        if protects:
            raise PermissionError(error.errno, f"{why_of(error)} ({pointer})") from None
        return b""


def _other_owner(directory: int, name: str) -> str:
    with contextlib.suppress(FileNotFoundError):
        return owner_of_other(os.lstat(name, dir_fd=directory))
    return ""


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
    files = [one for one in listing.entries if one.kind == "file" and 0 < one.size <= LONGEST_PATH]
    unnumbered = [one for one in files if not has_digit(one.name) or _says_more(one.name)]
    small = [one for one in unnumbered if one.name not in ignored]
    texts = ((one.name, name_of(one, read).claim.kind) for one in small)
    others = ("unrecognised", "ignored")  # best_* protects best_step.txt as well, and best_1.pt, which is no text
    return [name for name, kind in texts if kind in others or (kind == "protected" and not name.endswith(WEIGHTS))]


def read_metrics(
    outputs_dir: str, listing: Listing, sidecars: Mapping[str, Sequence[Sidecar]]
) -> dict[str, dict[str, str]]:
    """Read what the JSON sidecars of checkpoints tell in numbers, at their top or below ``metrics``.

    One that is longer than a mebibyte, or no JSON, tells nothing.
    """
    from ckptrules.engine.facts import numbers
    from ckptrules.formats.plainjson import parse

    found = {}
    with open_below(outputs_dir, listing.directory) as directory:
        for owner, names in metric_files(sidecars).items():
            told: dict[str, str] = {}
            for name in names:
                with contextlib.suppress(OSError, ValueError), open_file_in(directory, name) as file:
                    told |= numbers(parse(b"".join(chunks(file, CHUNK))))
            if told:
                found[owner] = told
    return found


def metric_files(sidecars: Mapping[str, Sequence[Sidecar]]) -> dict[str, list[str]]:
    """Return the names of the sidecars that may tell metrics, by the checkpoint that they belong to."""
    json_of = {owner: [one.name for one in owned if one.suffix.endswith(".json")] for owner, owned in sidecars.items()}
    return {owner: names for owner, names in json_of.items() if names}


def look_inside(directory: int, listing: Listing, rules: RuleSet) -> dict[str, frozenset[str]]:
    """Say of each directory whose format says what makes it complete which of these patterns something in it fits."""
    read = reader(rules, len(listing.entries))
    asked = {entry.name: asked_inside(name_of(entry, read).claim.rule) for entry in _folders(listing, rules)}
    return {
        name: fitted(
            patterns, (path for path in _paths(directory, name) if holds_something(directory, f"{name}/{path}"))
        )
        for name, patterns in asked.items()
        if patterns
    }


def inside_of(outputs_dir: str, listing: Listing, rules: RuleSet) -> dict[str, frozenset[str]]:
    """Look inside the directories of one that is not open; as `look_inside`."""
    if not _folders(listing, rules):
        return {}
    with open_below(outputs_dir, listing.directory) as directory:
        return look_inside(directory, listing, rules)


def _folders(listing: Listing, rules: RuleSet) -> list[Entry]:
    if not any(rule.complete for rule in (*rules.legacy, *rules.formats)):
        return []
    return [entry for entry in listing.entries if entry.kind == "directory" and not entry.hollow]


def _paths(directory: int, name: str) -> Iterator[str]:
    """Yield the paths inside a directory, those at its top first."""
    for folder, folders, names, _ in os.fwalk(name, dir_fd=directory):
        inner = folder[len(name) + 1 :]
        yield from (os.path.join(inner, one) for one in (*names, *folders))


def same_content(directory: int, names: Collection[str], entries: Mapping[str, Entry]) -> dict[str, int]:
    """Give files numbers so that two have one number exactly when they are identical, byte by byte.

    Only files of one size are read; a name whose content is nobody's else has no number.
    """
    by_size: dict[int, list[list[str]]] = defaultdict(list)
    for name in sorted(names):
        if entries[name].kind != "file":
            continue
        groups = by_size[entries[name].size]
        for group in groups:
            if _is_identical(directory, group[0], name):
                group.append(name)
                break
        else:
            groups.append([name])
    found = [group for groups in by_size.values() for group in groups if len(group) > 1]
    return {name: number for number, group in enumerate(found) for name in group}


def obstacle(directory: int, plan: Plan) -> Problem | None:
    """Find what will stop every change of an open directory, before the first one is made."""
    disk = os.fstatvfs(directory)
    if disk.f_flag & os.ST_RDONLY:
        return _obstacle(plan, "lies on a file system that is read-only", "see dmesg: a failing disk is mounted so")
    if not os.access(".", os.W_OK | os.X_OK, dir_fd=directory):
        return _obstacle(plan, "cannot be written", "look at the owner and the mode: ls -la")
    if disk.f_blocks and disk.f_bavail * disk.f_frsize < (needed := JOURNAL_BYTES * len(plan.actions)):
        hint = (
            f"make space (df -h), and run again: the record of the changes takes {needed // 1000} KB before any space"
        )
        hint += " is freed. 'doit purge' empties the trash; where that holds nothing, remove some file by hand"
        return _obstacle(plan, "lies on a file system that is full", hint)
    status = os.fstat(directory)
    if status.st_mode & stat.S_ISVTX and os.geteuid() not in (0, status.st_uid):
        for action in plan.actions:
            if not action.directory and os.lstat(action.name, dir_fd=directory).st_uid != os.geteuid():
                text = f"is sticky (mode +t), and {action.name} belongs to somebody else"
                return _obstacle(plan, text, "let its owner run this: ls -la")
    return None


def _obstacle(plan: Plan, text: str, hint: str) -> Problem:
    return Problem("preflight", (plan.directory,), text, hint)


def _is_identical(directory: int, one: str, other: str) -> bool:
    with (
        contextlib.suppress(OSError),
        open_file_in(directory, one) as first,
        open_file_in(directory, other) as second,
    ):
        while (chunk := os.read(first, CHUNK)) == os.read(second, CHUNK):
            heed()
            if not chunk:
                return True
    return False
