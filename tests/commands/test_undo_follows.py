"""What names a checkpoint by now follows it through an undo, as through a migrate, or the undo leaves it as it is."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.support import nobody

OLD, NEW, OTHER = "epoch=2-step=2.ckpt", "epoch-02_step-000002.ckpt", "epoch-01_step-000001.ckpt"
TREE: dict[str, int | str] = {f"one/checkpoints/epoch={n}-step={n}.ckpt": n for n in (1, 2)}
HERE = "one/checkpoints"


def migrated(project: Project, **more: int | str) -> Path:
    """Rename the checkpoints of a tree, and return their directory."""
    project.make({**TREE, "two/checkpoints/epoch=1-step=1.ckpt": 1, **more})
    project.doit("migrate")
    return project.outputs / HERE


def newest(project: Project) -> str:
    run = re.search(r"\d{8}T\d{6}Z-\d+", project.doit("history"))
    assert run
    return run[0]


@pytest.mark.parametrize("before", ["", "epoch=2-step=2.ckpt", "epoch=1-step=1.ckpt"])
def test_a_link_beside_it_follows(project: Project, before: str) -> None:
    """It led nowhere; later, what it pointed to kept its name."""
    here = migrated(project, **{f"{HERE}/last.ckpt": f"-> {before}"} if before else {})
    (here / "last.ckpt").unlink(missing_ok=True)
    (here / "last.ckpt").symlink_to(NEW)
    assert "Would relink: last.ckpt" in project.doit("undo", "dry_run=1")
    project.doit("undo")
    assert os.readlink(here / "last.ckpt") == OLD
    project.doit("undo", f"run={newest(project)}")
    assert os.readlink(here / "last.ckpt") == NEW
    assert (here / "last.ckpt").stat().st_size == 2


def test_a_link_that_leads_elsewhere_by_now_holds_nothing(project: Project) -> None:
    """The checkpoint that it had pointed to was not renamed, though nothing led there any more."""
    here = migrated(project, **{f"{HERE}/last.ckpt": f"-> {OLD}"})
    (here / "last.ckpt").unlink()
    (here / "last.ckpt").symlink_to("elsewhere")
    project.doit("undo")
    assert project.names("one") == sorted([OLD, "epoch=1-step=1.ckpt", "last.ckpt"])
    assert os.readlink(here / "last.ckpt") == "elsewhere"


def test_in_a_copy_of_the_tree_a_link_into_the_original_stays(project: Project) -> None:
    """It led to a name that nothing in the original has."""
    project.make({**TREE, "two/checkpoints/epoch=1-step=1.ckpt": 1})
    for link in ("two/checkpoints/init.ckpt", f"{HERE}/mine.ckpt"):
        (project.outputs / link).symlink_to(project.outputs / HERE / OLD)
    project.doit("migrate")
    copy = project.folder / "copy"
    shutil.copytree(project.outputs, copy, symlinks=True)
    for more in ("dry_run=1", "dry_run=0"):
        assert "elink" not in project.doit("undo", "outputs_dir=copy", more)
    assert (copy / HERE / OLD).exists()
    for link in ("two/checkpoints/init.ckpt", f"{HERE}/mine.ckpt"):
        assert os.readlink(copy / link) == str(project.outputs / HERE / NEW)


@pytest.mark.parametrize("text", ["../../one/checkpoints/{}", "{absolute}/{}"])
def test_a_link_elsewhere_follows(project: Project, text: str) -> None:
    here = migrated(project)
    link = project.outputs / "two/checkpoints/init.ckpt"
    link.symlink_to(text.format(NEW, absolute=here))
    out = project.doit("undo", "dry_run=1")
    assert "Would relink: two/checkpoints/init.ckpt" in out
    project.doit("undo")
    assert os.readlink(link) == text.format(OLD, absolute=here)
    assert link.stat().st_size == 2


@pytest.mark.parametrize(
    ("name", "text"), [("latest", "{}\n"), ("last_checkpoint", "outputs/one/checkpoints/{}"), ("latest", "{stem}")]
)
def test_a_pointer_file_follows(project: Project, name: str, text: str) -> None:
    here = migrated(project)
    (here / name).write_text(text.format(NEW, stem=Path(NEW).stem))
    assert f"Would repoint: {name}" in project.doit("undo", "dry_run=1")
    project.doit("undo")
    assert (here / name).read_text() == text.format(OLD, stem=Path(OLD).stem)
    project.doit("undo", f"run={newest(project)}")
    assert (here / name).read_text() == text.format(NEW, stem=Path(NEW).stem)


def test_a_pointer_that_names_another_by_now_stays_as_it_is(project: Project) -> None:
    """The undo was refused, as the pointer did not name what it had named."""
    project.make(TREE)
    (project.outputs / HERE / "latest").write_text("epoch=1-step=1.ckpt")
    project.doit("migrate")
    (project.outputs / HERE / "latest").write_text(NEW)
    project.doit("undo")
    assert (project.outputs / HERE / "latest").read_text() == OLD


@pytest.mark.parametrize("where", [HERE, "one"])
def test_what_a_file_names_that_cannot_follow_keeps_its_name(project: Project, where: str) -> None:
    here = migrated(project)
    tracker = project.outputs / where / "best.json"
    tracker.write_text(json.dumps({"best": f"checkpoints/{NEW}"}))
    for more in ("dry_run=1", "dry_run=0"):
        out = project.doit("undo", more, check=1)
        assert re.search(rf"Problem: {NEW} stays as it is: (\.\./)?best\.json names it, and could not follow", out)
        line = (
            "'pointers: [best.json]' lets it follow" if where == HERE else "'ignored: [best.json]' lets it name nothing"
        )
        assert f"hint: change that file, or move it away (in the rules, {line}), then undo this again\n" in out
    assert project.names("one") == sorted(["epoch=1-step=1.ckpt", NEW, *(["best.json"] if where == HERE else [])])
    tracker.unlink()
    project.doit("undo")
    assert (here / OLD).exists()


def test_a_sidecar_follows(project: Project) -> None:
    rules = project.folder / "rules/naming.yaml"
    rules.write_text(re.sub(r"(?m)^sidecars:.*$", "sidecars: [.yaml]", rules.read_text()))
    here = migrated(project)
    (here / Path(NEW).with_suffix(".yaml")).write_text("a: 1")
    project.doit("undo")
    assert (here / Path(OLD).with_suffix(".yaml")).read_text() == "a: 1"
    project.doit("undo", f"run={newest(project)}")
    assert (here / Path(NEW).with_suffix(".yaml")).read_text() == "a: 1"


def test_with_broken_rules_links_follow_and_the_run_says_that_texts_do_not(project: Project) -> None:
    here = migrated(project)
    (here / "last.ckpt").symlink_to(NEW)
    (here / "latest").write_text(OTHER)
    (project.folder / "rules/naming.yaml").write_text("legacy: 5")
    out = project.doit("undo", check=1)
    assert "The rules are broken (see 'doit check'): links follow what is taken back" in out
    assert os.readlink(here / "last.ckpt") == OLD
    assert "latest names it, and could not follow" in out


def test_a_link_under_an_old_name_does_not_come_back_to_lead_nowhere(project: Project) -> None:
    """It did, and the undo called that a success."""
    project.make(TREE)
    project.doit("migrate", "leave_links=1")
    project.doit("drop_links")
    (project.outputs / HERE / NEW).unlink()
    for more in ("dry_run=1", "dry_run=0"):
        assert f"Problem: {OLD} does not become a link again: {NEW} is gone" in project.doit("undo", more, check=1)
    assert project.names("one") == sorted(["epoch=1-step=1.ckpt", OTHER])


# --- what is deleted again --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("holder", ["a link", "a link elsewhere", "a pointer", "a tracker above"])
def test_what_something_leads_to_is_not_deleted_again(project: Project, holder: str) -> None:
    project.make({f"one/checkpoints/epoch-{n:02}_step-{n:06}.ckpt": n for n in range(1, 30)})
    project.doit("migrate", "delete_old=1")
    project.doit("undo")
    goes = OTHER
    assert goes in project.names("one")
    if holder == "a link":
        (project.outputs / HERE / "mine.ckpt").symlink_to(goes)
    elif holder == "a link elsewhere":
        (project.outputs / "mine").mkdir()
        (project.outputs / "mine/x.ckpt").symlink_to(f"../{HERE}/{goes}")
    elif holder == "a pointer":
        (project.outputs / HERE / "latest").write_text(goes)
    else:
        (project.outputs / "one/best.json").write_text(f'"checkpoints/{goes}"')
    redo = f"run={newest(project)}"
    for more in ("dry_run=1", "dry_run=0"):
        assert f"Problem: {goes} stays as it is: " in project.doit("undo", redo, more, check=1)
    assert goes in project.names("one")


@pytest.mark.parametrize("holder", ["latest", "mine.pt", "mp_rank_01/last.pt"])
def test_what_leads_into_a_part_folder_holds_the_whole_checkpoint(project: Project, holder: str) -> None:
    rules = "part_folders: ['mp_rank_*']\nformats:\n- {id: ranks, match: 'ck_(?P<step>\\d+)\\.pt', examples: {ck_5.pt: {step: 5}}}\n"
    (project.folder / "rules/parts.yaml").write_text(rules)
    retention = project.folder / "rules/retention.yaml"
    retention.write_text(
        re.sub(r"(?s)retention:.*?\n  best", "retention:\n  default:\n    keep_last: 1\n  best", retention.read_text())
    )
    parts = [f"mp_rank_0{rank}/ck_{step}.pt" for step in (1, 2) for rank in (0, 1)]
    project.make({f"{HERE}/{part}": 9 for part in parts})
    project.doit("migrate", "delete_old=1")
    assert not (project.outputs / HERE / parts[0]).exists()
    project.doit("undo")
    path = project.outputs / HERE / holder
    if holder == "latest":
        path.write_text("ck_1.pt")
    else:
        path.symlink_to("ck_1.pt" if "/" in holder else parts[1])
    redo = f"run={newest(project)}"
    for more in ("dry_run=1", "dry_run=0"):
        assert f"stays as it is: {holder}" in project.doit("undo", redo, more, check=1)
    assert all((project.outputs / HERE / part).exists() for part in parts)


@pytest.mark.parametrize("link", ["current", "two/init"])
def test_an_experiment_to_which_a_link_leads_stays(project: Project, link: str) -> None:
    """The link led nowhere, after `archive` and after the undo of `unarchive`."""
    project.make({**TREE, "two/checkpoints/epoch=1-step=1.ckpt": 1})
    (project.folder / "arch").mkdir()
    project.doit("archive", "experiments=one", "archive_dir=arch", "format=gz")
    project.doit("unarchive", "archive=arch/one.tar.gz")
    (project.outputs / link).symlink_to("one" if link == "current" else "../one")
    for more in ("dry_run=1", "dry_run=0"):
        assert f"Problem: one stays as it is: {link} points to it" in project.doit("undo", more, check=1)
    shutil.rmtree(project.folder / "arch")
    (project.folder / "arch").mkdir()
    words = ("archive", "experiments=one", "archive_dir=arch", "format=gz")
    for more in ("dry_run=1", "dry_run=0"):
        assert f"{link} leads into it" in project.doit(*words, more, check=1)
    assert (project.outputs / HERE).exists()
    (project.outputs / link).unlink()
    project.doit("undo")
    assert not (project.outputs / "one").exists()


def test_what_a_restore_brought_goes_again_with_what_leads_to_it(project: Project) -> None:
    """A link that goes as well holds nothing; one that stays does."""
    project.make({**TREE, f"{HERE}/last.ckpt": f"-> {OLD}"})
    (project.folder / "saved").mkdir()
    backup = re.search(r"saved/outputs_backup_\d+_\d+", project.doit("backup", "to=saved"))
    assert backup
    shutil.rmtree(project.outputs / "one")
    project.doit("restore", f"backup={backup[0]}")
    (project.outputs / HERE / "mine.ckpt").symlink_to("epoch=1-step=1.ckpt")
    out = project.doit("undo", check=1)
    assert "stays as it is: checkpoints/mine.ckpt points to it" in out
    assert project.names("one") == sorted(["epoch=1-step=1.ckpt", "mine.ckpt"])


@pytest.mark.parametrize("holder", ["pin", "link"])
def test_what_holds_one_part_of_what_a_restore_brought_holds_all(project: Project, holder: str) -> None:
    """Each file comes back by itself: the undo took two of three shards of a pinned checkpoint away again."""
    form = (
        "formats: [{id: s, match: 'e(?P<epoch>\\d+)-s(?P<part>\\d)\\.pt', examples: {e1-s0.pt: {epoch: 1, part: 0}}}]\n"
    )
    (project.folder / "rules/mine.yaml").write_text(form)
    names = [f"e{n}-s{part}.pt" for n in (1, 2) for part in range(3)]
    project.make({f"{HERE}/{name}": 1 for name in names} | {f"{HERE}/last.ckpt": 1})
    (project.folder / "saved").mkdir()
    backup = re.search(r"saved/outputs_backup_\d+_\d+", project.doit("backup", "to=saved"))
    assert backup
    for name in names:
        (project.outputs / HERE / name).unlink()
    project.doit("restore", f"backup={backup[0]}")
    if holder == "pin":
        project.doit("pin", f"name={HERE}/e1-s1.pt")
    else:
        (project.outputs / HERE / "mine").symlink_to("e1-s1.pt")
    project.doit("undo", check=1)
    assert set(project.names("one")) - {"mine"} == {"last.ckpt", *(name for name in names if name.startswith("e1"))}


def test_what_a_restore_replaced_holds_nothing_as_it_goes_back(project: Project) -> None:
    """The old last.ckpt and latest came back and held what came back with them, as did a link in another folder."""
    links = {
        f"{HERE}/last.ckpt": f"-> {OLD}",
        "keep/x": f"-> ../{HERE}/{OLD}",
        "keep/y": f"-> ../{HERE}/epoch=1-step=1.ckpt",
        "far/z": "-> ../keep/y",
    }
    project.make({**TREE, **links})
    (project.outputs / HERE / "latest").write_text(OLD)
    (project.folder / "saved").mkdir()
    backup = re.search(r"saved/outputs_backup_\d+_\d+", project.doit("backup", "to=saved"))
    assert backup
    project.doit("migrate")
    for link in ("x", "y"):
        (project.outputs / "keep" / link).unlink()
    before = project.names("one")
    project.doit("restore", f"backup={backup[0]}", "force=1")
    out = project.doit("undo", check=1)  # far/z was there before, and goes through keep/y
    assert "epoch=1-step=1.ckpt stays as it is: keep/y points to it" in out
    assert "epoch=2-step=2.ckpt stays" not in out
    assert project.names("one") == sorted([*before, "epoch=1-step=1.ckpt"])
    assert os.readlink(project.outputs / HERE / "last.ckpt") == NEW
    assert (project.outputs / HERE / "latest").read_text() == NEW


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run as nobody")
def test_a_folder_that_cannot_be_searched_for_links_is_told() -> None:
    with nobody.project() as project:
        migrated(project)
        nobody.give(project.folder)
        (project.outputs / "closed").mkdir(mode=0o700)
        ended = nobody.run(project.folder, "undo")
        assert (ended.code, "Not searched for links: closed: Permission denied." in ended.output) == (0, True)
