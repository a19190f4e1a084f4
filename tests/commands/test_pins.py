"""``doit pin``, ``pins``, ``unpin``: what is pinned is never deleted, by no command, and under no name."""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path

import pytest

from ckptrules.commands.pins import as_table
from ckptrules.engine.pins import Found, Pin
from ckptrules.report.style import Style, columns
from ckptrules.rules.shipped import may_be_there, pins_file
from tests.conftest import ROOT, Project
from tests.support import nobody

EARLY, EARLY_NEW = "epoch=2-step=20.ckpt", "epoch-02_step-000020.ckpt"
YOUNG, YOUNG_NEW = "epoch=20-step=200.ckpt", "epoch-20_step-000200.ckpt"
TREE: dict[str, int | str] = {f"one/checkpoints/{EARLY}": 10, f"one/checkpoints/{YOUNG}": 10}
PINNED = "one/checkpoints\n  {}  10 B  Table 2\n1 pin\n"


@pytest.fixture
def pinned(project: Project) -> Project:
    """Return a project with one of two checkpoints pinned that the policy would let go; both have one size and time."""
    project.make(TREE)
    for name in (EARLY, YOUNG):
        os.utime(project.outputs / "one/checkpoints" / name, ns=(10**18, 10**18))
    project.doit("pin", f"name={EARLY}", "note=Table 2")
    return project


def pins(project: Project) -> str:
    return (project.folder / "rules/pins.yaml").read_text()


def test_a_pin_follows_a_rename_and_an_undo(pinned: Project) -> None:
    assert pinned.doit("pins") == PINNED.format(EARLY)
    start = pins(pinned)
    pinned.doit("migrate", "delete_old=1")
    assert pinned.names("one") == [EARLY_NEW, YOUNG_NEW]
    assert f'path: "one/checkpoints/{EARLY_NEW}"' in pins(pinned)
    assert pinned.doit("pins") == PINNED.format(EARLY_NEW)
    pinned.doit("undo")
    assert (pinned.doit("pins"), pins(pinned)) == (PINNED.format(EARLY), start)


def test_a_pin_needs_no_rules_that_can_be_written(pinned: Project) -> None:
    """A run that has other rules at hand renames as well; what was pinned is found by the journal."""
    before = pins(pinned)
    shutil.copytree(pinned.folder / "rules", pinned.folder / "others")
    pinned.doit("migrate", "rules_dir=others")
    assert pins(pinned) == before
    assert pinned.doit("pins") == PINNED.format(EARLY_NEW)
    assert "pinned: Table 2" in pinned.doit("plan", "delete_old=1", "verbose=1")
    pinned.doit("undo", "rules_dir=others")
    assert pinned.doit("pins") == PINNED.format(EARLY)


def test_a_run_with_nothing_to_do_is_up_to_date_until_something_is_pinned_or_unpinned(pinned: Project) -> None:
    pinned.doit("migrate", "delete_old=1")
    done = "Nothing to do: 1 experiment is up to date.\n"
    assert pinned.doit("migrate", "delete_old=1") == done
    pinned.doit("unpin", f"name={EARLY_NEW}")
    assert f"Deleted: {EARLY_NEW}" in pinned.doit("migrate", "delete_old=1")


