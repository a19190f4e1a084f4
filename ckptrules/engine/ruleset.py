"""What rules are, once they are checked and compiled; where each stands, and what is wrong with one."""

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
    """Where a rule stands: a file as the user would name it, line and column counted from 1; a folder has neither."""

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
    """One thing wrong with a rule file: the place, one fact, and perhaps a hint."""

    place: Location
    fact: str
    hint: str = ""

    def __str__(self) -> str:
        hint = f"\n    hint: {self.hint}" if self.hint else ""
        return f"{self.place}: {self.fact}{hint}"


class RuleError(Exception):
    """The rules cannot be used; ``faults`` holds everything found, in the order of files and lines."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(sorted(faults))
        super().__init__(*self.faults)

    def __str__(self) -> str:
        return "\n".join(map(str, self.faults))


class Reason(NamedTuple):
    """Why something is so, and which rule says it."""

    text: str
    place: Location | None = None


def is_pattern(text: str) -> bool:
    """Say whether a text is more than a name for the shell."""
    return not {"*", "?", "["}.isdisjoint(text)


def pattern_of(text: str) -> str:
    """Write a name as the shell pattern that fits it alone."""
    return re.sub(r"([*?[])", r"[\1]", text)


class Pattern(NamedTuple):
    """A shell pattern: ``best-*.ckpt``; of one of pointer files, ``protects`` says that what they name stays."""

    text: str
    place: Location
    protects: bool = True

    def fits(self, name: str) -> bool:
        """Say whether it fits a whole name, in whichever form of Unicode the two are written."""
        if fnmatchcase(name, self.text):
            return True
        return not name.isascii() and fnmatchcase(*(unicodedata.normalize("NFC", text) for text in (name, self.text)))


class Leftover(NamedTuple):
    """A shell pattern of names that are no checkpoints, and after how many seconds these go; ``after`` as written."""

    text: str
    seconds: int
    after: str
    place: Location


class Complete(NamedTuple):
    """What makes a checkpoint complete: something that fits one of ``any``, and something for each of ``all``."""

    any: tuple[str, ...]
    all: tuple[str, ...]
    place: Location


class Fact(NamedTuple):
    """Where files know more of checkpoints, and which row tells of which.

    ``file`` is a path from the checkpoint directory or, with ``within``, from inside each folder checkpoint; its parts
    are shell patterns. ``rows`` is the key of the list of rows, if it stands below one. ``by`` are pairs of our field
    and their key; their number is ours and ``offset``. ``best`` is the key of a text that names the best checkpoint,
    ``score`` that of the number by which it is the best, ``time`` that of a time. With ``inside`` the
    file is a checkpoint itself, and ``best`` a path of keys in its state.
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
    """What a name becomes, or which fields are read of it (None: not captured)."""

    place: Location
    becomes: str = ""
    fields: Mapping[str, str | None] = {}


