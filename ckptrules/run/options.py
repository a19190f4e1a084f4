"""Declare the options of commands, and check the values that users type. Pure."""

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
    """A run is refused, mostly for what was typed; the message is place, fact and hint."""

    def __init__(self, fact: str, hint: str = "", place: str = "command line") -> None:
        super().__init__(f"{place}: " * bool(place) + fact + f"\n    hint: {hint}" * bool(hint))


# --- what a value may be ---------------------------------------------------------------------------------------------


def at_least(least: int, what: str = "a whole number") -> Callable[[str], int]:
    """Make a reader of whole numbers from ``least`` on; ``what`` is their noun in the error."""

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
    """Read the path of a file or a folder; refuse a ``~``, which zsh and fish do not expand behind a ``=``."""
    if text.partition("/")[0] == "~":
        raise ValueError("a path without ~, which this shell has left as it is\n    hint: write $HOME in its place")
    return some_text(text)


def a_file(text: str) -> str:
    """Read the path of a file to write; refuse ``-``, by which the user means the screen."""
    if text in ("", "-"):
        raise ValueError("the path of a file, such as report.json")
    return a_path(text)


def is_page(path: str) -> bool:
    """Say whether a path ends as a page does."""
    return path.endswith((".html", ".htm"))


def a_page(text: str) -> str:
    """Read the path of a page to write; its ending shows that it is no checkpoint."""
    if not is_page(text):
        raise ValueError("the path of a page, such as checkpoints.html")
    return a_path(text)


def a_checkpoint(text: str) -> str:
    """Read the path of a checkpoint, and drop a slash at the end."""
    return a_path(text).rstrip("/") or "/"


def an_executor_here(text: str) -> str:
    """Read an executor of this machine: one for work that cannot go to others."""
    if text not in HERE:
        more = "\n    hint: this stays where its journal is; what copies, packs or verifies can go to other machines"
        raise ValueError(f"one of {', '.join(HERE)}" + more * text.startswith(DASK))
    return text


def checked(read: Callable[[str], Any]) -> Callable[[str], str]:
    """Make a reader that checks a text by another reader, and returns the text as it is."""

    def reader(text: str) -> str:
        read(text)
        return text

    return reader


as_time = checked(seconds)  # 7d
a_rate = checked(rate)  # 2GB/s
an_executor = checked(read_executor)


