"""doit's reporter: prints each experiment's block whole, then the summary, and writes the JSON file."""

from __future__ import annotations

import contextlib
import gc
import glob
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from doit.exceptions import BaseFail, TaskFailed, UnmetDependency
from doit.globals import Globals
from doit.reporter import ConsoleReporter
from doit.task import Task

from ckptrules import stopping
from ckptrules.engine.actions import Plan
from ckptrules.report.style import Style, count_of, printed
from ckptrules.report.text import Tally, by_file, magnitude, summary, trash_sentence
from ckptrules.rules.shipped import RULES_DIR
from ckptrules.run.command_line import be_silent, escape_what_has_no_letter
from ckptrules.run.hints import as_named, command
from ckptrules.run.options import Common
from ckptrules.run.outcome import Heard, Output, RunContext
from ckptrules.run.records import ended, note_rate
from ckptrules.run.session import Session
from ckptrules.storage.posix import Disk
from ckptrules.storage.trash import trash_use

if TYPE_CHECKING:
    from ckptrules.engine.drafting import Unread

PROBLEMS_LEFT = 1
DRAFTS = 3  # formats for names that no rule reads
FEWER = "\n    hint: run again, with fewer processes (-n 0 in front of the command); what was begun is finished then"
KILLED = f"a worker was killed (was the memory full?){FEWER}"
LOST = """ERROR: {}
    hint: run again, on one host: that finishes what was begun; no change is half done
"""


