"""What keeps a training and its scripts going after a rename: links under old names, pointer files, paths inside checkpoints."""

from __future__ import annotations

import json
import os
import pickletools
import shutil
import stat
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT, Project
from tests.support.torch_files import lightning_file

pytestmark = pytest.mark.whole

REAL = ROOT / "tests" / "real" / "outputs"
EXPERIMENTS = sorted(path.name for path in REAL.iterdir())
OLD, NEW = "epoch=3-step=40.ckpt", "epoch-03_step-000040.ckpt"


def texts(path: Path) -> list[str]:
    """Return all texts in the state of a checkpoint that are paths to checkpoints."""
    with zipfile.ZipFile(path) as archive, archive.open(f"{archive.namelist()[0].split('/')[0]}/data.pkl") as file:
        arguments = (argument for _, argument, _ in pickletools.genops(file.read()))
        return [text for text in arguments if isinstance(text, str) and ".ckpt" in text]


def real(project: Project) -> None:
    shutil.copytree(REAL, project.outputs, symlinks=True, dirs_exist_ok=True)


def checkpoints(project: Project, experiment: str) -> list[Path]:
    return sorted(p for p in (project.outputs / experiment / "checkpoints").iterdir() if not p.is_symlink())


# --- links under old names -------------------------------------------------------------------------------------------


def test_links_stay_under_the_old_names_and_are_no_checkpoints(project: Project) -> None:
    project.make({f"one/checkpoints/{OLD}": 50, "one/checkpoints/epoch=12-step=90.ckpt": 60})
    start = project.tree()
    out = project.doit("migrate", "leave_links=1", "verbose=1")
    assert f"+ a link stays under the old name: {OLD}\n" in out
    folder = project.outputs / "one" / "checkpoints"
    assert os.readlink(folder / OLD) == NEW
    assert (folder / OLD).read_bytes() == (folder / NEW).read_bytes()
    assert project.doit("migrate", "leave_links=1") == "Nothing to do: 1 experiment is up to date.\n"
    assert project.doit("catalog", "format=csv").count(".ckpt") == 2
    out = project.doit("plan", "delete_old=1", "verbose=1")
    assert f"Would delete: {NEW}" in out
    assert f"+ {OLD}\n" in out
    assert "processed" in project.doit("undo")
    assert project.tree() == start
    project.doit("undo", f"run={newest_run(project)}")
    assert (folder / OLD).is_symlink()
    assert (folder / NEW).is_file()


def newest_run(project: Project) -> str:
    return project.doit("history").splitlines()[1].split()[0]


def test_a_link_goes_with_its_checkpoint_and_comes_back_with_it(project: Project) -> None:
    project.make({f"one/checkpoints/{OLD}": 50, "one/checkpoints/epoch=12-step=90.ckpt": 60})
    project.doit("migrate", "leave_links=1", f"json={project.folder / 'done.json'}")
    (told,) = json.loads((project.folder / "done.json").read_text())["experiments"]
    assert {action["leaves_link"] for action in told["actions"] if action["action"] == "rename"} == {True}
    before = project.tree()
    project.doit("migrate", "delete_old=1")
    assert project.names("one") == ["epoch-12_step-000090.ckpt", "epoch=12-step=90.ckpt"]
    project.doit("undo")
    assert project.tree() == before


def test_a_link_that_a_training_has_removed_is_in_the_way_of_no_undo(project: Project) -> None:
    """It removes by their old names what it saved, and so the links alone."""
    project.make({f"one/checkpoints/{OLD}": 50})
    start = project.tree()
    project.doit("migrate", "leave_links=1")
    (project.outputs / "one/checkpoints" / OLD).unlink()
    assert "Problem" not in project.doit("undo", "dry_run=1")
    project.doit("undo")
    assert project.tree() == start
    project.doit("undo", f"run={newest_run(project)}")
    assert project.names("one") == [NEW]


def test_a_link_that_has_changed_is_named_where_it_is_in_the_way_of_an_undo(project: Project) -> None:
    project.make({f"one/checkpoints/{OLD}": 50})
    project.doit("migrate", "leave_links=1")
    link = project.outputs / "one/checkpoints" / OLD
    link.unlink()
    link.symlink_to("elsewhere")
    says = f"Problem: {NEW} cannot be renamed to {OLD}: File exists"
    assert says in project.doit("undo", "dry_run=1", check=1)
    assert says in project.doit("undo", check=1)


def test_drop_links_removes_them_and_nothing_else(project: Project) -> None:
    project.make({f"{name}/checkpoints/{OLD}": 50 for name in ("one", "two")})
    project.make({"one/checkpoints/last.ckpt": f"-> {OLD}", "one/checkpoints/epoch=9-step=9.ckpt": "-> elsewhere"})
    project.doit("migrate", "leave_links=1", check=1)  # one link leads nowhere
    before = project.tree()
    out = project.doit("drop_links", "dry_run=1")
    assert f"⊗ Would remove the link: {OLD} (to {NEW})" in out
    assert "  to remove   2\n" in out
    assert project.tree() == before
    out = project.doit("drop_links:one")
    assert f"⊗ Link removed: {OLD} (to {NEW})" in out
    assert project.names("one") == [NEW, "epoch=9-step=9.ckpt", "last.ckpt"]
    project.doit("drop_links", "experiments=t*")
    assert project.names("two") == [NEW]
    project.doit("undo")
    project.doit("undo")
    assert project.tree() == before


