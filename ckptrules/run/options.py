"""Pure: what a command may be told, and what each value may be. Nothing ill-typed gets past."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Self, dataclass_transform, get_args

from ckptrules.engine.actions import OnConflict
from ckptrules.engine.measures import max_delete, rate, seconds
from ckptrules.workers.where import DASK, HERE, read_executor

REFUSED = 3  # the exit code
WAYS: tuple[OnConflict, ...] = get_args(OnConflict)


class OptionError(Exception):
    """A run that is refused, mostly for what was typed; the message is place, fact and hint."""

    def __init__(self, fact: str, hint: str = "", place: str = "command line") -> None:
        super().__init__(f"{place}: " * bool(place) + fact + f"\n    hint: {hint}" * bool(hint))


# --- what a value may be ---------------------------------------------------------------------------------------------


def at_least(least: int, what: str = "a whole number") -> Callable[[str], int]:
    """Make a reader of whole numbers that are no less."""

    def reader(text: str) -> int:
        if not (text.isascii() and text.isdigit() and int(text) >= least):
            raise ValueError(f"{what}, {least} or more")
        return int(text)

    return reader


whole_seconds = at_least(0, "a whole number of seconds")


def yes_or_no(text: str) -> bool:
    """Read 1/true/yes/on and 0/false/no/off."""
    word = text.lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off"):
        return False
    raise ValueError("1/true/yes or 0/false/no")


def some_text(text: str) -> str:
    """Read text that is not empty."""
    if not text:
        raise ValueError("something, not an empty text")
    return text


def a_path(text: str) -> str:
    """Read the path of a file or a folder; behind a ``=``, zsh and fish leave a ``~`` as it is."""
    if text.partition("/")[0] == "~":
        raise ValueError("a path without ~, which this shell has left as it is\n    hint: write $HOME in its place")
    return some_text(text)


def a_file(text: str) -> str:
    """Read the path of a file to write. Elsewhere ``-`` is the screen; here it would be a file of that name."""
    if text in ("", "-"):
        raise ValueError("the path of a file, such as report.json")
    return a_path(text)


def is_page(path: str) -> bool:
    """Say whether a path is that of a page, by its ending."""
    return path.endswith((".html", ".htm"))


def a_page(text: str) -> str:
    """Read the path of a page to write: by its ending nothing else can be meant, a checkpoint say."""
    if not is_page(text):
        raise ValueError("the path of a page, such as checkpoints.html")
    return a_path(text)


def a_checkpoint(text: str) -> str:
    """Read the path of a checkpoint; a directory is one without its last slash, too."""
    return a_path(text).rstrip("/") or "/"


def an_executor_here(text: str) -> str:
    """Read where work is done that does not leave this machine."""
    if text not in HERE:
        more = "\n    hint: this stays where its journal is; what copies, packs or verifies can go to other machines"
        raise ValueError(f"one of {', '.join(HERE)}" + more * text.startswith(DASK))
    return text


def checked(read: Callable[[str], Any]) -> Callable[[str], str]:
    """Make a reader that refuses what another one refuses, and leaves the rest as it is typed."""

    def reader(text: str) -> str:
        read(text)
        return text

    return reader


as_time = checked(seconds)  # 7d
a_rate = checked(rate)  # 2GB/s
an_executor = checked(read_executor)


class OneOf:
    """Reads one of some words."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words

    def __call__(self, text: str) -> str:
        """Read it."""
        if text not in self.words:
            raise ValueError(f"one of {', '.join(self.words)}")
        return text


# --- how a command declares what it may be told ----------------------------------------------------------------------


class Option(NamedTuple):
    """One option: ``name=value``, or ``--name value`` with dashes; a flag stands alone (``--delete-old``)."""

    default: Any
    read: Callable[[str], Any]
    help: str
    is_flag: bool = False
    name: str = ""

    @property
    def dashed(self) -> str:
        """The name as a flag is written, without the two dashes in front."""
        return self.name.replace("_", "-")

    @property
    def values(self) -> Sequence[str]:
        """The words that it may be, where only some are."""
        return self.read.words if isinstance(self.read, OneOf) else ()

    @property
    def is_path(self) -> bool:
        """Whether it is the path of a file or a folder."""
        return self.read in (a_path, a_file, a_checkpoint)

    @property
    def shown(self) -> str:
        """The default as it is typed; nothing where something else decides."""
        return "" if self.default is None else str(int(self.default) if self.is_flag else self.default)

    @property
    def described(self) -> str:
        """What it is for, with the default."""
        return self.help + f" [{self.shown}]" * bool(self.shown)


def option(default: Any, read: Callable[[str], Any], text: str) -> Any:
    """Declare an option in a class of options, where it is the value of a typed attribute."""
    return Option(default, read, text)


def flag(text: str, *, default: bool = False) -> Any:
    """Declare an option that is on or off; most are off unless they are given."""
    return Option(default, yes_or_no, text, is_flag=True)


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Declared:
    """A frozen value made of the typed attributes of a class; those that are an `Option` can be given by the user.

    It is what a dataclass would be; but that compiles a page of code for each class, at every start.
    """

    attributes: ClassVar[Mapping[str, Option | None]] = MappingProxyType({})  # in their order

    def __init_subclass__(cls) -> None:
        own: dict[str, Option | None] = {}
        for name in (name for name, kind in cls.__annotations__.items() if "ClassVar" not in str(kind)):
            value = vars(cls)[name]
            own[name] = value._replace(name=name) if isinstance(value, Option) else None
            setattr(cls, name, value.default if isinstance(value, Option) else value)
        cls.attributes = {**cls.attributes, **own}

    def __init__(self, **values: Any) -> None:
        if unknown := values.keys() - self.attributes.keys():
            raise TypeError(f"{type(self).__qualname__} has no {', '.join(sorted(unknown))}")
        vars(self).update(values)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"'{name}' cannot be changed; 'but' returns the same with a change")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.attributes)

    @classmethod
    def known(cls) -> Mapping[str, Option]:
        """Return the options by name."""
        return {name: option for name, option in cls.attributes.items() if option}

    def given(self) -> dict[str, Any]:
        """Return the value of each option."""
        return {name: getattr(self, name) for name in self.known()}

    def typed(self) -> dict[str, str]:
        """Return the options that are not the default, as they are typed."""
        return {
            name: str(int(value) if one.is_flag else value)
            for name, one in self.known().items()
            if (value := getattr(self, name)) != one.default
        }

    def but(self, **changes: Any) -> Self:
        """Return the same with some attributes changed."""
        return type(self)(**{**vars(self), **changes})