class Reporter(ConsoleReporter):  # type: ignore[misc]
    """Shows what the tasks of one session tell."""

    desc = "blocks of experiments and a summary"

    def __init__(self, session: Session, outstream: TextIO | None, options: Mapping[str, Any]) -> None:
        outstream = outstream or sys.stdout  # doit asked for it before `doit_config` found it closed
        super().__init__(outstream, options)
        self._session, self._contexts = session, session.contexts
        escape_what_has_no_letter(outstream)
        self._heard: dict[str, Heard] = {}  # by command
        self._problems_left = session.problems_before
        self._crashed = self._is_silent = False
        self._killed = ""  # what there is to say of it
        self._not_remembered: list[str] = []

    def initialize(self, tasks: Mapping[str, Task], selected_tasks: Iterable[str]) -> None:
        """Note which commands were asked for, so that one without any experiment has its summary too."""
        self._not_remembered = let_fail(Globals.dep_manager)
        for name in selected_tasks:
            if (base := name.partition(":")[0]) in self._contexts:
                self._heard[base] = Heard(self._contexts[base].nothing)
                if self._contexts[base].reads:
                    self._session.bar.expect(len(tasks[name].task_dep) if tasks[name].has_subtask else 1)

    def execute_task(self, task: Task) -> None:
        """Say nothing yet: blocks are printed whole, when they are finished."""

    def skip_uptodate(self, task: Task) -> None:
        """Count an experiment that needs nothing; name it only when asked to."""
        context = self._context(task)
        if context is None:
            return
        if task.meta:
            found = task.meta["found"]
            if context.style.verbose:
                self.write(f"Up to date: {context.style.name(found.experiment)}\n")
            heard = self._heard[_base(task)]
            heard.up_to_date += 1
            if context.options.tells_data:
                from ckptrules.report.data import plan_as_data  # not above: most runs write no JSON

                heard.add(Output("", data=plan_as_data(Plan(found.experiment, found.directory), "up to date")))

    def add_success(self, task: Task) -> None:
        """Print what the task tells."""
        self._tell(task)

    def add_failure(self, task: Task, fail: BaseFail) -> None:
        """Print what the task tells; a failure without words of its own is shown as doit has it."""
        if killed := (task.meta or {}).get("killed"):
            self._killed = self._killed or str(killed) or KILLED
        if isinstance(fail, TaskFailed | UnmetDependency):
            self._problems_left = True
        elif not task.has_subtask:
            self._crashed = True
        if self._tell(task) or task.has_subtask:
            return
        if _base(task) in self._contexts:
            why = "not done, as this failed: " if isinstance(fail, UnmetDependency) else ""
            self.write(f"{task.title()}: {why}{fail.get_msg().strip()}\n")
        else:
            super().add_failure(task, fail)

    def complete_run(self) -> None:
        """Print the summary of each command that was run, and write its JSON file.

        Raises:
            SystemExit: with 2 where the output could not be written, the lock was lost, or doit gave up; with 130 after
                Ctrl-C or SIGTERM; with 1 where problems are left. doit itself would exit with 2, because it takes the
                group of a failed experiment for an error.
        """
        fault = sys.exc_info()[1]  # doit calls this, too, where it gives up: where it gets no thread, say
        if isinstance(fault, Exception):
            self._killed = self._killed or f"not all was done: {type(fault).__name__}: {fault}{FEWER}"
        self._session.bar.close()
        if self._session.bar.moved_much:
            note_rate(self._session)
        for base, heard in self._heard.items():
            self._sum_up(base, heard)
        super().complete_run()
        gc.freeze()  # Python would search all tasks for garbage once more before it ends
        if self._not_remembered:
            why = self._not_remembered[0]
            hint = "make space (df -h); 'doit purge' empties the trash"
            fact = f"What is up to date cannot be remembered: {why}. The next run looks at everything again."
            self.write(self._session.completed(f"{fact}\n    hint: {hint}\n"))
            self._problems_left |= "migrate" in self._contexts
        self._session.workers.end(killed=bool(self._killed))
        for outputs_dir in self._session.locks:
            ended(outputs_dir, self._session.run_id, killed=bool(self._killed))
        self._say_why_it_ends()
        self.write("", flush=True)
        self._session.cleanup.close()
        if self._is_silent or self._killed:
            raise SystemExit(stopping.FAILED)
        if stopping.stopped():
            raise SystemExit(stopping.exit_code())
        if not self.runtime_errors and self._problems_left and not self._crashed:
            raise SystemExit(PROBLEMS_LEFT)

    def write(self, text: str, *, flush: bool = False) -> None:
        """Print a text. Where the output cannot be written (a full disk), that is output once, and the work goes on."""
        try:
            with self._session.bar.aside():
                print(printed(text, colour=self.outstream.isatty()), end="", file=self.outstream, flush=flush)
        except OSError as error:
            self._is_silent = True
            be_silent(self.outstream, error)

    def _say_why_it_ends(self) -> None:
        """Say so where a run ends before its time."""
        if self._killed:
            print(self._session.completed(f"ERROR: {self._killed}"), file=sys.stderr)
        elif why := stopping.why_lost():
            print(LOST.format(why), end="", file=sys.stderr)
        elif stopping.stopped():
            self.write("Stopped: no change is half done. Run again to go on.\n")

    def _sum_up(self, base: str, heard: Heard) -> None:
        """Print the summary of a command, and write its JSON file."""
        context, links = self._contexts[base], heard.links
        total = by_file(heard.total, links) if links else heard.total
        lack = "" if stopping.stopped() or self._killed else context.lacks(total)
        self._problems_left |= bool(context.header.get("refused") or lack)
        if context.style.preview and not context.options.summary:
            self.write(magnitude(heard.all("outlook"), context.style))
        if not (context.options.quiet and not _says_something(total) and not lack):
            self.write(self._session.completed(self._summary(base, total, context, lack)))
        if context.options.tells_data:
            self._write_data(base, heard, context, total)

    def _write_data(self, base: str, heard: Heard, context: RunContext, total: Any) -> None:
        from ckptrules.run.json_file import around, head_of, write_data

        options, head = context.options, head_of(context.header)
        if isinstance(total, Tally):
            head = around(self._session, base, context, heard, total)
        data = {**head, "summary": total._asdict(), "experiments": heard.experiments or []}
        faults = write_data(options, data, context.style)
        self._problems_left |= bool(faults)
        self.write("".join(faults.values()))
        if options.html and options.html not in faults and not options.quiet:
            self.write("".join(f"{line}\n" for line in context.drawn(context.style.name(options.html), options.html)))

    def _tell(self, task: Task) -> bool:
        output: Output | None = (task.meta or {}).pop("output", None)
        if output is None:
            return False
        context = self._context(task)
        of_directory = "found" in task.meta  # what the trash has freed is told in any case
        is_quiet = context and context.options.quiet and of_directory and not _says_something(output.tally)
        if not is_quiet and not (context and context.options.summary):
            self.write(output.text if output.as_it_is else self._session.completed(output.text))
        if context:
            if data := output.data:
                completed = self._session.completed
                problems = [{**row, "hint": row["hint"] and completed(row["hint"])} for row in data["problems"]]
                data = {**data, "problems": problems}
            self._heard[_base(task)].add(output._replace(data=data))
        return True

    def _context(self, task: Task) -> RunContext | None:
        return self._contexts.get(_base(task)) if task.subtask_of else None

    def _summary(self, base: str, total: Any, context: RunContext, lack: str) -> str:
        notes = [note for note in (*context.notes, lack, *context.came_to(total)) if note]
        every = self._heard[base].all("outlook")
        notes += blind_note([one.blind for one in every if one.blind], context.options)
        if context.options.summary:
            return self._overview(base, total, context, notes)
        notes += drafts_of([kind for one in every for kind in one.unread], context.style)
        if context.summarise:
            return context.summarise(total, context.style, notes)
        notes += [*self._trash(total, context), *self._log(total, context)]
        if lack and total.up_to_date and not total.experiments:
            return "\n".join([*notes, ""])  # that all is up to date would be half of it
        days = None if "takes_back" in context.header else context.trash_days  # an undo frees nothing at once
        return summary(total, context.style, days, notes)

    def _overview(self, base: str, total: Tally, context: RunContext, notes: Iterable[str]) -> str:
        from ckptrules.report.overview import overview

        shown = as_named(f"{self._session.command(base, context.options, base)} verbose=1")
        more = f"Nothing was changed. {shown} tells each checkpoint, with its reasons."
        text = overview(self._heard[base].all("outlook"), total, context.style)
        return "\n".join([text.rstrip("\n"), *notes, more, ""])

    @staticmethod
    def _log(total: Tally, context: RunContext) -> list[str]:
        if context.style.preview or context.header.get("command") != "migrate" or not total.renamed + total.deleted:
            return []
        return [f"For your experiment log: 'doit log{' out=docs/experiment_log.md' * os.path.isdir('docs')}'"]

    @staticmethod
    def _trash(total: Tally, context: RunContext) -> list[str]:
        if context.style.preview or not total.deleted:
            return []
        with contextlib.suppress(OSError):
            waiting = trash_use(Disk(context.options.outputs_dir))
            return [trash_sentence(waiting.items, waiting.size, context.trash_days)]
        return []


