"""What end-to-end tests need: a project folder with a space in its name, the real doit, trees in and trees out."""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import settings

from ckptrules import stopping
from ckptrules.run.declared import TASKS
from ckptrules.storage.base import Storage
from tests.support.forking import AT_START, Server, memory, share_packs, start_of
from tests.support.storages import STORAGES

sys.dont_write_bytecode = (
    False  # whatever the environment says: else each process compiles all of ours and all tests anew
)
PROGRAMS = os.path.dirname(sys.executable)
os.environ["PATH"] = f"{PROGRAMS}:{os.environ.get('PATH', os.defpath)}"  # as a shell has it that has activated the venv
REFUSED = 3
ROOT = Path(__file__).parent.parent
QUICK = "not whole"  # the tests that the quick suite leaves out
ALL_WHOLE = re.compile(r"^pytestmark = \[?pytest\.mark\.whole\b", re.MULTILINE)  # stands in a file of nothing else
settings.register_profile("any machine", deadline=None)
settings.register_profile(QUICK, deadline=None, max_examples=20)
settings.load_profile("any machine")
share_packs()


class Project:
    """A folder with dodo.py and rules/, in which the real doit runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.outputs = folder / "outputs"

    def make(self, files: Mapping[str, int | str]) -> None:
        """Make files below outputs: a size in bytes, or ``-> text`` for a link.

        They get a time that is past, as the folders do that change by it: of what has just changed, a run remembers
        nothing.
        """
        folders = set[Path]()
        for path, content in files.items():
            file = self.outputs / path
            file.parent.mkdir(parents=True, exist_ok=True)
            folders.update(file.parents[: path.count("/")])
            if isinstance(content, str):
                file.symlink_to(content.removeprefix("-> "))
            else:
                file.write_bytes((path.encode("utf-8", "surrogateescape") * content)[:content])
            written = file.lstat()
            os.utime(file, ns=(written.st_atime_ns, written.st_mtime_ns - 10**9), follow_symlinks=False)
        then = time.time() - 1
        for folder in folders:
            if folder.stat().st_mtime > then:
                os.utime(folder, (then, then))

    def tree(self, *, state: bool = False) -> dict[str, str]:
        """Return what lies below outputs: path → hash, or ``-> text`` of a link."""
        return dict(all_below(str(self.outputs), "" if state else ".ckptrules"))

    def names(self, experiment: str) -> list[str]:
        """Return the names in the checkpoint directory of an experiment."""
        return sorted(os.listdir(self.outputs / experiment / "checkpoints"))

    def begin_dodo(self, code: str) -> None:
        """Let code stand in front of dodo.py, such as what makes a function fail."""
        path = self.folder / "dodo.py"
        path.write_text(code + path.read_text())

    def doit(self, *arguments: str, check: int = 0, env: Mapping[str, str] | None = None) -> str:
        """Run doit, check its exit code, and return all that it printed."""
        code, out, _ = run_program("doit", *arguments, folder=self.folder, environment={**default(), **(env or {})})
        assert code == check, out
        assert "Traceback" not in out, out
        try_hints(out, self.folder)
        return out


def pytest_configure(config: pytest.Config) -> None:
    """Let the quick suite draw a fifth of the examples of each law."""
    if config.option.markexpr == QUICK:
        settings.load_profile(QUICK)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Read nothing of what the quick suite leaves out as a whole: that takes a second of each worker."""
    if config.option.markexpr != QUICK:
        return None
    if collection_path.suffix == ".py":
        return bool(ALL_WHOLE.search(collection_path.read_text(encoding="utf-8"))) or None
    return collection_path == ROOT / "tests/whole" or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what the quick suite leaves out, and let it come last: what takes long first, so that no worker waits for another at the end."""
    for item in items:
        if item.nodeid.startswith("tests/whole/"):
            item.add_marker(pytest.mark.whole)

    def place(item: pytest.Item) -> int:
        is_long = item.nodeid.startswith(("tests/whole/", "tests/workers/")) or re.search("killed|crash", item.name)
        return 0 if not item.get_closest_marker("whole") else 1 if is_long else 2

    items.sort(key=place)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Search the tests themselves for no garbage, neither while they are read nor later, and seldom for that of the tests: each search would take as long as many of them."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(100_000)
        gc.enable()


# --- runs ------------------------------------------------------------------------------------------------------------


def default() -> dict[str, str]:
    """Return the environment of a run, which differs from test to test."""
    return {**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONDONTWRITEBYTECODE": "1"}


_servers: list[Server] = []


@functools.cache
def server(start: tuple[tuple[str, str], ...], *absent: str) -> Server:
    """Return what does the runs of all tests of this process that start in this way, and ends with it."""
    rest = {name: value for name, value in os.environ.items() if not name.startswith(AT_START)}
    _servers.append(Server({**rest, **dict(start)}, *absent))
    return _servers[-1]


def pytest_sessionfinish() -> None:
    for one in _servers:
        one.close()


def run_program(
    program: str,
    *arguments: str,
    folder: Path,
    environment: Mapping[str, str],
    apart: bool = False,
    forked: bool | None = None,
) -> tuple[int, str, str]:
    """Run ``python -m PROGRAM``: its exit code, stdout with stderr in it, and nothing; or both, if they are kept ``apart``.

    It is forked, unless it must start in a way of its own.
    """
    start = start_of(environment)
    if forked or start == start_of(default()):
        return server(start).run(program, *arguments, folder=folder, environment=environment, apart=apart)
    result = subprocess.run(
        [sys.executable, "-m", program, *arguments], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE if apart else subprocess.STDOUT, check=False,
    )  # fmt: skip
    out, err = (text.decode(errors="surrogateescape") for text in (result.stdout, result.stderr or b""))
    return result.returncode, out, err


# --- every command that is printed is run once -----------------------------------------------------------------------

NAMED = re.compile(r"(?<![\w'])'((?:doit|ckptrules)(?: [^'\n]*)?)'(?![\w'])|`((?:doit|ckptrules) [^`\n]*)`")
PLAIN = r"\w\s,.:/=@%+"
NEEDS_NO_SHELL = re.compile(rf"""([{PLAIN}-]|'[^']*'|"[{PLAIN}'-]*")*""")  # what `shlex` reads as a shell does
AGAIN = "names of backups change every second; run again"
PLACEHOLDER = re.compile(r"\b[A-Z]{2,}\b(?!/)|…|<")
_tried: set[str] = set()


