"""Define claims, checkpoints and evidence: what the rules read from names, and what files add to that."""

# Without `from __future__ import annotations`: NamedTuple would compile every annotation again, at every start.

import contextlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Any, Literal, NamedTuple

from ckptrules.engine.entries import Entry, OutsideLink
from ckptrules.engine.ruleset import Reason, Rule
from ckptrules.engine.state_folder import LONGEST_NAME

TIME = r"(\d{4})\D?(\d\d)\D?(\d\d)\D?(\d\d)\D?(\d\d)\D?(\d\d)(?:[.,](\d{1,9}))?Z?"
NUMBERS = ("epoch", "step", "number")  # the fields that order checkpoints
ClaimKind = Literal["protected", "ignored", "target", "legacy", "format", "unrecognised", "ambiguous"]


class Claim(NamedTuple):
    """What the rules say of one name; ``fields`` are the captured groups, as text.

    An ambiguous claim has a rule and fields only where the name may be a part: then its checkpoint is left alone, too.
    """

    kind: ClaimKind
    reason: Reason
    rule: Rule | None = None
    fields: Mapping[str, str] = {}


class Named(NamedTuple):
    """A claim, and the new name that follows from it.

    ``target`` is that name, ``fault`` why there is none, and ``order`` the result of `order_of`. ``fields`` judge the
    checkpoint: the captured fields, with epoch and step as the new name has them.
    """

    claim: Claim
    target: str = ""
    fault: str = ""
    order: tuple[int, int] = (-1, -1)
    fields: Mapping[str, str] = {}


class Part(NamedTuple):
    """One of several names of a checkpoint.

    ``entry`` is the file or folder, ``target`` its new name, and ``text`` its part folder and what its format captures
    as ``part``.
    """

    entry: Entry
    target: str
    text: str


