"""The reporter of doit: print each experiment's block whole, then the summary, and write the JSON file and the page."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from doit.exceptions import BaseFail, TaskFailed, UnmetDependency
from doit.globals import Globals
from doit.reporter import ConsoleReporter
from doit.task import Task

from ckptrules import stopping
from ckptrules.engine.actions import Plan
from ckptrules.engine.measures import count_of
from ckptrules.report.style import Style, printed
from ckptrules.report.text import Tally, by_file, magnitude, summary, trash_sentence
from ckptrules.rules.shipped import RULES_DIR
from ckptrules.run.command_line import be_silent, escape_missing_letters
from ckptrules.run.hints import as_named, command
from ckptrules.run.options import Common
from ckptrules.run.outcome import Collected, Done, RunContext
from ckptrules.run.records import ended, note_rate
from ckptrules.run.session import Session
from ckptrules.storage.posix import Disk
from ckptrules.storage.trash import trash_use

if TYPE_CHECKING:
    from ckptrules.engine.names.drafting import Unread

PROBLEMS_LEFT = 1
DRAFTS = 3  # how many formats are drafted for names that no rule reads
FEWER = "\n    hint: run again, with fewer processes (-n 0 in front of the command); what was begun is finished then"
KILLED = f"a worker was killed (was the memory full?){FEWER}"
LOST = """ERROR: {}
    hint: run again, on one host: that finishes what was begun; no change is half done
