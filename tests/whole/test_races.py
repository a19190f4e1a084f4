"""What others do while a run is at work, or between a crash and its recovery."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ckptrules.changes import doing
from ckptrules.engine.actions import Step
from ckptrules.engine.entries import Identity
from ckptrules.engine.state_folder import STATE
from ckptrules.run.command_line import command_line
from ckptrules.run.session import Session
from ckptrules.storage import looking, moving, reading, trash, unfinished
from ckptrules.storage.posix import Disk
from ckptrules.storage.state import Folders
from tests.conftest import ROOT, Project
from tests.support import crash
from tests.support.killing import kills

OLD, NEW = "epoch_15_step_150", "epoch-15_step-000150"
HERE = "exp/checkpoints"


NS = 1_000_000_000


def dangling(project: Project) -> list[str]:
    return [path for path, text in project.tree().items() if text[:2] == "->" and not (project.outputs / path).exists()]


def save_again(path: Path, content: str) -> None:
    """Save a checkpoint as a training does: written beside, then put in place."""
    (path.parent / "saving.tmp").write_text(content)
    os.replace(path.parent / "saving.tmp", path)


def test_a_checkpoint_saved_anew_between_crash_and_recovery_leaves_no_link_behind(project: Project) -> None:
    tree: dict[str, int | str] = {
        f"{HERE}/{OLD}.ckpt": 30,
        f"{HERE}/last.ckpt": f"-> {OLD}.ckpt",
        "best": f"-> {HERE}/{OLD}.ckpt",
    }
    project.make(tree)
    saved = 0
    for at in kills(project, ["migrate"]):
        shutil.rmtree(project.outputs)
        project.make(tree)
        crash.run_in_turn(project.folder, "migrate", fault=at)
        if not dangling(project) and (there := project.outputs / HERE / f"{NEW}.ckpt").exists():
            save_again(there, "trained on")
            saved += 1
        crash.run_in_turn(project.folder, "migrate")
        assert not dangling(project), at
        assert project.names("exp") == [f"{NEW}.ckpt", "last.ckpt"], at
    assert saved


def test_a_rename_before_the_one_of_the_folder_that_its_link_is_in_stays_done(project: Project) -> None:
    tree: dict[str, int | str] = {
        f"{HERE}/epoch_14_step_40.ckpt": 14,
        f"{HERE}/epoch_15_step_50.ckpt/weights.pt": 15,
        f"{HERE}/epoch_15_step_50.ckpt/base.pt": "-> ../epoch_14_step_40.ckpt",
        f"{HERE}/epoch_16_step_60.ckpt": 16,
    }
    project.make(tree)
    killed = kills(project, ["migrate"])
    assert project.names("exp") == [f"epoch-{n}_step-0000{n - 10}0.ckpt" for n in (14, 15, 16)]
    for at in killed:
        shutil.rmtree(project.outputs)
        project.make(tree)
        crash.run_in_turn(project.folder, "migrate", fault=at)
        crash.run_in_turn(project.folder, "purge")  # recovers, and renames nothing
        assert not dangling(project), at


def test_a_file_that_became_a_link_during_the_run_is_not_remembered_as_a_file(project: Project) -> None:
    """Where no link was, none is looked for; a link that is not known of does not hold what it leads to."""
    project.make({f"many{n:03}/checkpoints/epoch-12_step-000120.ckpt": 12 for n in range(100)})
    project.make({f"a/checkpoints/{name}.ckpt": 5 for name in ("epoch-02_step-000020", "epoch-12_step-000120")})
    project.make({"z/checkpoints/epoch_12_step_120.ckpt": 6, "z/checkpoints/best.ckpt": 7})
    best = project.outputs / "z/checkpoints/best.ckpt"
    unlink, symlink = os.unlink, os.symlink  # as they are: the run's own are watched

    def train(_: int) -> None:
        if (best.parent / "epoch-12_step-000120.ckpt").exists() and not best.is_symlink():
            unlink(best)
            symlink("../../a/checkpoints/epoch-02_step-000020.ckpt", best)

    assert crash.run(project.folder, "-n", "0", "migrate", at_change=train).code == 0
    assert best.is_symlink()
    project.doit("migrate")
    project.doit("migrate", "delete_old=1")
    assert not dangling(project)


def test_what_was_saved_while_its_copy_was_checked_stays(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = project.outputs / "lightning_default" / "checkpoints"
    shutil.copytree(ROOT / "tests/real/outputs/lightning_default/checkpoints", folder)
    project.doit("migrate")
    really, saved = unfinished.lay_in_trash, []

    def save_first(outputs_dir: str, staged: str, place: str, name: str) -> None:
        really(outputs_dir, staged, place, name)
        save_again(folder / name.partition(".state")[0], "trained on")

    monkeypatch.setattr(unfinished, "lay_in_trash", save_first)
    ended = crash.run(project.folder, "fix_state")
    assert (ended.code, "changed since" in ended.output) == (1, True), ended.output
    saved = [path for path in folder.iterdir() if path.read_bytes() == b"trained on"]
    assert len(saved) == ended.output.count("! Problem") > 0


def test_threads_and_containers_have_records_of_their_own(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.make({f"e{n}/checkpoints/epoch_{m}_step_{m}.ckpt": m for n in range(40) for m in (2, 12, 15)})
    start = project.tree()
    project.doit("-n", "8", "-P", "thread", "migrate", "delete_old=1")
    assert "Traceback" not in project.doit("undo")
    assert project.tree() == start
    monkeypatch.setattr(os, "getpid", lambda: 1)
    ids = []
    for started in (1_700_000_000_000_001_000, 1_700_000_000_000_002_000):
        monkeypatch.setattr(time, "time_ns", lambda started=started: started)
        ids.append(Session(command_line([]), {}).run_id)
    assert ids == sorted(set(ids))
    assert all(trash.RUN_ID.fullmatch(run) for run in ids)


def test_somebodys_file_in_the_workplace_stays_and_our_copies_go(project: Project) -> None:
    project.make({f"{HERE}/{NEW}.ckpt": 3})
    project.doit("migrate")
    work = project.outputs / ".ckptrules/work"
    work.mkdir(exist_ok=True)
    (work / "link-1-2").write_text("was last.ckpt when the machine stopped")
    (work / "state-1-2").write_text("a copy")
    (work / "link-1-3").symlink_to("nowhere")
    project.doit("migrate")
    assert os.listdir(work) == ["link-1-2"]


def test_one_file_that_answers_to_two_names_is_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where case is ignored, the old and the new name of an interrupted rename may be one file."""
    file = tmp_path / "Epoch.ckpt"
    file.write_text("all there is")
    really = moving.status_of
    monkeypatch.setattr(moving, "status_of", lambda directory, name: really(directory, name.capitalize()))
    status = file.stat()
    step = Step("move", "", "Epoch.ckpt", "", "epoch.ckpt", "", Identity("file", status.st_size, status.st_mtime_ns))
    with Folders(str(tmp_path)) as folders:
        assert not doing.is_done(folders, step)
    assert file.read_text() == "all there is"