def test_drop_links_removes_one_whose_checkpoint_is_gone(project: Project) -> None:
    project.make({f"one/checkpoints/{OLD}": f"-> {NEW}"})
    assert "doit drop_links" in project.doit("plan", check=1)
    project.doit("drop_links")
    assert project.names("one") == []


@pytest.mark.parametrize(("place", "says"), [("best.json", "best.json"), ("../best.json", "../best.json")])
def test_drop_links_leaves_one_that_a_file_names(project: Project, place: str, says: str) -> None:
    """The file led nowhere. A number in a file means the checkpoint."""
    project.make({f"one/checkpoints/{OLD}": 50, "one/checkpoints/epoch=7-step=7.ckpt": 5})
    project.doit("migrate", "leave_links=1")
    here = project.outputs / "one/checkpoints"
    (here / place).write_text(json.dumps({"best": f"checkpoints/{OLD}"}))
    (here / "latest_step.txt").write_text("7")
    for more in ("dry_run=1", "dry_run=0"):
        out = project.doit("drop_links", more, check=1)
        assert f"Problem: {OLD} cannot be removed: {says} names it" in out
    assert (here / OLD).is_symlink()
    assert not (here / "epoch=7-step=7.ckpt").is_symlink()


# --- pointer files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("last_checkpoint", f"{OLD}\n", f"{NEW}\n"),
        ("latest", OLD, NEW),
        ("checkpoint", f'model_checkpoint_path: "{OLD}"\r\nall: "{OLD}"\r\n', f'model_checkpoint_path: "{NEW}"\r\nall: "{NEW}"\r\n'),
        ("best_k_models.yaml", f"/data/one/checkpoints/{OLD}: 0.5\n{OLD}.bak: 1\n", f"/data/one/checkpoints/{NEW}: 0.5\n{OLD}.bak: 1\n"),
    ],
)  # fmt: skip
def test_a_pointer_file_follows_what_it_names(project: Project, name: str, before: str, after: str) -> None:
    project.make({f"one/checkpoints/{OLD}": 50})
    pointer = project.outputs / "one" / "checkpoints" / name
    pointer.write_bytes(before.encode())
    pointer.chmod(0o640)
    os.utime(pointer, ns=(10**18, 10**18))
    out = project.doit("migrate")
    assert f"↷ Repointed: {name}\n" in out
    assert pointer.read_bytes() == after.encode()
    assert (stat.S_IMODE(pointer.stat().st_mode), pointer.stat().st_mtime_ns) == (0o640, 10**18)
    project.doit("undo")
    assert pointer.read_bytes() == before.encode()
    assert project.names("one") == sorted([OLD, name])


def test_what_a_pointer_file_names_is_not_deleted(project: Project) -> None:
    project.make({f"one/checkpoints/{OLD}": 50, "one/checkpoints/epoch=12-step=90.ckpt": 60})
    (project.outputs / "one" / "checkpoints" / "latest").write_text(OLD)
    out = project.doit("migrate", "delete_old=1", "verbose=1")
    assert "latest names it\n" in out
    assert project.names("one") == [NEW, "epoch-12_step-000090.ckpt", "latest"]


def test_a_pointer_file_that_names_the_new_name_already_stops_the_rename(project: Project) -> None:
    project.make({f"one/checkpoints/{OLD}": 50})
    (project.outputs / "one" / "checkpoints" / "latest").write_text(f"{OLD} {NEW}")
    before = project.tree()
    out = project.doit("migrate", check=1)
    assert f"cannot be renamed to {NEW}: latest: names {NEW} already" in out
    assert project.tree() == before


# --- paths inside checkpoints ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_paths_inside_every_checkpoint_are_brought_up_to_date(project: Project, experiment: str) -> None:
    real(project)
    start = project.tree()
    names = set(project.names(experiment))
    project.doit("migrate")
    migrated = project.tree()
    gone = names - set(project.names(experiment))
    files = checkpoints(project, experiment)
    stale = {path.name for path in files if gone.intersection(map(os.path.basename, texts(path)))}
    assert stale
    times = {path.name: path.stat().st_mtime_ns for path in files}
    out = project.doit("fix_state", f"experiments={experiment}")
    for path in files:
        assert gone.isdisjoint(map(os.path.basename, texts(path))), path
        assert (f"State fixed: {path.name} (" in out) == (path.name in stale)
    assert {path.name: path.stat().st_mtime_ns for path in files} == times
    project.doit("verify")
    assert "  fixed       0\n" in project.doit("fix_state", f"experiments={experiment}")
    project.doit("undo")
    assert project.tree() == migrated
    project.doit("undo")
    assert project.tree() == start


