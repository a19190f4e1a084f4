"""The walls of the house: who may import whom, what is pure, and where the disk is changed. Read from the code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import ckptrules

PACKAGE = Path(ckptrules.__file__).parent
ALL_ABOVE = "everything above"
ROOMS: dict[str, str] = {
    "model": "",
    "measures": "model",
    "clock": "",
    "naming": "model",
    "sidecars": "model naming",
    "pointers": "",
    "attributes": "model",
    "retention": "model measures",
    "conflicts": "model retention sidecars",
    "options": "conflicts measures",
    "hints": "options",
    "help": "options",
    "lookalikes": "",
    "asked": "measures options hints",
    "stopping": "",
    "progress": "stopping",
    "journal": "model",
    "history": "model journal",
    "scan": "model measures journal clock pointers attributes",
    "machine": "",
    "pickled": "machine",
    "plainjson": "machine",
    "zips": "machine",
    "torchstate": "machine pickled zips",
    "store": "model journal scan pointers torchstate attributes",
    "evidence": "model scan",
    "facts": "model naming sidecars pointers scan plainjson progress",
    "watch": "naming",
    "shape": "model",
    "report": "model measures",
    "losses": "model naming retention",
    "plan": "model naming retention conflicts sidecars",
    "policies": "model measures retention plan shape",
    "rules": "model naming shape policies",
    "apply": "model scan store journal facts",
    "recovery": "journal scan store apply history report",
    "shipped": "model scan",
    "content": "model machine pickled",
    "numpyfile": "content machine pickled",
    "torchfile": "content machine pickled numpyfile zips",
    "formats": "content machine plainjson numpyfile torchfile",
    "folders": "content formats machine pickled plainjson",
    "verified": "model scan store content folders",
    "loading": "content",
    "verify": "model sidecars scan plan content formats folders verified loading",
    "verify_report": "measures report content verified verify",
    "lightning": "store naming rules shipped",
    "discovery": "model naming plan rules scan shipped verified",
    "__init__": "discovery",
    "fixing": "model plan naming journal scan torchstate store facts content formats apply progress",
    "remembered": "scan",
    "reporter": "scan stopping store facts asked options remembered report",
    "jobs": ALL_ABOVE,
    "startup": ALL_ABOVE,
    "emptying": ALL_ABOVE,
    "tasks": ALL_ABOVE,
    "undo": ALL_ABOVE,
    "verify_task": ALL_ABOVE,
    "refs": "history",
    "explain_task": ALL_ABOVE,
    "space_tasks": ALL_ABOVE,
    "schedule_task": ALL_ABOVE,
    "state_tasks": ALL_ABOVE,
    "versioned": "scan",
    "refs_task": ALL_ABOVE,
    "logtemplate": "",
    "log_task": ALL_ABOVE,
    "catalog_task": ALL_ABOVE,
    "manifest": "model attributes",
    "backup": "model attributes measures scan store journal apply manifest",
    "backup_report": "model attributes measures report manifest backup",
    "backup_tasks": ALL_ABOVE,
    "archive": "model attributes measures scan store apply manifest",
    "archive_task": ALL_ABOVE,
    "demo": "model store",
    "cli": "__init__ store shipped asked help options",
    "__main__": "cli",
}
PURE = tuple(
    "logtemplate clock pointers attributes refs model measures naming retention losses journal history plan report conflicts sidecars options shape policies rules "
    "manifest backup_report hints help lookalikes".split()
)
IMPURE_MODULES = set("doit glob io os pathlib random shutil socket subprocess sys tempfile time".split())
IMPURE_CALLS = set("open print input now today utcnow".split())
CHANGING_OS = set(
    "chmod chown fchmod fchown fdopen ftruncate link makedirs mkdir mkfifo mknod open remove removedirs removexattr rename renames "
    "replace rmdir setxattr symlink truncate unlink utime write".split()
)
READING_FLAGS = set("O_RDONLY O_DIRECTORY O_CLOEXEC O_NOFOLLOW O_NONBLOCK".split())
CHANGING_METHODS = set("hardlink_to rmtree symlink_to touch unlink write_bytes write_text".split())


def parse(room: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{room}.py").read_text(encoding="utf-8"))


def imported(tree: ast.Module) -> Iterator[str]:
    """Yield what is imported, wherever in the file: ``yaml``, ``os.path``, ``ckptrules.model``, ``pathlib.PurePath``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_imported(room: str) -> set[str]:
    ours = {name.split(".")[1] for name in imported(parse(room)) if name.startswith("ckptrules.")}
    return {name if name in ROOMS else "__init__" for name in ours}


def changes(tree: ast.Module) -> Iterator[str]:
    """Yield what changes the disk, or could: calls by whatever way they come, and imports that would hide one."""
    flags = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr.startswith("O_")}
    reads_only = bool(flags) and flags <= READING_FLAGS
    for node in ast.walk(tree):
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
            return True
        case ast.Attribute(_, name):
            return name in CHANGING_METHODS
    return False


def test_every_file_has_its_place_in_the_table() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_upward_only(room: str) -> None:
    above = set(list(ROOMS)[: list(ROOMS).index(room)])
    allowed = above if ROOMS[room] == ALL_ABOVE else set(ROOMS[room].split())
    assert allowed <= above
    assert rooms_imported(room) <= allowed


@pytest.mark.parametrize("room", PURE)
def test_pure_files_know_neither_disk_nor_clock_nor_terminal_nor_doit(room: str) -> None:
    tree = parse(room)
    modules = {name.partition(".")[0] for name in imported(tree) if name != "pathlib.PurePath"}
    called = {ast.unparse(node.func).split(".")[-1] for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert modules & IMPURE_MODULES == set()
    assert ("yaml" in modules) <= (room == "shape")
    assert called & IMPURE_CALLS == set()


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "store"])
def test_only_the_store_changes_the_disk(room: str) -> None:
    assert list(changes(parse(room))) == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("os.rename(a, b)", True),
        ("os.open(path, flags)", True),
        ("os.open(path, os.O_RDONLY | os.O_CREAT)", True),
        ("os.open(path, os.O_RDONLY)", False),
        ("shutil.rmtree(path)", True),
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
    defined = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    defined |= {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    defined |= {name.split(".")[-1] for name in imported(tree) if name != "__future__.annotations"}
    assert defined - {"__all__", "__getattr__", "TYPE_CHECKING", "discovery"} == set(ckptrules.__all__)
    assert all(hasattr(ckptrules, name) for name in ckptrules.__all__)
