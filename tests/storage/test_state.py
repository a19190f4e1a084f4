"""Whatever stands under a name of the state: it does not hang, nothing is written through it, it is told."""

from __future__ import annotations

import _thread
import contextlib
import errno
import os
import shutil
import sqlite3
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from doit.dependency import Dependency

from ckptrules.engine.state_folder import BELIEVED
from ckptrules.run import reporter
from ckptrules.storage import lock as storage_lock
from ckptrules.storage import writing
from ckptrules.storage.state import token
from ckptrules.verify import memory
from tests.conftest import Project, content_hash, default, new_project, run_program
from tests.support import crash
from tests.support.tables import every_row

OLD = "epoch=3-step=40.ckpt"
TREE: dict[str, int | str] = {
    "one/checkpoints/epoch=1-step=2.ckpt": 50,
    f"one/checkpoints/{OLD}": 60,
    "one/checkpoints/epoch=12-step=90.ckpt": 70,
    "one/checkpoints/last.ckpt": "-> epoch=12-step=90.ckpt",
}
FILES = (
    "lock lock.host proved doit.db doit.db-journal doit.db-wal doit.db-shm journal/RUN journal/planted.jsonl "
    "verified/one/checkpoints/files.jsonl work/restore"
).split()
FOLDERS = [".", *"journal trash trash/RUN verified verified/one work".split()]
RARE = ["dangling link", "device", "socket"]
KINDS = ["link", "hard link", "pipe", "folder", *RARE]
CASES = [
    (name, kind)
    for name in (*FILES, *FOLDERS)
    for kind in KINDS
    if not (name in FOLDERS and kind == "folder")
    and (kind not in RARE or name in ("lock", "lock.host", "doit.db", "journal/planted.jsonl", "."))
]
COMMANDS = [
    ["plan", "delete_old=1", "verified=1"],
    ["history"],
    ["verify"],
    ["backup", "to=saved"],
    ["undo"],
    ["migrate", "delete_old=1"],
    ["purge"],
]


