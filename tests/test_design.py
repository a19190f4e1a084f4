"""The walls of the house: who may import whom, what is pure, and where the disk is changed. Read from the code."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import ckptrules

PACKAGE = Path(ckptrules.__file__).parent
MAY_IMPORT: dict[str, set[str]] = {
    "model": set(),
    "options": set(),
    "naming": {"model"},
    "retention": {"model"},
    "store": {"model"},
    "journal": {"model"},
    "shape": {"model"},
    "report": {"model"},
    "rules": {"model", "shape", "naming", "retention"},
    "plan": {"model", "naming", "retention"},
    "apply": {"model", "store", "journal"},
    "shipped": {"model", "shape"},
    "reporter": {"report", "options", "store"},
}
LAST = {"tasks", "demo", "cli", "__init__", "__main__"}  # these may import all of the others
PURE = ("model", "naming", "retention", "plan", "report", "options", "shape", "rules")
IMPURE_MODULES = {"os", "shutil", "pathlib", "time", "random", "doit", "subprocess", "tempfile"}
CHANGING = {
    "os": set("rename replace unlink remove rmdir mkdir makedirs removedirs symlink link utime truncate chmod".split()),
    "shutil": set("rmtree move copy copy2 copyfile copytree".split()),
}


def imports(module: str) -> set[str]:
    found = set()
    for node in ast.walk(parse(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "ckptrules":
            found |= {f"ckptrules.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def parse(module: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))


def calls(module: str) -> set[tuple[str, str]]:
    """List the calls of functions of modules, as (module, function)."""
    return {
        (node.func.value.id, node.func.attr)
        for node in ast.walk(parse(module))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name)
    }


def test_every_file_has_its_place_in_the_table() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == set(MAY_IMPORT) | LAST


@pytest.mark.parametrize("module", MAY_IMPORT)
def test_imports_point_upward_only(module: str) -> None:
    ours = {name.removeprefix("ckptrules.") for name in imports(module) if name.startswith("ckptrules.")}
    assert ours <= MAY_IMPORT[module]


@pytest.mark.parametrize("module", PURE)
def test_pure_files_know_neither_disk_nor_clock_nor_doit(module: str) -> None:
    assert not {name.partition(".")[0] for name in imports(module)} & IMPURE_MODULES
    assert not {function for _, function in calls(module)} & {"now", "today", "utcnow"}
    assert "yaml" not in imports(module) or module == "shape"


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.stem)
def test_only_the_store_changes_the_disk(path: Path) -> None:
    changing = {(module, function) for module, function in calls(path.stem) if function in CHANGING.get(module, ())}
    opened_for_writing = [
        node.lineno
        for node in ast.walk(parse(path.stem))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open"
        for argument in node.args[1:2]
        if isinstance(argument, ast.Constant) and set(str(argument.value)) & set("wax+")
    ]
    assert bool(changing or opened_for_writing) == (path.stem == "store")
