"""Runs ``python -m PROGRAM`` many times from one Python: a start costs milliseconds.

`Server` is the side of the tests. ``python -m tests.support.forking ABSENT…`` reads one JSON object a line (`Order`) and answers
each with the exit code. It imports what runs need and runs none of it; ``ABSENT`` are modules that seem not to be
installed. One process does the runs in turn, for a fork costs more than most runs. It is replaced as soon as a run leaves
anything behind in it: a thread, a process, an open file, or its own death. A run with tasks of its own, and one that is to be
killed, is a process that starts as a new one does.
"""

from __future__ import annotations

import atexit
import codecs
import contextlib
import copy
import functools
import gc
import importlib
import importlib.metadata
import inspect
import io
import json
import linecache
import mmap
import os
import pkgutil
import re
import runpy
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from tests.support.disturbing import Disturbance, Fault, disturbed

if TYPE_CHECKING:
    from ckptrules.engine import ruleset

NEEDED = """concurrent.futures ctypes difflib doit.cmd_run doit.doit_cmd doit.plugin getpass gzip jinja2.sandbox
multiprocessing.pool pickletools regex sqlite3 tarfile tempfile tqdm yaml zipfile""".split()
APART = (
    "ckptrules.__main__",
    "ckptrules.formats.loading",
    "ckptrules.lightning",
    "ckptrules.huggingface",
    "ckptrules.workers.dask",
)  # with a large library, or when run
AT_START = ("PYTHON", "LANG", "LC_")
ROOT = Path(__file__).parents[2]
OURS = ROOT.joinpath("dodo.py").read_bytes()
JOURNAL = re.compile(r"/\.ckptrules/journal/[^/]+( \(deleted\))?$")
SECONDS = 120  # after which a run hangs, and is killed
GIB = 1 << 30
NO_MORE = 77  # orders: an exit code of the process that does the runs in turn


def memory() -> str | None:
    """Return a folder in memory, where there is one of some size: there no test waits for a disk, and the system does less."""
    place = "/dev/shm"
    return place if os.access(place, os.W_OK) and shutil.disk_usage(place).free > GIB else None


def packed(text: str) -> str:
    """Return the bytes that the system sees, one a letter: which text they are depends on how a Python was started."""
    return os.fsencode(text).decode("latin-1")


def unpacked(text: str) -> str:
    return os.fsdecode(text.encode("latin-1"))


