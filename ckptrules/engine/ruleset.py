"""Define checked and compiled rules, their places in the rule files, and the faults of a rule."""

# Without `from __future__ import annotations`: NamedTuple would compile every annotation again, at every start.

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from ckptrules.engine.entries import Entry
from ckptrules.engine.shapes import in_line, in_yaml


class Location(NamedTuple):
    """Where a rule stands: a file as the user names it, line and column from 1. A folder has neither."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file

    @property
    def file_line(self) -> str:
        """``file:line``, the form that editors and terminals make clickable."""
        return f"{self.file}:{self.line}"


class Fault(NamedTuple):
    """One fault of a rule file: the place, one fact, and perhaps a hint."""

    place: Location
    fact: str
    hint: str = ""

    def __str__(self) -> str:
        hint = f"\n    hint: {self.hint}" if self.hint else ""
        return f"{self.place}: {self.fact}{hint}"


class RuleError(Exception):
    """The rules cannot be used; ``faults`` are all that were found, in order of files and lines."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(sorted(faults))
        super().__init__(*self.faults)

    def __str__(self) -> str:
        return "\n".join(map(str, self.faults))


class Reason(NamedTuple):
    """Why something is so, and the place of the rule that says it; an ``id`` where more than people must know."""

    text: str
    place: Location | None = None
    id: str = ""


def is_pattern(text: str) -> bool:
    """Return whether a text has wildcards of the shell."""
    return not {"*", "?", "["}.isdisjoint(text)


def pattern_of(text: str) -> str:
    """Write a name as the shell pattern that fits it alone."""
    return re.sub(r"([*?[])", r"[\1]", text)


class Pattern(NamedTuple):
    """A shell pattern: ``best-*.ckpt``. For pointer files, ``protects`` is whether the checkpoints they name stay."""

    text: str
    place: Location
    protects: bool = True

    def fits(self, name: str) -> bool:
        """Return whether the pattern fits a whole name, regardless of the Unicode form of either."""
        if fnmatchcase(name, self.text):
            return True
        return not name.isascii() and fnmatchcase(*(unicodedata.normalize("NFC", text) for text in (name, self.text)))


class Leftover(NamedTuple):
    """A shell pattern of leftovers, and the age at which they are deleted: ``seconds``, and ``after`` as written."""

    text: str
    seconds: int
    after: str
    place: Location


class Complete(NamedTuple):
    """What makes a checkpoint complete: files that fit at least one pattern of ``any``, and every one of ``all``."""

    any: tuple[str, ...]
    all: tuple[str, ...]
    place: Location


class Fact(NamedTuple):
    """A file that knows more of checkpoints than their names, and how its rows are matched to checkpoints.

    Attributes:
        file: a path of shell patterns, from the checkpoint directory.
        within: whether the path starts inside each folder checkpoint instead.
        rows: the key of the list of rows; empty if the rows stand at the top.
        by: pairs of our field and the key of the file.
        offset: by how much numbers in the file are higher than ours.
        best: the key of a text that names the best checkpoint.
        time: the key of a time.
        score: the key of the number that makes a checkpoint the best.
        inside: whether the file is a checkpoint itself; ``best`` is then a path of keys in its state.
    """

    file: str
    place: Location
    within: bool = False
    rows: str = ""
    by: tuple[tuple[str, str], ...] = ()
    offset: int = 0
    best: str = ""
    time: str = ""
    score: str = ""
    inside: bool = False


class Example(NamedTuple):
    """The new name of an example, or the fields that are read from it (None: not captured)."""

    place: Location
    becomes: str = ""
    fields: Mapping[str, str | None] = {}


