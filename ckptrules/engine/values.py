"""The values that every other file speaks. Frozen, without behaviour, safe to send to another process."""

# Without `from __future__ import annotations`: NamedTuple would compile every annotation again, at every start.

import contextlib
import hashlib
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, tzinfo
from typing import Any, Literal, NamedTuple

STATE = ".ckptrules"  # below outputs_dir: lock, journal, trash, doit's database; below a backup: its manifest
TRASH = f"{STATE}/trash"
TRASH_SUFFIX = ".trashed"
OLD_TEXT = ".pointer"  # in the trash, before that suffix: what a pointer file held
_OLD_TEXT = re.compile(rf"(?s:(.+)){re.escape(OLD_TEXT)}(?:-\d+)?(?:{re.escape(TRASH_SUFFIX)})?")
LONGEST_NAME = 255  # bytes
_TIME = re.compile(r"(\d{4})\D?(\d\d)\D?(\d\d)\D?(\d\d)\D?(\d\d)\D?(\d\d)(?:[.,](\d{1,9}))?Z?", re.ASCII)
NOT_READ = "what cannot be read"  # in a checkpoint; so nobody knows whether it is whole
DELETES = frozenset({"trash", "sweep"})  # kinds of actions: a checkpoint goes to the trash, a leftover does

OnConflict = Literal["report", "keep_newest", "keep_largest", "skip", "merge_identical"]
EntryKind = Literal["file", "directory", "link", "other"]
ClaimKind = Literal["protected", "ignored", "target", "legacy", "format", "unrecognised", "ambiguous"]
FolderKind = Literal["true", "false", "any"]


class Location(NamedTuple):
    """Where a rule stands: a file as the user would name it, line and column counted from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"

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


class HardLinks(NamedTuple):
    """A file that has more names than one: which file it is, its bytes, its names, and how many of these are meant."""

    device: int
    inode: int
    size: int
    names: int
    here: int = 1


class Entry(NamedTuple):
    """One name found in a checkpoint directory.

    ``size`` is in bytes (of a directory: the sum of the files below it), ``mtime_ns`` in nanoseconds since 1970.
    For a link, ``link_text`` is what is written in it, ``sibling`` the name in the same directory that
    it leads to or through (if it does), ``behind`` the text behind that name (``/`` or ``/shard-0.pt``: a checkpoint
    may be a directory), and ``dangling`` says that it leads nowhere. A directory is ``known_by`` more than that: by an
    `Identity`; ``hollow`` says which weights inside it are none: of 0 bytes, or a link that leads nowhere; or which
    folder in it is `NOT_READ`. ``shared`` are the files of it that have other names.
    """

    name: str
    kind: EntryKind
    size: int
    mtime_ns: int
    link_text: str = ""
    sibling: str | None = None
    dangling: bool = False
    behind: str = ""
    known_by: "Identity | None" = None
    hollow: str = ""
    shared: tuple[HardLinks, ...] = ()


class Item(NamedTuple):
    """One name anywhere below a folder, as a backup keeps it.

    ``path`` is relative to the folder. ``size`` is in bytes (of links and directories: 0), ``mtime_ns`` in nanoseconds
    since 1970, ``mode`` the permission bits. A link has its text in ``link``, a file that was read its ``checksum``,
    which names its algorithm; ``changed`` says that somebody wrote into it meanwhile. ``uid`` and ``gid`` are its
    owner, -1 where that is unknown, ``attributes`` its access lists and ``user.*`` attributes, in base64. ``holes`` are
    the bytes of a file that take no space on its disk.
    """

    path: str
    kind: EntryKind
    size: int
    mtime_ns: int
    mode: int
    link: str = ""
    checksum: str = ""
    changed: bool = False
    uid: int = -1
    gid: int = -1
    attributes: Mapping[str, str] = {}
    holes: int = 0


class Stamp(NamedTuple):
    """What ``stat`` says of a directory; it changes whenever a name in the directory does."""

    inode: int
    mtime_ns: int
    ctime_ns: int


class Directory(NamedTuple):
    """A checkpoint directory, before it is read: its experiment, its path below ``outputs_dir``, its stamp.

    Folders in it that ``part_folders`` fit hold parts of its checkpoints: what is in them is read as if it were here.
    """

    experiment: str
    directory: str
    stamp: Stamp
    part_folders: tuple[str, ...] = ()


class Listing(NamedTuple):
    """One checkpoint directory, read. The name of what lies in a part folder begins with that: ``mp_rank_00/x.pt``.

    ``part_folders`` are these folders, also one that holds nothing.
    """

    experiment: str
    directory: str
    entries: tuple[Entry, ...]
    part_folders: tuple[str, ...] = ()


class OutsideLink(NamedTuple):
    """A link in another directory (a path below ``outputs_dir``) that leads to or through a name of this one."""

    directory: str
    entry: Entry


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
    directories, ``in_use`` says why a checkpoint may still be written to, as far as it was asked. ``verified`` are the
    checkpoints that were verified, or None where deletion does not depend on it. ``now_ns`` is the time by which ages
    are measured, in nanoseconds since 1970; 0 makes every file young. ``metrics`` are those that sidecars and facts
    tell of a checkpoint, ``pointers`` what each pointer file names; ``no_pointers`` have the name of one and
    are none. ``foreign`` says whom a pointer file belongs to that we cannot replace. ``inside`` are, of a directory
    whose format says what makes it complete, those of its patterns that something in it fits; ``broken`` says what
    verify found wrong with a content that has not changed since. ``zone`` says which day and hour a time is. ``times``
    are those that facts tell of checkpoints, in nanoseconds since 1970: believed over the time of the file. ``pins``
    says why what is pinned stays, ``spared`` why something is not even renamed now. ``holding`` are names in which
    another directory of checkpoints lies.
    ``tree`` is what the lines that go by the whole tree say of names of this directory, by the value of the line.
    ``best_unknown`` are files that name the best checkpoint and are not understood. ``best_by`` is the metric, and the
    end of it, by which files call one the best; of two that disagree neither. ``best_inside`` maps checkpoints to
    one that calls them the best inside.
    """

    same: Mapping[str, int] = {}
    links: tuple[OutsideLink, ...] = ()
    in_use: Mapping[str, str] = {}
    verified: frozenset[str] | None = None
    now_ns: int = 0
    metrics: Mapping[str, Mapping[str, str]] = {}
    pointers: Mapping[str, tuple[Mention, ...]] = {}
    no_pointers: tuple[str, ...] = ()
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