@pytest.mark.parametrize("processes", ["0", "2"])
def test_a_pipe_that_nobody_reads_ends_the_run_and_not_the_data(project: Project, processes: str) -> None:
    project.make({f"e{n}/checkpoints/epoch_12_step_{n}.ckpt": n + 1 for n in range(20)})
    contents = set(project.tree().values())
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "doit", "-n", processes, "migrate"]
    ended = subprocess.run(command, cwd=project.folder, stdout=writer, stderr=subprocess.PIPE, check=False, timeout=120)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (-signal.SIGPIPE, b"")
    project.doit("migrate", "wait=60")
    assert set(project.tree().values()) == contents
    assert all(project.names(f"e{n}") == [f"epoch-12_step-{n:06}.ckpt"] for n in range(20))


@pytest.mark.parametrize("command", ["plan json", "migrate json", "catalog out", "log out", "explain name=* json"])
@pytest.mark.parametrize(
    ("place", "fact"),
    [
        (f"outputs/{HERE}/{OLD}.ckpt", "would be written into 'outputs', among what it tells of"),
        ("a link", "would be written into 'outputs'"),
        ("rules/naming.yaml", "would be written into 'rules'"),
        ("a pipe", "is no file"),
        ("docs", "is no file"),
        ("no/where", "there is no such folder to write in"),
        ("best.ckpt", "is there already and is no text"),
    ],
)
def test_no_report_takes_the_place_of_anything_else(project: Project, command: str, place: str, fact: str) -> None:
    project.make({f"{HERE}/{OLD}.ckpt": 3})
    (project.folder / "docs").mkdir()
    (project.folder / "a link").symlink_to(project.outputs / HERE / f"{OLD}.ckpt")
    os.mkfifo(project.folder / "a pipe")
    (project.folder / "best.ckpt").write_bytes(b"PK\3\4\0")  # beside the outputs, it was written over
    before, rules = project.tree(), (project.folder / "rules/naming.yaml").read_text()
    assert fact in project.doit(*f"{command}={place}".split(" ", command.count(" ")), check=3)
    assert (project.tree(), (project.folder / "rules/naming.yaml").read_text()) == (before, rules)
    assert (project.folder / "a pipe").is_fifo()
    assert (project.folder / "best.ckpt").read_bytes() == b"PK\3\4\0"


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs /proc")
def test_a_pipe_without_a_path_of_its_own_is_no_file_either(project: Project) -> None:
    """`json=/dev/stdout | cat` printed the whole plan, and only then that there is no such file to write."""
    ends = os.pipe()
    assert f"fd/{ends[1]}: is no file" in project.doit("plan", f"json=/proc/{os.getpid()}/fd/{ends[1]}", check=3)
    for end in ends:
        os.close(end)