class Rule(NamedTuple):
    """A naming format.

    Attributes:
        match: the pattern, which must fit the whole name.
        template: the Jinja2 template of the new name; empty where a target gives the name, or nothing is renamed.
        examples: names that it must fit. Rules are tested with them and the near misses before they are used.
        near_misses: names that it must not fit.
        folder: whether it fits folders or files; None for both.
        keep_name: what a rename would break.
        live: what any change would break while the training runs.
        complete: what makes a checkpoint complete.
        called: its name in messages.
        reader: the function that reads names instead of ``match``, which then only lists the fields.
        pack: its pack; empty for a format that is renamed, as old and new names are of one run.
    """

    id: str
    match: re.Pattern[str]
    template: str
    place: Location
    examples: Mapping[str, Example] = {}
    near_misses: Mapping[str, Location] = {}
    folder: bool | None = None
    keep_name: str = ""
    live: str = ""
    complete: Complete | None = None
    called: str = ""
    reader: str = ""
    pack: str = ""

    @property
    def has_parts(self) -> bool:
        """Whether the names that it fits are parts of a checkpoint."""
        return "part" in self.match.groupindex


def needed_inside(rule: Rule | None) -> tuple[str, ...]:
    """Return the patterns of ``complete`` that must be looked up inside a folder checkpoint."""
    if rule is None or rule.complete is None:
        return ()
    return (*rule.complete.any, *(() if rule.has_parts else rule.complete.all))


def is_told_all(rule: Rule) -> bool:
    """Return whether a user says all that a checkpoint needs; ``complete`` of a pack may name only the last file."""
    return not rule.pack and rule.complete is not None and bool(rule.complete.all)


class Every(NamedTuple):
    """The value of ``keep_every_epochs`` and ``keep_every_steps``: ``offset``, ``offset + every`` and so on.

    With ``nearest``, the checkpoint nearest to each of these numbers.
    """

    every: int
    offset: int = 0
    nearest: bool = False

    def __str__(self) -> str:
        offset = f", offset: {self.offset}" * bool(self.offset)
        nearest = ", nearest: true" * self.nearest
        return f"{{every: {self.every}{offset}{nearest}}}" if offset or nearest else str(self.every)


class Best(NamedTuple):
    """The value of ``keep_best``: the best ``top``, of one series or of all experiments that ``across`` fits."""

    metric: str
    mode: Literal["max", "min"]
    top: int
    across: str = ""

    def __str__(self) -> str:
        across = f", across: {in_yaml(self.across)}" if self.across else ""
        return f"{{metric: {in_line(self.metric)}, mode: {self.mode}, count: {self.top}{across}}}"


class Within(NamedTuple):
    """The value of ``keep_within``: an age, counted from now or from the newest checkpoint; ``time`` is as written."""

    seconds: int
    time: str
    from_newest: bool = False

    def __str__(self) -> str:
        return f"{self.time} from newest" if self.from_newest else self.time


class Bytes(NamedTuple):
    """A size in bytes, and its text in the rule file."""

    size: int
    text: str

    def __str__(self) -> str:
        return self.text


class Budget(NamedTuple):
    """The most that the whole tree may take.

    ``order`` are metrics: the first that a checkpoint has judges it. ``by_age`` is whether age judges a checkpoint
    without any of them; otherwise it stays.
    """

    total: Bytes
    order: tuple[tuple[str, Literal["max", "min"]], ...] = ()
    by_age: bool = True

    def __str__(self) -> str:
        order = [f"{{metric: {in_line(metric)}, mode: {mode}}}" for metric, mode in self.order]
        entries = ", ".join(order + ["oldest"] * self.by_age)
        return f"{{total: {self.total}, order: [{entries}]}}" if order else f"{{total: {self.total}}}"


class PolicyLine(NamedTuple):
    """One line of a retention policy: ``min_epoch: 10``. The value is a number, a word, or a class above."""

    key: str
    value: Any
    place: Location | None

    def __str__(self) -> str:
        return f"{self.key}: {self.value}"


class PolicyExample(NamedTuple):
    """A directory, and what a policy must keep of it. Policies are tested with their examples before they are used."""

    given: tuple[Entry, ...]
    kept: frozenset[str]
    places: Mapping[str, Location]
    place: Location