class Pattern(NamedTuple):
    """A shell pattern: ``best-*.ckpt``."""

    text: str
    place: Location


class PointerPattern(NamedTuple):
    """A shell pattern of pointer files; ``protects`` says that what they name stays."""

    text: str
    place: Location
    protects: bool = True


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


class Rule(NamedTuple):
    """A naming format: what it matches (always the whole name) and the Jinja2 template that gives the new name.

    The template is empty where the first target that serves gives the name, and in a format that is never renamed.
    ``examples`` maps names to what they become, ``fields`` names to what is read of them (None: not captured), and
    ``near_misses`` are names that it must not fit; the rules are tested with all of them before they are used.
    ``folder`` says whether it fits directories, ``keep_name`` what a rename would break, ``live`` what any change would
    break while its run goes on, ``called`` what messages call it. Where there is a ``reader``, that reads the name, and
    ``match`` says only what it captures.
    """

    id: str
    match: re.Pattern[str]
    template: str
    place: Location
    examples: Mapping[str, str] = {}
    example_places: Mapping[str, Location] = {}
    fields: Mapping[str, Mapping[str, str | None]] = {}
    near_misses: Mapping[str, Location] = {}
    folder: FolderKind = "any"
    keep_name: str = ""
    live: str = ""
    complete: Complete | None = None
    called: str = ""
    reader: str = ""

    @property
    def has_parts(self) -> bool:
        """Whether what it fits is one of several files of a checkpoint."""
        return "part" in self.match.groupindex


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
        across = f", across: '{self.across}'" if self.across else ""
        return f"{{metric: {self.metric}, mode: {self.mode}, count: {self.top}{across}}}"


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
    """What the whole tree may take; who stays is judged by the first of some metrics that it tells, else by age."""

    total: Bytes
    order: tuple[tuple[str, Literal["max", "min"]], ...] = ()

    def __str__(self) -> str:
        order = ", ".join(f"{{metric: {metric}, mode: {mode}}}" for metric, mode in self.order)
        return f"{{total: {self.total}, order: [{order}]}}" if order else f"{{total: {self.total}}}"


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
    policies: Mapping[str, Policy]
    trash_days: int
    settle: int
    naming_digest: str
    experiments: tuple[Assignment, ...] = ()
    max_delete: MaxDelete | None = None
    pointers: tuple[PointerPattern, ...] = ()
    facts: tuple[Fact, ...] = ()
    unfinished: tuple[Pattern, ...] = ()
    formats: tuple[Rule, ...] = ()
    part_folders: tuple[str, ...] = ()
    special: re.Pattern[str] = re.compile("")
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


