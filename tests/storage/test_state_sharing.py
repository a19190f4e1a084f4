"""Who may write to the state: the modes that it is made with, users of one group, strangers, everybody."""

from __future__ import annotations

import importlib
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ckptrules.storage import believing, state
from tests.conftest import ROOT, Project
from tests.support import crash
from tests.support.crash import Ended

pytestmark = pytest.mark.whole

OLD, NEW = "epoch=3-step=40.ckpt", "epoch-03_step-000040.ckpt"
LATER, LATER_NEW = "epoch=12-step=90.ckpt", "epoch-12_step-000090.ckpt"
STATE = ".ckptrules"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")


class User(NamedTuple):
    """Somebody to run as."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


ML = 54300  # the group that shares the tree
ALICE, BOB = User(54301, 54301, (ML,)), User(54302, 54302, (ML,))
MALLORY = User(54303, 54303)


# What is imported on the way: who runs as another user may not be let into the folder of Python.
NEEDED = (
    "_strptime ctypes sqlite3 difflib shlex uuid tqdm.auto multiprocessing.connection jinja2.sandbox zoneinfo".split()
)


def run(folder: Path, *arguments: str, user: User | None = None, umask: int = 0o022) -> Ended:
    """Run doit, as a user where one is named: in a process of its own then, as nobody gets back from there."""
    if not user:
        before = os.umask(umask)
        try:
            return crash.run_in_turn(folder, *arguments)
        finally:
            os.umask(before)
    be_doit = crash._be_doit  # noqa: SLF001

    def as_user(*args: Any) -> None:
        os.umask(umask)
        for name in NEEDED:
            importlib.import_module(name)
        os.setgroups(user.groups)
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
        be_doit(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crash, "_be_doit", as_user)
        return crash.run(folder, *arguments)


@pytest.fixture
def shared() -> Iterator[Project]:
    """Return a project in a folder that everybody may enter."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        shutil.copy(ROOT / "dodo.py", folder)
        shutil.copytree(ROOT / "rules", Path(folder, "rules"))
        project = Project(Path(folder))
        project.make({f"one/checkpoints/{OLD}": 50})
        yield project


def give(project: Project, user: User, group: int, mode: int) -> None:
    """Give the tree to a user and a group, with the mode of each of its folders."""
    for folder, _, files in os.walk(project.outputs):
        os.chown(folder, user.uid, group)
        os.chmod(folder, mode)
        for name in files:
            os.chown(os.path.join(folder, name), user.uid, group)