def test_a_copy_of_the_tree_keeps_its_pins(pinned: Project, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(pinned.outputs, copy, ignore=shutil.ignore_patterns(".ckptrules"))
    assert pinned.doit("pins", f"outputs_dir={copy}") == PINNED.format(EARLY)
    pinned.doit("migrate", "delete_old=1", f"outputs_dir={copy}")
    assert sorted(os.listdir(copy / "one/checkpoints")) == [EARLY_NEW, YOUNG_NEW]


@pytest.mark.parametrize(
    "words", ["pin --name={} migrate --delete-old", "migrate --delete-old pin --name={}", "pin --name={} pins"]
)
def test_nothing_goes_by_the_pins_in_the_call_that_changes_them(pinned: Project, words: str) -> None:
    """It was pinned, and then deleted: what is pinned had been read before."""
    pinned.doit("unpin", f"name={EARLY}")
    refused = pinned.doit(*words.format(EARLY).split(), check=3)
    assert refused.startswith("ERROR: command line: 'pin' and '")
    assert refused.endswith("has changed anything\n    hint: run one after the other\n")
    assert (pinned.doit("pins"), len(pinned.names("one"))) == ("Nothing is pinned.\n", 2)


def test_what_is_pinned_while_a_run_waits_for_the_lock_stays(pinned: Project) -> None:
    """The run had read before that nothing is pinned, and deleted it."""
    rules = pinned.folder / "rules"
    (rules / "pins.yaml").rename(pinned.folder / "pins.kept")
    (pinned.folder / "dodo.py").write_text(
        "import os\nfrom ckptrules.run import locking\ntake = locking.take_lock\n"
        "def take_lock(*given):\n    os.replace('pins.kept', 'rules/pins.yaml')  # as 'doit pin' does, which had the lock\n"
        "    take(*given)\nlocking.take_lock = take_lock\n" + (pinned.folder / "dodo.py").read_text()
    )
    assert "pinned: Table 2" in pinned.doit("migrate", "delete_old=1", "verbose=1")
    assert pinned.names("one") == [EARLY_NEW, YOUNG_NEW]


@pytest.mark.parametrize("change", ["removed", "rewritten", "moved by hand"])
def test_a_pin_that_finds_nothing_is_a_problem_and_nothing_is_deleted_there(pinned: Project, change: str) -> None:
    pinned.make(
        {
            "one/checkpoints/epoch=3-step=30.ckpt": 3,
            "two/checkpoints/epoch=3-step=30.ckpt": 3,
            f"two/checkpoints/{YOUNG}": 3,
        }
    )
    file = pinned.outputs / "one/checkpoints" / EARLY
    if change == "removed":
        file.unlink()
    elif change == "rewritten":
        file.write_bytes(b"0123456789")
    else:
        file.rename(file.with_name("epoch=4-step=40.ckpt"))
    says = "is another one now" if change == "rewritten" else "is not there"
    for command in ("plan", "migrate"):
        out = pinned.doit(command, "delete_old=1", check=1)
        assert f"Problem: one/checkpoints/{EARLY} {says}" in out
        assert out.count("elete: epoch=3") + out.count("eleted: epoch=3") == 1  # in the other experiment
    assert says in pinned.doit("pins", check=1)
    assert len(pinned.names("one")) == (2 if change == "removed" else 3)
    pinned.doit("unpin", "name=one/checkpoints/*")
    assert "Problem" not in pinned.doit("plan", "delete_old=1")


def test_what_is_there_now_can_be_pinned_in_its_place(pinned: Project) -> None:
    (pinned.outputs / "one/checkpoints" / EARLY).write_bytes(b"other")
    assert "pins what is there now" in pinned.doit("pins", check=1)
    pinned.doit("pin", f"name={EARLY}")
    assert pinned.doit("pins") == PINNED.format(EARLY).replace("10 B", "5 B")  # the note stays


def test_a_pin_that_finds_nothing_gives_its_name_to_no_other(pinned: Project) -> None:
    """The file held that name twice, so each command was refused; and to unpin it took away the other pin."""
    pinned.make({f"one/checkpoints/{EARLY_NEW}": 3})
    pinned.doit("pin", f"name={EARLY_NEW}", "note=gone")
    (pinned.outputs / "one/checkpoints" / EARLY_NEW).unlink()
    pinned.doit("migrate", check=1)
    assert "is another one now" in pinned.doit("pins", check=1)
    assert "(gone)" in pinned.doit("unpin", f"name=one/checkpoints/{EARLY_NEW}")
    assert pinned.doit("pins") == PINNED.format(EARLY_NEW)


def test_a_directory_that_is_gone_is_a_problem_of_the_whole_run(pinned: Project) -> None:
    pinned.make({f"two/checkpoints/{YOUNG}": 3})
    shutil.rmtree(pinned.outputs / "one")
    for command in ("plan", "migrate"):
        assert f"Problem: one/checkpoints/{EARLY} is not there" in pinned.doit(command, check=1)
    assert "Problem" not in pinned.doit("plan:two")
    pinned.doit("unpin", f"name={EARLY}")
    assert "Problem" not in pinned.doit("plan")


def test_a_pin_keeps_its_name_where_another_tree_with_these_rules_is_migrated(pinned: Project) -> None:
    """It got the name that another checkpoint had got there, and was found here no more."""
    other = pinned.folder / "other"
    shutil.copytree(pinned.outputs, other, ignore=shutil.ignore_patterns(".ckptrules"))
    os.utime(other / "one/checkpoints" / EARLY, (5, 5))
    before = pins(pinned)
    for command in ("plan", "migrate"):
        pinned.doit(command, "outputs_dir=other", check=1)
    assert sorted(os.listdir(other / "one/checkpoints")) == [EARLY_NEW, YOUNG_NEW]
    assert (pins(pinned), pinned.doit("pins")) == (before, PINNED.format(EARLY))


@pytest.mark.parametrize("trained_again", [False, True])
@pytest.mark.parametrize("moved", ["one", f"one/checkpoints/{EARLY}"])
def test_what_somebody_has_moved_to_another_directory_is_kept_there(
    pinned: Project, moved: str, *, trained_again: bool
) -> None:
    """An experiment that got another name by hand lost what was pinned in it, also where a new one has the old name."""
    pinned.make({f"two/checkpoints/{name}": 3 for name in ("epoch=3-step=30.ckpt", YOUNG)})
    pinned.doit("migrate:two", "delete_old=1")
    (pinned.outputs / moved).rename(pinned.outputs / moved.replace("one", "two" if "/" in moved else "three"))
    pinned.make({f"one/checkpoints/{EARLY}": 4} if trained_again else {})
    fault = "another one now: its size or time differs" if trained_again else "not there"
    for command in ("plan", "migrate"):
        out = pinned.doit(command, "delete_old=1", "verbose=1", check=1)
        assert "pinned: Table 2" in out
        assert f"/{EARLY} is {fault}" in out or f"/{EARLY_NEW} is {fault}" in out
    assert any((pinned.outputs / name / "checkpoints" / EARLY_NEW).exists() for name in ("two", "three"))
    pinned.doit("unpin", f"name={EARLY_NEW if trained_again else EARLY}")
    assert f"Deleted: {EARLY_NEW}" in pinned.doit("migrate", "delete_old=1")


def test_all_commands_know_what_was_pinned_in_an_experiment_that_got_another_name_by_hand(project: Project) -> None:
    """The list said that it was gone, the catalog knew no pin, and a restore could replace it."""
    project.make(TREE)
    project.doit("pin", f"name={EARLY}", "note=Table 2")
    (project.outputs / "one").rename(project.outputs / "two")
    (project.folder / "saved").mkdir()
    file = project.outputs / "two/checkpoints" / EARLY
    kept = file.rename(project.folder / "kept")
    file.write_bytes(b"another")
    project.doit("backup", "to=saved", "mode=copy")
    (backup,) = (project.folder / "saved").iterdir()
    kept.rename(file)
    moved = PINNED.format(EARLY).replace("one", "two")
    assert moved.removesuffix("1 pin\n") in project.doit("pins", check=1)
    assert "Table 2" in project.doit("catalog")
    assert "stays as it is: pinned: Table 2" in project.doit("restore", f"backup={backup}", "force=1", check=1)
    assert project.doit("unpin", f"name={EARLY}", "dry_run=1") == f"Would unpin: two/checkpoints/{EARLY} (Table 2)\n"
    project.doit("pin", f"name={EARLY}")
    assert project.doit("pins") == moved  # with its note, and the old one is gone
    project.doit("unpin", f"name={EARLY}")
    assert project.doit("pins") == "Nothing is pinned.\n"


def test_a_pin_follows_a_rename_of_a_name_that_was_used_before(project: Project) -> None:
    """Training resumed and saved a name again: by what became of the first, the pin led to nothing."""
    (project.folder / "archives").mkdir()
    project.make(TREE)
    project.doit("migrate", "delete_old=1")
    project.doit("archive", "experiments=one", "archive_dir=archives", "format=gz")
    project.doit("unarchive", "archive=archives/one.tar.gz")
    project.make({f"one/checkpoints/{EARLY}": 7})
    project.doit("pin", f"name={EARLY}", "note=Table 2")
    project.doit("migrate", "delete_old=1")
    assert f"  {EARLY_NEW}  7 B  Table 2\n" in project.doit("pins")
    (project.outputs / "one/checkpoints" / EARLY_NEW).unlink()
    assert "is not there" in project.doit("pins", check=1)  # and not archived


def test_an_archive_keeps_the_pin_and_brings_it_back(pinned: Project) -> None:
    pinned.make({f"two/checkpoints/{YOUNG}": 3})
    pinned.doit("migrate")
    (pinned.folder / "archives").mkdir()
    pinned.doit("archive", "experiments=one", "archive_dir=archives", "format=gz")
    assert "Archived by run " in pinned.doit("pins")
    assert "Problem" not in pinned.doit("plan")
    pinned.doit("purge")
    assert "Archived by run " in pinned.doit("pins")
    pinned.doit("unarchive", "archive=archives/one.tar.gz")
    assert pinned.doit("pins") == PINNED.format(EARLY_NEW)
    assert "stays as it is: pinned: Table 2" in pinned.doit("undo", check=1)
    assert pinned.names("one") == [EARLY_NEW, YOUNG_NEW]


def test_a_restore_brings_the_pinned_one_back_and_replaces_none(pinned: Project) -> None:
    file = pinned.outputs / "one/checkpoints" / EARLY
    (pinned.folder / "saved").mkdir()
    pinned.doit("backup", "to=saved", "mode=copy")
    (backup,) = (pinned.folder / "saved").iterdir()
    file.unlink()
    pinned.doit("restore", f"backup={backup}")
    assert pinned.doit("pins") == PINNED.format(EARLY)
    file.write_bytes(b"trained on")
    pinned.doit("restore", f"backup={backup}", "force=1")  # itself may come back
    assert pinned.doit("pins") == PINNED.format(EARLY)
    file.write_bytes(b"trained on")
    pinned.doit("pin", f"name={EARLY}")
    assert "stays as it is: pinned: Table 2" in pinned.doit("restore", f"backup={backup}", "force=1", check=1)
    assert file.read_bytes() == b"trained on"


def test_an_undo_of_a_restore_tells_once_of_what_is_pinned(pinned: Project) -> None:
    """It told of it again for each folder that it lies in, as of problems of their own."""
    (pinned.folder / "saved").mkdir()
    pinned.doit("backup", "to=saved")
    (backup,) = (pinned.folder / "saved").iterdir()
    shutil.rmtree(pinned.outputs / "one")
    pinned.doit("restore", f"backup={backup}")
    out = pinned.doit("undo", check=1)
    assert out.count(f"one/checkpoints/{EARLY} stays as it is: pinned: Table 2") == 1
    assert re.search(r"^  problems +1  left untouched", out, re.MULTILINE), out
    assert pinned.names("one") == [EARLY]


def test_an_undo_of_an_undo_deletes_nothing_that_was_pinned_since(project: Project) -> None:
    project.make(TREE)
    project.doit("migrate", "delete_old=1")
    project.doit("undo")
    undo = project.doit("history").splitlines()[1].split()[0]
    project.doit("pin", f"name={EARLY}")
    out = project.doit("undo", f"run={undo}", check=1)
    assert f"one/checkpoints/{EARLY} stays as it is: pinned" in out
    assert project.names("one") == [YOUNG_NEW, EARLY]


def test_the_content_of_what_is_pinned_stays(project: Project) -> None:
    folder = project.outputs / "lightning_default/checkpoints"
    shutil.copytree(ROOT / "tests/real/outputs/lightning_default/checkpoints", folder)
    before = {path.read_bytes() for path in folder.iterdir()}
    project.doit("pin", "name=*.ckpt", "note=Table 2")
    out = project.doit("migrate", "fix_state=1")
    assert "pinned: Table 2: the paths inside stay as they are" in out
    assert {path.read_bytes() for path in folder.iterdir()} == before
    assert "Problem" not in project.doit("fix_state", "dry_run=1")


def test_a_dry_run_writes_nothing(pinned: Project) -> None:
    before = pins(pinned)
    assert pinned.doit("pin", f"name={YOUNG}", "dry_run=1") == f"Would pin: one/checkpoints/{YOUNG}\n"
    assert pinned.doit("unpin", f"name={EARLY}", "dry_run=1") == f"Would unpin: one/checkpoints/{EARLY} (Table 2)\n"
    pinned.doit("migrate", "dry_run=1")
    assert pins(pinned) == before


def test_the_paths_of_a_hint_can_be_copied(pinned: Project) -> None:
    pinned.make({f"one more/checkpoints/{YOUNG}": 3})
    out = pinned.doit("pin", f"name={YOUNG}", check=3)
    assert f"name=one/checkpoints/{YOUNG}, name='one more/checkpoints/{YOUNG}'\n" in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["pin"], "pin needs a name"),
        (["pin", "name=nothing"], "no checkpoint 'nothing'"),
        (["pin", f"name={YOUNG}"], "2 are called"),
        (["pin", "name=last.ckpt"], "no checkpoint 'last.ckpt'"),  # a link
        (["pin", "name=model.pt"], "no checkpoint 'model.pt'"),  # no rule knows it
        (["pin", "name=*", "note=a\nb"], "note"),
        (["unpin", f"name={YOUNG}"], f"no pin '{YOUNG}'"),
        (["pins", "note=x"], "pins"),
    ],
)
def test_what_means_no_single_checkpoint_is_refused(pinned: Project, words: list[str], says: str) -> None:
    pinned.make(
        {f"two/checkpoints/{YOUNG}": 3, "two/checkpoints/last.ckpt": f"-> {YOUNG}", "two/checkpoints/model.pt": 3}
    )
    assert says in pinned.doit(*words, check=3)