class Pack(NamedTuple):
    """What is known of the checkpoints of one framework: rules of its own, and the marks by which it is known.

    ``file`` is how messages call the file. ``evidence`` says which marks were found in a directory.
    """

    name: str
    file: str
    marks: tuple[str, ...]
    rules: RuleSet
    evidence: str = ""


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
    of all and the newest of their times. ``flaw`` says what is wrong with one of them.
    """

    entry: Entry
    fields: Mapping[str, str]
    target: str
    named_by: Reason
    metrics: Mapping[str, str] = {}
    parts: tuple[Part, ...] = ()
    rule: Rule | None = None
    flaw: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """All its names, the one that it goes by first."""
        return tuple([part.entry.name for part in self.parts]) if self.parts else (self.entry.name,)

    @property
    def series(self) -> tuple[str, str]:
        """The run that its name tells, and which number it tells: epoch before step before number, or nothing."""
        kinds = (kind for kind in ("epoch", "step", "number") if number(self.fields.get(kind)) is not None)
        return self.fields.get("run", ""), next(kinds, "")

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
        return (*order_of(self.fields), self.entry.mtime_ns, self.entry.name)


class Action(NamedTuple):
    """One change, of a kind that `changes.kinds` knows; ``to`` is the new name, or text of a link, if there is one.

    ``with_it`` are the other parts of a checkpoint, ``parts`` in number, and then its sidecars: old and new name of
    each, the new one empty where they go to the trash. ``keep_in_trash`` says that it waits there in any case. A link
    that is re-pointed ``follows`` a checkpoint, by its old name, and ``was`` its text; ``directory`` is where the link
    is, below ``outputs_dir``, where that is not the directory of the plan. A pointer file that is to name another
    checkpoint (``repoint``) follows in the same way. ``leaves_link`` says that a link stays under the old name.
    ``saves`` are policy lines each of which would keep what goes.
    """

    kind: str
    name: str
    to: str
    size: int
    reasons: tuple[Reason, ...]
    with_it: tuple[tuple[str, str], ...] = ()
    keep_in_trash: bool = False
    follows: str = ""
    was: str = ""
    directory: str = ""
    leaves_link: bool = False
    saves: tuple[PolicyLine, ...] = ()
    parts: int = 0


class Identity(NamedTuple):
    """What tells whether a name still stands for what it stood for: the kind, the bytes, and the time in nanoseconds.

    Of a directory, the bytes of all files in it (a link counts as one), and the newest of their times (-1 where there
    is no file). Of a link, the kind alone.
    """

    kind: EntryKind
    size: int
    mtime_ns: int


class Spot(NamedTuple):
    """A name in a directory; the directory is a path below ``outputs_dir``."""

    directory: str
    name: str


class Step(NamedTuple):
    """One change of one name, with all that is needed to repeat it, and to take it back.

    What the fields mean, each kind says (`changes.kinds`). Directories are paths below ``outputs_dir``.
    """

    kind: str
    directory: str
    name: str
    to_directory: str
    to: str
    was: str = ""
    identity: Identity = Identity("link", 0, 0)

    @property
    def here(self) -> Spot:
        """Where the change begins."""
        return Spot(self.directory, self.name)

    @property
    def there(self) -> Spot:
        """Where it leads, if it leads anywhere else."""
        return Spot(self.to_directory, self.to)


class Unit(NamedTuple):
    """Steps that belong together, all or none: a checkpoint first, then its sidecars and the links that follow it.

    ``kind`` is that of the action that they carry out, ``size`` that of the checkpoint, in bytes. Of a checkpoint that
    is several files, ``parts`` of the steps behind the first move the others: the first of those, or the last where it
    is negative, in a unit that takes another back.
    """

    kind: str
    size: int
    steps: tuple[Step, ...]
    parts: int = 0


class Kept(NamedTuple):
    """A name that stays as it is, with the other names that are one checkpoint with it."""

    name: str
    size: int
    reasons: tuple[Reason, ...]
    with_it: tuple[str, ...] = ()


class Skipped(NamedTuple):
    """A name that is left alone because the rules do not speak of it (``unrecognised``) or say to (``ignored``)."""

    name: str
    kind: Literal["unrecognised", "ignored"]
    reason: Reason


class Problem(NamedTuple):
    """Something only a person can solve; ``names`` are left untouched. ``remarks``, if any, are on each of them."""

    id: str
    names: tuple[str, ...]
    text: str
    hint: str = ""
    remarks: tuple[str, ...] = ()


class Plan(NamedTuple):
    """What is to happen in one checkpoint directory, and why; after a run, what did happen.

    ``policy`` says which policy decided about deletion; ``notes`` are what it has to say of the directory as a whole.
    ``remaining`` is the number of sound checkpoints that stay. ``rests_on`` are names that stay and without which
    less would go, the newest first: they must be whole. ``unwhole`` are names that are not: what is made of them may
    soon be otherwise though no name changes, so that it is not remembered. ``keeps`` counts what each line keeps.
    ``blind`` says that something goes by the policy though nothing tells which checkpoint is the best.
    """

    experiment: str
    directory: str
    actions: tuple[Action, ...] = ()
    kept: tuple[Kept, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    problems: tuple[Problem, ...] = ()
    notes: tuple[Reason, ...] = ()
    policy: Reason | None = None
    remaining: int = 0
    rests_on: tuple[str, ...] = ()
    unwhole: tuple[str, ...] = ()
    keeps: Mapping[PolicyLine, int] = {}
    blind: bool = False


def order_of(fields: Mapping[str, str]) -> tuple[int, int]:
    """Return epoch and step, the order in which checkpoints were written; -1 for what the name does not carry.

    Where it carries neither, a ``number`` of unknown unit stands in the place of the step.
    """
    epoch, step = number(fields.get("epoch")), number(fields.get("step"))
    if epoch is None and step is None:
        step = number(fields.get("number"))
    return -1 if epoch is None else epoch, -1 if step is None else step


def time_in(fields: Mapping[str, str]) -> int | None:
    """Return the time that a name tells, as digits that compare: from the year to the nanosecond.

    It must be a day and a time of day, to the second.
    """
    found = _TIME.fullmatch(fields.get("timestamp") or fields.get("datetime") or "")
    if found is None:
        return None
    *parts, fraction = found.groups("")
    with contextlib.suppress(ValueError):
        datetime.strptime("".join(parts), "%Y%m%d%H%M%S")  # noqa: DTZ007 - a test of the digits
        return int("".join(parts) + fraction.ljust(9, "0"))
    return None


def number(text: str | None) -> int | None:
    """Read captured digits as a number; anything else is no number (``1e-05`` is not epoch 5)."""
    return int(text) if text and text.isascii() and text.isdigit() else None


def in_part_folder(name: str) -> tuple[str, str]:
    """Split a name of a listing into the part folder that it lies in, if it does, and the name there."""
    if "/" not in name:
        return "", name
    folder, _, base = name.rpartition("/")
    return folder, base


def trash_folder(run: str, directory: str) -> str:
    """Return where in the trash lies what a run puts there from a directory; both are paths below ``outputs_dir``."""
    return f"{TRASH}/{run}/{directory}".rstrip("/")


def trash_name(name: str) -> str:
    """Return what a name is called in the trash; where the suffix leaves no room, its end gives way to a checksum."""
    raw = name.encode("utf-8", "surrogateescape")
    if len(raw) + len(TRASH_SUFFIX) > LONGEST_NAME:
        end = f"~{hashlib.sha256(raw).hexdigest()[:16]}"
        name = raw[: LONGEST_NAME - len(TRASH_SUFFIX) - len(end)].decode("utf-8", "surrogateescape") + end
    return name + TRASH_SUFFIX


def old_text_name(name: str, number: int) -> str:
    """Return what the text that a pointer file held is called in the trash; ``number`` counts them from 1."""
    return trash_name(f"{name}{OLD_TEXT}-{number}" if number > 1 else name + OLD_TEXT)


def pointer_of(name: str) -> str:
    """Return the pointer file whose old text a name in the trash is, or nothing: that text was deleted by nobody."""
    found = _OLD_TEXT.fullmatch(name)
    return found[1] if found else ""


Piece = bytes | tuple[int, int]
"""Bytes, or a range of the old file: its first byte, and the one behind its last."""


class Rewrite(NamedTuple):
    """A recipe for a new file, and which texts it changes: old → new."""

    parts: tuple[Piece, ...]
    changes: dict[str, str]

    @property
    def size(self) -> int:
        """The bytes that the new file will have."""
        return sum(len(part) if isinstance(part, bytes) else part[1] - part[0] for part in self.parts)
