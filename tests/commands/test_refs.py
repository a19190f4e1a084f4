"""`doit refs`: old names in scripts, notebooks and documents."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from ckptrules.changes.references import Reference
from ckptrules.commands.refs import TextFile, diff, obstacle
from ckptrules.report.style import Style
from tests.conftest import Project
from tests.support import crash
from tests.support.killing import kills

pytestmark = pytest.mark.whole

OLD, NEW = "epoch=3-step=40.ckpt", "epoch-03_step-000040.ckpt"


def prepare(project: Project, *experiments: str) -> None:
    project.make({f"{name}/checkpoints/{OLD}": 50 for name in experiments})
    project.doit("migrate")
    (project.folder / "scripts").mkdir()


def put(project: Project, path: str, content: bytes) -> None:
    (project.folder / path).parent.mkdir(parents=True, exist_ok=True)
    (project.folder / path).write_bytes(content)


CASES = {
    "a relative path": (f"load('outputs/one/checkpoints/{OLD}')\n", f"load('outputs/one/checkpoints/{NEW}')\n", 0),
    "an absolute path": (f'"/data/outputs/one/checkpoints/{OLD}"', f'"/data/outputs/one/checkpoints/{NEW}"', 0),
    "an f-string": (f"f'{{root}}/one/checkpoints/{OLD}'", f"f'{{root}}/one/checkpoints/{NEW}'", 0),
    "an option": (f"--ckpt=outputs/two/checkpoints/{OLD} --x=1", f"--ckpt=outputs/two/checkpoints/{NEW} --x=1", 0),
    "the end of a sentence": (f"It was one/checkpoints/{OLD}.", f"It was one/checkpoints/{NEW}.", 0),
    "twice in a line": (f"one/checkpoints/{OLD}, two/checkpoints/{OLD}", f"one/checkpoints/{NEW}, two/checkpoints/{NEW}", 0),
    "a bare name": (f"name = '{OLD}'\n", f"name = '{OLD}'\n", 1),
    "a path that both experiments have": (f"checkpoints/{OLD}", f"checkpoints/{OLD}", 1),
    "another experiment": (f"outputs/three/checkpoints/{OLD}", f"outputs/three/checkpoints/{OLD}", 0),
    "a longer name": (f"outputs/one/checkpoints/{OLD}.bak x{OLD}", f"outputs/one/checkpoints/{OLD}.bak x{OLD}", 0),
    "line ends of another system": (f"a\r\none/checkpoints/{OLD}\r\nb", f"a\r\none/checkpoints/{NEW}\r\nb", 0),
}  # fmt: skip


@pytest.mark.parametrize(("before", "after", "code"), CASES.values(), ids=list(CASES))
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1"])
def test_a_reference_is_rewritten_where_its_path_decides(
    project: Project, before: str, after: str, code: int, encoding: str
) -> None:
    prepare(project, "one", "two")
    put(project, "scripts/über.py", ("# ä\n" + before).encode(encoding))
    out = project.doit("refs", check=code)
    assert (project.folder / "scripts/über.py").read_bytes() == ("# ä\n" + before).encode(encoding)
    assert ("Unsure: scripts/" in out) == bool(code)
    project.doit("refs", "apply=1", check=code)
    assert (project.folder / "scripts/über.py").read_bytes() == ("# ä\n" + after).encode(encoding)


def test_the_change_is_shown_applied_and_taken_back(project: Project) -> None:
    prepare(project, "one")
    text = f"import torch\n\ntorch.load('outputs/one/checkpoints/{OLD}')\nname = '{OLD}'\n"
    put(project, "scripts/run.sh", text.encode())
    (project.folder / "scripts/run.sh").chmod(0o750)
    out = project.doit("refs", "paths=scripts", check=1)
    assert out == (
        "--- scripts/run.sh\n+++ scripts/run.sh\n@@ -2,3 +2,3 @@\n \n"
        f"-torch.load('outputs/one/checkpoints/{OLD}')\n+torch.load('outputs/one/checkpoints/{NEW}')\n name = '{OLD}'\n"
        f"? Unsure: scripts/run.sh:4:9: {OLD} (no path stands before it; it was in one/checkpoints)\n"
        "Summary (nothing was changed)\n  To rewrite: 1 reference in 1 file\n"
        "  Unsure: 1 reference, left as they are\n  'doit refs apply=1 paths=scripts' writes them; 'doit undo' takes that back\n"
    )
    out = project.doit("refs", "paths=scripts", "apply=1", check=1)
    assert "  Rewritten: 1 reference in 1 file\n" in out
    assert stat.S_IMODE((project.folder / "scripts/run.sh").stat().st_mode) == 0o750
    assert os.listdir(project.folder / "scripts") == ["run.sh"]
    out = project.doit("undo")
    assert "Rewritten: run.sh\n" in out
    assert (project.folder / "scripts/run.sh").read_text() == text
    assert (project.outputs / "one/checkpoints" / NEW).exists()


def test_an_undo_takes_back_renames_and_texts_of_one_run(project: Project) -> None:
    """Their journals have one name, and were taken for one: the renames stayed for ever."""
    prepare(project, "one")
    script = f"load('one/checkpoints/{OLD}')\n".encode()
    put(project, "scripts/a.py", script)
    project.make({"one/checkpoints/epoch=4-step=50.ckpt": 60})
    before = project.tree()
    project.doit("migrate", "refs", "--apply")
    assert NEW.encode() in (project.folder / "scripts/a.py").read_bytes()
    assert project.tree() != before
    for _ in range(2):
        project.doit("undo")
        assert (project.tree(), (project.folder / "scripts/a.py").read_bytes()) == (before, script)
        newest = project.doit("history").splitlines()[1].split()[0]
        project.doit("undo", f"run={newest}")
        assert NEW.encode() in (project.folder / "scripts/a.py").read_bytes()
        assert project.tree() != before


def test_an_undo_leaves_what_was_edited_since(project: Project) -> None:
    prepare(project, "one")
    put(project, "scripts/run.sh", f"one/checkpoints/{OLD}\n".encode())
    project.doit("refs", "apply=1")
    put(project, "scripts/run.sh", b"mine\n")
    for dry_run in (1, 0):
        assert "has changed since it was looked at" in project.doit("undo", f"dry_run={dry_run}", check=1)
    assert (project.folder / "scripts/run.sh").read_bytes() == b"mine\n"


def test_an_undo_of_the_renames_alone_tells_that_texts_have_the_new_names(project: Project) -> None:
    """The texts led nowhere, and nothing told of them."""
    prepare(project, "one")
    put(project, "scripts/run.sh", f"--ckpt=outputs/one/checkpoints/{OLD}\n".encode())
    migrate = project.doit("history").splitlines()[1].split()[0]
    project.doit("refs", "apply=1", "paths=scripts")
    refs = project.doit("history").splitlines()[1].split()[0]
    told = f"has written new names into texts: 'doit undo run={refs}' takes that back.\n"
    for more in ("dry_run=1", "dry_run=0"):
        assert told in project.doit("undo", f"run={migrate}", more)
    project.doit("undo", f"run={refs}")
    assert OLD in (project.folder / "scripts/run.sh").read_text()


def test_a_notebook_stays_one_and_only_the_lines_change(project: Project) -> None:
    prepare(project, "one")
    cell = {"cell_type": "code", "source": [f'p = "outputs/one/checkpoints/{OLD}"\n', "x = 1"], "outputs": []}
    before = json.dumps({"cells": [cell], "nbformat": 4}, indent=1)
    put(project, "notebooks/look.ipynb", before.encode())
    project.doit("refs", "paths=notebooks", "apply=1")
    after = (project.folder / "notebooks/look.ipynb").read_text()
    assert json.loads(after)["cells"][0]["source"][0] == f'p = "outputs/one/checkpoints/{NEW}"\n'
    assert [a == b for a, b in zip(before.splitlines(), after.splitlines(), strict=True)].count(False) == 1


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_file_with_changes_that_are_not_committed_is_left_alone(project: Project) -> None:
    prepare(project, "one")
    text = f"one/checkpoints/{OLD}\n"
    for name in ("clean.md", "modified.md"):
        put(project, f"scripts/{name}", text.encode())
    git = ["git", "-c", "user.name=ada", "-c", "user.email=ada@example.org", "-C", str(project.folder)]
    for words in (["init", "-q"], ["add", "scripts"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], check=True)
    put(project, "scripts/modified.md", (text + "more\n").encode())
    out = project.doit("refs", "apply=1", check=1)
    assert "Problem: scripts/modified.md: has changes that are not committed" in out
    assert (project.folder / "scripts/clean.md").read_text() == text.replace(OLD, NEW)
    assert (project.folder / "scripts/modified.md").read_text() == text + "more\n"
    project.doit("refs", "apply=1", "force=1", "paths=scripts/modified.md")
    assert (project.folder / "scripts/modified.md").read_text() == text.replace(OLD, NEW) + "more\n"


def test_paths_with_spaces_and_commas_are_found(project: Project) -> None:
    prepare(project, "my run", "run", "lr=1, wd=2")
    others = f"'outputs/xlr=1, wd=2/checkpoints/{OLD}' 'outputs/x lr=1, wd=2/checkpoints/{OLD}'\n"
    put(project, "scripts/others.py", others.encode())
    paths = [f"outputs/{name}/checkpoints/" for name in ("my run", "run", "lr=1, wd=2")]
    put(project, "scripts/run.py", "".join(f"load('{path}{OLD}')\n" for path in paths).encode())
    project.doit("refs", "apply=1")
    text = (project.folder / "scripts/run.py").read_text()
    assert text == "".join(f"load('{path}{NEW}')\n" for path in paths)
    assert (project.folder / "scripts/others.py").read_text() == others


def test_a_file_is_rewritten_once_however_often_it_is_named(project: Project) -> None:
    prepare(project, "one")
    put(project, "scripts/a.py", f"one/checkpoints/{OLD}".encode())
    paths = "paths=. scripts ./scripts/a.py"
    assert "To rewrite: 1 reference in 1 file" in project.doit("refs", paths)
    assert "Rewritten: 1 reference in 1 file" in project.doit("refs", paths, "apply=1")


def test_what_tells_of_an_archive_is_no_reference(project: Project) -> None:
    prepare(project, "one")
    put(project, "scripts/one.tar.zst.manifest.json", f'{{"path": "one/checkpoints/{OLD}"}}'.encode())
    assert "  To rewrite: 0 references in 0 files\n" in project.doit("refs")


def test_a_path_that_is_still_right_is_no_reference(project: Project) -> None:
    prepare(project, "one")
    project.make({f"one/checkpoints/{OLD}": 7})
    put(project, "scripts/run.sh", f"outputs/one/checkpoints/{OLD}\n".encode())
    assert "  To rewrite: 0 references in 0 files\n" in project.doit("refs")


def test_what_was_renamed_twice_gets_its_last_name_and_what_was_taken_back_none(project: Project) -> None:
    prepare(project, "one")
    put(project, "scripts/run.sh", f"one/checkpoints/{OLD}\n".encode())
    rules = project.folder / "rules" / "naming.yaml"
    text = rules.read_text().replace("template: 'epoch-", "template: 'e-").replace("match: 'epoch-(", "match: 'e-(")
    text = text.replace("[epoch-03", "[e-03").replace(" epoch-05", " e-05").replace(" epoch-120", " e-120")
    text = text.replace(": epoch-", ": e-") + (
        "  - id: before\n    match: 'epoch-(?P<epoch>\\d+)_step-(?P<step>\\d+)\\.ckpt'\n"
        "    examples: {epoch-03_step-000103.ckpt: e-03_step-000103.ckpt}\n"
    )
    rules.write_text(text)
    retention = project.folder / "rules" / "retention.yaml"
    retention.write_text("retention:\n  default: {min_epoch: 10}\n")
    project.doit("migrate")
    assert "+one/checkpoints/e-03_step-000040.ckpt\n" in project.doit("refs")
    project.doit("undo")
    assert f"+one/checkpoints/{NEW}\n" in project.doit("refs")
    project.doit("undo")
    assert "  No run has renamed anything yet.\n" in project.doit("refs")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "ERROR: command line: none of scripts, notebooks, docs, configs is here\n    hint: 'doit refs paths=.' looks below this folder; paths='a b' below two\n"),
        (("paths=nowhere",), "ERROR: command line: paths: 'nowhere' is not there\n    hint: paths='scripts notebooks' names files and folders, with spaces between\n"),
    ],
)  # fmt: skip
def test_a_wrong_place_is_refused(project: Project, arguments: tuple[str, ...], text: str) -> None:
    assert project.doit("refs", *arguments, check=3) == text


@pytest.mark.whole
def test_killed_at_any_change_each_file_is_the_old_or_the_new_one(project: Project) -> None:
    prepare(project, "one")
    before, after = (f"load('one/checkpoints/{name}')\n" for name in (OLD, NEW))
    kept = project.folder.parent / "kept"
    shutil.copytree(project.outputs, kept, symlinks=True)

    def begin() -> None:
        shutil.rmtree(project.folder.parent / "state", ignore_errors=True)
        shutil.rmtree(project.outputs)
        shutil.rmtree(project.folder / "scripts")
        shutil.copytree(kept, project.outputs, symlinks=True)
        for name in ("a.py", "b.md"):
            put(project, f"scripts/{name}", before.encode())

    def texts() -> dict[str, str]:
        return {path.name: path.read_text() for path in sorted((project.folder / "scripts").glob("?.??"))}

    begin()
    killed = kills(project, ("refs", "apply=1"), project.folder / "scripts")
    assert texts() == {"a.py": after, "b.md": after}
    for at in killed:
        begin()
        assert crash.run_in_turn(project.folder, "refs", "apply=1", fault=at).code == -signal.SIGKILL
        assert set(texts().values()) <= {before, after}, at
        ended = crash.run_in_turn(project.folder, "refs", "apply=1")
        assert (ended.code, texts()) == (0, {"a.py": after, "b.md": after}), (at, ended.output)
        assert sorted(os.listdir(project.folder / "scripts")) == ["a.py", "b.md"], at
        for _ in range(2):  # what the killed run did, and what the next one did
            crash.run_in_turn(project.folder, "undo", "experiments=references")
        assert texts() == {"a.py": before, "b.md": before}, at


def test_the_diff_is_coloured_on_a_terminal() -> None:
    text = TextFile("a.py", b"", f"x\none/checkpoints/{OLD}\n", "utf-8", (Reference(18, OLD, NEW),))
    colours = [line.partition("m")[0] for line in diff(text, Style(colour=True)) if line.startswith("\x1b")]
    assert colours == ["\x1b[2", "\x1b[31", "\x1b[32"]
    assert not [line for line in diff(text, Style()) if "\x1b" in line]


def test_a_file_that_went_after_it_was_read_is_told(tmp_path: Path) -> None:
    gone = str(tmp_path / "a.py")
    text = TextFile(gone, b"", f"one/checkpoints/{OLD}\n", "utf-8", (Reference(16, OLD, NEW),))
    assert obstacle(text, {}, force=False) == f"cannot be looked at: {os.strerror(errno.ENOENT)}"


def test_a_rewritten_file_that_cannot_be_closed_is_rewritten(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is on the disk by then, under its name."""
    prepare(project, "one")
    monkeypatch.setenv("XDG_STATE_HOME", str(project.folder / "state"))
    before = f"load('outputs/one/checkpoints/{OLD}')\n"
    put(project, "scripts/a.py", before.encode())

    def is_new_script(descriptor: int) -> bool:
        is_new = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_WRONLY != 0
        return is_new and os.path.samestat(os.fstat(descriptor), (project.folder / "scripts/a.py").stat())

    crash.let_close_fail(monkeypatch, errno.EIO, is_new_script)
    ended = crash.run(project.folder, "refs", "apply=1")
    assert (ended.code, "Rewritten: 1 reference in 1 file" in ended.output) == (0, True), ended.output
    crash.run(project.folder, "undo", "experiments=references")
    assert (project.folder / "scripts/a.py").read_text() == before


def test_a_run_that_is_none_and_a_damaged_journal_are_refused(project: Project) -> None:
    """It read as if no run had renamed anything, with exit code 0."""
    prepare(project, "one")
    out = project.doit("refs", "run=yesterday", check=3)
    assert out == "ERROR: command line: no run 'yesterday'\n    hint: 'doit history' lists them\n"
    (journal,) = (project.outputs / ".ckptrules/journal").iterdir()
    journal.write_text(journal.read_text() + "x\n\n")
    assert "is damaged" in project.doit("refs", check=3)
