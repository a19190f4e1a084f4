"""What a command is to do, what comes of it, and what a reporter has heard of it, added up."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ckptrules.engine.actions import Plan, Problem
from ckptrules.engine.entries import Directory
from ckptrules.engine.naming import SlowRuleError
from ckptrules.report.style import Style
from ckptrules.report.text import Outlook, Several, Tally
from ckptrules.rules.load import SLOW_HINT
from ckptrules.run.options import Common
from ckptrules.stopping import KilledError, StoppedError
from ckptrules.storage import reading
from ckptrules.workers.pieces import Work

if TYPE_CHECKING:
    from ckptrules.report.checkpoints import Room
    from ckptrules.report.data import Experiments
    from ckptrules.report.what_if import Weighed

NOTHING = Tally()
NONE = Several()
FAULTS = (OSError, SlowRuleError, StoppedError)  # one directory is told of as `untouched`, the others are done


class Output(NamedTuple):
    """What a task's action has to say; it stands in ``task.meta["output"]``.

    Args:
        text: what is printed.
        tally: the numbers that are added up.
        data: what is written to the JSON file.
        outlook: what an experiment would keep and lose, in a preview.
        links: the files with several names, which count once in the whole run.
        as_it_is: the text quotes what others wrote, so commands in it are not completed.
        weighed: what would go otherwise, where that was asked for.
        room: bytes that only a JSON file tells of.
    """

    text: str
    tally: Any = NOTHING
    data: Mapping[str, Any] | None = None
    outlook: Outlook | None = None
    links: Several = NONE
    as_it_is: bool = False
    weighed: Weighed | None = None
    room: Room | None = None


class Done(NamedTuple):
    """What came of the work on one directory, or of a command: what is shown of it, and what doit is to remember.

    ``failed`` says that problems are left. ``moved`` are the bytes of the files that were worked on, if nobody was told
    of them yet. ``passed`` are those that were read for it: of some formats a part tells that a file is whole.
    ``killed`` says why no worker is left.
    """

    output: Output
    failed: bool = False
    values: Mapping[str, Any] = {}
    moved: int = 0
    passed: int = 0
    killed: KilledError | None = None


class Prepared(NamedTuple):
    """What a command is to do, and the experiments that words of the command line may select, if they may.

    Its `prepare` makes it, and refuses what cannot be done, by an OptionError or a RuleError.
    """

    work: Callable[[], Done]
    experiments: Collection[str] = ()


class Apart(NamedTuple):
    """Work on one directory of which the files are still to be worked on, by whoever is free.

    ``work`` is what is done with each of the ``files``, ``then`` makes the whole of the answers, in the process with
    the journal. Where they end before their time, by a StoppedError or KilledError, it tells what came of it until
    then, or lets that pass. With no files, ``then`` alone is left.
    """

    work: Work[Any, Any] | None
    files: Sequence[Any]
    then: Callable[[Iterable[Any]], Done]


class RunContext(NamedTuple):
    """What the reporter must know of the run as a whole.

    ``nothing`` is the tally to begin with. ``summarise`` makes the last lines from the tally, the style and the notes;
    without one they are those of a migration. ``came_to`` adds notes, given the tally. ``lacks`` says why a run with
    that tally is no success although it left no problem. ``trash_days`` is None where the rules are not asked.
    ``rows`` say what was weighed besides (`run.what_if`). ``reads`` marks a command that reads the contents in all
    directories. ``drawn`` says what there is to say of a page, given its name for people and its path.
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


class Heard:
    """What the tasks of one command have told so far; their texts are printed and gone."""

    def __init__(self, nothing: Any) -> None:
        self._told, self.up_to_date = nothing, 0  # directories that needed nothing: they may be ten thousand
        self._outputs: list[Output] = []
        self.experiments: Experiments | None = None  # what a JSON file tells

    def add(self, output: Output) -> None:
        """Hear of one more."""
        if output.tally != NOTHING:  # whatever the command counts
            self._told += output.tally
        if output.data is not None:
            from ckptrules.report.data import Experiments  # not above: most runs write no JSON

            self.experiments = self.experiments or Experiments()
            self.experiments.add(output.data)
        self._outputs.append(output._replace(text="", tally=NOTHING, data=None))

    @property
    def total(self) -> Any:
        """All that was told, added up."""
        return self._told + Tally(up_to_date=self.up_to_date) if self.up_to_date else self._told

    def all(self, what: str) -> list[Any]:
        """Return what they have told of one kind, which is the name of a field of `Output`."""
        return [told for output in self._outputs if (told := getattr(output, what))]

    @property
    def links(self) -> list[Several]:
        """The files with several names."""
        return [links for links in self.all("links") if links != NONE]


def untouched(found: Directory, fault: OSError | SlowRuleError | StoppedError) -> Plan:
    """Tell of a directory that could not be read, or not to its end, or of a rule that was given up on a name in it."""
    if isinstance(fault, StoppedError):
        problem = Problem("stopped", (found.directory,), "was not looked at to its end", "run again to go on")
    elif isinstance(fault, SlowRuleError):
        text = f"cannot be named: {fault.rule.called} ({fault.rule.place.file_line}) needs too long for it"
        problem = Problem("slow_rule", (fault.name,), text, SLOW_HINT)
    else:
        hint = fault.hint if isinstance(fault, reading.StateError) else "look at the owner and the mode: ls -la"
        problem = Problem("unreadable", (found.directory,), f"cannot be read: {reading.why_of(fault)}", hint)
    return Plan(found.experiment, found.directory, problems=(problem,))