class Policy(NamedTuple):
    """A named retention policy: a checkpoint stays if any line keeps it.

    ``keep_at_least`` checkpoints of each series remain whatever the lines say. ``picked`` is why an experiment has this
    policy. ``per`` are fields that split a series.
    """

    name: str
    lines: tuple[PolicyLine, ...]
    keep_at_least: int
    place: Location
    floor_place: Location
    examples: tuple[PolicyExample, ...] = ()
    picked: Reason | None = None
    per: tuple[str, ...] = ()


class Assignment(NamedTuple):
    """The policy of the experiments that a pattern fits."""

    pattern: Pattern
    policy: str


class MaxDelete(NamedTuple):
    """The most checkpoints that one run may delete, as a number and in percent; None for no such limit."""

    checkpoints: int | None
    percent: int | None
    place: Location | None = None


@lru_cache(maxsize=64)
def _match_of(pattern: str) -> Callable[[str], re.Match[str] | None]:
    """Compile a pattern when it first meets a name: a run without work reads no names."""
    return re.compile(pattern).match


class RuleSet(NamedTuple):
    """All rules, checked and compiled.

    Attributes:
        targets: formats that names should have; the first whose variables a name has gives its new name. Without a
            target nothing is renamed.
        legacy: formats of old names.
        sidecars: suffixes of files that belong to a checkpoint.
        settle: seconds that a checkpoint must be unchanged before it is touched.
        naming_digest: a text that changes exactly when a naming rule does.
        pointers: patterns of text files that name a checkpoint.
        facts: files that know more of checkpoints.
        unfinished: endings of markers beside what is not finished.
        formats: formats that keep their names.
        part_folders: patterns of neighbouring folders that hold the parts of one checkpoint.
        special: a regular expression that fits every name that a shell pattern or an ending here may fit.
        leftovers: patterns of names that are no checkpoints, and are deleted when they are old.
        budget: a line that every policy gets.
        packs: rules that are asked where these rules say nothing of a name.
        user: the rules of the user alone, where the packs of a directory were joined to them.
        layout_of_packs: whether the user gives no layout.
        says_settle: whether the user gives ``settle``.
        shared: the kind of shared file system that ``settle`` was chosen for; empty if the user chose it or none is.
    """

    files: tuple[str, ...]
    layout: tuple[str, ...]
    targets: tuple[Rule, ...]
    protected: tuple[Pattern, ...]
    ignored: tuple[Pattern, ...]
    legacy: tuple[Rule, ...]
    sidecars: tuple[str, ...]
    policies: Mapping[str, Policy] = {}
    trash_days: int = 0
    settle: int = 0
    naming_digest: str = ""
    experiments: tuple[Assignment, ...] = ()
    max_delete: MaxDelete | None = None
    pointers: tuple[Pattern, ...] = ()
    facts: tuple[Fact, ...] = ()
    unfinished: tuple[Pattern, ...] = ()
    formats: tuple[Rule, ...] = ()
    part_folders: tuple[str, ...] = ()
    special: str = ""
    outputs_dir: str | None = None
    leftovers: tuple[Leftover, ...] = ()
    budget: PolicyLine | None = None
    packs: "tuple[Pack, ...]" = ()
    user: "RuleSet | None" = None
    layout_of_packs: bool = False
    says_settle: bool = False
    shared: str = ""

    def __hash__(self) -> int:
        """Hash the naming rules only; comparison tells rules apart that differ elsewhere."""
        return hash(self.naming_digest)

    def may_be_special(self, name: str) -> bool:
        """Return whether a shell pattern or an ending may fit a name; for most names, this one test says no."""
        return not name.isascii() or _match_of(self.special)(name) is not None

    def pack_of(self, reason: Reason) -> "Pack | None":
        """Return the pack whose rule gave this reason; None if it was no pack."""
        return next((pack for pack in self.packs if reason.place and pack.file == reason.place.file), None)


class Pack(NamedTuple):
    """The rules for the checkpoints of one framework.

    ``file`` is its file as messages name it. ``marks`` show that the framework was at work, and ``evidence`` is which
    of them were found in a directory.
    """

    name: str
    file: str
    marks: tuple[str, ...]
    rules: RuleSet
    evidence: str = ""
