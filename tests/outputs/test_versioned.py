"""`doit refs` runs nothing of a repository, and leaves alone what has changes that are not committed."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ckptrules.outputs import versioned
from ckptrules.outputs.versioned import CHANGED, UNKNOWN, how_changed
from tests.commands.test_refs import NEW, OLD, prepare, put
from tests.conftest import Project
from tests.support.tables import every_row

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
TEXT = f"load('one/checkpoints/{OLD}')\n"


def git(folder: Path, *words: str, check: bool = True) -> str:
    command = ["git", "-c", "user.name=ada", "-c", "user.email=ada@example.org", "-c", "protocol.file.allow=always"]
    env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    run = subprocess.run([*command, "-C", str(folder), *words], check=check, env=env, capture_output=True, text=True)
    return run.stdout


def repository(folder: Path, *words: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "-q", *words)
    (folder / "docs").mkdir()
    for name in ("top.md", "docs/a.md", "docs/b.md"):
        (folder / name).write_text(TEXT)
        os.utime(folder / name, (10**9, 10**9))
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "x")
    return folder


def status(folder: Path, path: str) -> str:
    return git(folder, "status", "--porcelain", "--untracked-files=no", "--", path).strip()


def said(folder: Path, path: str) -> str:
    return how_changed(str(folder / path), (folder / path).read_bytes(), {})


def change(path: Path) -> int:
    return path.write_text(TEXT + "more\n")


def merge(folder: Path) -> None:
    git(folder, "checkout", "-qb", "other")
    (folder / "docs/a.md").write_text("theirs\n")
    git(folder, "commit", "-qam", "y")
    git(folder, "checkout", "-q", "-")
    (folder / "docs/a.md").write_text("ours\n")
    git(folder, "commit", "-qam", "z")
    git(folder, "merge", "other", check=False)


STATES: dict[str, Callable[[Path], object]] = {
    "nothing": lambda folder: None,  # noqa: ARG005
    "changed": lambda folder: change(folder / "docs/a.md"),
    "changed, of the same size": lambda folder: ((folder / "docs/a.md").write_text(TEXT.replace("load", "LOAD")),),
    "touched": lambda folder: (folder / "docs/a.md").write_text(TEXT),
    "added": lambda folder: (change(folder / "docs/a.md"), git(folder, "add", "docs/a.md")),
    "added and changed back": lambda folder: (
        change(folder / "docs/a.md"),
        git(folder, "add", "docs/a.md"),
        (folder / "docs/a.md").write_text(TEXT),
    ),
    "another one in its folder changed": lambda folder: change(folder / "docs/b.md"),
    "another one elsewhere added": lambda folder: (change(folder / "top.md"), git(folder, "add", "top.md")),
    "removed from the index": lambda folder: git(folder, "rm", "-q", "--cached", "docs/a.md"),
    "in a merge that is not finished": merge,
    "packed": lambda folder: git(folder, "gc", "-q"),
    "checked out again": lambda folder: (
        change(folder / "docs/a.md"),
        git(folder, "commit", "-qam", "y"),
        git(folder, "checkout", "-q", "HEAD~"),
    ),
    "committed": lambda folder: (change(folder / "docs/a.md"), git(folder, "commit", "-qam", "y")),
    "merely to be added": lambda folder: (
        git(folder, "rm", "-q", "--cached", "docs/a.md"),
        git(folder, "commit", "-qm", "y"),
        git(folder, "add", "-N", "docs/a.md"),
    ),
}


@pytest.mark.whole
@pytest.mark.parametrize("state", STATES.values(), ids=list(STATES))
@pytest.mark.parametrize("version", ["2", "3", "4"])
@pytest.mark.parametrize("form", ["sha1", "sha256"])
def test_it_says_what_git_says(tmp_path: Path, state: Callable[[Path], object], version: str, form: str) -> None:
    folder = repository(tmp_path / "work", f"--object-format={form}")
    state(folder)
    before = status(folder, "docs/a.md")
    if version == "3":
        git(folder, "update-index", "--skip-worktree", "top.md")
    elif version == "4":
        git(folder, "update-index", "--index-version", "4")
    assert bool(said(folder, "docs/a.md")) == bool(before and "D " not in before)


def test_what_git_does_not_track_is_not_changed(tmp_path: Path) -> None:
    folder = repository(tmp_path / "work")
    (folder / "new.md").write_text(TEXT)
    (tmp_path / "outside.md").write_text(TEXT)
    assert said(folder, "new.md") == said(tmp_path, "outside.md") == ""
    git(tmp_path, "init", "-q", "empty")
    (tmp_path / "empty/new.md").write_text(TEXT)
    assert said(tmp_path, "empty/new.md") == ""


def test_a_submodule_a_clone_and_a_linked_work_tree_have_an_index_elsewhere(tmp_path: Path) -> None:
    origin = repository(tmp_path / "origin")
    outer = repository(tmp_path / "outer")
    git(outer, "submodule", "--quiet", "add", str(origin), "inner")
    git(tmp_path, "clone", "-q", str(origin), "clone")
    git(origin, "worktree", "add", "-q", str(tmp_path / "linked"))
    for folder in (outer / "inner", tmp_path / "clone", tmp_path / "linked"):
        assert said(folder, "docs/a.md") == ""
        change(folder / "docs/a.md")
        assert said(folder, "docs/a.md") == CHANGED


def test_a_file_that_a_filter_has_written_is_known_by_its_time(tmp_path: Path) -> None:
    folder = repository(tmp_path / "work")
    (folder / ".gitattributes").write_text("*.md text eol=crlf\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "y")
    for name in ("top.md", "docs/a.md"):
        (folder / name).unlink()
    git(folder, "checkout", "-q", ".")
    os.utime(folder / ".git/index", (4 * 10**9, 4 * 10**9))
    assert (folder / "docs/a.md").read_bytes().endswith(b"\r\n")
    assert said(folder, "docs/a.md") == ""
    (folder / "docs/a.md").write_bytes(b"x\r\n")
    assert said(folder, "docs/a.md") == CHANGED


def corrupt(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def linked(path: Path) -> None:
    path.rename(path.with_name("real"))
    path.symlink_to("real")


def replaced_by_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


LARGE = 1 << 40
BROKEN: dict[str, Callable[[Path], object]] = {
    "cut off": lambda path: corrupt(path, lambda data: data[: len(data) // 2]),
    "no index": lambda path: path.write_bytes(b"hello"),
    "another version": lambda path: corrupt(path, lambda data: data[:4] + struct.pack(">I", 9) + data[8:]),
    "too many entries": lambda path: corrupt(path, lambda data: data[:8] + b"\xff" * 4 + data[12:]),
    "a pipe": replaced_by_a_pipe,
    "a link": linked,
    "a large one": lambda path: os.truncate(path, LARGE),
    "entries elsewhere": lambda path: git(path.parent.parent, "update-index", "--split-index"),
    "a name that grows": lambda path: path.write_bytes(
        b"DIRC" + struct.pack(">II", 4, 9) + (bytes(62) + b"\0" + b"a" * 1000 + b"\0") * 9 + bytes(20)
    ),
}


@every_row("damage", BROKEN.values(), ids=list(BROKEN))
def test_an_index_that_is_not_understood_may_tell_of_changes(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    folder = repository(tmp_path / "work")
    damage(folder / ".git/index")
    assert said(folder, "docs/a.md") == UNKNOWN


def test_an_index_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = repository(tmp_path / "work")
    read: list[str] = []
    really = versioned._read_index  # noqa: SLF001

    def counted(own: str) -> versioned.GitIndex:
        read.append(own)
        return really(own)

    monkeypatch.setattr(versioned, "_read_index", counted)
    known: dict[str, versioned.GitIndex] = {}
    for name in ("top.md", "docs/a.md", "docs/b.md"):
        assert how_changed(str(folder / name), TEXT.encode(), known) == ""
    assert len(read) == 1


# --- nothing runs ----------------------------------------------------------------------------------------------------


def trapped(project: Project, trap: str) -> Path:
    """Make a repository of the project in which whatever git would run leaves a mark; return the mark."""
    prepare(project, "one")
    mark = project.folder.parent / "mark"
    script = project.folder.parent / "trap"
    script.write_text(f"#!/bin/sh\ntouch '{mark}'\ncat\n")
    script.chmod(0o755)
    for name in ("clean.md", "modified.md"):
        put(project, f"scripts/{name}", TEXT.encode())
    folder = project.folder
    git(folder, "init", "-q")
    git(folder, "add", "scripts")
    git(folder, "commit", "-qm", "x")
    put(project, "scripts/modified.md", (TEXT + "more\n").encode())
    os.utime(folder / "scripts" / "clean.md")  # git status would look inside, and write the index
    settings = {
        "a monitor": {"core.fsmonitor": str(script)},
        "a clean filter": {"filter.trap.clean": str(script)},
        "a process filter": {"filter.trap.process": str(script)},
        "a textconv": {"diff.trap.textconv": str(script), "diff.external": str(script)},
        "hooks": {"core.hooksPath": str(folder / "hooks")},
        "an alias": {"alias.status": f"!{script}"},
        "another work tree": {"core.worktree": "/", "core.fsmonitor": str(script)},
        "an included file": {"include.path": str(folder / "more.config")},
        "a transport": {
            "core.sshCommand": str(script),
            "extensions.partialClone": "origin",
            "remote.origin.url": "ssh://x/y",
        },
        "a pager": {"core.pager": str(script), "core.editor": str(script)},
    }[trap]
    for name, value in settings.items():
        git(folder, "config", name, value)
    (folder / ".gitattributes").write_text("*.md filter=trap diff=trap\n")
    (folder / "more.config").write_text(f"[core]\n\tfsmonitor = {script}\n")
    (folder / "hooks").mkdir()
    shutil.copy(script, folder / "hooks" / "post-index-change")
    return mark


def state_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


TRAPS = (
    "a monitor", "a clean filter", "a process filter", "a textconv", "hooks", "an alias", "another work tree",
    "an included file", "a transport", "a pager",
)  # fmt: skip


@pytest.mark.whole
@pytest.mark.parametrize("trap", TRAPS)
def test_nothing_of_a_repository_runs_and_nothing_in_it_is_written(project: Project, trap: str) -> None:
    mark = trapped(project, trap)
    inside = project.folder / ".git"
    before = state_of(inside)
    fake = project.folder.parent / "bin"
    fake.mkdir()
    for name in ("git", "sh", "ssh"):
        shutil.copy(project.folder.parent / "trap", fake / name)
    env = {"PATH": f"{fake}{os.pathsep}{os.environ['PATH']}"}
    for apply in ((), ("apply=1",)):
        out = project.doit("refs", *apply, check=1, env=env)
        assert "Problem: scripts/modified.md: has changes that are not committed; commit them first, or say" in out
        assert state_of(inside) == before
        assert not mark.exists()
    assert (project.folder / "scripts/clean.md").read_text() == TEXT.replace(OLD, NEW)
    assert (project.folder / "scripts/modified.md").read_text() == TEXT + "more\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_a_repository_of_somebody_else_is_read_as_well(project: Project) -> None:
    trapped(project, "a monitor")
    for path in (project.folder, *project.folder.rglob("*")):
        os.chown(path, 12345, 12345, follow_symlinks=False)
    out = project.doit("refs", check=1)
    assert "Problem: scripts/modified.md: has changes that are not committed" in out


def test_a_bare_repository_has_no_files_of_its_own(project: Project) -> None:
    prepare(project, "one")
    git(project.folder, "init", "-q", "--bare", "scripts/bare.git")
    put(project, "scripts/bare.git/notes.md", TEXT.encode())
    project.doit("refs", "apply=1")
    assert (project.folder / "scripts/bare.git/notes.md").read_text() == TEXT.replace(OLD, NEW)