def reporter_of(session: Session) -> type[Reporter]:
    """Return from what doit makes the reporter of a session: doit alone knows where its output goes (``-o``)."""

    class ReporterOfSession(Reporter):
        def __init__(self, outstream: TextIO, options: Mapping[str, Any]) -> None:
            super().__init__(session, outstream, options)

    return ReporterOfSession


def drafts_of(found: Sequence[Unread], style: Style) -> Iterator[str]:
    """Draft formats for what looks like checkpoints and is read by no rule: of the first kinds of names.

    The names of other kinds are left to `doit explain`.
    """
    if not found:
        return
    from ckptrules.engine.drafting import format_lines, joined

    kinds = joined(found)
    drafted, others = kinds[:DRAFTS], kinds[DRAFTS:]
    if drafted:
        yield "Some names look like checkpoints, and no rule reads them. These lines in a file"
        yield "of rules/ would; 'doit check' tests them:"
        yield from (f"    {style.name(line)}" for line in format_lines(drafted))
    if others:
        shown = command("explain", name=glob.escape(others[0][0].names[0]))
        yield f"    and {count_of(len(others), 'further kind')} of names: {shown}"
    if any("(?P<number>" in line for _, lines in drafted for line in lines):
        yield "The highest <number> is taken for the newest: leave out a kind whose number tells"
        yield "models or trainings apart."


def blind_note(found: Sequence[str], options: Common) -> list[str]:
    """Say of how many experiments something would go though nothing tells which checkpoint is the best."""
    if not found:
        return []
    fact = f"No metric is known of {count_of(len(found), 'experiment')}, so no best is kept."
    if not os.path.isdir(options.rules_dir or RULES_DIR):  # where a pin, too, would stand
        return [f"{fact}\n    hint: 'ckptrules init' writes rules, in which keep_best names one"]
    return [f"{fact}\n    hint: name one with keep_best, or pin the best: {command('pin', name=found[0])}, say"]


def let_fail(database: Any) -> list[str]:
    """Let doit go on where its database cannot be read or written (a full disk); return the reasons, a list that grows.

    What stands in the database stays true; what does not get there, or is not read, is looked at again.
    """
    import sqlite3

    reasons: list[str] = []

    def attempt(function: Callable[..., Any], otherwise: Callable[..., None] = lambda *_: None) -> Callable[..., Any]:
        def attempted(*args: Any) -> Any:
            try:
                return function(*args)
            except sqlite3.Error as error:
                reasons.append(str(error))
                return otherwise(*args)

        return attempted

    backend = database.backend

    def forget(task: Task) -> None:
        backend.set(task.name, "ignore:", None)  # so doit knows something, and asks no more

    database.remove, backend.dump = attempt(database.remove), attempt(backend.dump)
    database.status_is_ignore = attempt(database.status_is_ignore, forget)  # the first that doit asks of a task
    return reasons


def _says_something(tally: Any) -> bool:
    """Say whether anything was done, or is left to a person: what ``quiet=1`` prints."""
    return not isinstance(tally, Tally) or tally.changes + tally.problems > 0


def _base(task: Task) -> str:
    name: str = task.name
    return name.partition(":")[0]