class Checkpoint(NamedTuple):
    """A name that a format fits or a rule protects, or all names that are parts of one checkpoint.

    ``entry`` is the file or folder; of parts, it has the name of the first, their total size and their newest time.
    ``target`` is the name that it should have, and ``named_by`` why. ``metrics`` come from sidecars and facts, as far
    as these were read. ``flaw`` is what is wrong with one of the parts. ``order`` is the result of `order_of`, kept
    because a plan needs it many times.
    """

    entry: Entry
    fields: Mapping[str, str]
    target: str
    named_by: Reason
    metrics: Mapping[str, str] = {}
    parts: tuple[Part, ...] = ()
    rule: Rule | None = None
    flaw: str = ""
    order: tuple[int, int] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All names of the checkpoint, its head first."""
        return tuple([part.entry.name for part in self.parts]) if self.parts else (self.entry.name,)

    @property
    def series(self) -> tuple[str, str]:
        """The run and the kind of number in the name, as `series_in` reads them."""
        return series_in(self.fields)

    @property
    def epoch(self) -> int | None:
        """The epoch in the name; None without one."""
        return number(self.fields.get("epoch"))

    @property
    def step(self) -> int | None:
        """The optimizer step in the name; None without one."""
        return number(self.fields.get("step"))

    @property
    def number(self) -> int | None:
        """The number of unknown unit in the name; None without one."""
        return number(self.fields.get("number"))

    @property
    def time(self) -> int | None:
        """The time in the name, as `time_in` reads it; None without one."""
        return time_in(self.fields)

    @property
    def age_order(self) -> tuple[int, int, int, str]:
        """A sort key for older before newer: epoch, then step, then file time; the name only makes it unique."""
        return (*(self.order or order_of(self.fields)), self.entry.mtime_ns, self.entry.name)


class Mention(NamedTuple):
    """One checkpoint that a pointer file names.

    ``name`` is the entry, and ``text`` how the file writes it: the name, its stem, or a number in it; empty where the
    file cannot follow a rename. ``protects`` is whether the entry stays.
    """

    name: str
    text: str
    protects: bool = True


class Evidence(NamedTuple):
    """What a plan must know beyond the listing; looked up only where the plan needs it. Maps are by name.

    Attributes:
        same: a number, equal exactly for identical contents.
        links: the links of other directories that lead here.
        in_use: why a checkpoint may still be written to, for the names that were checked.
        verified: the verified checkpoints; None where deletion does not depend on it.
        now_ns: the present time in nanoseconds since 1970; 0 makes every file young.
        metrics: the metrics that sidecars and facts give.
        pointers: the checkpoints that each pointer file names.
        notes: what is odd about pointers, sidecars and facts.
        foreign: the owner of each pointer file that we cannot replace.
        inside: of a directory whose format has ``complete``, the patterns of it that something inside fits.
        broken: what is wrong with a content, and who found it.
        zone: the time zone of days and hours.
        times: times that facts give, in nanoseconds since 1970; they are believed over the time of the file.
        pins: why a pinned name stays.
        spared: why a name is neither deleted nor renamed now.
        holding: the names that contain another checkpoint directory.
        tree: the opinions of the lines for the whole tree, by the value of the line and then by name.
        best_unknown: files that name the best checkpoint and are not understood.
        best_by: the metric by which files call a checkpoint the best, and ``min`` or ``max``; empty if two disagree.
        best_inside: the checkpoint whose content calls this one the best.
        beside: of the newest save that folders beside this directory have, too, the paths of these folders.
    """

    same: Mapping[str, int] = {}
    links: tuple[OutsideLink, ...] = ()
    in_use: Mapping[str, str] = {}
    verified: frozenset[str] | None = None
    now_ns: int = 0
    metrics: Mapping[str, Mapping[str, str]] = {}
    pointers: Mapping[str, tuple[Mention, ...]] = {}
    notes: tuple[Reason, ...] = ()
    foreign: Mapping[str, str] = {}
    inside: Mapping[str, frozenset[str]] = {}
    broken: Mapping[str, str] = {}
    zone: tzinfo = UTC
    times: Mapping[str, int] = {}
    pins: Mapping[str, Reason] = {}
    spared: Mapping[str, Reason] = {}
    holding: frozenset[str] = frozenset()
    tree: Mapping[Any, Mapping[str, Any]] = {}
    best_unknown: tuple[str, ...] = ()
    best_by: tuple[str, str] = ("", "")
    best_inside: Mapping[str, str] = {}
    beside: Mapping[str, tuple[str, ...]] = {}


def order_of(fields: Mapping[str, str]) -> tuple[int, int]:
    """Return epoch and step, the order in which checkpoints were written; -1 for each that is missing.

    If both are missing, a ``number`` of unknown unit counts as the step.
    """
    epoch, step = number(fields.get("epoch")), number(fields.get("step"))
    if epoch is None and step is None:
        step = number(fields.get("number"))
    return -1 if epoch is None else epoch, -1 if step is None else step


def numbers_told(fields: Mapping[str, str | None]) -> dict[str, int]:
    """Return those of the `NUMBERS` that the fields of a name have."""
    return {key: value for key in NUMBERS if (value := number(fields.get(key))) is not None}


def series_in(fields: Mapping[str, str]) -> tuple[str, str]:
    """Return the run, and the kind of number (``epoch`` before ``step`` before ``number``); each may be empty."""
    kind = next((kind for kind in NUMBERS if number(fields.get(kind)) is not None), "")
    return fields.get("run", ""), kind


def series_by(fields: Mapping[str, str], per: Sequence[str]) -> tuple[str, ...]:
    """Return the series of a name, as `series_in`, split further by the fields that a policy names."""
    return *series_in(fields), *(fields.get(field, "") for field in per)


def time_in(fields: Mapping[str, str]) -> int | None:
    """Return the time in a name as one number that sorts: the digits from year to nanosecond; None without one.

    The text must have a date and a time of day with seconds.
    """
    text = fields.get("timestamp") or fields.get("datetime")
    found = re.fullmatch(TIME, text, re.ASCII) if text else None
    if found is None:
        return None
    *parts, fraction = found.groups("")
    with contextlib.suppress(ValueError):
        datetime.strptime("".join(parts), "%Y%m%d%H%M%S")  # noqa: DTZ007 - a test of the digits
        return int("".join(parts) + fraction.ljust(9, "0"))
    return None


def number(text: str | None) -> int | None:
    """Return ASCII digits as a number; None for other text (``1e-05`` is not epoch 5), or text too long for a name."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) <= LONGEST_NAME else None