def test_migrate_does_both_and_the_plan_says_so(project: Project) -> None:
    real(project)
    before = project.tree()
    plan = project.doit("plan", "fix_state=1")
    assert project.tree() == before
    out = project.doit("migrate", "fix_state=1")
    fixed = [line.replace("State fixed", "Would fix the state") for line in out.splitlines() if "State fixed" in line]
    assert fixed
    assert [line for line in plan.splitlines() if "Would fix the state" in line] == fixed
    assert project.doit("migrate", "fix_state=1") == "Nothing to do: 3 experiments are up to date.\n"
    assert "  fixed       0\n" in project.doit("fix_state")


def test_the_preview_of_an_undo_knows_what_has_its_name_by_then(project: Project) -> None:
    """The undo of an undo renames first, and then fixes the state under the new name."""
    path = project.outputs / "one/checkpoints" / OLD
    path.parent.mkdir(parents=True)
    path.write_bytes(lightning_file(str(path)))
    project.doit("migrate", "fix_state=1")
    fixed = project.tree()
    for _ in range(2):
        again = ("undo", f"run={newest_run(project)}")
        assert "Problem" not in project.doit(*again, "dry_run=1")
        project.doit(*again)
    assert project.tree() == fixed


def test_what_was_done_again_is_taken_back_before_what_was_done_in_between(project: Project) -> None:
    """A state that is fixed again, after another run has renamed the file: that rename could not be taken back first."""
    path = project.outputs / "one/checkpoints" / OLD
    path.parent.mkdir(parents=True)
    path.write_bytes(lightning_file(str(path)))
    start = project.tree()
    project.doit("migrate", "fix_state=1")
    project.doit("undo")
    undone = newest_run(project)
    project.doit("migrate")
    assert "State fixed" in project.doit("undo", f"run={undone}", check=1)
    for _ in range(2):
        project.doit("undo")
    assert project.tree() == start


def test_a_rename_tells_of_the_paths_inside_unless_something_sees_to_them(project: Project) -> None:
    """Nothing said that a resume goes by old names; who finds out has trained on."""
    real(project)
    told = "* Note: paths inside still tell old names ("
    for options in ([], ["delete_old=1"]):
        out = project.doit("plan", *options)
        assert out.count(told) == len(EXPERIMENTS)
        assert "'doit fix_state' brings them up to date; what it changes takes its space twice" in out
    assert told not in project.doit("plan", "fix_state=1")
    assert told not in project.doit("plan", "leave_links=1")
    assert project.doit("migrate").count(told) == len(EXPERIMENTS)
    assert told not in project.doit("plan")


@pytest.mark.parametrize(
    "content", [b"no torch", lightning_file(f"/data/two/checkpoints/{OLD}")], ids=["", "elsewhere"]
)
def test_a_rename_says_nothing_of_what_holds_no_old_path(project: Project, content: bytes) -> None:
    project.make({f"one/checkpoints/{OLD}": 50})
    (project.outputs / "one/checkpoints" / OLD).write_bytes(content)
    assert "Note" not in project.doit("plan")
    assert "Note" not in project.doit("migrate")


def test_a_dry_run_changes_nothing(project: Project) -> None:
    real(project)
    project.doit("migrate")
    before = project.tree(state=True)
    assert "  to fix " in project.doit("fix_state", "dry_run=1")
    assert project.tree(state=True) == before


def test_a_preview_knows_what_is_in_use(project: Project) -> None:
    path = project.outputs / "one/checkpoints" / NEW
    path.parent.mkdir(parents=True)
    path.write_bytes(lightning_file(str(path.with_name(OLD))))
    says = f"Problem: {NEW} cannot get other paths in its state: it is open for writing"
    with path.open("ab"):
        for command in ("plan", "migrate"):
            assert says in project.doit(command, "fix_state=1", check=1)
        assert says in project.doit("fix_state", "dry_run=1", check=1)
    assert "State fixed" in project.doit("fix_state")


def test_what_is_no_torch_file_is_said_and_left(project: Project) -> None:
    project.make({f"one/checkpoints/{NEW}": 50, "one/checkpoints/epoch-04_step-000001.ckpt/0.pt": 5})
    out = project.doit("fix_state")
    assert f"? Skipped: {NEW} (is no zip file of torch, or damaged: the paths inside stay as they are)\n" in out
    assert "? Skipped: epoch-04_step-000001.ckpt (is a directory: the paths inside stay as they are)\n" in out


def test_a_path_that_leads_elsewhere_stays(project: Project) -> None:
    real(project)
    experiment = EXPERIMENTS[0]
    os.rename(project.outputs / experiment, project.outputs / "moved")
    project.doit("migrate")
    before = project.tree()
    assert "  fixed       0\n" in project.doit("fix_state:moved")
    assert project.tree() == before
