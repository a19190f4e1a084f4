"""What all tasks of one call of doit share. It is made once and handed on; other processes get values."""

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
from ckptrules.run.words import CommandLine, fits
from ckptrules.storage.reading import Progress
from ckptrules.workers.pieces import Answer, File, Lost, Work
from ckptrules.workers.workers import Workers

if TYPE_CHECKING:
    from ckptrules.report.style import Style

Asked = ParamSpec("Asked")


class Session:
    """One call, from its beginning to its end.

    ``contexts`` is what the reporter must know, by task: the task creators put it there. ``problems_before`` says that
    problems were left before any task was made. ``locks`` are the descriptors of those that are held, by folder;
    ``held`` lets them go, at the latest when the process ends. ``config`` are the settings of doit that it needs.

    Args:
        line: what was typed.
        dodo: what stands in the dodo.py, once it has been run to its end.
    """

    def __init__(self, line: CommandLine, dodo: Mapping[str, Any]) -> None:
        self.line, self.dodo = line, dodo
        self.started_ns = time.time_ns()  # since 1970
        self.stdout = sys.stdout  # later, doit catches what a task prints
        self.config: dict[str, Any] = {}
        self.contexts: dict[str, Any] = {}  # `reporter.RunContext`; `doit list` needs no reporter
        self.problems_before = False
        self.locks: dict[str, int] = {}
        self.bar = Bar(terminal())
        self.held = contextlib.ExitStack()
        weakref.finalize(self, self.held.close)
        self.workers = Workers(self.locks, asked=processes_asked(line), say=self.bar.say)
        self.answers: dict[object, dict[tuple[Hashable, ...], Any]] = {}
        self.asking = threading.RLock()

    @functools.cached_property
    def run_id(self) -> str:
        """Its start, to the microsecond, and its process; in containers, all may have the number 1."""
        seconds, fraction = divmod(self.started_ns, NS)
        return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(seconds))}-{fraction // 1000:06d}{os.getpid()}"

    @functools.cached_property
    def chosen(self) -> frozenset[str]:
        """The tasks that were named as they are."""
        return frozenset(word.task for word in self.line.words)

    @functools.cached_property
    def lacking(self) -> frozenset[str]:
        """The commands of ours that the dodo.py does not have, by what stands in it."""
        creators = {name: getattr(value, "create_doit_tasks", None) for name, value in self.dodo.items()}
        there = {getattr(creator, "basename", name) for name, creator in creators.items() if creator}
        there |= {name.removeprefix("task_") for name in self.dodo if name.startswith("task_")}
        return frozenset(TASKS) - there

    @functools.cached_property
    def _force(self) -> InForce:
        return force_of(self.line.arguments)

    @contextlib.contextmanager
    def shown(self, total: int) -> Iterator[Progress]:
        """Expect work of so many bytes in this process, and give what shows how far it is and holds it back.

        Raises:
            StoppedError: Ctrl-C or SIGTERM came.
        """
        with self.bar.work(total) as work:
            yield self.workers.held(work)

    @contextlib.contextmanager
    def each(
        self, work: Work[File, Answer], files: Sequence[File], *, room: float = inf
    ) -> Iterator[Iterator[Answer | Lost]]:
        """Have work done on many files; it is a `pieces.Each`. With its answer, all bytes of a file are done."""
        with (
            self.bar.work(sum(one.size for one in files)) as shown,
            contextlib.closing(self.workers.each(work, files, shown, room=room)) as answers,
        ):
            yield shown.settling(files, answers)

    def completed(self, text: str) -> str:
        """Write the commands that a text names so that they work here when they are copied."""
        return complete(text, self._force)

    def command(self, task: str, options: Common, base: str) -> str:
        """Write the command that does a task with these options, for the experiments that ``base`` is asked for."""
        return command_with(named(task, self.selected(base)), options, self._force)

    def selected(self, base: str) -> list[str]:
        """Return what words name behind a command, as it was typed: ``ocr*`` of ``migrate:ocr*``; nothing means all."""
        words = [word for word in self.line.words if word.selects(base)]
        return [] if any(fits(word.task, base) for word in words) else [word.experiments for word in words]

    def style(self, options: Common) -> Style:
        """Return what the terminal can show."""
        from ckptrules.report.style import Style  # not above: `doit list` shows nothing

        is_terminal = self.stdout.isatty() and not self.line.flag("-o", "--output-file")
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not is_terminal
        width = shutil.get_terminal_size((0, 0)).columns if is_terminal else 0
        return Style(not plain, self.stdout.encoding or "ascii", options.verbose, options.dry_run, width)


def once(function: Callable[Concatenate[Session, Asked], Answer]) -> Callable[Concatenate[Session, Asked], Answer]:
    """Let a session ask a function once for each set of arguments, and keep the answer."""

    @functools.wraps(function)
    def asked(session: Session, /, *arguments: Asked.args, **named: Asked.kwargs) -> Answer:
        answers = session.answers.setdefault(asked, {})
        key = (*arguments, *named.items())
        with session.asking:  # a thread has one journal, and not two
            if key not in answers:
                answers[key] = function(session, *arguments, **named)
        answer: Answer = answers[key]
        return answer

    return asked


def processes_asked(line: CommandLine) -> int:
    """Return for how many processes doit's own flag asks (``-n 2``), or 0."""
    number = line.flag("-n", "--process")
    return int(number) if number.removeprefix("-").isdecimal() else 0
