"""Read facts: match the rows of files to checkpoints, and take metrics, times and the best from them. Pure."""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from ckptrules.engine.checkpoints import Evidence, Mention, number, order_of, series_by
from ckptrules.engine.entries import Listing, in_part_folder
from ckptrules.engine.measures import NS
from ckptrules.engine.pointers import Index, stems
from ckptrules.engine.ruleset import Fact

LAST_SECOND = 253_402_300_800  # the end of the year 9999
LONGEST = 4096  # characters of a text that names a checkpoint
Metrics = Mapping[str, Mapping[str, str]]  # by the name of a checkpoint
Names = Mapping[str, Mapping[str, str]]  # the fields of each checkpoint, by its name


class FileFacts(NamedTuple):
    """The content of one file of facts.

    ``path`` is its path from the checkpoint directory, ``owner`` the folder checkpoint that contains it, if any.
    ``metrics`` and ``times`` (nanoseconds since 1970) are by the name of the checkpoint. ``best`` is the text that
    names the best checkpoint, ``score`` the number that makes it the best, as text. ``fits_none`` is true if there are
    rows for checkpoints of this directory, and none is about one of them.
    """

    fact: Fact
    path: str
    owner: str = ""
    metrics: Mapping[str, Mapping[str, str]] = {}
    times: Mapping[str, int] = {}
    best: str = ""
    score: str = ""
    fits_none: bool = False


def facts_in(fact: Fact, path: str, owner: str, documents: Iterable[object], names: Names) -> FileFacts:
    """Return what a file says of the checkpoints in ``names``; later rows add to earlier ones.

    A file inside a folder checkpoint (``owner``) is about that checkpoint only. If a row has a number below ``offset``,
    the file counts in another way, and no row is believed.
    """
    about = {owner: names[owner]} if owner else names
    keys = _by_key(fact, about) if fact.by or owner else {}
    may_fit, has_rows = bool(names if fact.best else keys), False
    no_metrics = {fact.time, *(theirs for _, theirs in fact.by)}
    metrics: dict[str, dict[str, str]] = {}
    times: dict[str, int] = {}
    best = score = ""
    for row, is_row in _rows(fact, documents):
        has_rows = True
        if fact.best and fact.best in row:
            best = _as_text(row[fact.best]) or best
        if fact.score and (fact.score in row or "metrics" in row):  # only one of thousands of rows may have it
            score = numbers(row).get(fact.score, score)
        key = _key_of(fact, row) if is_row else None
        if fact.offset and any(isinstance(part, int) and part < 0 for part in key or ()):
            keys, metrics, times = {}, {}, {}  # but the best that it names still counts
        for name in keys.get(key, ()) if key is not None else ():
            metrics.setdefault(name, {}).update((k, text) for k, text in numbers(row).items() if k not in no_metrics)
            if fact.time and (time := as_time_ns(row.get(fact.time))) is not None:
                times[name] = time
    return FileFacts(fact, path, owner, metrics, times, best, score, has_rows and may_fit and not (best or metrics))


def joined(
    files: Sequence[FileFacts], names: Names, listing: Listing, out: Collection[str] = (), per: Sequence[str] = ()
) -> Evidence:
    """Join what files say into evidence: where two files contradict each other, the first counts.

    Of the files inside checkpoints, only those of the newest checkpoint of a series say which one is the best: older
    ones knew only what came before. A checkpoint in ``out`` is not whole, and does not count as the newest. ``per`` are
    fields that split a series. The best checkpoint is held as if a pointer file named it.
    """
    metrics: dict[str, dict[str, str]] = {}
    times: dict[str, int] = {}
    best: dict[tuple[object, ...], list[FileFacts]] = {}
    for file in files:
        for name, row in file.metrics.items():
            metrics[name] = {**row, **metrics.get(name, {})}
        times = {**file.times, **times}
        if file.best and not file.owner:
            best[file.fact, file.path] = [file]
    ages = {entry.name: entry.mtime_ns for entry in listing.entries} | times
    by_age = sorted(files, key=lambda file: (order_of(names.get(file.owner, {})), ages.get(file.owner, 0), file.path))
    for file in by_age:
        if file.best and file.owner:
            series = file.path if file.owner in out else series_by(names[file.owner], per)
            of_same_owner = [one for one in best.get((file.fact, series), ()) if one.owner == file.owner]
            best[file.fact, series] = [*of_same_owner, file]
    pointers: dict[str, dict[Mention, None]] = defaultdict(dict)
    deciding = [file for several in best.values() for file in several]
    named = _named({file.best for file in deciding}, names)
    for file in deciding:
        pointers[file.path] |= dict.fromkeys(named[file.best])
    ways = {way for file in deciding for way in _scored(file, metrics, named[file.best])}
    return Evidence(
        metrics=metrics,
        times=times,
        pointers={path: tuple(mentions) for path, mentions in pointers.items() if mentions},
        best_by=ways.pop() if len(ways) == 1 else ("", ""),
    )


