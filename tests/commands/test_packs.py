"""`doit packs`: what is here, one to edit, and what names say to all of them."""

from __future__ import annotations

import json

from ckptrules.report.style import with_texts
from tests.commands.test_verify import lightning, put
from tests.conftest import Project
from tests.support.undisturbed import wait_a_tick

RULES = "packs: [huggingface]\nretention: {default: {keep_last: 1}}\n"


def trainer(project: Project) -> None:
    project.make(
        {
            f"sft/checkpoint-{step}/{name}": 9
            for step in (500, 1000, 1500)
            for name in ("trainer_state.json", "model.safetensors")
        }
    )
    for step in (500, 1000, 1500):
        (project.outputs / f"sft/checkpoint-{step}/trainer_state.json").write_text("{}")


def test_the_packs_that_know_something_here_are_listed_with_their_evidence(project: Project) -> None:
    trainer(project)
    out = project.doit("packs")
    assert "huggingface  *" in out
    assert "checkpoint-*/trainer_state.json" in out
    assert "Not found here:" in out


def test_in_a_narrow_terminal_the_evidence_stands_below_its_row() -> None:
    """Each cell had a line of its own, so that no row could be told from the next."""
    rows = [("timm", "*/train/*", "12", "args.yaml, summary.csv and " + "more " * 20), ("", "", "", "3 of 3 agree")]
    headings = ("pack", "where", "names", "evidence")
    narrow = with_texts(headings, rows, (2,), 40)
    assert narrow.splitlines()[:4] == [
        "pack  where      names",
        "timm  */train/*     12",
        "  args.yaml, summary.csv and more more",
        "  more more more more more more more",
    ]
    assert narrow.endswith("\n  3 of 3 agree\n")
    assert len(with_texts(headings, rows, (2,), 0).splitlines()) == 3


def test_some_checkpoints_are_opened_to_compare_the_numbers(project: Project) -> None:
    for step in (500, 1000, 1500, 2000):
        put(project, f"model_{step}.pt", lightning(0, step), "svc")
        put(project, f"epoch={step // 500}.ckpt", lightning(step // 500 + 1, step), "lit")
    lines = [line.split(maxsplit=1) for line in project.doit("packs").splitlines()]
    assert ["3", "of 3 numbers agree with those inside by vits"] in lines
    assert ["3", "of 3 numbers inside are one higher"] in lines


def test_where_no_pack_finds_anything_that_is_no_success(project: Project) -> None:
    project.make({"x/readme": 3})
    assert "No pack finds anything in 'outputs'." in project.doit("packs", check=1)


def test_a_pack_becomes_rules_to_edit_and_nothing_is_overwritten(project: Project) -> None:
    assert project.doit("packs", "copy=huggingface").startswith("Wrote rules/huggingface.yaml.")
    text = (project.folder / "rules" / "huggingface.yaml").read_text()
    assert "\nmarks:" not in text
    assert "\n# layout: [" in text
    assert "\nformats:" in text
    project.doit("check")
    assert "is there already" in project.doit("packs", "copy=huggingface", check=1)
    assert "did you mean 'huggingface'?" in project.doit("packs", "copy=hugingface", check=3)
    assert "hint: there are: allennlp, basicsr, caffe, " in project.doit("packs", "copy=0", check=3)


def test_names_are_told_without_any_tree(project: Project) -> None:
    (project.folder / "names.txt").write_text("checkpoint-500\nepoch=3-step=40.ckpt\nfinal weights\n")
    out = project.doit("packs", "names=names.txt", "json=found.json")
    assert out.endswith("3 names, 2 known\n")
    first, second, third = json.loads((project.folder / "found.json").read_text())
    assert (first["kind"], first["fields"]) == ("format", {"step": 500})
    assert "huggingface" in first["packs"]
    assert (second["kind"], second["fields"]) == ("format", {"epoch": 3, "step": 40})
    assert third == {"name": "final weights", "kind": "unknown", "fields": None, "packs": []}
    assert "cannot be read: No such file" in project.doit("packs", "names=none.txt", check=3)
    for words in ((), ("copy=lightning",)):
        assert "json= needs names=FILE\n" in project.doit("packs", "json=other.json", *words, check=3)
    assert not (project.folder / "other.json").exists()
    assert "copy= or names=, not both" in project.doit("packs", "names=names.txt", "copy=lightning", check=3)
    assert not (project.folder / "rules/lightning.yaml").exists()


def test_listed_packs_judge_where_the_rules_say_nothing(project: Project) -> None:
    for file in (project.folder / "rules").glob("*.yaml"):
        file.unlink()
    (project.folder / "rules" / "mine.yaml").write_text(RULES)
    trainer(project)
    wait_a_tick()
    out = project.doit("migrate", "delete_old=1")
    assert "Deleted: sft/checkpoint-500" in out or "Deleted: checkpoint-500" in out
    assert sorted(path.name for path in (project.outputs / "sft").iterdir()) == ["checkpoint-1500"]
    assert "up to date" in project.doit("migrate", "delete_old=1")
    project.make({"sft/checkpoint-2000/trainer_state.json": 9, "sft/checkpoint-2000/model.safetensors": 9})
    assert "loses nothing: checkpoint-2000/trainer_state.json, which names the best, is not understood" in project.doit(
        "migrate", "delete_old=1", check=1
    )
    (project.outputs / "sft/checkpoint-2000/trainer_state.json").write_text("{}")
    assert "Deleted: checkpoint-1500" in project.doit("migrate", "delete_old=1")
    project.doit("undo")
    project.doit("undo")
    assert len(list((project.outputs / "sft").iterdir())) == 4


def test_a_pack_that_does_not_exist_is_refused_with_its_place(project: Project) -> None:
    (project.folder / "rules" / "mine.yaml").write_text("packs: [hugginface]\n")
    out = project.doit("check", check=3)
    assert "rules/mine.yaml:1:9: no pack 'hugginface'" in out
    assert "hint: did you mean 'huggingface'?" in out


def test_a_wide_layout_of_packs_takes_no_folder_in_which_no_pack_knows_anything(project: Project) -> None:
    for file in (project.folder / "rules").glob("*.yaml"):
        file.unlink()
    (project.folder / "rules" / "mine.yaml").write_text("packs: [lightning, mmengine]\n" + RULES.partition("\n")[2])
    project.make({f"pl/version_0/checkpoints/epoch={n}-step={n}.ckpt": 9 for n in range(3)})
    project.make({"pl/version_0/hparams.yaml": 9, "notes/readme.md": 9})
    wait_a_tick()
    out = project.doit("migrate", "delete_old=1")
    assert "Deleted: epoch=0-step=0.ckpt" in out
    assert "Skipped" not in out
    assert project.doit("migrate", "delete_old=1").startswith("Nothing to do: 1 experiment is up to date.")
