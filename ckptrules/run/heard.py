"""What a reporter has heard of the tasks of one command, added up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ckptrules.outputs.links import Links
from ckptrules.report.style import Style
from ckptrules.report.text import Several, Tally
from ckptrules.run.options import Common
from ckptrules.run.outcome import NONE, NOTHING, Output

if TYPE_CHECKING:
    from ckptrules.report.data import Experiments
    from ckptrules.report.what_if import Weighings


class RunContext(NamedTuple):
    """What the reporter must know of the run as a whole.

    ``nothing`` is the tally to begin with. ``summarise`` makes the last lines from the tally, the style and the notes;
    without one they are those of a migration. ``came_to`` adds notes, given the tally. ``lacks`` says why a run with
    that tally is no success although it left no problem. ``trash_days`` is None where the rules are not asked.
    ``refused`` marks a preview of what would be refused. ``links`` are those that the plans went by. ``rows`` say what
    was weighed besides (`run.what_if`). ``reads`` marks a command that reads the contents in all directories. ``drawn``
    says what there is to say of a page, given its name for people and its path.
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
    refused: bool = False
    links: Links | None = None
    rows: tuple[Mapping[str, Any], ...] = ()
    reads: bool = False
    drawn: Callable[[str, str], Iterable[str]] = lambda shown, _: [f"Page: {shown}"]


class Heard:
    """What the tasks of one command have told so far; their texts are printed and gone."""

    def __init__(self, nothing: Any) -> None:
        self._told, self.up_to_date = nothing, 0  # directories that needed nothing: they may be ten thousand
        self._outputs: list[Output] = []
        self.experiments: Experiments | None = None  # what a JSON file tells
        self.weighings: Weighings | None = None  # likewise

    def add(self, output: Output) -> None:
        """Hear of one more."""
        self._told += output.tally
        if output.data is not None:
            from ckptrules.report.data import Experiments  # not above: most runs write no JSON

            self.experiments = self.experiments or Experiments()
            self.experiments.add(output.data)
        if output.weighed is not None:
            from ckptrules.report.what_if import Weighings  # likewise

            self.weighings = self.weighings or Weighings()
            self.weighings.add(output.weighed)
        self._outputs.append(output._replace(text="", tally=NOTHING, data=None, weighed=None))

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
