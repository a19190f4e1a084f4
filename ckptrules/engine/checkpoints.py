"""What a checkpoint is: the rules claim names, and files beside it tell more."""

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
NUMBERS = ("epoch", "step", "number")  # the fields by which checkpoints are ordered
ClaimKind = Literal["protected", "ignored", "target", "legacy", "format", "unrecognised", "ambiguous"]


class Claim(NamedTuple):
    """What the rules say of one name; ``fields`` are the captured groups, still text.

    An ambiguous one has them, and the rule, where it may be a part: the checkpoint is left alone with it.
    """

    kind: ClaimKind
    reason: Reason
    rule: Rule | None = None
    fields: Mapping[str, str] = {}


class Named(NamedTuple):
    """A claim, and the name that comes of it; ``fault`` says why none does. ``order`` is that of `order_of`.

    ``fields`` are those by which the checkpoint is judged: the captured ones, but epoch and step as in the new name.
    """

    claim: Claim
    target: str = ""
    fault: str = ""
    order: tuple[int, int] = (-1, -1)
    fields: Mapping[str, str] = {}


class Part(NamedTuple):
    """One of several names that are one checkpoint: what is there, its new name, and what its format captures of it."""

    entry: Entry
    target: str
    text: str


class Checkpoint(NamedTuple):
    """What a naming rule understands, or a rule protects. ``target`` is the name that it should have.

    ``metrics`` are those that its sidecars and facts tell, as far as they were read. Where its format captures
    ``part``, the checkpoint is all its ``parts``: it goes by the name of the first of them, and its entry has the size
    of all and the newest of their times. ``flaw`` says what is wrong with one of them. ``order`` is that of `order_of`,
    where it was read before: each plan asks for it many times over.
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
        """All its names, the one that it goes by first."""
        return tuple([part.entry.name for part in self.parts]) if self.parts else (self.entry.name,)

    @property
    def series(self) -> tuple[str, str]:
        """The run that its name tells, and which number, as `series_in` reads them."""
        return series_in(self.fields)

    @property
    def epoch(self) -> int | None:
        """The epoch in the name, or None where the name carries none."""
        return number(self.fields.get("epoch"))

    @property
    def step(self) -> int | None:
        """The optimizer step in the name, or None where the name carries none."""
        return number(self.fields.get("step"))

    @property
    def number(self) -> int | None:
        """The number of unknown unit in the name, or None where the name carries none."""
        return number(self.fields.get("number"))

    @property
    def time(self) -> int | None:
        """The time in the name, as `time_in` reads it, or None where the name carries none."""
        return time_in(self.fields)

    @property
    def age_order(self) -> tuple[int, int, int, str]:
        """Sorts older before newer: by epoch, then step, then file time. Never by name."""
        return (*(self.order or order_of(self.fields)), self.entry.mtime_ns, self.entry.name)


class Mention(NamedTuple):
    """A name that a pointer file names: by ``text``, which is the name, a stem of it, or digits that it tells.

    Without a text it cannot follow. ``protects`` says that what is named stays.
    """

    name: str
    text: str
    protects: bool = True


class Evidence(NamedTuple):
    """What a plan must know beyond the listing; found out only where it matters.

    ``same`` gives names one number exactly when their contents are identical, ``links`` are those from other
    directories, ``in_use`` says why a checkpoint may still be written to, as far as it was asked. ``verified`` are
    the checkpoints that were verified, or None where deletion does not depend on it. ``now_ns`` is the time by
    which ages are measured, in nanoseconds since 1970; 0 makes every file young. ``metrics`` are those that
    sidecars and facts tell of a checkpoint, ``pointers`` what each pointer file names, ``notes`` what is odd about
    these. ``foreign`` says whom a pointer file belongs to that we cannot replace. ``inside`` are, of a directory
    whose format says what makes it complete, those of its patterns that something in it fits; ``broken`` says what
    is wrong with a content, and who has found it. ``zone`` says which day and hour a time is. ``times`` are those
    that facts tell of checkpoints, in nanoseconds since 1970: believed over the time of the file. ``pins`` says why
    what is pinned stays, ``spared`` why something is not even renamed now. ``holding`` are names in which another
    directory of checkpoints lies. ``tree`` is what the lines that go by the whole tree say of names of this
    directory, by the value of the line. ``best_unknown`` are files that name the best checkpoint and are not
    understood. ``best_by`` is the metric, and the end of it, by which files call one the best; of two that disagree
    neither. ``best_inside`` maps checkpoints to one that calls them the best inside.
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


def order_of(fields: Mapping[str, str]) -> tuple[int, int]:
    """Return epoch and step, the order in which checkpoints were written; -1 for what the name does not carry.

    Where it carries neither, a ``number`` of unknown unit stands in the place of the step.
    """
    epoch, step = number(fields.get("epoch")), number(fields.get("step"))
    if epoch is None and step is None:
        step = number(fields.get("number"))
    return -1 if epoch is None else epoch, -1 if step is None else step


def numbers_told(fields: Mapping[str, str | None]) -> dict[str, int]:
    """Return the `NUMBERS` that a name tells."""
    return {key: told for key in NUMBERS if (told := number(fields.get(key))) is not None}


def series_in(fields: Mapping[str, str]) -> tuple[str, str]:
    """Return the run that a name tells, and which number it tells: epoch before step before number, or nothing."""
    for kind in NUMBERS:
        if number(fields.get(kind)) is not None:
            return fields.get("run", ""), kind
    return fields.get("run", ""), ""


def series_by(fields: Mapping[str, str], per: Sequence[str]) -> tuple[str, ...]:
    """Return the series of a name, as `series_in`, split further by the fields that a policy names."""
    return *series_in(fields), *(fields.get(field, "") for field in per)


def time_in(fields: Mapping[str, str]) -> int | None:
    """Return the time that a name tells, as digits that compare: from the year to the nanosecond.

    It must be a day and a time of day, to the second.
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
    """Read digits as a number; anything else is none (``1e-05`` is not epoch 5), nor is what no name has room for."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) <= LONGEST_NAME else None
