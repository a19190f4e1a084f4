"""The session: what all tasks of one call of doit share. It stays in the main process; workers get values."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import sys
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

from ckptrules.engine.measures import NS
from ckptrules.run.command_line import force_of
from ckptrules.run.declared import TASKS
from ckptrules.run.hints import InForce, command_with, complete, named
from ckptrules.run.options import Common
from ckptrules.run.progress import Bar, terminal
from ckptrules.run.words import CommandLine
from ckptrules.storage.reading import Progress
from ckptrules.workers.pieces import Answer, File, Lost, Work
from ckptrules.workers.workers import Workers

if TYPE_CHECKING:
    from ckptrules.report.style import Style

Asked = ParamSpec("Asked")


class Session:
    """One call of doit, from its beginning to its end.

    ``config`` are the settings that doit must have. ``contexts`` is what the reporter needs of each command: the task
    creators put it there. ``problems_before`` says that recovery left problems, before any task was made. ``locks``
    are the descriptors of the locks that are taken, by folder. ``cleanup`` releases them, at the latest when the
    process ends. ``answers`` are those of functions marked `@once`, and ``asking`` is the lock for them.

    Args:
        line: the command line.
        dodo: the globals of dodo.py, which are complete when the first task is made.
    """

    def __init__(self, line: CommandLine, dodo: Mapping[str, Any]) -> None:
        self.line, self.dodo = line, dodo
        self.started_ns = time.time_ns()  # since 1970
        self.stdout = sys.stdout  # later, doit replaces it while a task runs
        self.config: dict[str, Any] = {}
        self.contexts: dict[str, Any] = {}  # `RunContext`, which is not imported here: `doit list` does without
        self.problems_before = False
        self.locks: dict[str, int] = {}
        self.bar = Bar(terminal())
        self.cleanup = contextlib.ExitStack()
        weakref.finalize(self, self.cleanup.close)
        self.workers = Workers(self.locks, asked=processes_asked(line), say=self.bar.say)
        self.answers: dict[object, dict[tuple[Hashable, ...], Any]] = {}
        self.asking = threading.RLock()

    @functools.cached_property
    def run_id(self) -> str:
        """The id of the run: its start in UTC, to the microsecond, and its process id, which may be 1 in containers."""
        seconds, fraction = divmod(self.started_ns, NS)
        return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(seconds))}-{fraction // 1000:06d}{os.getpid()}"

    @functools.cached_property
    def chosen(self) -> frozenset[str]:
        """The words of the command line, as doit reads them: names of tasks, or patterns."""
        return frozenset(word.task for word in self.line.words)

    @functools.cached_property
    def lacking(self) -> frozenset[str]:
        """The commands of ckptrules that dodo.py does not define."""
        creators = {name: getattr(value, "create_doit_tasks", None) for name, value in self.dodo.items()}
        defined = {getattr(creator, "basename", name) for name, creator in creators.items() if creator}
        defined |= {name.removeprefix("task_") for name in self.dodo if name.startswith("task_")}
        return frozenset(TASKS) - defined

    @functools.cached_property
    def _force(self) -> InForce:
        return force_of(self.line.arguments)

    @contextlib.contextmanager
    def shown(self, total: int) -> Iterator[Progress]:
        """Show work on ``total`` bytes in this process; yield the `Progress` that counts them and obeys ``max_rate``.

        Raises:
            StoppedError: Ctrl-C or SIGTERM came.
        """
        with self.bar.work(total) as work:
            yield self.workers.limited(work)

    @contextlib.contextmanager
    def each(
        self, work: Work[File, Answer], files: Sequence[File], *, room: float = inf
    ) -> Iterator[Iterator[Answer | Lost]]:
        """Do work on many files, in workers; yield the answers in the order of the files. It is a `pieces.Each`.

        ``room`` is in bytes. With the answer for a file, the progress counts all its bytes as done.
        """
        with (
            self.bar.work(sum(file.size for file in files)) as shown,
            contextlib.closing(self.workers.each(work, files, shown, room=room)) as answers,
        ):
            yield shown.settling(files, answers)

    def completed(self, text: str) -> str:
        """Complete the commands in a text, so that they work here when they are copied."""
        return complete(text, self._force)

    def command(self, task: str, options: Common, base: str) -> str:
        """Return the command that runs a task with these options, for the experiments that are selected of ``base``."""
        return command_with(named(task, self.selected(base)), options, self._force)

    def selected(self, base: str) -> list[str]:
        """Return the experiments that words select of a command, as typed: ``ocr*`` of ``migrate:ocr*``; [] for all."""
        words = [word for word in self.line.words if word.base == base]
        return [] if any(word.task == base for word in words) else [word.experiments for word in words]

    def style(self, options: Common) -> Style:
        """Return how reports are written to this terminal or file: colour, letters, width, and how much of it."""
        from ckptrules.report.style import Style  # not above: `doit list` has no reports

        is_terminal = self.stdout.isatty() and not self.line.flag("-o", "--output-file")
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not is_terminal
        width = shutil.get_terminal_size((0, 0)).columns if is_terminal else 0
        return Style(not plain, self.stdout.encoding or "ascii", options.verbose, options.dry_run, width)


def once(function: Callable[Concatenate[Session, Asked], Answer]) -> Callable[Concatenate[Session, Asked], Answer]:
    """Mark a function whose answers a session keeps: it is called once for each set of arguments."""

    @functools.wraps(function)
    def asked(session: Session, /, *arguments: Asked.args, **named: Asked.kwargs) -> Answer:
        answers = session.answers.setdefault(asked, {})
        key = (*arguments, *named.items())
        with session.asking:  # else two threads could call it at once, and get two answers
            if key not in answers:
                answers[key] = function(session, *arguments, **named)
        answer: Answer = answers[key]
        return answer

    return asked


def processes_asked(line: CommandLine) -> int:
    """Return the number of processes of doit's own flag ``-n``, or 0."""
    number = line.flag("-n", "--process")
    return int(number) if number.removeprefix("-").isdecimal() else 0