class Rule(NamedTuple):
    """A naming format: what it matches (always the whole name) and the Jinja2 template that gives the new name.

    The template is empty where the first target that serves gives the name, and in a format that is never renamed.
    ``examples`` are names that it fits, and ``near_misses`` such that it must not fit; the rules are tested with all of
    them before they are used. ``folder`` says whether it fits directories or files (None: both), ``keep_name`` what a
    rename would break, ``live`` what any change would break while its run goes on, ``called`` what messages call it.
    Where there is a ``reader``, that reads the name, and ``match`` says only what it captures. ``pack`` is the pack
    that it is of, unless it is renamed: what is renamed is of one run with what has its new name.
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
        """Whether what it fits is one of several files of a checkpoint."""
        return "part" in self.match.groupindex


def asked_inside(rule: Rule | None) -> tuple[str, ...]:
    """Return the patterns that a format asks for inside a directory."""
    if rule is None or rule.complete is None:
        return ()
    return (*rule.complete.any, *(() if rule.has_parts else rule.complete.all))


class Every(NamedTuple):
    """What ``keep_every_epochs`` and ``keep_every_steps`` ask for: ``offset``, ``offset + every`` and so on.

    ``nearest`` takes what is nearest to each of them.
    """

    every: int
    offset: int = 0
    nearest: bool = False

    def __str__(self) -> str:
        offset = f", offset: {self.offset}" * bool(self.offset)
        nearest = ", nearest: true" * self.nearest
        return f"{{every: {self.every}{offset}{nearest}}}" if offset or nearest else str(self.every)


class Best(NamedTuple):
    """What ``keep_best`` asks for; with ``across``, of all experiments together that this shell pattern fits."""

    metric: str
    mode: Literal["max", "min"]
    top: int
    across: str = ""

    def __str__(self) -> str:
        across = f", across: {in_yaml(self.across)}" if self.across else ""
        return f"{{metric: {in_line(self.metric)}, mode: {self.mode}, count: {self.top}{across}}}"


class Within(NamedTuple):
    """A time before now, or before the newest checkpoint; ``time`` is how it was written."""

    seconds: int
    time: str
    from_newest: bool = False

    def __str__(self) -> str:
        return f"{self.time} from newest" if self.from_newest else self.time


class Bytes(NamedTuple):
    """A size, and how it was written."""

    size: int
    text: str

    def __str__(self) -> str:
        return self.text


class Budget(NamedTuple):
    """What the whole tree may take; who stays is judged by the first of some metrics that it tells.

    What tells none of them is judged ``by_age``, or stays.
    """

    total: Bytes
    order: tuple[tuple[str, Literal["max", "min"]], ...] = ()
    by_age: bool = True

    def __str__(self) -> str:
        order = [f"{{metric: {in_line(metric)}, mode: {mode}}}" for metric, mode in self.order]
        said = ", ".join(order + ["oldest"] * self.by_age)
        return f"{{total: {self.total}, order: [{said}]}}" if order else f"{{total: {self.total}}}"


class PolicyLine(NamedTuple):
    """One line of a retention policy: ``min_epoch: 10``. The value is a number, a word, or one of the four above."""

    key: str
    value: Any
    place: Location | None

    def __str__(self) -> str:
        return f"{self.key}: {self.value}"


class PolicyExample(NamedTuple):
    """A directory and what a policy keeps of it; the policies are tested with them before they are used."""

    given: tuple[Entry, ...]
    kept: frozenset[str]
    places: Mapping[str, Location]
    place: Location


class Policy(NamedTuple):
    """A named retention policy. A checkpoint stays when any line keeps it.

    ``keep_at_least`` is the number of checkpoints that remain in an experiment whatever the lines say. ``picked`` says
    why it is this policy that is gone by. The policy is applied to each set of checkpoints that agree in the fields
    ``per``.
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
    """Which policy the experiments have that a pattern fits."""

    pattern: Pattern
    policy: str


class MaxDelete(NamedTuple):
    """How many checkpoints one run may delete, and how many of a hundred; None where there is no such limit."""

    checkpoints: int | None
    percent: int | None
    place: Location | None = None


@lru_cache(maxsize=64)
def _match_of(pattern: str) -> Callable[[str], re.Match[str] | None]:
    """Compile a pattern at the first name that is asked of: a run that has nothing to do reads none."""
    return re.compile(pattern).match


class RuleSet(NamedTuple):
    """All rules, checked and compiled. ``naming_digest`` changes exactly when a naming rule does.

    ``targets`` are the formats that names should have, the first that serves before the others; where there is none,
    nothing is renamed. ``formats`` are recognised and keep their names. ``part_folders`` fit the folders beside each
    other that hold the parts of one checkpoint.
    ``sidecars`` are the suffixes of what belongs to a checkpoint, ``settle`` the seconds that it must be unchanged, and
    ``shared`` is the kind of a shared file system for which these were chosen, as nobody said them; else it is empty.
    ``pointers`` fit the text files that name a checkpoint, ``facts`` say where files know more. ``unfinished`` are the
    endings of the markers beside what is not finished. ``special`` fits whatever one of these or a shell pattern fits.
    ``leftovers`` fit what is no checkpoint and goes when it is old. ``budget`` is a line of every policy.
    ``packs`` are asked where these rules say nothing of a name. Where the packs of one directory were joined to the
    rules of the user, ``user`` is these alone. ``layout_of_packs`` says that the user gives no layout.
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
        """Hash what is read from names by; rules that differ elsewhere are told apart by comparison."""
        return hash(self.naming_digest)

    def may_be_special(self, name: str) -> bool:
        """Say whether a shell pattern or an ending may fit a name: of most names this one look says that none does."""
        return not name.isascii() or _match_of(self.special)(name) is not None

    def pack_of(self, reason: Reason) -> "Pack | None":
        """Return the pack by whose rules a name is known, given why it is."""
        return next((pack for pack in self.packs if reason.place and pack.file == reason.place.file), None)


class Pack(NamedTuple):
    """What is known of the checkpoints of one framework: rules of its own, and the marks by which it is known.

    ``file`` is how messages call the file. ``evidence`` says which marks were found in a directory.
    """

    name: str
    file: str
    marks: tuple[str, ...]
    rules: RuleSet
    evidence: str = ""