class OneOf:
    """A reader of one of some words."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words

    def __call__(self, text: str) -> str:
        """Return the text, if it is one of the words."""
        if text not in self.words:
            raise ValueError(f"one of {', '.join(self.words)}")
        return text


# --- how a command declares its options ------------------------------------------------------------------------------


class Option(NamedTuple):
    """One option, typed as ``name=value`` or ``--name value``; a flag needs no value (``--delete-old``).

    ``read`` turns the typed text into the value, or raises a ValueError whose text follows "must be". ``is_taken`` says
    whether users can give it.
    """

    default: Any
    read: Callable[[str], Any]
    help: str
    is_flag: bool = False
    name: str = ""
    is_taken: bool = True

    @property
    def dashed(self) -> str:
        """The name with dashes, as behind ``--``."""
        return self.name.replace("_", "-")

    @property
    def values(self) -> Sequence[str]:
        """The words that are allowed, if the value is one of some words."""
        return self.read.words if isinstance(self.read, OneOf) else ()

    @property
    def is_path(self) -> bool:
        """Whether the value is the path of a file or a folder."""
        return self.read in (a_path, a_file, a_page, a_checkpoint)

    @property
    def shown(self) -> str:
        """The default as a user would type it; empty if there is none."""
        return "" if self.default is None else str(int(self.default) if self.is_flag else self.default)

    @property
    def described(self) -> str:
        """The help, with the default."""
        return self.help + f" [{self.shown}]" * bool(self.shown)


def option(default: Any, read: Callable[[str], Any], text: str) -> Any:
    """Declare an option: the value of a typed attribute in a class of options."""
    return Option(default, read, text)


def flag(text: str, *, default: bool = False) -> Any:
    """Declare an option that is on or off."""
    return Option(default, yes_or_no, text, is_flag=True)


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Declared:
    """A frozen value made of the typed attributes of a class; the user can give those whose value is an `Option`.

    A class with ``offers`` only offers its options: a class below it has those that it ``takes``, by their names. It is
    no dataclass, as these compile code for each class at every start.
    """

    attributes: ClassVar[Mapping[str, Option | None]] = MappingProxyType({})  # in the order of their declaration

    def __init_subclass__(cls, *, offers: bool = False, takes: str = "") -> None:
        every = dict(cls.attributes)
        for name in (name for name, kind in cls.__annotations__.items() if "ClassVar" not in str(kind)):
            value = vars(cls)[name]
            every[name] = value._replace(name=name, is_taken=not offers) if isinstance(value, Option) else None
            setattr(cls, name, value.default if isinstance(value, Option) else value)
        for name in takes.split():
            if option := every[name]:
                every[name] = option._replace(is_taken=True)
        cls.attributes = every

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
        return {name: option for name, option in cls.attributes.items() if option and option.is_taken}

    def given(self) -> dict[str, Any]:
        """Return the value of each option."""
        return {name: getattr(self, name) for name in self.known()}

    def typed(self) -> dict[str, str]:
        """Return the options that differ from their default, as texts to type."""
        return {
            name: str(int(value) if one.is_flag else value)
            for name, one in self.known().items()
            if (value := getattr(self, name)) != one.default
        }

    def but(self, **changes: Any) -> Self:
        """Return a copy with some attributes changed."""
        return type(self)(**{**vars(self), **changes})


class Common(Declared, offers=True, takes="outputs_dir rules_dir dry_run verbose"):
    """The options and the properties that all commands have, and options that a command may take."""

    needs_outputs: ClassVar[bool] = True  # it works on outputs_dir, which the rules may give; the next two need it
    finds_outputs: ClassVar[bool] = True  # it is refused where outputs_dir does not exist
    believes_state: ClassVar[bool] = True  # it is refused where others could have written the state folder
    reads_journals: ClassVar[bool] = False  # it is refused where others could have written the journals
    changes: ClassVar[bool] = False  # it takes the lock, and first finishes what an interrupted run began
    remembers: ClassVar[bool] = False  # it notes what is up to date, in a database on disk
    shares: ClassVar[bool] = False  # it shares its work with several processes, if the tree is large

    outputs_dir: str = option(
        "outputs", a_path, "folder that holds the experiments; otherwise outputs_dir in the rules, if they have one"
    )
    rules_dir: str | None = option(None, a_path, "folder with the rule files (*.yaml); otherwise rules")
    dry_run: bool = flag("show what would happen, change nothing")
    verbose: bool = flag("list also what stays, with the reason and the rule")
    experiments: str | None = option(None, some_text, "only the experiments that this pattern fits")
    json: str | None = option(None, a_file, "also write the result to this file, as JSON")
    html: str | None = option(None, a_page, "also draw the result as one HTML file")
    quiet: bool = False
    summary: bool = False
    wait: int = option(0, whole_seconds, "seconds to wait for another run to finish")
    executor: str | None = option(
        None, an_executor,
        "where the work is done: none (this process), processes, dask:local:N (N workers), dask:tls://host:8786 "
        "(workers of a scheduler); by default, processes if that pays",
    )  # fmt: skip
    max_rate: str | None = option(None, a_rate, "the most bytes a second, for all workers together: 2GB/s")

    @property
    def will_change(self) -> bool:
        """Whether this run is to change anything."""
        return self.changes and not self.dry_run

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders that workers on other machines must see under the same paths."""
        return (self.outputs_dir,)

    @property
    def tells_data(self) -> bool:
        """Whether the outcome is needed as data: for a JSON file, or for the page that is drawn from it."""
        return bool(self.json or self.html)


RUN = option(None, some_text, "the id of a run: 'doit history' lists them")
ARCHIVE_DIR = option(None, a_path, "the folder in which the archives lie")
BACKUP = option(None, some_text, "the folder of the backup: 'doit backups' lists them")
BACKUPS = option(None, a_path, "folder of the backups; otherwise beside outputs_dir")


class Planning(Common, offers=True):
    """The options that a plan depends on; a command takes those that its users can give.

    With a ``path``, only the directory of that checkpoint is planned.
    """

    delete_old: bool = flag("also delete what the retention policy does not keep")
    policy: str = option(
        "default", some_text, "the retention policy, except for experiments to which the rules assign one"
    )
    keep_min_epoch: int | None = option(
        None,
        at_least(0),
        "keep this epoch and later ones (overrides the policy's min_epoch, but not a lower one that the rules assign)",
    )
    keep_last: int | None = option(
        None,
        at_least(1),
        "keep so many of the newest (overrides the policy's keep_last, min_epoch and min_step; "
        "in a policy that the rules assign, it only keeps more)",
    )
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
    path: str | None = None
    resumed: str | None = None
    best: str | None = None


class Migrating(
    Planning,
    takes="delete_old policy keep_min_epoch keep_last max_delete on_conflict settle verified leave_links fix_state",
):
    """The options of `doit migrate`, and of commands that preview or repeat it."""

    quiet: bool = flag("print nothing if nothing was done and no problem is left")
    executor: str | None = option(
        None,
        an_executor_here,
        "where the work is done: none (this process) or processes; by default, processes if that pays",
    )
