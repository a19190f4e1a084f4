"""Find and read the files of ``facts``: bounded, only below ``outputs_dir``, and through no link."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from ckptrules.engine.checkpoints import Evidence, order_of, series_by
from ckptrules.engine.entries import Listing
from ckptrules.engine.facts import FileFacts, Names, facts_in, joined
from ckptrules.engine.names.naming import reader
from ckptrules.engine.names.sorting import name_of
from ckptrules.engine.ruleset import Fact, Reason, RuleSet, is_pattern
from ckptrules.engine.state_folder import STATE
from ckptrules.formats import plainjson, plainyaml
from ckptrules.formats.limits import NotReadError
from ckptrules.stopping import heed
from ckptrules.storage import reading, streams

NO_CHECKPOINTS = ("ignored", "unrecognised", "ambiguous")  # kinds of claims
LONGEST = 16 * 2**20  # bytes of one file
LONGEST_SUM = 256 * 2**20  # bytes of all files of a directory: some seconds
YAML_COSTS = 16  # times the bytes of JSON
MOST_ROWS = 200_000  # of one file
MOST_FILES = 1_000  # that one entry of ``facts`` finds outside of checkpoints
GONE = (errno.ENOENT, errno.ENOTDIR)
# The file exists, but this user cannot read it, or it is no plain file:
NOT_TO_BE_HAD = (errno.EACCES, errno.EPERM, errno.ELOOP, errno.EINVAL, errno.EISDIR, errno.ENXIO, errno.ENAMETOOLONG)
Note = Callable[[str], None]


class Source(NamedTuple):
    """A file that may have facts, whether or not it exists.

    ``path`` is its path from the checkpoint directory, ``owner`` the folder checkpoint that contains it, if any.
    """

    fact: Fact
    path: str
    owner: str = ""


class InsideSource(NamedTuple):
    """Checkpoints to read for which one is the best, the newest first.

    The first whole one that says it decides, unless ``all_count``.
    """

    fact: Fact
    names: tuple[str, ...]
    all_count: bool


class Sources(NamedTuple):
    """The files that may have facts, the folders that were listed to find them, and notes.

    ``inside`` are checkpoints that are read themselves.
    """

    files: tuple[Source, ...] = ()
    folders: tuple[str, ...] = ()
    notes: tuple[Reason, ...] = ()
    inside: tuple[InsideSource, ...] = ()

    @property
    def paths(self) -> list[str]:
        """All paths that show a change: files, checkpoints, and folders in which a file may appear."""
        inside = {name: None for row in self.inside for name in row.names}
        return [*(source.path for source in self.files), *self.folders, *inside]


def names_of(listing: Listing, rules: RuleSet) -> Names:
    """Return the fields of each checkpoint of a directory, by name."""
    read = reader(rules, len(listing.entries))
    entries = [entry for entry in listing.entries if entry.kind in ("file", "directory")]
    rows = [(entry.name, name_of(entry, read)) for entry in entries]
    return {n: {**row.claim.fields, **row.fields} for n, row in rows if row.claim.kind not in NO_CHECKPOINTS}


def find_sources(outputs_dir: str, listing: Listing, facts: Iterable[Fact], names: Names) -> Sources:
    """Return the files that may have facts.

    Raises:
        OSError: a folder of a pattern cannot be read, for another reason than missing rights.
    """
    owners = [entry for entry in listing.entries if entry.kind == "directory" and entry.name in names]
    owners.sort(key=lambda entry: (order_of(names[entry.name]), entry.mtime_ns, entry.name), reverse=True)
    files: list[Source] = []
    folders: dict[str, None] = {}
    notes: list[Reason] = []
    for fact in facts:
        if fact.inside:
            continue
        sources: list[Source] = []
        for owner in [entry.name for entry in owners] if fact.within else [""]:
            start = [owner] if owner else []
            paths = _matching(outputs_dir, listing.directory, [*start, *fact.file.split("/")], len(start), folders)
            sources += [Source(fact, path, owner) for path in paths]
        if not fact.within and len(sources) > MOST_FILES:
            notes.append(Reason(f"{fact.file} fits {len(sources)} files: the last {MOST_FILES} are read", fact.place))
            sources = sources[-MOST_FILES:]
        files += sources
    return Sources(tuple(files), tuple(folders), tuple(notes))


def read_facts(
    outputs_dir: str,
    listing: Listing,
    sources: Sources,
    names: Names,
    *,
    metrics: bool = True,
    out: Collection[str] = (),
    per: Sequence[str] = (),
) -> tuple[Evidence, tuple[Reason, ...]]:
    """Return the facts of checkpoints as evidence, and notes on faults of the files.

    Files inside checkpoints are read from the newest checkpoint on, so that a limit leaves out the oldest. Without
    ``metrics``, a series whose best is known needs no older file. ``out`` are checkpoints that are not whole, ``per``
    the fields that split a series.

    Raises:
        OSError: a file cannot be read, for another reason than missing rights, so its facts are unknown.
    """
    notes = list(sources.notes)
    read: list[FileFacts] = []
    left, unread = LONGEST_SUM, list[Source]()
    settled: dict[object, str] = {}  # by series, the owner whose files name the best: all files of one owner count
    newest: dict[object, str] = {}  # by series, the newest whole owner with a file
    unknown: list[str] = []
    for source in sources.files:
        heed()
        fact, series = source.fact, (source.fact, series_by(names.get(source.owner, {}), per))
        is_older = settled.get(series, source.owner) != source.owner
        if is_older and not (metrics or fact.time):
            continue
        faults: list[str] = []
        content = _content(outputs_dir, _below(listing.directory, source.path), left, faults.append)
        cost = len(content or b"") * (YAML_COSTS if _is_yaml(source.path) else 1)
        too_long = cost > left
        if too_long:
            unread.append(source)
        elif content is not None:
            left -= cost
            rows = documents(source.path, content, faults.append)
            read.append(facts_in(fact, source.path, source.owner, rows, names))
            if read[-1].best and series[1][1] and source.owner not in out:
                settled.setdefault(series, source.owner)
        notes += [Reason(f"{source.path} {fault}", fact.place) for fault in faults]
        is_newest = source.owner not in out and newest.get(series, source.owner) == source.owner
        if (faults or too_long) and fact.best and is_newest:
            unknown.append(source.path)
        elif content is not None and source.owner and source.owner not in out:
            newest.setdefault(series, source.owner)
    told = {file.fact for file in read if not file.fits_none}
    notes += [
        Reason(f"no row of {file.path} names a checkpoint of this directory", file.fact.place)
        for file in {file.fact: file for file in reversed(read)}.values()
        if file.fact not in told and not file.owner and (metrics or file.fact.best or file.fact.time)
    ]
    if unread:
        text = f"{unread[0].path} is not read: too long together with what was read before"
        notes.append(Reason(text + f"; nor are {len(unread) - 1} more" * (len(unread) > 1), unread[0].fact.place))
    return joined(read, names, listing, out, per)._replace(best_unknown=tuple(unknown)), tuple(notes)


def all_facts(outputs_dir: str, listing: Listing, rules: RuleSet) -> Evidence:
    """Return all facts of the checkpoints of a directory, whether or not a policy needs them.

    Raises:
        OSError: as `read_facts`.
    """
    if not rules.facts:
        return Evidence()
    names = names_of(listing, rules)
    return read_facts(outputs_dir, listing, find_sources(outputs_dir, listing, rules.facts, names), names)[0]


def _matching(outputs_dir: str, directory: str, parts: Sequence[str], plain: int, listed: dict[str, None]) -> list[str]:
    """Return the paths that fit patterns, sorted; a path without any pattern need not exist.

    The first ``plain`` parts are names, even if they look like patterns. The folders that are read are added to
    ``listed``, except the checkpoint directory, whose names the caller knows.
    """
    paths = [""]
    for place, part in enumerate(parts):
        if place < plain or not is_pattern(part):
            paths = [os.path.join(path, part) for path in paths]
            continue
        listed.update((path, None) for path in paths if path)
        found = ((path, name) for path in paths for name in _names_in(outputs_dir, _below(directory, path)))
        paths = [os.path.join(path, name) for path, name in found if _fits(name, part)]
    return paths


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) and (pattern.startswith(".") or not name.startswith("."))


def _below(directory: str, path: str) -> str | None:
    """Return a path from ``outputs_dir``; None if it leads out of that or into our state folder."""
    found = os.path.normpath(os.path.join(directory, path))
    return None if found.split("/")[0] in ("..", STATE, "") else found


def _names_in(outputs_dir: str, folder: str | None) -> list[str]:
    if folder is None:
        return []
    try:
        with reading.open_below(outputs_dir, folder) as opened:
            return sorted(os.listdir(opened))
    except OSError as error:
        if error.errno in (*GONE, *NOT_TO_BE_HAD):
            return []
        raise


def _content(outputs_dir: str, path: str | None, most: int, note: Note) -> bytes | None:
    """Return the content of a file; None if it is missing, or, with a note, if it cannot be read.

    Of a file longer than ``most`` bytes, only the first ``most`` and one more are returned.
    """
    if path is None:
        note("lies outside of the folder of the experiments: not read")
        return None
    try:
        with reading.open_file(outputs_dir, path) as file:
            content = b"".join(streams.chunks(file, min(LONGEST, most) + 1))
    except OSError as error:
        if error.errno in GONE:
            return None
        if error.errno not in NOT_TO_BE_HAD:
            raise
        note(f"cannot be read: {reading.why_of(error)}")
        return None
    if len(content) <= LONGEST:
        return content
    note(f"is longer than {LONGEST >> 20} MB: not read")
    return None


def documents(path: str, content: bytes, note: Note) -> Iterator[object]:
    """Yield the documents or rows of a file, read by its ending; faults are noted."""
    read: Iterable[object]
    try:
        if path.endswith((".csv", ".tsv")):
            read = _read_table(content, "\t" if path.endswith(".tsv") else ",")
        else:
            read = plainyaml.parse(content) if _is_yaml(path) else _read_json(content, note)
        for count, document in enumerate(read):
            if count == MOST_ROWS:
                note(f"has more than {MOST_ROWS:,} rows: the rest is not read")
                return
            yield document
    except (NotReadError, ValueError, csv.Error) as error:
        note(f"is not understood: {error}")


def _is_yaml(path: str) -> bool:
    return path.endswith((".yaml", ".yml"))


def _read_json(content: bytes, note: Note) -> Iterator[object]:
    """Yield the document of a JSON text, or one for each line; a torn last line is being written, and no fault."""
    try:
        yield plainjson.parse(content)
    except ValueError:
        lines, bad = content.splitlines(), list[int]()
    else:
        return
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                yield plainjson.parse(line)
        except ValueError:
            bad.append(number)
    if bad == [1] or bad[:-1] or (bad and bad[-1] != len(lines)):
        note(f"is no JSON in {len(bad)} of {len(lines)} lines, the first of them {bad[0]}")


def _read_table(content: bytes, delimiter: str) -> Iterator[object]:
    lines = io.TextIOWrapper(io.BytesIO(content), "utf-8-sig", "replace", newline="")
    rows = csv.reader(lines, delimiter=delimiter)
    heads = [head.strip() for head in next(rows, [])]
    for row in rows:
        cells = zip(heads, map(_cell, row), strict=False)
        yield {head: cell for head, cell in cells if cell != ""}


def _cell(text: str) -> str | int | float:
    """Return a cell as a number if it is one, else as text."""
    text = text.strip()
    with contextlib.suppress(ValueError):
        if "_" not in text and text.isascii():
            return int(text) if len(text) < plainjson.LONGEST_INTEGER and text.lstrip("+-").isdigit() else float(text)
    return text