@pytest.mark.parametrize(
    "name",
    [
        "one/checkpoints/{}",
        "one/checkpoints/{}/",
        "outputs/one/checkpoints/{}",
        "{}/outputs/one/checkpoints/{}/",
        "epoch=2-*",
        "one/*/epoch=2-*",
    ],
)
def test_a_checkpoint_is_meant_by_name_pattern_or_path(pinned: Project, name: str) -> None:
    """And by the same words for all commands, with the slash that a shell puts behind a folder."""
    name = name.replace("{}/outputs", f"{pinned.folder}/outputs").format(EARLY)
    assert f"\n\none/checkpoints/{EARLY}\n" in pinned.doit("explain", f"name={name}")
    assert pinned.doit("pin", f"name={name}") == f"Pinned: one/checkpoints/{EARLY} (Table 2)\n"
    assert pinned.doit("unpin", f"name={name}") == f"Unpinned: one/checkpoints/{EARLY} (Table 2)\n"
    assert pinned.doit("pins") == "Nothing is pinned.\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run as nobody")
def test_pins_that_cannot_be_written_are_told() -> None:
    """What was pinned stays so under its new name."""
    with nobody.project() as project:
        project.make(TREE)
        project.doit("pin", f"name={EARLY}", "note=Table 2")
        nobody.give(project.folder)
        rules = project.folder / "rules"
        os.chown(rules, 0, 0)
        rules.chmod(0o755)
        refused = nobody.run(project.folder, "pin", f"name={YOUNG}")
        assert (refused.code, "rules/pins.yaml cannot be written: Permission denied" in refused.output) == (1, True)
        ended = nobody.run(project.folder, "migrate", "delete_old=1")
        assert (ended.code, "rules/pins.yaml may have old names: Permission denied" in ended.output) == (1, True)
        assert nobody.run(project.folder, "pins").output == PINNED.format(EARLY_NEW)
        assert project.names("one") == [EARLY_NEW, YOUNG_NEW]