def by_experiment(out: str) -> dict[str, str]:
    """Return what a run printed about each experiment."""
    blocks = out.partition("\nSummary")[0].split("Processing experiment: ")[1:]
    return {name: lines for name, _, lines in (block.partition("\n") for block in blocks)}


def named_commands(text: str) -> list[str]:
    """List the commands that a text names, but for those with something to fill in."""
    found = [plain or quoted for plain, quoted in NAMED.findall(text)]
    return [command for command in dict.fromkeys(found) if not PLACEHOLDER.search(command)]


def try_hints(text: str, folder: Path) -> None:
    """Run each command of a new shape in a copy of the folder: no hint may be refused as no command."""
    for command in named_commands(text):
        shape = re.sub(r"(:|=)(?:'[^']*'|\"[^\"]*\"|[^\s'\"])+", r"\1", command)
        if shape not in _tried:
            _tried.add(shape)
            code, out = run_copied(command, folder)
            while AGAIN in out:  # the folder holds a backup of this very second
                code, out = run_copied(command, folder)
            refused = code == REFUSED and re.search(r"ERROR: (command line|Error parsing|.*is not a command)", out)
            assert not refused, f"{command}: {out}"
            assert "Traceback" not in out, f"{command}: {out}"


def run_copied(command: str, folder: Path) -> tuple[int, str]:
    """Run a command, as a shell reads it, in a copy of a folder; as a preview, where there is one."""
    task = re.split("[ :]", command.partition(" ")[2])[0]
    words = f"{command} dry_run=1" if task in TASKS and "dry_run=" not in command else command
    with tempfile.TemporaryDirectory(dir=memory()) as place:
        here, programs = Path(place, folder.name), Path(place, "programs")
        with contextlib.suppress(shutil.Error):  # pipes and the like
            shutil.copytree(folder, here, symlinks=True)
        if NEEDS_NO_SHELL.fullmatch(words):
            return run_program(*shlex.split(words), folder=here, environment=default())[:2]
        programs.mkdir()
        for name in ("doit", "ckptrules"):
            (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {name} "$@"\n')
            (programs / name).chmod(0o755)
        result = subprocess.run(
            ["bash", "-c", words], cwd=here, env={**default(), "PATH": f"{programs}:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        return result.returncode, result.stdout.decode(errors="replace")


def all_below(folder: str, skipped: str = "", within: str = "") -> Iterator[tuple[str, str]]:
    """Yield all that lies below a folder but for folders of one name: path, and hash or ``-> text`` of a link."""
    with os.scandir(folder) as entries:
        for entry in entries:
            path = f"{within}{entry.name}"
            if entry.is_symlink():
                yield path, f"-> {os.readlink(entry.path)}"
            elif not entry.is_dir():
                yield path, content_hash(entry.path)
            elif entry.name != skipped:
                yield from all_below(entry.path, skipped, f"{path}/")


def content_hash(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give a test a folder of its own: in memory, or on the disk where its marker says so."""
    if request.node.get_closest_marker("on_disk") or not (place := memory()):
        yield tmp_path_factory.mktemp("test")
        return
    with tempfile.TemporaryDirectory(dir=place) as folder:
        yield Path(folder)


_states = itertools.count()


@pytest.fixture(autouse=True)
def _own_state(request: pytest.FixtureRequest) -> Iterator[None]:
    """Give every test a user's state folder of its own; for most tests, which need no folder, none is made.

    Leave no wish to stop behind that is shared with processes: what a later test forks and stops would share it.
    """
    has_folder = "tmp_path" in request.fixturenames
    base = request.getfixturevalue("tmp_path_factory").getbasetemp() / f"state{next(_states)}"
    os.environ["XDG_STATE_HOME"] = str(request.getfixturevalue("tmp_path") / "state" if has_folder else base)
    yield
    vars(stopping).update(_run=[0, 0], _locks={}, _why="")


@functools.cache
def shipped_files() -> list[tuple[str, bytes, int]]:
    """Return what is in every project, read once: the path, the bytes and the time of each file."""
    files = [ROOT / "dodo.py", *(ROOT / "rules").iterdir()]
    return [(str(file.relative_to(ROOT)), file.read_bytes(), file.stat().st_mtime_ns) for file in files]


def new_project(place: Path) -> Project:
    folder = place / "my project"
    for path in (folder, folder / "rules", folder / "outputs"):
        path.mkdir()
    for name, content, time_ns in shipped_files():
        with open(folder / name, "xb", buffering=0) as file:
            file.write(content)
        os.utime(folder / name, ns=(time_ns, time_ns))
    return Project(folder)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return new_project(tmp_path)


@pytest.fixture(params=STORAGES)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """Give each storage in turn, empty."""
    return STORAGES[request.param](tmp_path / "outputs")