@pytest.fixture(scope="session")
def once_used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a project whose state holds every file that there can be."""
    place = tmp_path_factory.mktemp("used")
    project = new_project(place)
    project.make(TREE)
    (project.folder / "saved").mkdir()
    for command in (["migrate", "delete_old=1"], ["verify"]):
        project.doit(*command, check=int(command == ["verify"]), env={"XDG_STATE_HOME": str(place / "state")})
    known = project.outputs / ".ckptrules/verified/one/checkpoints"
    known.mkdir(parents=True, exist_ok=True)
    (known / "files.jsonl").touch()
    (project.outputs / ".ckptrules/work").mkdir(exist_ok=True)
    shutil.copytree(project.outputs, project.folder / "kept", symlinks=True)
    return project.folder


@pytest.fixture
def used(once_used: Path, tmp_path: Path) -> Project:
    shutil.copytree(once_used, tmp_path / "my project", symlinks=True)
    return Project(tmp_path / "my project")


def run(project: Project, *arguments: str) -> Ended:
    """Run doit, which ends in time."""
    code, output, _ = run_program("doit", *arguments, folder=project.folder, environment=default())
    return Ended(code, output)


class Ended(NamedTuple):
    """The exit code and the output of a run."""

    code: int
    output: str


def again(project: Project) -> Path:
    """Put everything back, and return the state folder."""
    shutil.rmtree(project.outputs)
    shutil.copytree(project.folder / "kept", project.outputs, symlinks=True)
    shutil.rmtree(project.folder / "elsewhere", ignore_errors=True)
    (project.folder / "elsewhere").mkdir()
    (project.folder / "elsewhere" / "precious").write_text("precious")
    return project.outputs / ".ckptrules"


def place_of(state: Path, name: str) -> Path:
    """Find what a name of the table is here: RUN is the newest run, in whatever folder."""
    if not name.endswith("/RUN"):
        return state / name
    folder = state / name.removesuffix("/RUN")
    return folder / max(os.listdir(folder))


def plant(kind: str, place: Path, elsewhere: Path, *, is_folder: bool) -> None:
    """Put something of a kind where a file or folder of the state belongs."""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    precious = elsewhere / "precious"
    if kind == "link":
        place.symlink_to(elsewhere if is_folder else precious)
    elif kind == "dangling link":
        place.symlink_to(elsewhere / "nowhere")
    elif kind == "hard link":
        os.link(precious, place)
    elif kind == "pipe":
        os.mkfifo(place)
    elif kind == "socket":
        os.mknod(place, stat.S_IFSOCK | 0o600)  # bound to a path, it could have 107 bytes only
    elif kind == "folder":
        place.mkdir()
    else:
        if os.geteuid() != 0:
            pytest.skip("only root can make devices")
        os.mknod(place, stat.S_IFCHR | 0o600, os.makedev(1, 3))


def contents(project: Project) -> set[str]:
    """Return the hashes of all checkpoints, wherever they are now. Nothing else is opened: it could be a pipe."""
    found = (path for path in project.outputs.rglob("*.ckpt*") if path.is_file() and not path.is_symlink())
    return {content_hash(str(path)) for path in found}


def commands_for(name: str, kind: str) -> list[list[str]]:
    """Return what may come across a name: all commands for what is usual, and the two that read most for the rest."""
    if name.startswith("doit.db"):
        return [["list"], ["migrate"]]
    if kind in RARE or name == "work/restore":
        return [["migrate", "delete_old=1"], ["undo"]]
    return COMMANDS + ([["trash"], ["usage"], ["purge", "dry_run=1"]] if name.startswith(("trash", ".")) else [])


@pytest.mark.whole
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_nothing_planted_in_the_state_hangs_a_run_or_is_written_through(used: Project, name: str, kind: str) -> None:
    is_folder = name in FOLDERS
    for command in commands_for(name, kind):
        place = place_of(again(used), name)
        plant(kind, place, used.folder / "elsewhere", is_folder=is_folder)
        before, planted = contents(used), os.lstat(place)
        ended = run(used, *command)
        why = (name, kind, command, ended.code, ended.output)
        assert ended.code in (0, 1, 3), why
        assert "Traceback" not in ended.output, why
        assert os.listdir(used.folder / "elsewhere") == ["precious"], why
        assert (used.folder / "elsewhere/precious").read_text() == "precious", why
        if command != ["purge"]:
            assert before <= contents(used), why
        if command[0] in ("plan", "history", "trash", "usage", "list"):
            assert os.lstat(place).st_ino == planted.st_ino, why


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["lock", "journal/RUN", "journal/planted.jsonl"])
def test_what_cannot_be_believed_is_refused_by_its_name(used: Project, name: str, kind: str) -> None:
    refused = ["migrate", "purge"] if name == "lock" else ["migrate", "purge", "undo", "history", "log"]
    for command in refused:
        place = place_of(again(used), name)
        plant(kind, place, used.folder / "elsewhere", is_folder=False)
        ended = run(used, command)
        assert ended.code == 3, (command, ended)
        assert f"ERROR: outputs/.ckptrules/{place.relative_to(used.outputs / '.ckptrules')}: " in ended.output
        assert "plain file of its own" in ended.output
        assert "\n    hint: " in ended.output


def test_a_name_that_would_change_the_terminal_is_escaped(used: Project) -> None:
    state = again(used)
    os.mkfifo(state / "journal" / "\x1b[2Jplanted.jsonl")
    ended = run(used, "migrate")
    assert (ended.code, "\x1b" in ended.output) == (3, False)
    assert r"journal/\x1b[2Jplanted.jsonl: is a named pipe" in ended.output


def test_what_another_run_says_of_itself_is_escaped(used: Project) -> None:
    state = again(used)
    lock = storage_lock.lock(str(used.outputs), "process 1 \x1b[2J on here")
    try:
        ended = run(used, "migrate")
        assert (ended.code, "\x1b" in ended.output) == (3, False)
        assert r"process 1 \x1b[2J on here" in ended.output
    finally:
        lock.close()
    assert state.exists()


def test_a_hard_linked_journal_is_mended_by_what_the_hint_says(used: Project) -> None:
    """Who copies a tree with `cp -al` has hard links."""
    place = place_of(again(used), "journal/RUN")
    os.link(place, used.folder / "elsewhere" / "other name")
    out = run(used, "history").output
    hint = out.partition("hint: give it a copy of its own: ")[2].strip()
    subprocess.run(["sh", "-c", hint], cwd=used.folder, check=True)
    assert run(used, "undo").code == 0


# --- the memory of what was verified ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_proof_in_no_plain_file_is_no_proof_and_verify_tells(used: Project, kind: str) -> None:
    place = place_of(again(used), "verified/one/checkpoints/files.jsonl")
    plant(kind, place, used.folder / "elsewhere", is_folder=False)
    ended = run(used, "verify")
    assert ended.code == 1, ended
    assert "verified/one/checkpoints/files.jsonl: " in ended.output


@pytest.mark.parametrize(
    "text",
    [
        "[]\n",
        "5\n",
        "{}\n",
        '{"version": 1}\n',
        '{"version": 1, "identity": "x", "done": 5}\n',
        "[" * 100_000 + "\n",
        "\xff",
    ],
)
def test_rubbish_in_the_memory_is_not_known(used: Project, text: str) -> None:
    state = again(used)
    (state / "verified/one/checkpoints/files.jsonl").write_bytes(text.encode("latin-1"))
    assert run(used, "catalog").code == 0
    assert "Traceback" not in run(used, "verify").output


@pytest.mark.parametrize(
    "fact", ['"epoch": "3"', '"step": [1]', '"names": [5]', '"kind": 5', '"ranks": {}', '"lightning": 1']
)
def test_a_fact_of_another_type_is_not_known(used: Project, fact: str) -> None:
    state = again(used)
    place = state / "verified/one/checkpoints/files.jsonl"
    place.write_text(f'{{"version": 1, "identity": "x", "done": ["structure"], "kind": "torch", {fact}}}\n')
    assert memory.recall(str(used.outputs), "one/checkpoints") == {}


# --- rules -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pipe", "device", "socket", "folder", "link to a device", "link to a pipe"])
@pytest.mark.parametrize("name", ["zz.yaml", "experiment_log.md.j2"])
def test_a_rule_file_that_is_none_is_refused_at_once(used: Project, name: str, kind: str) -> None:
    again(used)
    place = used.folder / "rules" / name
    place.unlink(missing_ok=True)
    if kind == "link to a device":
        place.symlink_to("/dev/zero")
    elif kind == "link to a pipe":
        os.mkfifo(used.folder / "elsewhere" / "pipe")
        place.symlink_to(used.folder / "elsewhere" / "pipe")
    else:
        plant(kind, place, used.folder / "elsewhere", is_folder=False)
    ended = run(used, "check" if name == "zz.yaml" else "log")
    assert ended.code == 3, ended
    assert f"rules/{name}" in ended.output


def test_a_rule_file_may_be_a_link(used: Project) -> None:
    again(used)
    rules = used.folder / "rules"
    (rules / "retention.yaml").rename(used.folder / "real.yaml")
    (rules / "retention.yaml").symlink_to(used.folder / "real.yaml")
    assert run(used, "check").code == 0


# --- what we write elsewhere -----------------------------------------------------------------------------------------


@pytest.fixture
def archive(used: Project) -> Path:
    again(used)
    (used.folder / "archive").mkdir()
    return used.folder / "archive"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["one.tar.gz.manifest.json", "one.tar.gz"])
def test_what_stands_where_an_archive_is_made_is_not_written_through(
    used: Project, archive: Path, name: str, kind: str
) -> None:
    plant(kind, archive / name, used.folder / "elsewhere", is_folder=False)
    ended = run(used, "archive", "experiments=one", "archive_dir=archive", "format=gz")
    assert (ended.code, "Traceback" in ended.output) == (1, False), ended
    assert "Problem: one: " in ended.output
    assert (used.folder / "elsewhere/precious").read_text() == "precious"
    assert os.listdir(archive) == [name]
    assert (used.outputs / "one/checkpoints").exists()


def test_a_report_keeps_the_mode_of_the_one_before(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    report.write_text("old")
    report.chmod(0o600)
    writing.write_report(str(report), "new")
    assert (report.read_text(), stat.S_IMODE(report.stat().st_mode)) == ("new", 0o600)


@pytest.mark.parametrize("folder_mode", [0o700, 0o750, 0o755, 0o777])
def test_a_new_report_is_no_wider_than_its_folder(tmp_path: Path, folder_mode: int) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(folder_mode)
    before = os.umask(0)
    try:
        writing.write_report(str(folder / "report.json"), "new")
    finally:
        os.umask(before)
    mode = stat.S_IMODE((folder / "report.json").stat().st_mode)
    assert mode & ~folder_mode == 0
    assert not mode & 0o002


def test_a_file_of_ours_replaces_a_link_and_does_not_follow_it(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "ours").symlink_to("precious")
    writing.write_file(str(tmp_path / "ours"), "new")
    assert ((tmp_path / "ours").read_text(), (tmp_path / "precious").read_text()) == ("new", "precious")


@pytest.mark.parametrize("fails", ["write", "fsync", "replace"])
def test_nothing_is_left_of_what_could_not_be_written(
    tmp_path: Path, fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    (tmp_path / "report").write_text("old")
    monkeypatch.setattr(os, fails, fail)
    with pytest.raises(OSError, match="No space"):
        writing.write_report(str(tmp_path / "report"), "new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"report": "old"}


# --- doit's database -------------------------------------------------------------------------------------------------


def random_bytes(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 20)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_in_a_page(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:777])


def header_and_rubbish(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100] + bytes(range(256)) * 60)


def rubbish_behind_the_first_page(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))


def as_text(path: Path) -> None:
    path.write_text('{"migrate:one": {}}')


def changed(path: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def other_table(path: Path) -> None:
    path.unlink()
    changed(path, "create table mine (a, b)")


def wrong_table(path: Path) -> None:
    path.unlink()
    changed(path, "create table doit (task_id integer, more text)")


def a_trigger(path: Path) -> None:
    changed(path, "create trigger t after delete on doit begin delete from doit; end")


def a_view(path: Path) -> None:
    path.unlink()
    changed(path, "create view doit as select 1 as task_id, 2 as task_data")


def rows(text: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        changed(path, f"update doit set task_data = {text}")

    return write


DAMAGES: dict[str, Callable[[Path], None]] = {
    "random bytes": random_bytes,
    "cut off": cut_off,
    "cut in a page": cut_in_a_page,
    "a header and rubbish": header_and_rubbish,
    "rubbish behind the first page": rubbish_behind_the_first_page,
    "text": as_text,
    "another table": other_table,
    "a wrong table": wrong_table,
    "a trigger": a_trigger,
    "a view": a_view,
    "no JSON": rows("'rubbish'"),
    "a list": rows("'[1]'"),
    "a number": rows("5"),
    "nothing": rows("null"),
    "bytes": rows("x'ff00ff'"),
    "other values": rows("""'{"_values_:": 5}'"""),
    "other files": rows("""'{"deps:": 5}'"""),
    "another time": rows("""'{"_values_:": {"holds_until_ns": "x"}}'"""),
    "too deep": rows(f"'{'[' * 100_000}'"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_database_that_doit_cannot_use_is_set_aside_and_the_run_goes_on(used: Project, damage: str) -> None:
    state = again(used)
    DAMAGES[damage](state / "doit.db")
    damaged = (state / "doit.db").read_bytes()
    for command in ("list", "plan", "history"):
        ended = run(used, command)
        assert (ended.code, "Traceback" in ended.output) == (0, False), (command, ended)
        assert (state / "doit.db").read_bytes() == damaged
    assert "doit.db: " in run(used, "list").output
    ended = run(used, "migrate", "delete_old=1")
    assert (ended.code, "Traceback" in ended.output) == (0, False), ended
    told = [line for line in ended.output.splitlines() if "doit.db" in line]
    assert len(told) == 1, ended.output
    assert told[0].startswith("outputs/.ckptrules/doit.db: ")
    assert "It is now doit.db.damaged-1; it only remembers what is up to date" in told[0]
    assert (state / "doit.db.damaged-1").read_bytes() == damaged
    assert "up to date" in run(used, "migrate", "delete_old=1").output


def test_a_database_that_cannot_be_read_any_more_ends_no_run(used: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """It could be when the run began; nothing is known to be up to date then."""
    state, survive_faults = again(used), reporter.survive_faults

    def damaged(database: Dependency) -> list[str]:
        (state / "doit.db").write_bytes(bytes(4096))
        return survive_faults(database)

    monkeypatch.setattr(reporter, "survive_faults", damaged)
    ended = crash.run(used.folder, "migrate", "delete_old=1")
    assert ended.output.count("What is up to date cannot be remembered: file is not a database.") == 1, ended.output
    assert (ended.code, "Traceback" in ended.output) == (1, False), ended.output


def test_a_lock_that_cannot_be_closed_ends_no_run(used: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is a quota, NFS may say only then that what a holder says of itself could not be written."""
    state = again(used)
    crash.let_close_fail(monkeypatch, errno.EDQUOT, lambda descriptor: _is(descriptor, state / "lock"))
    ended = crash.run(used.folder, "migrate", "delete_old=1")
    assert (ended.code, "Traceback" in ended.output) == (0, False), ended.output


