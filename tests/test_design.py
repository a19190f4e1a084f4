"""The walls of the house: who may import whom, what is pure, and where the disk is changed. Read from the code."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import ckptrules
from tests.support import disturbing
from tests.support.tables import every, every_row

PACKAGE, TESTS = Path(ckptrules.__file__).parent, Path(__file__).parent
ROOMS: dict[str, str] = {
    "engine": "",
    "stopping": "",
    "zstd": "",
    "formats": "engine zstd",
    "storage": "engine stopping",
    "rules": "engine storage",
    "outputs": "engine stopping formats storage",
    "workers": "stopping storage outputs",
    "changes": "engine stopping formats storage outputs",
    "report": "engine changes",
    "verify": "engine formats storage outputs report workers",
    "vault": "engine zstd storage changes report workers",
    "run": "engine stopping rules storage outputs changes report verify workers",
    "discovery": "engine rules outputs verify",
    "commands": "engine stopping rules storage outputs changes report verify vault run discovery workers",
    "startup": "run",
    "lightning": "engine storage rules",
    "huggingface": "rules",
    "__init__": "discovery",
    "cli": "stopping rules storage run",
    "__main__": "cli",
}
FILES = {
    path.relative_to(PACKAGE).with_suffix("").as_posix(): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if "shipped_files" not in path.parts
}
PURE = [
    *(file for file in FILES if file.startswith("engine/")),
    *"changes/clock changes/history changes/journal changes/record changes/references".split(),
    *"report/checkpoints report/data report/log_template report/page/drawing report/page/sections report/page/verdict report/text rules/knowledge rules/load rules/policies rules/shape".split(),
    *"run/help run/hints run/options run/words storage/attributes vault/manifest vault/report".split(),
]
IMPURE_MODULES = set("doit glob io os pathlib random shutil socket subprocess sys tempfile time".split())
IMPURE_CALLS = set("open print input now today utcnow".split())
CHANGING_OS = set(
    "chmod chown fchmod fchown fdopen ftruncate link makedirs mkdir mkfifo mknod open remove removedirs removexattr rename renames "
    "replace rmdir setxattr symlink truncate unlink utime write".split()
)
READING_FLAGS = set("O_RDONLY O_DIRECTORY O_CLOEXEC O_NOFOLLOW O_NONBLOCK".split())
CHANGING_METHODS = set("hardlink_to rmtree symlink_to touch unlink write_bytes write_text".split())


@functools.cache
def parse(file: str) -> ast.Module:
    return ast.parse(FILES[file].read_text(encoding="utf-8"))


@functools.cache
def nodes(tree: ast.Module) -> list[ast.AST]:
    return list(ast.walk(tree))


def room_of(file: str) -> str:
    return file.partition("/")[0]


@functools.cache
def imported(tree: ast.Module) -> tuple[str, ...]:
    """List what is imported, wherever in the file: ``yaml``, ``os.path``, ``ckptrules.engine``, ``pathlib.PurePath``."""
    names: list[str] = []
    for node in nodes(tree):
        if isinstance(node, ast.Import):
            names += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += (f"{node.module}.{alias.name}" for alias in node.names)
    return tuple(names)


def rooms_imported(file: str) -> set[str]:
    ours = {
        name.split(".")[1]
        for name in imported(parse(file))
        if name.startswith("ckptrules.") and name != "ckptrules.__version__"
    }
    return {name if name in ROOMS else "__init__" for name in ours}


def changes(tree: ast.Module) -> Iterator[str]:
    """Yield what changes the disk, or could: calls by whatever way they come, and imports that would hide one."""
    flags = {node.attr for node in nodes(tree) if isinstance(node, ast.Attribute) and node.attr.startswith("O_")}
    reads_only = bool(flags) and flags <= READING_FLAGS
    for node in nodes(tree):
        if isinstance(node, ast.Call) and is_changing(node, reads_only=reads_only):
            yield f"{node.lineno}: {ast.unparse(node.func)}"
        elif isinstance(node, ast.ImportFrom) and node.module in ("os", "shutil"):
            yield from (f"{node.lineno}: {a.name}" for a in node.names if a.name in CHANGING_OS or node.module != "os")
        elif isinstance(node, ast.Import):
            yield from (f"{node.lineno}: {a.name}" for a in node.names if a.name in ("os", "shutil") and a.asname)


def is_changing(call: ast.Call, *, reads_only: bool) -> bool:
    match call.func:
        case ast.Name("open"):
            modes = [*call.args[1:2], *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
            return any(not isinstance(m, ast.Constant) or set(str(m.value)) & set("wax+") for m in modes)
        case ast.Attribute(ast.Name("os"), name):
            return name in CHANGING_OS and not (name == "open" and reads_only)
        case ast.Attribute(ast.Name("shutil"), name):
            return name not in ("which", "get_terminal_size")
        case ast.Attribute(_, name):
            return name in CHANGING_METHODS
    return False


def test_every_file_has_its_room() -> None:
    assert {room_of(file) for file in FILES} == set(ROOMS)


@every(list(ROOMS))
def test_imports_point_upward_only(room: str) -> None:
    allowed = set(ROOMS[room].split())
    assert allowed <= set(list(ROOMS)[: list(ROOMS).index(room)])
    for file in (file for file in FILES if room_of(file) == room):
        others = rooms_imported(file) - {room}
        assert others <= allowed, file


@every([file for file in FILES if room_of(file) in ("run", "commands")])
def test_what_a_run_knows_lies_in_its_session(file: str) -> None:
    """Two sessions in one process have nothing in common: no cache, and nothing that grows, of a module or a class."""
    tree = parse(file)
    functions = [node for node in nodes(tree) if isinstance(node, ast.FunctionDef)]
    caches = {ast.unparse(decorator) for function in functions for decorator in function.decorator_list}
    assert caches.isdisjoint({"functools.cache", "functools.lru_cache"}) or file in ("run/jobs", "run/records")
    assert not any(isinstance(node, ast.Global) for node in nodes(tree))
    bodies = [tree.body, *(node.body for node in nodes(tree) if isinstance(node, ast.ClassDef))]
    values = [ast.unparse(node) for body in bodies for node in body if isinstance(node, ast.Assign | ast.AnnAssign)]
    assert not [value for value in values if value.endswith(("= {}", "= []", "= set()")) and ": Mapping" not in value]


def files_imported(file: str) -> set[str]:
    """Return the files that a file takes names from, wherever in it."""
    names = {name.removeprefix("ckptrules.").replace(".", "/") for name in imported(parse(file))}
    return {found for name in names for found in (name, name.rpartition("/")[0]) if found in FILES} - {file}


def test_no_file_needs_one_that_needs_it() -> None:
    left = {file: files_imported(file) for file in FILES}
    while ready := [file for file, needs in left.items() if not needs & left.keys()]:
        left = {file: needs for file, needs in left.items() if file not in ready}
    assert left == {}


@every(PURE)
def test_pure_files_know_neither_disk_nor_clock_nor_terminal_nor_doit(file: str) -> None:
    tree = parse(file)
    modules = {name.partition(".")[0] for name in imported(tree) if name != "pathlib.PurePath"}
    called = {ast.unparse(node.func).split(".")[-1] for node in nodes(tree) if isinstance(node, ast.Call)}
    assert modules & IMPURE_MODULES == set()
    assert ("yaml" in modules) <= (file == "rules/shape")
    assert called & IMPURE_CALLS == set()


@every([file for file in FILES if room_of(file) != "storage"])
def test_only_the_storage_changes_the_disk(file: str) -> None:
    assert list(changes(parse(file))) == []


def test_every_call_that_changes_the_disk_is_one_at_which_runs_are_killed() -> None:
    """Files are opened and folders made by `os.open` and, within `os.makedirs`, by `os.mkdir`."""
    called = {call for file in FILES for call in changes(parse(file)) if room_of(file) == "storage"}
    names = {call.partition(": os.")[2] for call in called} - {"", "open", "makedirs"}
    assert names - set(disturbing.CHANGING) == set()
    assert len(names) > 10


@every_row(
    ("code", "found"),
    [
        ("os.rename(a, b)", True),
        ("os.open(path, flags)", True),
        ("os.open(path, os.O_RDONLY | os.O_CREAT)", True),
        ("os.open(path, os.O_RDONLY)", False),
        ("shutil.rmtree(path)", True),
        ("shutil.which(name)", False),
        ("open(path, 'w')", True),
        ("open(path, mode='r+')", True),
        ("open(path, mode)", True),
        ("Path(path).write_text(text)", True),
        ("from os import unlink", True),
        ("from shutil import move", True),
        ("import os as system", True),
        ("open(path)", False),
        ("open(path, 'rb')", False),
        ("text.replace(a, b)", False),
        ("os.path.join(a, b)", False),
        ("from os import path", False),
    ],
)
def test_a_change_of_the_disk_is_seen_however_it_is_written(code: str, found: bool) -> None:  # noqa: FBT001
    assert any(changes(ast.parse(code))) == found


def test_all_names_are_what_the_package_exports() -> None:
    """``__all__`` itself is defined as well, what imports the others lazily, and ``annotations`` is Python's."""
    tree = parse("__init__")
    defined = {node.id for node in nodes(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    defined |= {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    defined |= {name.split(".")[-1] for name in imported(tree) if name != "__future__.annotations"}
    assert defined - {"__all__", "__getattr__", "TYPE_CHECKING", "discovery"} == set(ckptrules.__all__)
    assert all(hasattr(ckptrules, name) for name in ckptrules.__all__)


def test_each_test_lies_where_what_it_tests_lies() -> None:
    """As ``tests/<room>/test_<file>.py``, or ``test_<file>_<aspect>.py``; what tests many rooms lies in ``tests/whole``.

    A folder of files, and a room as a whole, count as files.
    """
    there = {name for file in FILES for name in (file, file.rpartition("/")[0], f"{room_of(file)}/{room_of(file)}")}
    for test in (path for room in ROOMS for path in (TESTS / room).glob("test_*.py")):
        tested = test.stem.removeprefix("test_").split("_")
        names = ["_".join(tested[:end]) for end in range(1, len(tested) + 1)]
        assert any(f"{test.parent.name}/{name}" in there for name in names), test