def test_a_report_goes_where_a_link_leads(project: Project) -> None:
    project.make({f"{HERE}/{OLD}.ckpt": 3})
    (project.folder / "report.json").symlink_to("real.json")
    project.doit("plan", "json=report.json")
    assert (project.folder / "report.json").is_symlink()
    assert (project.folder / "real.json").read_text().startswith("{")


@pytest.mark.parametrize("kind", ["link", "link elsewhere", "pointer"])
def test_what_leads_to_a_left_link_holds_the_checkpoint_behind_it(project: Project, kind: str) -> None:
    early = "epoch_02_step_20.ckpt"
    project.make({f"{HERE}/{name}": n for n, name in enumerate((early, f"{OLD}.ckpt"), 1)})
    project.doit("migrate", "leave_links=1")
    ways: dict[str, dict[str, int | str]] = {
        "link": {f"{HERE}/best.ckpt": f"-> {early}"},
        "link elsewhere": {"other/best.ckpt": f"-> ../{HERE}/{early}"},
        "pointer": {},
    }
    project.make(ways[kind])
    if kind == "pointer":
        (project.outputs / HERE / "last_checkpoint").write_text(early)
    project.doit("migrate", "delete_old=1")
    assert not dangling(project)
    assert "epoch-02_step-000020.ckpt" in project.names("exp")
    if kind != "pointer":
        out = project.doit("drop_links", check=1)
        assert f"Problem: {early} cannot be removed: " in out
        assert "best.ckpt points to it" in out
        assert not dangling(project)
        assert f"{OLD}.ckpt" not in project.names("exp")


def test_a_link_to_a_sidecar_follows_it_and_holds_its_checkpoint(project: Project) -> None:
    project.make(
        {f"{HERE}/{name}.{end}": 5 for name in ("epoch_02_step_20", OLD) for end in ("ckpt", "metadata.json")}
        | {
            f"{HERE}/last.metadata.json": f"-> {OLD}.metadata.json",
            "early.json": f"-> {HERE}/epoch_02_step_20.metadata.json",
        }
    )
    start = project.tree()
    project.doit("migrate")
    assert not dangling(project)
    project.doit("migrate", "delete_old=1")
    assert not dangling(project)
    assert project.tree()["early.json"] == f"-> {HERE}/epoch-02_step-000020.metadata.json"
    project.doit("undo")
    assert project.tree() == start


def test_what_links_from_elsewhere_lead_to_is_not_put_away(project: Project) -> None:
    project.make({f"{name}/checkpoints/{NEW}.ckpt": 5 for name in ("a", "ab", "b")})
    project.make(
        {"a/checkpoints/last.ckpt": f"-> {NEW}.ckpt", "b/checkpoints/best.ckpt": f"-> ../../a/checkpoints/{NEW}.ckpt"}
    )
    (project.folder / "archive").mkdir()
    before = project.tree()
    out = project.doit("archive", "experiments=a", "archive_dir=archive", "format=gz", check=1)
    assert "b/checkpoints/best.ckpt leads into it: re-point or remove it, or say keep_source=1" in out
    assert project.tree() == before
    project.doit("archive", "experiments=a", "archive_dir=archive", "format=gz", "keep_source=1")
    project.doit("archive", "experiments=ab", "archive_dir=archive", "format=gz")
    assert not dangling(project)