def test_a_file_of_pins_that_cannot_be_seen_is_not_taken_for_none(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not may_be_there(pins_file(str(project.folder / "rules")))

    def fail(path: str) -> os.stat_result:
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    monkeypatch.setattr(os, "lstat", fail)
    assert may_be_there(pins_file(str(project.folder / "rules")))


def test_wrong_pins_stop_whatever_could_delete(pinned: Project) -> None:
    (pinned.folder / "saved").mkdir()
    pinned.doit("backup", "to=saved", "mode=copy")
    (backup,) = (pinned.folder / "saved").iterdir()
    (pinned.folder / "rules/pins.yaml").write_text("pins: [{path: a}]\n")
    before = pinned.tree()
    for command in ("migrate", "plan", "undo", "check", "pins", "catalog", "usage"):
        assert "rules/pins.yaml:1:8: pins[0] has no 'size'" in pinned.doit(command, check=3)
    assert "pins[0] has no 'size'" in pinned.doit("restore", f"backup={backup}", "force=1", check=3)
    assert pinned.tree() == before


def test_where_the_rules_are_broken_a_restore_that_looks_for_a_pin_is_refused(pinned: Project) -> None:
    (pinned.folder / "saved").mkdir()
    pinned.doit("backup", "to=saved", "mode=copy")
    (backup,) = (pinned.folder / "saved").iterdir()
    (pinned.outputs / "one/checkpoints" / EARLY).unlink()
    (pinned.folder / "rules/naming.yaml").write_text("a: [")
    assert "rules/naming.yaml:1:5: not valid YAML" in pinned.doit("restore", f"backup={backup}", check=3)


@pytest.mark.parametrize("escape", [r"\ud800", r"\0"])
def test_a_pin_on_a_name_that_cannot_be_is_refused(pinned: Project, escape: str) -> None:
    file = pinned.folder / "rules/pins.yaml"
    path = f'path: "one/checkpoints/{escape}.ckpt"'
    file.write_text(re.sub(r"path: .*", lambda _: path, file.read_text()))
    for command in ("plan", "migrate", "undo", "pins", "catalog", "usage"):
        assert "rules/pins.yaml:4:9: not valid YAML: an escape" in pinned.doit(command, check=3)


@pytest.mark.parametrize("width", [0, 40, 80, 120])
@pytest.mark.parametrize("name", [EARLY, "epoch_epoch_02_step_step_000264_20251009_015037.ckpt", "最後の一つ.ckpt"])
def test_the_table_fits_a_terminal_and_cuts_no_name_and_no_note(name: str, width: int) -> None:
    note = " ".join(["what the second reviewer asked for,"] * 5)
    found = [Found(Pin("", 10, 0, note), "one", name), Found(Pin("", 2000, 0), "one", YOUNG)]
    text = as_table(found, Style(width=width))
    lines = text.splitlines()
    assert all(columns(line) <= width or line.strip() == name for line in lines) or not width
    assert name in text
    assert YOUNG in text
    assert len(lines) > 2 if width else len(lines) == 2
    assert " ".join(" ".join(line.split("B", 1)[-1].strip() for line in lines).split()).count("reviewer") == 5


def test_a_planted_journal_cannot_move_a_pin_to_another_checkpoint(pinned: Project) -> None:
    """What the journals tell is believed only of what has the size and the time that were pinned."""
    pinned.doit("migrate")
    journal = next((pinned.outputs / ".ckptrules/journal").glob("*.jsonl"))
    journal.write_text(journal.read_text().replace(EARLY_NEW, "../../../rules"))
    start = pins(pinned)
    pinned.doit("pins")
    assert pins(pinned) == start


def test_what_holds_a_part_holds_the_whole(project: Project) -> None:
    """One line of the plan tells of it, under the name that it goes by; the next to last goes."""
    (project.folder / "rules/mine.yaml").write_text(
        "formats:\n- id: ranks\n  match: 'ck_(?P<step>\\d+)-rank(?P<part>\\d+)\\.pt'\n"
        "  examples: {ck_5-rank0.pt: {step: 5, part: 0}}\nretention: {mine: {keep_last: 1}}\n"
    )
    project.make({f"x/checkpoints/ck_{step}-rank{rank}.pt": 10 for step in (1, 2, 3) for rank in (0, 1)})
    project.doit("pin", "name=ck_1-rank1.pt", "note=Table 2")
    assert "pinned: Table 2" in project.doit("plan", "verbose=1")
    project.doit("migrate", "delete_old=1", "policy=mine")
    assert project.names("x") == [f"ck_{step}-rank{rank}.pt" for step in (1, 3) for rank in (0, 1)]


@pytest.mark.parametrize("there", ["", "another"])
def test_a_pinned_part_in_a_folder_of_parts_is_found(project: Project, there: str) -> None:
    (project.folder / "rules/mine.yaml").write_text(
        "part_folders: ['mp_rank_*']\nformats:\n- id: nemo\n  match: 'gpt--step=(?P<step>\\d+)\\.ckpt'\n"
        "  examples: {gpt--step=8.ckpt: {step: 8}}\nretention: {mine: {keep_last: 1}}\n"
    )
    project.make({f"x/checkpoints/mp_rank_0{r}/gpt--step={step}.ckpt": 10 for step in (1, 2, 3) for r in (0, 1)})
    project.doit("pin", "name=x/checkpoints/mp_rank_01/gpt--step=1.ckpt", "note=Table 2")
    if there:
        (project.outputs / "x/checkpoints/mp_rank_01/gpt--step=1.ckpt").write_text(there)
    project.doit("migrate", "delete_old=1", "policy=mine", check=1 if there else 0)
    left = {1, 3, 2} if there else {1, 3}
    for rank in (0, 1):
        names = os.listdir(project.outputs / f"x/checkpoints/mp_rank_0{rank}")
        assert set(names) == {f"gpt--step={step}.ckpt" for step in left}


def test_what_the_pack_of_a_directory_knows_can_be_pinned(project: Project) -> None:
    """All packs of the rules were asked; where two of them read a name in two ways, it was no checkpoint."""
    (project.folder / "rules/mine.yaml").write_text("packs: [ignite, nanochat]\n")
    project.make({f"x/checkpoints/{name}": 10 for name in ("model_000100.pt", "meta_000100.json")})
    assert project.doit("pin", "name=model_000100.pt") == "Pinned: x/checkpoints/model_000100.pt\n"