def state_files(outputs: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the state folder and all in it that we have made, not what was moved there."""
    yield outputs / STATE, (outputs / STATE).lstat()
    for path in sorted((outputs / STATE).rglob("*")):
        if not path.name.endswith(".trashed"):
            yield path, path.lstat()


@pytest.mark.parametrize("umask", [0, 0o002, 0o022, 0o077])
@pytest.mark.parametrize("mode", [0o700, 0o750, 0o755, 0o770, 0o775, 0o777, 0o2775, 0o2770, 0o1777])
def test_the_modes_of_the_state_follow_the_folder_of_the_outputs(project: Project, mode: int, umask: int) -> None:
    project.make({f"one/checkpoints/{name}": 50 for name in ("epoch=1-step=2.ckpt", OLD, LATER)})
    project.outputs.chmod(mode)
    for command in (["verify"], ["migrate", "delete_old=1"], ["undo"], ["migrate", "delete_old=1"], ["purge"]):
        ended = run(project.folder, *command, umask=umask)
        assert ended.code == (1 if command[0] == "verify" else 0), ended
    seen = set()
    for path, status in state_files(project.outputs):
        seen.add(path.name)
        given = stat.S_IMODE(status.st_mode)
        if stat.S_ISDIR(status.st_mode):
            assert given == 0o700 | mode & 0o2075, (path, oct(given))
        else:
            assert given == 0o600 | mode & 0o064, (path, oct(given))
    assert {STATE, "lock", "doit.db", "journal", "trash", "proved"} <= seen


OPEN = [".", *"lock doit.db proved journal trash verified work".split()]


@pytest.mark.parametrize("name", OPEN)
@pytest.mark.parametrize(
    "command", ["plan", "migrate", "undo", "history", "purge", "verify", "trash", "backup", "usage"]
)
def test_what_everybody_may_write_to_is_refused_with_the_chmod_that_helps(
    project: Project, name: str, command: str
) -> None:
    project.make({f"one/checkpoints/{OLD}": 50, f"one/checkpoints/{LATER}": 50})
    assert run(project.folder, "migrate", "delete_old=1").code == 0
    place = project.outputs / STATE / name
    if not place.exists():
        place.mkdir()
    place.chmod(place.stat().st_mode | 0o002)
    before = project.tree(state=True)
    ended = run(project.folder, command)
    assert ended.code == 3, ended
    shown = os.path.normpath(f"outputs/{STATE}/{name}")
    assert ended.output == (
        f"ERROR: {shown}: everybody may write to it, so it is not believed\n"
        f"    hint: if nobody else wrote to it: chmod -R o-w outputs/{STATE}\n"
    )
    assert project.tree(state=True) == before
    subprocess.run(["chmod", "-R", "o-w", f"outputs/{STATE}"], cwd=project.folder, check=True)
    assert run(project.folder, command).code == (1 if command == "verify" else 0)


@pytest.mark.parametrize("command", ["migrate", "undo", "history", "log", "purge", "refs"])
def test_a_journal_that_everybody_may_write_to_is_refused(project: Project, command: str) -> None:
    project.make({f"one/checkpoints/{OLD}": 50})
    run(project.folder, "migrate")
    (journal,) = (project.outputs / STATE / "journal").iterdir()
    journal.chmod(0o666)
    words = ["refs", "paths=rules"] if command == "refs" else [command]
    ended = run(project.folder, *words)
    assert ended.code == (0 if command == "refs" else 3) or "everybody may write" in ended.output
    assert ended.code == 3, ended
    assert f"journal/{journal.name}: everybody may write to it" in ended.output


def test_a_proof_that_everybody_may_write_to_is_no_proof(project: Project) -> None:
    project.make({f"one/checkpoints/{OLD}": 50})
    run(project.folder, "verify")
    folder = project.outputs / STATE / "verified/one/checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    memory = folder / "files.jsonl"
    memory.touch()
    memory.chmod(0o666)
    ended = run(project.folder, "verify")
    assert ended.code == 1
    assert "verified/one/checkpoints/files.jsonl: everybody may write to it" in ended.output
    assert f"chmod -R o-w outputs/{STATE}" in ended.output


def test_tasks_that_are_not_ours_are_not_refused(project: Project) -> None:
    project.make({f"one/checkpoints/{OLD}": 50})
    run(project.folder, "migrate")
    (project.outputs / STATE).chmod(0o777)
    dodo = project.folder / "dodo.py"
    dodo.write_text(dodo.read_text() + "\n\ndef task_mine():\n    return {'actions': []}\n")
    for command in ("mine", "check", "list"):
        assert run(project.folder, command).code == 0


def test_a_path_in_a_hint_is_quoted_for_a_shell(project: Project) -> None:
    project.make({f"one/checkpoints/{OLD}": 50})
    run(project.folder, "migrate")
    (project.outputs / STATE).chmod(0o777)
    project.outputs.rename(project.folder / "my outputs")
    ended = run(project.folder, "migrate", "outputs_dir=my outputs")
    assert f"chmod -R o-w 'my outputs/{STATE}'\n" in ended.output


# --- users of one group ----------------------------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize("umask", [0, 0o002, 0o022, 0o077])
@pytest.mark.parametrize("mode", [0o2775, 0o775, 0o2770])
def test_users_of_one_group_share_a_tree(shared: Project, mode: int, umask: int) -> None:
    """Whatever their umasks, and also where new files do not get the group of the folder by themselves."""
    give(shared, ALICE, ML, mode)
    start = shared.tree()
    for user, command in (
        (ALICE, ["migrate"]),
        (BOB, ["migrate"]),
        (BOB, ["undo"]),
        (ALICE, ["migrate"]),
        (BOB, ["history"]),
        (BOB, ["plan", "delete_old=1"]),
    ):
        ended = run(shared.folder, *command, user=user, umask=umask)
        assert ended.code == 0, (user, command, ended)
        assert "remembered" not in ended.output
    assert "up to date" in run(shared.folder, "migrate", user=BOB, umask=umask).output
    assert shared.names("one") == [NEW]
    assert run(shared.folder, "undo", user=BOB, umask=umask).code == 0
    assert shared.tree() == start
    assert {status.st_gid for _, status in state_files(shared.outputs)} == {ML}


@needs_root
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_the_trash_of_one_user_is_brought_back_or_freed_by_another(shared: Project, umask: int) -> None:
    shared.make({"one/checkpoints/epoch=1-step=2.ckpt": 50, f"one/checkpoints/{LATER}": 50})
    give(shared, ALICE, ML, 0o2775)
    start = shared.tree()
    delete = ["migrate", "delete_old=1"]
    for user, command in ((ALICE, delete), (BOB, ["undo"]), (BOB, delete), (ALICE, ["undo"])):
        ended = run(shared.folder, *command, user=user, umask=umask)
        assert ended.code == 0, (user, command, ended)
    assert shared.tree() == start
    assert run(shared.folder, *delete, user=ALICE, umask=umask).code == 0
    ended = run(shared.folder, "purge", user=BOB, umask=umask)
    assert (ended.code, "Freed: 2 items" in ended.output) == (0, True), ended
    assert shared.names("one") == [LATER_NEW]


@needs_root
def test_what_verify_remembers_is_shared(shared: Project) -> None:
    give(shared, ALICE, ML, 0o2775)
    for user in (ALICE, BOB):
        assert run(shared.folder, "verify", user=user, umask=0o077).code == 1
    assert run(shared.folder, "migrate", user=BOB).code == 0


@needs_root
def test_a_state_of_an_earlier_version_is_shared_by_the_next_run_of_its_owner(shared: Project) -> None:
    give(shared, ALICE, ML, 0o2775)
    run(shared.folder, "migrate", user=ALICE)
    for path, status in state_files(shared.outputs):
        path.chmod(0o2755 if stat.S_ISDIR(status.st_mode) else 0o644)
    ended = run(shared.folder, "migrate", user=BOB)
    assert ended.code == 3, ended
    assert ended.output == (
        f"ERROR: outputs/{STATE}/lock: cannot be opened: Permission denied\n    hint: its owner shares it "
        f"with the group: chmod -R g+rwX outputs/{STATE}; chmod g+s outputs/{STATE}\n"
    )
    assert run(shared.folder, "migrate", user=ALICE).code == 0
    assert run(shared.folder, "migrate", user=BOB).code == 0


@needs_root
@pytest.mark.parametrize("name", ["lock", "doit.db", "."])
def test_the_hint_how_to_share_helps(shared: Project, name: str) -> None:
    give(shared, ALICE, ML, 0o2775)
    run(shared.folder, "migrate", user=ALICE)
    place = shared.outputs / STATE / name
    place.chmod(place.stat().st_mode & ~0o020)
    (shared.outputs / STATE / "proved").unlink()
    if name == ".":
        (shared.outputs / STATE / "lock").unlink()
    ended = run(shared.folder, "migrate", user=BOB)
    assert ended.code == 3, ended
    assert os.path.normpath(f"outputs/{STATE}/{name}") + ": cannot be " in ended.output
    hint = ended.output.partition("with the group: ")[2].strip()
    subprocess.run(["sh", "-c", hint], cwd=shared.folder, check=True)
    assert run(shared.folder, "migrate", user=BOB).code == 0


@needs_root
def test_a_group_that_is_not_the_folders_gets_nothing(shared: Project) -> None:
    """Who is not in the group of the folder could only give the state to a group of his own."""
    give(shared, MALLORY, ML, 0o775)
    assert run(shared.folder, "migrate", user=MALLORY).code == 0
    for path, status in state_files(shared.outputs):
        assert status.st_gid == MALLORY.gid
        assert not status.st_mode & 0o070, path


@needs_root
def test_what_root_did_its_owner_can_go_on_with(shared: Project) -> None:
    give(shared, ALICE, ALICE.gid, 0o755)
    start = shared.tree()
    assert run(shared.folder, "migrate").code == 0
    assert run(shared.folder, "undo", user=ALICE).code == 0
    assert shared.tree() == start
    assert {(status.st_uid, status.st_gid) for _, status in state_files(shared.outputs)} == {(ALICE.uid, ALICE.gid)}


# --- strangers -------------------------------------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize("command", ["plan", "migrate", "undo", "history", "purge"])
@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o3777, 0o2777, 0o775, 0o755])
def test_a_state_that_a_stranger_has_made_is_refused(shared: Project, mode: int, command: str) -> None:
    """Whoever may write to the outputs folder may put a state there; one with g+s gives its group to everybody."""
    give(shared, ALICE, ML, 0o755)
    run(shared.folder, "migrate", user=ALICE)
    group = ML if mode & stat.S_ISGID and mode & 0o002 else MALLORY.gid
    for path, _ in state_files(shared.outputs):
        os.chown(path, MALLORY.uid, group)
    shared.outputs.chmod(mode)
    for user in (ALICE, BOB, None):
        ended = run(shared.folder, command, user=user)
        assert ended.code == 3, ended
        assert ended.output.startswith(
            f"ERROR: outputs/{STATE}: belongs to somebody else (user {MALLORY.uid}), so it is not believed\n    hint: "
        )


@needs_root
@pytest.mark.parametrize("name", ["lock", "doit.db", "proved", "journal", "journal/RUN", "trash"])
def test_a_file_of_a_stranger_in_our_state_is_refused(shared: Project, name: str) -> None:
    shared.make({f"one/checkpoints/{LATER}": 50})
    give(shared, ALICE, ALICE.gid, 0o755)
    run(shared.folder, "migrate", "delete_old=1", user=ALICE)
    place = shared.outputs / STATE / name
    if place.name == "RUN":
        place = next(place.parent.iterdir())
    os.chown(place, MALLORY.uid, MALLORY.gid)
    ended = run(shared.folder, "migrate", user=ALICE)
    assert ended.code == 3, ended
    assert f"{place.relative_to(shared.folder)}: belongs to somebody else" in ended.output


@needs_root
def test_the_owner_of_the_outputs_and_root_are_believed(shared: Project) -> None:
    give(shared, ALICE, ALICE.gid, 0o755)
    run(shared.folder, "migrate", user=ALICE)
    assert run(shared.folder, "undo", "dry_run=1").code == 0
    assert run(shared.folder, "history", user=MALLORY).code == 0
    for path, _ in state_files(shared.outputs):
        os.chown(path, 0, 0)
    assert run(shared.folder, "history", user=ALICE).code == 0


@needs_root
def test_a_folder_that_is_not_ours_is_named_as_such(shared: Project) -> None:
    give(shared, ALICE, ALICE.gid, 0o755)
    shared.outputs.rename(shared.folder / "my outputs")
    ended = run(shared.folder, "migrate", "outputs_dir=my outputs", user=MALLORY)
    assert ended.code == 3
    assert ended.output == (
        "ERROR: outputs_dir 'my outputs' cannot be written: Permission denied\n"
        "    hint: let its owner run this, or share it with your group: chmod g+rwx 'my outputs'\n"
    )


# --- where files have no modes of their own --------------------------------------------------------------------------


def test_where_every_file_has_one_mode_the_modes_are_passed_over(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAT, NTFS, or a Windows drive in WSL: chmod does nothing there, so it is not asked for."""
    project.make({f"one/checkpoints/{OLD}": 50})
    start = project.tree()
    really = os.fstat, os.lstat, os.stat

    def without_modes(function: Any) -> Any:
        def look(*args: Any, **kwargs: Any) -> os.stat_result:
            status = function(*args, **kwargs)
            return os.stat_result((status.st_mode | 0o777, *status[1:]), {n: getattr(status, n) for n in NAMES})

        return look

    monkeypatch.setattr(believing, "NO_MODES", set())
    for name, function in zip(("fstat", "lstat", "stat"), really, strict=True):
        monkeypatch.setattr(os, name, without_modes(function))
    for command in ("migrate", "plan", "history", "undo"):
        ended = crash.run(project.folder, command)  # with what is replaced here
        assert ended.code == 0, ended
    assert not state.keeps_modes(str(project.outputs))
    monkeypatch.undo()
    assert project.tree() == start


FIRST = ("st_mode", "st_ino", "st_dev", "st_nlink", "st_uid", "st_gid", "st_size")  # these are in the sequence
NAMES = [name for name in dir(os.stat_result) if name.startswith("st_") and name not in FIRST]


@pytest.fixture
def fat(project: Project) -> Iterator[Project]:
    """Return a project whose outputs lie on FAT, where everybody may write to everything."""
    image = project.folder / "image"
    image.write_bytes(b"\0" * 4_000_000)
    if os.geteuid() != 0 or shutil.which("mkfs.vfat") is None:
        pytest.skip("needs root and mkfs.vfat")
    subprocess.run(["mkfs.vfat", str(image)], check=True, capture_output=True)
    command = ["mount", "-o", "loop,umask=0", str(image), str(project.outputs)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("cannot mount FAT here")
    try:
        yield project
    finally:
        subprocess.run(["umount", str(project.outputs)], check=True)


def test_a_tree_on_fat_is_not_refused_for_its_modes(fat: Project) -> None:
    fat.make({f"one/checkpoints/{NEW}": 50})
    for command in ("migrate", "plan", "history", "migrate"):
        ended = run(fat.folder, command)
        assert ended.code == 0, ended


# --- no room ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(project: Project) -> Iterator[Path]:
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(project.outputs)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("cannot mount here")
    try:
        yield project.outputs
    finally:
        subprocess.run(["umount", str(project.outputs)], check=True)


def fill(disk: Path) -> None:
    with (disk / "filler").open("ab", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass


def test_a_tree_without_a_state_on_a_full_disk_is_told_how_little_is_needed(project: Project, disk: Path) -> None:
    project.make({f"one/checkpoints/{OLD}": 5000})
    fill(disk)
    ended = run(project.folder, "migrate", "delete_old=1")
    assert ended.code == 3, ended
    assert (
        "No space left on device\n    hint: some 100 kB are enough to begin: remove some file by hand (df -h)."
        in ended.output
    )
    for command in ("plan", "history"):
        assert run(project.folder, command).code == 0


@pytest.mark.parametrize("lost", ["", "doit.db", "lock"])
def test_a_full_disk_with_a_trash_names_purge_which_works_there(project: Project, disk: Path, lost: str) -> None:
    project.make({f"one/checkpoints/{name}": 60_000 for name in ("epoch=1-step=2.ckpt", LATER)})
    assert run(project.folder, "migrate", "delete_old=1").code == 0
    if lost:
        (disk / STATE / lost).unlink()
    project.make({f"one/checkpoints/{OLD}": 1})
    fill(disk)
    ended = run(project.folder, "migrate", "delete_old=1")
    assert ended.code in (1, 3), ended
    if lost == "doit.db":
        assert "doit.db cannot be written: No space left on device\n    hint: 'doit purge' frees" in ended.output
    waiting = sum(path.endswith(".trashed") for path in project.tree(state=True))
    ended = run(project.folder, "purge")
    assert ended.code == 0, ended
    assert f"Freed: {waiting} item" in ended.output
    assert not any(path.endswith(".trashed") for path in project.tree(state=True))
    assert run(project.folder, "migrate").code == 0