def test_a_sharded_checkpoint_that_is_saved_anew_before_it_is_deleted_stays(project: Project) -> None:
    name = "epoch=1-step=1.ckpt"
    project.make({f"{HERE}/{name}/{shard}": 9 for shard in ("0.pt", "more/1.pt")})
    outputs, shard = str(project.outputs), project.outputs / HERE / name / "more/1.pt"
    with reading.open_below(outputs, HERE) as directory:
        step = Step("move", HERE, name, f"{STATE}/trash/run", name, identity=looking.identify(directory, name))
    before = os.stat(shard).st_mtime_ns
    os.utime(shard, ns=(before, before + NS))
    with Folders(outputs) as folders:
        with pytest.raises(OSError, match="has changed since it was looked at"):
            doing.do_step(folders, step)
        os.utime(shard, ns=(before, before))
        doing.do_step(folders, step)
        trashed = project.outputs / STATE / "trash/run" / name
        (trashed / "0.pt").write_text("written by who had it open")
        with pytest.raises(OSError, match="has changed since it was looked at"):
            trash.free_at_once(Disk(outputs), step)
        assert trashed.exists()


def test_a_checkpoint_of_links_only_is_one_and_is_known_again(project: Project) -> None:
    """As in a cache whose files lie elsewhere; a link among them may be re-pointed meanwhile."""
    tree: dict[str, int | str] = {
        f"{HERE}/epoch_14_step_40.ckpt": 14,
        "blobs/1": 100,
        f"{HERE}/epoch_15_step_50.ckpt/weights.pt": "-> ../../../blobs/1",
        f"{HERE}/epoch_15_step_50.ckpt/base.pt": "-> ../epoch_14_step_40.ckpt",
        f"{HERE}/epoch_1_step_2.ckpt/weights.pt": "-> ../../../blobs/1",
    }
    project.make(tree)
    before = project.tree()
    project.doit("migrate", "delete_old=1")
    assert project.names("exp") == ["epoch-14_step-000040.ckpt", "epoch-15_step-000050.ckpt"]
    assert (project.outputs / HERE / "epoch-15_step-000050.ckpt/base.pt").exists()
    assert "Problem" not in project.doit("undo", "dry_run=1")
    project.doit("undo")
    assert project.tree() == before


def test_a_checkpoint_whose_links_lead_nowhere_saves_no_other_one_from_anything(project: Project) -> None:
    project.make({f"{HERE}/epoch-30_step-000030.ckpt/0.pt": "-> /nowhere", f"{HERE}/epoch-05_step-000005.ckpt/0.pt": 9})
    out = project.doit("migrate", "delete_old=1", check=1)
    assert "Problem: epoch-30_step-000030.ckpt holds a link that leads nowhere: 0.pt" in out
    assert "epoch-05_step-000005.ckpt" in project.names("exp")


def test_an_empty_directory_is_known_again_as_one(project: Project) -> None:
    (project.outputs / HERE).mkdir(parents=True)
    with reading.open_below(str(project.outputs), "") as directory:
        empty = looking.identify(directory, "exp")
        project.make({f"{HERE}/epoch=1-step=1.ckpt": 9})
        assert not looking.stands_for(directory, "exp", empty)


def test_a_directory_of_which_nothing_was_noted_is_known_by_being_one(project: Project) -> None:
    project.make({f"{HERE}/x.ckpt/0.pt": 9, f"{HERE}/y.ckpt": 9})
    with reading.open_below(str(project.outputs), HERE) as directory:
        assert looking.stands_for(directory, "x.ckpt", Identity("directory", 0, 0))
        assert not looking.stands_for(directory, "x.ckpt", Identity("directory", 9, 1))
        assert not looking.stands_for(directory, "y.ckpt", Identity("directory", 0, 0))


def test_an_undo_does_not_take_a_directory_for_another_one(project: Project) -> None:
    project.make({f"{HERE}/epoch_2_step_3.ckpt/{shard}.pt": 9 for shard in range(3)})
    project.doit("migrate")
    other = project.outputs / HERE / "epoch-02_step-000003.ckpt"
    shutil.rmtree(other)
    project.make({f"{HERE}/{other.name}/{shard}.pt": 8 for shard in range(4)})
    assert "has changed since it was looked at" in project.doit("undo", check=1)
    assert project.names("exp") == [other.name]
