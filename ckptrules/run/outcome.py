"""The values between tasks and the reporter: the work of a command, its outcome, and the sum of all outcomes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ckptrules.engine.actions import Plan, Problem
from ckptrules.engine.entries import Directory
from ckptrules.engine.names.naming import SlowRuleError
from ckptrules.report.style import Style
from ckptrules.report.text import Outlook, SharedFiles, Tally
from ckptrules.rules.load import SLOW_HINT
from ckptrules.run.options import Common
from ckptrules.stopping import KilledError, StoppedError
from ckptrules.storage import reading
from ckptrules.workers.pieces import Work

if TYPE_CHECKING:
    from ckptrules.report.checkpoints import Space
    from ckptrules.report.data import Experiments
    from ckptrules.report.what_if import Weighed

NOTHING = Tally()
NONE = SharedFiles()
FAULTS = (OSError, SlowRuleError, StoppedError)  # of one directory: it is reported by `untouched`, the others go on


class Done(NamedTuple):
    """The outcome of the work on one directory, or of a command; the reporter finds it in ``task.meta["done"]``.

    Args:
        text: the text to print.
        tally: the numbers of the summary, which are added up.
        data: the row of the JSON file.
        failed: problems are left.
        values: what doit remembers.
        moved: the bytes of the files that were worked on, unless the progress has counted them.
        passed: the bytes that were read for that: in some formats a part of a file proves that it is whole.
        killed: the error if no worker is left.
        outlook: what an experiment would keep and lose; only in a preview.
        links: the files with several names, which count once in the whole run.
        as_it_is: the text quotes what others wrote, so the commands in it are not completed.
        weighed: what other options would delete; only where that was asked for.
        space: bytes for the JSON file.
    """

    text: str
    tally: Any = NOTHING
    data: Mapping[str, Any] | None = None
    failed: bool = False
    values: Mapping[str, Any] = {}
    moved: int = 0
    passed: int = 0
    killed: KilledError | None = None
    outlook: Outlook | None = None
    links: SharedFiles = NONE
    as_it_is: bool = False
    weighed: Weighed | None = None
    space: Space | None = None


class Prepared(NamedTuple):
    """The ``work`` of a command, and the ``experiments`` that words of the command line may select.

    The function `prepare` of a command returns it, or raises OptionError or RuleError.
    """

    work: Callable[[], Done]
    experiments: Collection[str] = ()


class Apart(NamedTuple):
    """Work on one directory whose files are left to all workers.

    ``work`` is done on each of the ``files``. ``then`` makes the outcome from the answers, in the process with the
    journal; it gets a StoppedError or KilledError from them if they end early. Without ``work``, it gets no answers.
    """

    work: Work[Any, Any] | None
    files: Sequence[Any]
    then: Callable[[Iterable[Any]], Done]


class RunContext(NamedTuple):
    """What the reporter needs of a command as a whole.

    Args:
        trash_days: None for a command that loads no rules.
        notes: notes that stand before any work is done.
        nothing: the tally to begin with.
        summarise: makes the summary from the tally, the style and the notes; None for the summary of a migration.
        came_to: returns more notes, given the tally.
        lacks: says why a run with that tally is no success although it left no problem.
        rows: describe the other options that were weighed (`run.what_if`).
        reads: whether the command reads all contents, so that its progress counts directories.
        drawn: returns lines on a page that was drawn, given its name for people and its path.
    """

    options: Common
    style: Style
    header: Mapping[str, Any]
    trash_days: int | None
    notes: tuple[str, ...] = ()
    nothing: Any = NOTHING
    summarise: Callable[[Any, Style, Iterable[str]], str] | None = None
    came_to: Callable[[Any], Iterable[str]] = lambda _: ()
    lacks: Callable[[Any], str] = lambda _: ""
    rows: tuple[Mapping[str, Any], ...] = ()
    reads: bool = False
    drawn: Callable[[str, str], Iterable[str]] = lambda shown, _: [f"Page: {shown}"]


class Collected:
    """The sum of the outcomes of one command so far, without their texts, which are printed already."""

    def __init__(self, nothing: Any) -> None:
        self._tally, self.up_to_date = nothing, 0  # up to date may be ten thousand directories, so they are counted
        self._every: list[Done] = []
        self.experiments: Experiments | None = None  # rows of the JSON file

    def add(self, done: Done) -> None:
        """Add the outcome of one more task."""
        if done.tally != NOTHING:  # which may be of another type than the tally of this command
            self._tally += done.tally
        if done.data is not None:
            from ckptrules.report.data import Experiments  # not above: most runs write no JSON

            self.experiments = self.experiments or Experiments()
            self.experiments.add(done.data)
        self._every.append(done._replace(text="", tally=NOTHING, data=None, values={}))

    @property
    def total(self) -> Any:
        """The tally of all tasks."""
        return self._tally + Tally(up_to_date=self.up_to_date) if self.up_to_date else self._tally

    def all(self, field: str) -> list[Any]:
        """Return one field of all outcomes that have it."""
        return [value for done in self._every if (value := getattr(done, field))]

    @property
    def links(self) -> list[SharedFiles]:
        """The files with several names."""
        return [links for links in self.all("links") if links != NONE]


def untouched(found: Directory, fault: OSError | SlowRuleError | StoppedError) -> Plan:
    """Return the plan of a directory that was given up, which changes nothing: a problem tells the fault."""
    if isinstance(fault, StoppedError):
        problem = Problem("stopped", (found.directory,), "was not looked at to its end", "run again to go on")
    elif isinstance(fault, SlowRuleError):
        text = f"cannot be named: {fault.rule.called} ({fault.rule.place.file_line}) needs too long for it"
        problem = Problem("slow_rule", (fault.name,), text, SLOW_HINT)
    else:
        hint = fault.hint if isinstance(fault, reading.StateError) else "look at the owner and the mode: ls -la"
        problem = Problem("unreadable", (found.directory,), f"cannot be read: {reading.why_of(fault)}", hint)
    return Plan(found.experiment, found.directory, problems=(problem,))