"""


class Reporter(ConsoleReporter):  # type: ignore[misc]
    """Prints the outputs of the tasks of one session."""

    desc = "blocks of experiments and a summary"

    def __init__(self, session: Session, outstream: TextIO | None, options: Mapping[str, Any]) -> None:
        outstream = outstream or sys.stdout  # None where stdout was closed before `doit_config` replaced it
        super().__init__(outstream, options)
        self._session, self._contexts = session, session.contexts
        escape_missing_letters(outstream)
        self._collected: dict[str, Collected] = {}  # by command
        self._problems_left = session.problems_before
        self._crashed = self._is_silent = False
        self._killed = ""  # the error, if a worker was killed or doit gave up
        self._database_faults: list[str] = []

    def initialize(self, tasks: Mapping[str, Task], selected_tasks: Iterable[str]) -> None:
        """Note which commands were asked for, so that a command without any experiment has a summary too."""
        self._database_faults = survive_faults(Globals.dep_manager)
        for name in selected_tasks:
            if (base := name.partition(":")[0]) in self._contexts:
                self._collected[base] = Collected(self._contexts[base].nothing)
                if self._contexts[base].reads:
                    self._session.bar.expect(len(tasks[name].task_dep) if tasks[name].has_subtask else 1)

    def execute_task(self, task: Task) -> None:
        """Print nothing: the block of an experiment is printed when it is whole."""

    def skip_uptodate(self, task: Task) -> None:
        """Count an experiment that is up to date; name it only with ``verbose=1``."""
        context = self._context(task)
        if context is None:
            return
        if task.meta:
            found = task.meta["found"]
            if context.style.verbose:
                self.write(f"Up to date: {context.style.name(found.experiment)}\n")
            collected = self._collected[_base(task)]
            collected.up_to_date += 1
            if context.options.tells_data:
                from ckptrules.report.data import plan_as_data  # not above: most runs write no JSON

                collected.add(Done("", data=plan_as_data(Plan(found.experiment, found.directory), "up to date")))

    def add_success(self, task: Task) -> None:
        """Print the output of a task."""
        self._print_output(task)

    def add_failure(self, task: Task, fail: BaseFail) -> None:
        """Print the output of a task that failed; without any, print the error as doit does."""
        done: Done | None = (task.meta or {}).get("done")
        if done and done.killed:
            self._killed = self._killed or str(done.killed) or KILLED
        if isinstance(fail, TaskFailed | UnmetDependency):
            self._problems_left = True
        elif not task.has_subtask:
            self._crashed = True
        if self._print_output(task) or task.has_subtask:
            return
        if _base(task) in self._contexts:
            why = "not done, as this failed: " if isinstance(fail, UnmetDependency) else ""
            self.write(f"{task.title()}: {why}{fail.get_msg().strip()}\n")
        else:
            super().add_failure(task, fail)

    def complete_run(self) -> None:
        """Print the summary of each command that was run, and write its JSON file.

        Raises:
            SystemExit: with 2 if the output could not be written, the lock was lost, or doit gave up; with 130 after
                Ctrl-C or SIGTERM; with 1 if problems are left, where doit itself would exit with 2, as it takes the
                group of a failed experiment for an error.
        """
        fault = sys.exc_info()[1]  # doit calls this also when it gives up, for example when it gets no thread
        if isinstance(fault, Exception):
            self._killed = self._killed or f"not all was done: {type(fault).__name__}: {fault}{FEWER}"
        self._session.bar.close()
        if self._session.bar.moved_much:
            note_rate(self._session)
        for base, collected in self._collected.items():
            self._sum_up(base, collected)
        super().complete_run()
        gc.freeze()  # else Python searches all tasks for garbage once more before it ends
        if self._database_faults:
            why = self._database_faults[0]
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
        """Print a text; if that fails (a full disk), print the error once, and let the work go on."""
        try:
            with self._session.bar.aside():
                print(printed(text, colour=self.outstream.isatty()), end="", file=self.outstream, flush=flush)
        except OSError as error:
            self._is_silent = True
            be_silent(self.outstream, error)

    def _say_why_it_ends(self) -> None:
        """Print why the run ended early, if it did."""
        if self._killed:
            print(self._session.completed(f"ERROR: {self._killed}"), file=sys.stderr)
        elif why := stopping.why_lost():
            print(LOST.format(why), end="", file=sys.stderr)
        elif stopping.stopped():
            self.write("Stopped: no change is half done. Run again to go on.\n")

    def _sum_up(self, base: str, collected: Collected) -> None:
        """Print the summary of a command, and write its JSON file."""
        context, links = self._contexts[base], collected.links
        total = by_file(collected.total, links) if links else collected.total
        lack = "" if stopping.stopped() or self._killed else context.lacks(total)
        self._problems_left |= bool(context.header.get("refused") or lack)
        if context.style.preview and not context.options.summary:
            self.write(magnitude(collected.all("outlook"), context.style, named=base != "page"))
        if not (context.options.quiet and not _is_news(total) and not lack):
            self.write(self._session.completed(self._summary(base, total, context, lack)))
        if context.options.tells_data:
            self._write_data(base, collected, context, total)

    def _write_data(self, base: str, collected: Collected, context: RunContext, total: Any) -> None:
        from ckptrules.run.json_file import full_head, head_of, write_data

        options, head = context.options, head_of(context.header)
        if isinstance(total, Tally):
            head = full_head(self._session, base, context, collected, total)
        data = {**head, "summary": total._asdict(), "experiments": collected.experiments or []}
        faults = write_data(options, data, context.style)
        self._problems_left |= bool(faults)
        self.write("".join(faults.values()))
        if options.html and options.html not in faults and not options.quiet:
            self.write("".join(f"{line}\n" for line in context.drawn(context.style.name(options.html), options.html)))

    def _print_output(self, task: Task) -> bool:
        """Print the output of a task, and add it up; return False if the task has none."""
        done: Done | None = (task.meta or {}).pop("done", None)
        if done is None:
            return False
        context = self._context(task)
        of_directory = "found" in task.meta  # else it is the trash task, which is printed also with quiet=1
        is_quiet = context and context.options.quiet and of_directory and not _is_news(done.tally)
        if not is_quiet and not (context and context.options.summary):
            self.write(done.text if done.as_it_is else self._session.completed(done.text))
        if context:
            if data := done.data:
                completed = self._session.completed
                problems = [{**row, "hint": row["hint"] and completed(row["hint"])} for row in data["problems"]]
                data = {**data, "problems": problems}
            self._collected[_base(task)].add(done._replace(data=data))
        return True

    def _context(self, task: Task) -> RunContext | None:
        return self._contexts.get(_base(task)) if task.subtask_of else None

    def _summary(self, base: str, total: Any, context: RunContext, lack: str) -> str:
        notes = [note for note in (*context.notes, lack, *context.came_to(total)) if note]
        outlooks = self._collected[base].all("outlook")
        notes += blind_note([outlook.blind for outlook in outlooks if outlook.blind], context.options)
        if context.options.summary:
            return self._overview(base, total, context, notes)
        notes += drafts_of([kind for outlook in outlooks for kind in outlook.unread], context.style)
        if context.summarise:
            return context.summarise(total, context.style, notes)
        notes += [*self._trash(total, context), *self._log(total, context)]
        if lack and total.up_to_date and not total.experiments:
            return "\n".join([*notes, ""])  # "all is up to date" would hide what is lacking
        days = None if "takes_back" in context.header else context.trash_days  # an undo frees nothing at once
        return summary(total, context.style, days, notes)

    def _overview(self, base: str, total: Tally, context: RunContext, notes: Iterable[str]) -> str:
        from ckptrules.report.overview import overview

        shown = as_named(f"{self._session.command(base, context.options, base)} verbose=1")
        more = f"Nothing was changed. {shown} tells each checkpoint, with its reasons."
        text = overview(self._collected[base].all("outlook"), total, context.style)
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
    """Return the reporter class of a session; doit makes the reporter, as it knows where the output goes (``-o``)."""

    class ReporterOfSession(Reporter):
        def __init__(self, outstream: TextIO, options: Mapping[str, Any]) -> None:
            super().__init__(session, outstream, options)

    return ReporterOfSession


def drafts_of(unread: Sequence[Unread], style: Style) -> Iterator[str]:
    """Yield lines with drafted formats for names that look like checkpoints and that no rule reads.

    Without ``verbose``, only the first kinds of names have drafts, and those with the same numbers, which may be saved
    with them.
    """
    if not unread:
        return
    from ckptrules.engine.names.drafting import format_lines, joined, numbers_of, why_none

    every = joined(unread)
    kinds = [pair for pair in every if pair[1]]
    first = kinds if style.verbose else kinds[:DRAFTS]
    together = {numbers for one, _ in first for numbers in numbers_of(one)}
    drafted = [pair for pair in kinds if pair in first or not together.isdisjoint(numbers_of(pair[0]))]
    if drafted:
        yield "Some names look like checkpoints, and no rule reads them. These lines in a file"
        yield "of rules/ would; 'doit check' tests them:"
        yield from (f"    {style.name(line)}" for line in format_lines(drafted))
    if others := len(kinds) - len(drafted):
        yield f"    and {count_of(others, 'further kind')} of names (verbose=1 drafts them)"
    if any("(?P<number>" in line for _, lines in drafted for line in lines):
        yield "The highest <number> is taken for the newest: leave out a kind whose number tells"
        yield "models or trainings apart."
    without = defaultdict[str, list[str]](list)
    for one, lines in every:
        without["" if lines else why_none(one)].append(style.name(one.names[0]))
    without.pop("", None)
    for why, names in without.items():
        more = f" and {count_of(len(names) - 1, 'further kind')}" * bool(names[1:])
        yield f"No format is drafted for {names[0]}{more}:\n    {why}."


def blind_note(examples: Sequence[str], options: Common) -> list[str]:
    """Return a note on experiments that lose checkpoints and have no known metric; there is one example of each."""
    if not examples:
        return []
    fact = f"No metric is known of {count_of(len(examples), 'experiment')}, so no best is kept."
    if not os.path.isdir(options.rules_dir or RULES_DIR):  # a pin needs the folder, too
        return [f"{fact}\n    hint: 'ckptrules init' writes rules, in which keep_best names one"]
    pin = command("pin", name=examples[0])
    return [f"{fact}\n    hint: name one with keep_best, or pin the best: {pin} (only an example)"]


def survive_faults(database: Any) -> list[str]:
    """Let doit go on if its database cannot be read or written (a full disk); return the list that collects the faults.

    The next run plans the directories again that could not be noted.
    """
    import sqlite3

    faults: list[str] = []

    def attempt(function: Callable[..., Any], otherwise: Callable[..., None] = lambda *_: None) -> Callable[..., Any]:
        def attempted(*args: Any) -> Any:
            try:
                return function(*args)
            except sqlite3.Error as error:
                faults.append(str(error))
                return otherwise(*args)

        return attempted

    backend = database.backend

    def forget(task: Task) -> None:
        backend.set(task.name, "ignore:", None)  # with a value in memory, doit does not read the database again

    database.remove, backend.dump = attempt(database.remove), attempt(backend.dump)
    database.status_is_ignore = attempt(database.status_is_ignore, forget)  # doit reads this first of each task
    return faults


def _is_news(tally: Any) -> bool:
    """Say whether anything was changed or a problem is left: only that is printed with ``quiet=1``."""
    return not isinstance(tally, Tally) or tally.changes + tally.problems > 0


def _base(task: Task) -> str:
    name: str = task.name
    return name.partition(":")[0]