def _scored(file: FileFacts, metrics: Metrics, named: Iterable[Mention]) -> Iterator[tuple[str, str]]:
    """Yield the metrics, each with ``max`` or ``min``, that may be the reason why a file names its best checkpoint.

    The metric of that checkpoint equals the score, and is the highest or the lowest of all, not both.
    """
    for mention in named if file.score else ():
        for metric, text in metrics.get(mention.name, {}).items():
            values = [float(row[metric]) for row in metrics.values() if metric in row]
            ends = [mode for mode, best in (("max", max(values)), ("min", min(values))) if float(text) == best]
            if float(text) == float(file.score) and len(ends) == 1:
                yield metric, ends[0]


def merged(metrics: Metrics, more: Metrics) -> Metrics:
    """Join the metrics of sidecars with those of facts (``more``); where both have one, the sidecar counts."""
    return {**metrics, **{name: {**row, **metrics.get(name, {})} for name, row in more.items()}}


def believed(listing: Listing, times: Mapping[str, int]) -> Listing:
    """Return the listing with the times that facts give instead of those of the file system."""
    entries = (entry._replace(mtime_ns=times.get(entry.name, entry.mtime_ns)) for entry in listing.entries)
    return listing._replace(entries=tuple(entries)) if times else listing


def numbers(row: object) -> dict[str, str]:
    """Return the numbers of a mapping, and of the mapping at its key ``metrics``, as texts."""
    if not isinstance(row, dict):
        return {}
    inner = row.get("metrics")
    rows = {**row, **(inner if isinstance(inner, dict) else {})}
    return {str(k): repr(v) for k, v in rows.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def as_time_ns(value: object) -> int | None:
    """Return a time in nanoseconds since 1970, read from seconds or ISO 8601 (local without a zone), or None."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError, OverflowError, OSError):
            value = datetime.fromisoformat(value.strip()).timestamp()
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < LAST_SECOND:
        return None
    return round(value * NS)


def _rows(fact: Fact, documents: Iterable[object]) -> Iterator[tuple[dict[str, Any], bool]]:
    """Yield the mappings of a file, and whether each is a row; a document that contains the list of rows is none."""
    for document in documents:
        if fact.rows and isinstance(document, dict):
            yield document, False
            inner = document.get(fact.rows)
        else:
            inner = document if isinstance(document, list) else [document]
        yield from ((row, True) for row in (inner if isinstance(inner, list) else [inner]) if isinstance(row, dict))


def _by_key(fact: Fact, names: Names) -> dict[tuple[int | str, ...], list[str]]:
    found: dict[tuple[int | str, ...], list[str]] = defaultdict(list)
    for name, fields in names.items():
        base = in_part_folder(name)[1]
        called = [base, *stems(base, fields.get("part", ""))]
        for text in called if any(ours == "name" for ours, _ in fact.by) else [base]:
            key = [text if ours == "name" else number(fields.get(ours)) for ours, _ in fact.by]
            if None not in key:
                found[tuple(part for part in key if part is not None)].append(name)
    return found


def _key_of(fact: Fact, row: Mapping[str, Any]) -> tuple[int | str, ...] | None:
    """Return the values of a row for our fields; None where one is missing."""
    key: list[int | str] = []
    for ours, theirs in fact.by:
        value = row.get(theirs)
        if ours == "name":
            key.append(_as_text(value).replace("\\", "/").rstrip("/").rpartition("/")[2])
        elif (theirs_number := _as_number(value)) is not None:
            key.append(theirs_number - fact.offset)
        else:
            return None
    return tuple(key)


def _as_number(value: object) -> int | None:
    if isinstance(value, str):
        return number(value.strip())
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return int(value) if value == int(value) else None


def _as_text(value: object) -> str:
    is_text = isinstance(value, str | int) and not isinstance(value, bool)
    text = str(value).strip() if is_text else ""
    return text if len(text) <= LONGEST else ""


def _named(texts: Collection[str], names: Names) -> dict[str, tuple[Mention, ...]]:
    """Return the checkpoints that each text names. They cannot be renamed, except where the text is only a number."""
    of_base = {in_part_folder(name)[1]: name for name in names}  # one part is enough: it protects all
    index = Index(of_base if texts else (), lambda base: names[of_base[base]])
    found: dict[str, tuple[Mention, ...]] = dict.fromkeys(texts, ())
    for text in texts:
        with contextlib.suppress(UnicodeEncodeError):  # half of a surrogate pair from JSON: no file has such a name
            found[text] = tuple(
                Mention(of_base[one.name], one.text if one.text.isdigit() and one.text != one.name else "")
                for one in index.mentioned(text.encode("utf-8", "surrogateescape"))
            )
    return found