class Common(Declared):
    """What every command may be told, and what is asked of every command; a command replaces what it has of its own."""

    needs_outputs: ClassVar[bool] = True  # so the rules may say where they are
    finds_outputs: ClassVar[bool] = True  # so it is refused where they are not there
    believes_state: ClassVar[bool] = True  # so it is refused where others could have written the state
    reads_journals: ClassVar[bool] = False  # of earlier runs, likewise
    changes: ClassVar[bool] = False  # so it takes the lock, and finishes first what a run before it left half done
    remembers: ClassVar[bool] = False  # what is up to date, so it needs a database that can be written
    shares: ClassVar[bool] = False  # its work with several processes where the tree is large

    outputs_dir: str = option(
        "outputs", a_path, "folder that holds the experiments; otherwise outputs_dir in the rules, if they have one"
    )
    rules_dir: str | None = option(None, a_path, "folder with the rule files (*.yaml); otherwise rules")
    dry_run: bool = flag("show what would happen, change nothing")
    verbose: bool = flag("list also what stays, with the reason and the rule")
    experiments: str | None = None
    json: str | None = None
    html: str | None = None
    quiet: bool = False
    summary: bool = False
    wait: int = 0
    executor: str | None = None
    max_rate: str | None = None

    @property
    def will_change(self) -> bool:
        """Whether this run is to change anything."""
        return self.changes and not self.dry_run

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders that workers of other machines must see as this one does."""
        return (self.outputs_dir,)

    @property
    def tells_data(self) -> bool:
        """Whether what is planned or done is wanted as data: for a JSON file, or for the page that is drawn from it."""
        return bool(self.json or self.html)


EXPERIMENTS = option(None, some_text, "only the experiments that this pattern fits")
JSON = option(None, a_file, "also write the result to this file, as JSON")
HTML = option(None, a_page, "also draw the result as one HTML file")
WAIT = option(0, whole_seconds, "seconds to wait for another run to finish")
POLICY = option("default", some_text, "the retention policy, except for experiments to which the rules assign one")
KEEP_MIN_EPOCH = option(
    None,
    at_least(0),
    "keep this epoch and later ones (overrides the policy's min_epoch, but not a lower one that the rules assign)",
)
KEEP_LAST = option(
    None, at_least(1), "keep so many of the newest (overrides the policy's keep_last, min_epoch and min_step)"
)
EXECUTOR_HERE = option(
    None,
    an_executor_here,
    "where the work is done: none (this process) or processes; by default, processes if that pays",
)
EXECUTOR = option(
    None, an_executor,
    "where the work is done: none (this process), processes, dask:local:N (N workers), dask:tls://host:8786 (workers "
    "of a scheduler); by default, processes if that pays",
)  # fmt: skip
MAX_RATE = option(None, a_rate, "the most bytes a second, for all workers together: 2GB/s")
RUN = option(None, some_text, "the id of a run: 'doit history' lists them")
ARCHIVE_DIR = option(None, a_path, "the folder in which the archives lie")
BACKUP = option(None, some_text, "the folder of the backup: 'doit backups' lists them")
BACKUPS = option(None, a_path, "folder of the backups; otherwise beside outputs_dir")


class Planning(Common):
    """What a plan of a directory goes by; most commands leave it at that.

    Where there is a ``path``, only the directory of that checkpoint is meant.
    """

    policy: str = "default"
    keep_min_epoch: int | None = None
    keep_last: int | None = None
    delete_old: bool = False
    max_delete: str | None = None
    on_conflict: OnConflict = "report"
    settle: int | None = None
    verified: bool = False
    leave_links: bool = False
    fix_state: bool = False
    path: str | None = None
    resumed: str | None = None
    best: str | None = None


class Migrating(Planning):
    """What `doit migrate` goes by, and what shows it or repeats it."""

    delete_old: bool = flag("also delete what the retention policy does not keep")
    keep_min_epoch: int | None = KEEP_MIN_EPOCH
    keep_last: int | None = KEEP_LAST
    policy: str = POLICY
    max_delete: str | None = option(
        None,
        max_delete,
        "the most that this run may delete: 25 checkpoints, or 20% of them (in place of max_delete in the rules)",
    )
    on_conflict: OnConflict = option("report", OneOf(WAYS), f"when checkpoints want one name: {', '.join(WAYS)}")
    settle: int | None = option(
        None, whole_seconds, "seconds that a checkpoint must be unchanged (overrides settle in the rules)"
    )
    verified: bool = flag("delete only beside a checkpoint that 'doit verify' found whole")
    leave_links: bool = flag("leave a link under each old name")
    fix_state: bool = flag("also update the paths that Lightning stores inside checkpoints")
    quiet: bool = flag("print nothing if nothing was done and no problem is left")
    executor: str | None = EXECUTOR_HERE