def start_of(environment: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the part of an environment that Python reads only when it starts."""
    return tuple(sorted((name, value) for name, value in environment.items() if name.startswith(AT_START)))


class Order(NamedTuple):
    """A run: ``stderr`` may be the same file as ``stdout``; a ``host`` is the name that the machine seems to have.

    ``watch`` says how it is disturbed, and which files tell of its changes and of its looks.
    """

    program: str
    arguments: Sequence[str]
    folder: str
    environment: Mapping[str, str]
    umask: int
    host: str
    stdout: str
    stderr: str
    watch: tuple[Disturbance, str, str] | None = None

    def kills(self) -> bool:
        return bool(self.watch and self.watch[0].fault and self.watch[0].fault.kills)


class Server:
    """One Python that does runs."""

    def __init__(self, environment: Mapping[str, str], *absent: str) -> None:
        self.environment = dict(environment)
        self.python = subprocess.Popen(
            [sys.executable, "-m", "tests.support.forking", *absent], env=self.environment, cwd=ROOT,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", errors="surrogateescape",
        )  # fmt: skip

    def run(
        self,
        program: str,
        *arguments: str,
        folder: Path,
        environment: Mapping[str, str],
        host: str = "",
        apart: bool = False,
        watch: tuple[Disturbance, str, str] | None = None,
    ) -> tuple[int, str, str]:
        """Run a program: its exit code, stdout with stderr in it, and nothing; or both, where they are kept ``apart``."""
        os.umask(umask := os.umask(0))
        place = memory()
        with (
            tempfile.NamedTemporaryFile(dir=place) as out,
            tempfile.NamedTemporaryFile(dir=place) if apart else contextlib.nullcontext(out) as err,
        ):
            words, theirs = list(map(packed, arguments)), {packed(k): packed(v) for k, v in environment.items()}
            order = Order(program, words, packed(str(folder)), theirs, umask, host, out.name, err.name, watch)
            assert self.python.stdin
            assert self.python.stdout
            print(json.dumps(order._asdict()), file=self.python.stdin, flush=True)
            code = int(self.python.stdout.readline())
            printed, told = (file.read().decode(errors="surrogateescape") for file in (out, err))
            return code, printed, told

    def close(self) -> None:
        self.python.communicate()


# --- the server ------------------------------------------------------------------------------------------------------


def main() -> None:
    for absent in sys.argv[1:]:
        sys.modules[absent] = None  # type: ignore[assignment] # so Python says that it is not there
    for needed in NEEDED:
        with contextlib.suppress(ImportError):
            importlib.import_module(needed)
    import_ours()
    prepare()
    share()
    gc.freeze()
    in_turn(os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "w"))


def import_ours() -> None:
    """Import all of ours that any run may need."""
    import ckptrules

    for module in pkgutil.walk_packages(ckptrules.__path__, "ckptrules."):
        if module.name not in APART:
            importlib.import_module(module.name)
    codecs.lookup("ascii")  # who runs as another user may not be let into the folder of Python


def prepare() -> None:
    """Do once what is the same for every run: look for plug-ins among all that is installed, compile the shipped rules."""
    import doit.plugin

    from ckptrules.rules import load, packs, shipped

    find = functools.cache(importlib.metadata.entry_points)
    importlib.metadata.entry_points = doit.plugin.entry_points = find  # type: ignore[assignment]
    for group in ("doit.BACKEND", "doit.COMMAND", "doit.LOADER", "doit.REPORTER", packs.ENTRY_POINTS):
        find(group=group)
    load.load_rules(shipped.rule_texts(shipped.shipped(shipped.RULES_DIR)))  # the patterns of the rules stay compiled
    ours, compiled = compile(OURS, "dodo.py", "exec", dont_inherit=True), SourceFileLoader.source_to_code

    def code_of(loader: SourceFileLoader, data: Any, path: Any) -> CodeType:
        return ours.replace(co_filename=path) if data == OURS else compiled(loader, data, path)

    SourceFileLoader.source_to_code = code_of  # type: ignore[assignment,method-assign]


def share_packs() -> None:
    """Compile each text of a pack once in this process, unless it is refused: most rules list some."""
    from ckptrules.rules import load

    compile_pack = load.compile_pack

    @functools.cache
    def compiled(name: str, text: str) -> ruleset.Pack | None:
        faults: list[ruleset.Fault] = []
        pack = compile_pack(name, text, faults)
        return None if faults else pack

    def shared(name: str, text: str, faults: list[ruleset.Fault]) -> ruleset.Pack:
        return compiled(name, text) or compile_pack(name, text, faults)

    vars(load)["compile_pack"] = shared


def share() -> None:
    """Let all runs share the rules that stand in the same texts, and the lines where tasks begin: more than half of a run."""
    from ckptrules.rules import load

    share_packs()
    for name, module in list(sys.modules.items()):
        if name.startswith("ckptrules.") and name != load.__name__ and "load_rules" in vars(module):
            vars(module)["load_rules"] = shared_rules
    find, found = inspect.getsourcelines, dict[CodeType, tuple[list[str], int]]()

    def lines_of(task: Callable[..., Any]) -> tuple[list[str], int]:
        code = inspect.unwrap(task).__code__
        return found.get(code) or found.setdefault(code, find(task))

    inspect.getsourcelines = lines_of  # type: ignore[assignment]


def shared_rules(texts: Mapping[str, str], *, proved: bool = False) -> ruleset.RuleSet:
    return _rules_of(tuple(sorted(texts.items())), proved=proved)


@functools.lru_cache(maxsize=64)  # they are frozen; those that are refused are read again
def _rules_of(texts: tuple[tuple[str, str], ...], *, proved: bool) -> ruleset.RuleSet:
    from ckptrules.rules.load import load_rules

    return load_rules(dict(texts), proved=proved)


def read(line: bytes) -> Order:
    order = json.loads(line)
    if order["watch"]:
        (fault, *rest), *files = order["watch"]
        order["watch"] = (Disturbance(Fault(*fault) if fault else None, *rest), *files)
    return Order(**order)


def run(order: Order) -> int:
    """Run a program in a process of its own, and return its exit code."""
    if (child := os.fork()) == 0:
        gc.freeze()  # what was there before needs not be looked through, and so not be copied
        be(order)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def be(order: Order) -> None:
    """Become the program."""
    code = 1
    try:
        begin(order)
        with watched(order):
            code = exit_code(order.program)
        end()
    except BaseException:  # noqa: BLE001 - as Python itself would tell it
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def begin(order: Order) -> None:
    """Let all that a process has of its own be as the order says."""
    signal.alarm(SECONDS)
    folder, arguments = unpacked(order.folder), list(map(unpacked, order.arguments))
    os.chdir(folder)
    take(order.environment)
    os.umask(order.umask)
    time.tzset()
    if order.host:
        seeming = os.uname_result((os.uname().sysname, order.host, *os.uname()[2:]))
        os.uname = lambda: seeming
    for number, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, order.stdout, os.O_RDWR | os.O_APPEND),
        (2, order.stderr, os.O_RDWR | os.O_APPEND),
    ):
        opened = os.open(path, flags)
        os.dup2(opened, number)
        os.close(opened)
    sys.path[0] = folder
    sys.argv[1:] = arguments


def take(environment: Mapping[str, str]) -> None:
    """Let the environment be another one; what is the same in both is most of it."""
    wanted = {name.encode("latin-1"): value.encode("latin-1") for name, value in environment.items()}
    for name in os.environb.keys() - wanted:
        del os.environb[name]
    for name, value in wanted.items():
        if os.environb.get(name) != value:
            os.environb[name] = value


@contextlib.contextmanager
def watched(order: Order) -> Iterator[None]:
    if not order.watch:
        yield
        return
    disturbance, *places = order.watch
    counter, reads = (os.open(place, os.O_WRONLY | os.O_APPEND) for place in places)
    try:
        with disturbed(disturbance, os.path.realpath(unpacked(order.folder)), counter, reads):
            yield
    finally:
        os.close(counter)
        os.close(reads)


def end() -> None:
    """End as Python does, but for the time that it takes to free all memory."""
    threading._shutdown()  # type: ignore[attr-defined] # noqa: SLF001
    atexit._run_exitfuncs()  # noqa: SLF001


def in_turn(orders: IO[bytes], answers: IO[str]) -> None:
    """Let a process do the runs, and another one go on where it ends."""
    busy, code = mmap.mmap(-1, 1), 0
    while code != NO_MORE:
        if (child := os.fork()) == 0:
            Worker(orders, answers, busy).work()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if busy[0]:  # it was the run that ended it
            print(code, file=answers, flush=True)
            busy[0], code = 0, 0
        elif code not in (0, NO_MORE):
            raise SystemExit(code)


class Worker:
    """Does runs in turn."""

    def __init__(self, orders: IO[bytes], answers: IO[str], busy: mmap.mmap) -> None:
        from doit.doit_cmd import DoitMain

        from ckptrules import stopping

        self.orders, self.answers, self.busy = orders, answers, busy
        self.modules, self.path, self.uname, self.name = set(sys.modules), list(sys.path), os.uname, DoitMain.BIN_NAME
        self.streams = [(stream, stream.encoding, stream.errors) for stream in (sys.stdout, sys.stderr)]
        plain = {signal.Signals(number) for number in signal.valid_signals() if number < signal.SIGRTMIN}
        self.signals = {number: handler for number in plain if (handler := signal.getsignal(number)) is not None}
        notes = {
            name: note for name, note in vars(stopping).items() if name[0] == "_" != name[1] and not callable(note)
        }
        self.wishes = copy.deepcopy(notes)
        self.garbage, self.files, self.open = gc.get_threshold(), os.listdir("/proc/self/fd"), open_files()

    def work(self) -> None:
        for line in self.orders:
            self.busy[0] = 1
            order = read(line)
            code = self.run(order) if has_our_tasks(order) and not order.kills() else run(order)
            if is_spent := self.is_spent():
                end()
                self.close_files()  # not when it has answered: a test may be about to unmount what they are on
            self.busy[0] = 0
            print(code, file=self.answers, flush=True)
            if is_spent:
                os._exit(0)
        os._exit(NO_MORE)

    def run(self, order: Order) -> int:
        code = 1
        try:
            begin(order)
            with watched(order):
                code = exit_code(order.program)
        except BaseException:  # noqa: BLE001 - as Python itself would tell it
            traceback.print_exc()
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        self.forget(unpacked(order.folder))
        return code

    def forget(self, folder: str) -> None:
        """Let nothing of a run stay, but what is compiled."""
        from doit.doit_cmd import DoitMain
        from doit.globals import Globals

        from ckptrules import stopping
        from ckptrules.storage import believing

        signal.alarm(0)
        os.uname = self.uname
        (sys.stdout, *_), (sys.stderr, *_) = self.streams
        for stream, encoding, errors in self.streams:
            assert isinstance(stream, io.TextIOWrapper)
            stream.reconfigure(encoding=encoding, errors=errors)
        for number, handler in self.signals.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)
        for name in sys.modules.keys() - self.modules:
            if name == "dodo" or (getattr(sys.modules[name], "__file__", None) or "").startswith(folder):
                del sys.modules[name]
        for path in sys.path:
            if path not in self.path:
                sys.path_importer_cache.pop(path, None)
        sys.path[:] = self.path
        linecache.clearcache()
        gc.set_threshold(*self.garbage)
        DoitMain.BIN_NAME = self.name
        Globals.dep_manager = None
        sqlite3.converters.pop("JSON", None)  # which has doit's database, too
        if os.listdir("/proc/self/fd") != self.files:
            gc.collect()  # a session that was refused lets go of its lock when nobody has it any more: where the run was
            close_journals()
        vars(stopping).update(copy.deepcopy(self.wishes))
        believing.NO_MODES.clear()
        os.chdir("/")

    def is_spent(self) -> bool:
        """Say whether something of a run stays all the same, and ends with the process that it was in."""
        for thread in set(threading.enumerate()) - {threading.main_thread()}:
            thread.join(0.05)  # one that was told to end does
        if threading.active_count() > 1 or os.listdir("/proc/self/fd") != self.files:
            return True
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        return True

    def close_files(self) -> None:
        """Close all files that a run has left open."""
        for number in open_files() - self.open:
            with contextlib.suppress(OSError):
                os.close(int(number))


def has_our_tasks(order: Order) -> bool:
    """Say whether none but the shipped tasks run: others may change what Python itself does."""
    dodo = Path(unpacked(order.folder), "dodo.py")
    return "-f" not in order.arguments and (not dodo.exists() or dodo.read_bytes() == OURS)


def open_files() -> set[str]:
    """Return the numbers of the open files, but for that of the list itself."""
    return {number for number in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{number}")}


def close_journals() -> None:
    """Close the journals, which a run holds until its process ends."""
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if JOURNAL.search(os.readlink(f"/proc/self/fd/{number}")):
                os.close(int(number))


def exit_code(program: str) -> int:
    try:
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


if __name__ == "__main__":
    main()