def _is(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def test_a_folder_that_cannot_be_closed_is_none_that_cannot_be_read(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.make(TREE)
    close = os.close

    def fails(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        close(descriptor)
        if is_folder:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "close", fails)
    for words in (["migrate", "delete_old=1"], ["undo"]):
        ended = crash.run(project.folder, *words)
        assert (ended.code, "Traceback" in ended.output) == (0, False), ended.output


def test_where_no_thread_can_be_started_the_run_is_refused(used: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user has as many processes as may be, or there is no memory for one."""
    state = again(used)

    def fails(*_: object) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", fails)
    ended = crash.run(used.folder, "migrate", "delete_old=1")
    fact = f"ERROR: outputs_dir 'outputs' cannot be written: {os.strerror(errno.EAGAIN)}"
    assert (ended.code, ended.output.splitlines()[0]) == (3, fact), ended.output
    assert not (state / "lock.host").exists()


def test_what_was_set_aside_before_stays(used: Project) -> None:
    state = again(used)
    for text in ("one", "two"):
        (state / "doit.db").write_text(text)
        assert run(used, "migrate").code == 0
    assert [(state / f"doit.db.damaged-{n}").read_text() for n in (1, 2)] == ["one", "two"]


@pytest.mark.parametrize("left", ["-journal", "-wal", "-shm"])
def test_a_change_that_was_left_in_the_middle_is_set_aside_with_its_database(used: Project, left: str) -> None:
    """SQLite would believe it: a planted one can make it write, and remove files elsewhere."""
    state = again(used)
    (state / f"doit.db{left}").write_text("planted")
    assert run(used, "migrate").code == 0
    assert (state / f"doit.db.damaged-1{left}").read_text() == "planted"
    assert (state / "doit.db.damaged-1").exists()


@pytest.mark.whole
@pytest.mark.parametrize("statements", [["begin exclusive"], ["begin immediate"]])
def test_a_database_that_another_program_holds_is_refused_plainly(used: Project, statements: list[str]) -> None:
    state = again(used)
    with contextlib.closing(sqlite3.connect(state / "doit.db")) as connection:
        for statement in statements:
            connection.execute(statement)
        ended = run(used, "migrate")
        assert ended.code == 3, ended
        assert "doit.db: cannot be " in ended.output
        assert "database is locked\n    hint: another program is at work on it" in ended.output
        assert "Traceback" not in run(used, "list").output
    assert run(used, "migrate").code == 0


@pytest.mark.parametrize("damage", ["random bytes", "a list", "a wrong table"])
def test_a_damaged_database_of_the_users_own_tasks_is_refused(used: Project, damage: str) -> None:
    again(used)
    dodo = used.folder / "dodo.py"
    dodo.write_text(dodo.read_text() + "\n\ndef task_mine():\n    return {'actions': []}\n")
    assert run(used, "mine").code == 0
    (used.folder / ".doit.db-journal").write_text("left by a crash")
    assert run(used, "mine").code == 0
    DAMAGES[damage](used.folder / ".doit.db")
    ended = run(used, "mine")
    assert ended.code == 3, ended
    assert "hint: move it away" in ended.output


# --- the user --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyError, OSError, ImportError])
def test_a_user_without_a_name_is_a_number(
    used: Project, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    again(used)

    def nobody() -> str:
        raise error("no such user")

    monkeypatch.setattr("getpass.getuser", nobody)
    assert crash.run(used.folder, "undo").code == 0
    assert f"{os.getuid()}@" in crash.run(used.folder, "history").output


def test_scan_and_store_agree_on_the_state() -> None:
    assert {"lock", "lock.host", "journal", "trash", "verified", "proved", "doit.db"} <= set(BELIEVED)


@every_row("there", ["", ".ckptrules", ".ckptrules/work"])
def test_a_token_leaves_the_folders_that_were_there_and_no_others(there: str, tmp_path: Path) -> None:
    (tmp_path / there).mkdir(parents=True, exist_ok=True)
    before = sorted(tmp_path.rglob("*"))
    with token(str(tmp_path)) as path:
        assert os.path.isfile(path)
    assert sorted(tmp_path.rglob("*")) == before
