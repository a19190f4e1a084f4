"""`doit explain`, and the order of magnitude in the plan's summary."""

from __future__ import annotations

import json
import re

import pytest

from ckptrules.commands import explain
from ckptrules.engine.actions import Action
from ckptrules.run.session import Session
from ckptrules.run.words import read_command_line
from tests.commands.test_verify import lightning, put
from tests.conftest import Project

OLD = "epoch_epoch_02_step_step_000176_20251009_011245.ckpt"


def make(project: Project) -> None:
    project.make(
        {
            f"ocr/checkpoints/{OLD}": 2000,
            "ocr/checkpoints/epoch=3-step=40.ckpt": 1000,
            "ocr/checkpoints/epoch=12-step=90.ckpt": 1000,
            "ocr/checkpoints/epoch=12-step=90.metadata.json": 10,
            "ocr/checkpoints/last.ckpt": 1000,
            "ocr/checkpoints/notes.txt": 5,
            "ocr/checkpoints/epoch=13-step=91.ckpt": 0,
        }
    )


def test_what_goes_is_explained_with_what_would_save_it(project: Project) -> None:
    make(project)
    before = project.tree(state=True)
    out = project.doit("explain", "name=epoch_epoch*")
    assert out == (
        "By 'doit migrate delete_old=1'; nothing was changed.\n\n"
        f"ocr/checkpoints/{OLD}\n"
        "  named by     legacy rule 'doubled-prefix'  rules/naming.yaml:23\n"
        "  fields       epoch 02, step 000176, timestamp 20251009_011245\n"
        "  goes         epoch < 10                    rules/retention.yaml:7\n"
        "  to save it   min_epoch: 2                  rules/retention.yaml:7\n"
        "  policy       policy 'default'              rules/retention.yaml:6\n"
    )
    assert project.tree(state=True) == before


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("outputs/ocr/checkpoints/epoch=12-step=90.ckpt", ["becomes      epoch-12_step-000090.ckpt", "stays        epoch >= 10  "]),
        ("last.ckpt", ["named by     protected by 'last.ckpt'", "stays        it is protected"]),
        ("notes.txt", ["named by     unable to parse: no rule fits", "left alone   the rules say nothing of it"]),
        ("*.metadata.json", ["stays        belongs to epoch=12-step=90.ckpt"]),
        ("epoch=13*", ["left alone   is an empty file\n               hint: a crash or a full disk leaves such files"]),
    ],
)  # fmt: skip
def test_everything_else_is_explained_too(project: Project, name: str, lines: list[str]) -> None:
    make(project)
    out = project.doit("explain", f"name={name}")
    for line in lines:
        assert f"\n  {line}" in out


def test_a_link_and_a_pointer_are_told_what_they_will_lead_to(project: Project) -> None:
    """The reason why they stay was "X is renamed", and "becomes" held what they are not called."""
    old, new = "epoch=12-step=90.ckpt", "epoch-12_step-000090.ckpt"
    project.make(
        {
            f"ocr/checkpoints/{old}": 9,
            "ocr/checkpoints/last.ckpt": f"-> {old}",
            "last.ckpt": f"-> ocr/checkpoints/{old}",
        }
    )
    (project.outputs / "ocr/checkpoints/last_checkpoint").write_text(f"{old}\n")
    for name, kind, leads in (("last.ckpt", "link", "point to"), ("last_checkpoint", "pointer file", "name")):
        rows = [line.split("  rules/")[0].rstrip() for line in project.doit("explain", f"name={name}").splitlines()]
        assert rows[4:6] == [
            f"  stays        a {kind} is never deleted",
            f"               will {leads} {new}, as {old} is renamed",
        ]


def test_the_plan_counts_what_is_left_to_a_person_among_what_stays(project: Project) -> None:
    """It said "0  0 B" of an experiment in which nothing stays but checkpoints that want one name."""
    place = "ocr/checkpoints"
    project.make(
        {f"{place}/epoch=1-step=1.ckpt": 100, f"{place}/epoch_02_step_2.ckpt": 200, f"{place}/epoch=2-step=2.ckpt": 300}
    )
    project.make({f"{place}/epoch=3-step=3.ckpt": 0, f"{place}/best.ckpt": "-> gone.ckpt"})
    out = project.doit("plan", "delete_old=1", check=1)
    assert re.search(r"\nocr +3  +500 B +1  +100 B\n", out), out


def test_all_reasons_are_told_with_what_is_left_of_each_count(project: Project) -> None:
    make(project)
    (project.folder / "rules" / "mine.yaml").write_text(
        "retention:\n  lab:\n    keep_last: 2\n    keep_every_epochs: 6\n    min_epoch: 50\nexperiments: [{match: 'o*', policy: lab}]\n"
    )
    out = project.doit("explain", "name=epoch=12*.ckpt")
    assert "  stays        newest 1 of 2" in out
    assert "               epoch 12 is a multiple of 6" in out
    assert "policy 'lab', for experiments 'o*'" in out
    assert "rules/mine.yaml:6\n" in out
    out = project.doit("explain", "name=epoch_*")
    assert "  goes         not of the newest 2" in out
    assert "               epoch 2 is no multiple of 6" in out
    assert "  to save it   keep_last: 3" in out
    assert "  or           min_epoch: 2" in out


def test_nothing_is_called_so(project: Project) -> None:
    make(project)
    assert project.doit("explain", "name=epoch=12-step=900.ckpt", check=1) == (
        "Nothing is called 'epoch=12-step=900.ckpt'.\n    hint: did you mean 'epoch=12-step=90.ckpt'?\n"
    )
    assert "explain needs a name\n    hint: name='epoch-0*'" in project.doit("explain", check=3)


def test_what_no_layout_covers_is_told_where_nothing_is_called_so(project: Project) -> None:
    project.make({"deep/er/still/weights/epoch=4-step=4.ckpt": 9})
    out = project.doit("explain", "name=epoch=4*", check=1)
    assert out.startswith("Nothing is called 'epoch=4*'.\n    hint: ")
    assert "deep/er/still/weights" in out


def test_the_explanation_as_data(project: Project) -> None:
    make(project)
    project.doit("explain", f"name={OLD}", "json=why.json")
    (row,) = json.loads((project.folder / "why.json").read_text())["explained"]
    assert (row["name"], row["stays"], row["fields"]["epoch"]) == (OLD, False, "02")
    assert row["saves"] == [{"key": "min_epoch", "value": "2", "rule": "rules/retention.yaml:7"}]
    project.doit("plan", "delete_old=1", "json=plan.json", check=1)
    actions = json.loads((project.folder / "plan.json").read_text())["experiments"][0]["actions"]
    assert [a["saves"] for a in actions if a["name"] == OLD] == [row["saves"]]
    assert "min_epoch: 2 would save it" in project.doit("plan", "delete_old=1", "verbose=1", check=1)


def test_the_plan_ends_with_the_order_of_magnitude(project: Project) -> None:
    project.make({f"e{n:02}/checkpoints/epoch={epoch}-step=1.ckpt": 100 * n for n in range(1, 13) for epoch in (1, 12)})
    project.make({"quiet/checkpoints/epoch=12-step=1.ckpt": 1})
    out = project.doit("plan", "delete_old=1")
    table = out[out.index("experiment  stays") : out.index("Summary")].splitlines()
    assert table[0].split() == ["experiment", "stays", "goes"]
    assert table[1].split() == ["e12", "1", "1.2", "KB", "1", "1.2", "KB"]
    assert table[11].split() == ["2", "others", "2", "300", "B", "2", "300", "B"]
    assert table[12] == "The largest that go"
    assert table[13].split() == ["1.2", "KB", "e12/checkpoints/epoch=1-step=1.ckpt"]
    assert len(table) == 13 + 10
    assert "The largest that go" not in project.doit("plan")


def test_a_metric_in_a_name_is_told_once(project: Project) -> None:
    project.make({"ocr/checkpoints/ck_3-val_loss=0.012.pt": 10})
    (project.folder / "rules/mine.yaml").write_text(
        "formats:\n  - {id: ck, match: 'ck_(?P<epoch>\\d+)(?P<metrics>.*)\\.pt', examples: {ck_3.pt: {epoch: 3}}}\n"
    )
    out = project.doit("explain", "name=ck_*")
    assert "\n  fields       val_loss 0.012, epoch 3\n" in out


def test_the_metrics_that_files_tell_are_shown(project: Project) -> None:
    project.make({"ocr/checkpoints/epoch=12-step=90.ckpt": 10, "ocr/checkpoints/epoch=13-step=99.ckpt": 10})
    here = project.outputs / "ocr/checkpoints"
    (here / "epoch=12-step=90.metadata.json").write_text('{"metrics": {"acc": 0.5}}')
    (project.outputs / "ocr/metrics.csv").write_text("step,lr,acc,val_loss,a,b,c\n90,0.1,0.9,0.25,1,2,3\n99,,,0.5,,,\n")
    (project.folder / "rules/facts.yaml").write_text("facts: [{file: ../metrics.csv, by: {step: step}}]\n")
    told = project.folder.parent / "told.json"
    out = project.doit("explain", "name=*.ckpt", f"json={told}")
    assert "\n  metrics      val_loss 0.25, acc 0.5, lr 0.1, a 1, b 2, and 1 more\n" in out
    assert "\n  metrics      val_loss 0.5\n" in out
    first, second = json.loads(told.read_text())["explained"]
    assert first["metrics"] == {"acc": "0.5", "val_loss": "0.25", "lr": "0.1", "a": "1", "b": "2", "c": "3"}
    assert second["metrics"] == {"val_loss": "0.5"}


def test_what_is_wrong_with_a_file_of_facts_is_a_note(project: Project) -> None:
    project.make({"ocr/checkpoints/epoch=12-step=90.ckpt": 10, "ocr/checkpoints/epoch=13-step=99.ckpt": 10})
    (project.outputs / "ocr/best.yaml").write_text("best: [")
    (project.folder / "rules/facts.yaml").write_text("facts: [{file: ../best.yaml, best: best}]\n")
    note = "Note: ../best.yaml is not understood: no YAML: did not find expected node content"
    for command in ("plan", "migrate"):
        assert note in project.doit(command, "verbose=1")


def test_a_name_that_no_rule_knows_gets_a_draft_that_can_be_pasted(project: Project) -> None:
    project.make({"exp/checkpoints/net-40.npz": 9, "exp/checkpoints/net-7.npz": 9})
    out = project.doit("explain", "name=net-40.npz")
    lines = out.partition("'doit check' tests them:\n")[2].splitlines()
    assert lines[0] == "    formats:"
    (project.folder / "rules" / "mine.yaml").write_text("\n".join(line[4:] for line in lines) + "\n")
    project.doit("check")
    assert "format 'net'" in project.doit("explain", "name=net-40.npz")


def test_the_pack_that_knows_a_name_is_named_with_its_evidence(project: Project) -> None:
    (project.folder / "rules" / "mine.yaml").write_text("packs: [huggingface]\n")
    project.make({"exp/checkpoints/checkpoint-5/trainer_state.json": 9})
    out = project.doit("explain", "name=checkpoint-5")
    assert "pack         huggingface, known by checkpoint-*/trainer_state.json" in out


def test_a_few_of_what_is_explained_are_opened_to_see_the_numbers_inside(project: Project) -> None:
    for epoch, inside in ((1, 1), (2, 3), (3, 9), (4, 4)):
        put(project, f"epoch-0{epoch}_step-000040.ckpt", lightning(inside, 40))
    rows = [line.strip() for line in project.doit("explain", "name=*.ckpt").splitlines() if "  inside" in line]
    assert rows == [
        "inside       epoch 1, step 40, as its name says",
        "inside       epoch 9, step 40, NOT as its name says",
        "inside       epoch 4, step 40, as its name says",
    ]


def test_a_plan_tells_of_a_name_that_misleads_once_verify_has_found_it(project: Project) -> None:
    for epoch, inside in ((1, 1), (2, 99), (3, 3), (4, 4)):
        put(project, f"epoch-0{epoch}_step-000040.ckpt", lightning(inside, 40))
    (project.folder / "rules" / "mine.yaml").write_text("retention: {mine: {keep_last: 2}}\n")
    assert "misleads" not in project.doit("plan", "delete_old=1", "policy=mine")  # a plan opens none
    project.doit("verify", check=1)
    told = "Note: a name misleads: epoch-02_step-000040.ckpt says epoch 2 and holds 99, as verify found"
    assert told in project.doit("plan", "delete_old=1", "policy=mine")
    assert "misleads" not in project.doit("plan", "policy=mine")
    assert told in project.doit("migrate", "delete_old=1", "policy=mine")


EXPLAINED = {
    "checkpoint-1": ("format 'huggingface/trainer'", "huggingface.yaml", "checkpoint-*/trainer_state.json"),
    "model.safetensors": ("no checkpoint: 'model.safetensors'", "huggingface.yaml", "checkpoint-*/trainer_state.json"),
    "best_acc_epoch_3.pth": ("protected by 'best_*.pth'", "mmengine.yaml", "last_checkpoint, best_*_epoch_[0-9]*.pth"),
    # every pack asks it, and the one that says so itself is named
    "last_checkpoint": (
        "names checkpoints: 'last_checkpoint'",
        "mmengine.yaml",
        "last_checkpoint, best_*_epoch_[0-9]*.pth",
    ),
}


def test_a_pack_is_named_with_its_line_and_the_evidence_whatever_it_says_of_a_name(project: Project) -> None:
    for path in (project.folder / "rules").glob("*.yaml"):
        path.unlink()
    rules = "packs: [huggingface, mmengine]\nlayout: ['*']\nretention: {default: {keep: all}}\n"
    (project.folder / "rules" / "mine.yaml").write_text(rules)
    project.make({f"run/{name}": 9 for name in EXPLAINED if name != "checkpoint-1"})
    project.make({"run/checkpoint-1/trainer_state.json": 9, "run/epoch_3.pth": 9})
    blocks = project.doit("explain", "name=*").split("\n\n")[1:]
    for name, (why, file, evidence) in EXPLAINED.items():
        (block,) = [one for one in blocks if one.startswith(f"run/{name}\n")]
        assert re.search(rf"named by +{re.escape(why)} +packs/{re.escape(file)}:\d+\n", block)
        assert re.search(rf"pack +{file.partition('.')[0]}, known by {re.escape(evidence)}", block)


def test_no_name_is_looked_for_among_all_others(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each name went through all rows of the plan: 11,000 of 20,000 took fifty seconds."""
    project.make({f"exp/checkpoints/epoch={number}-step={number}.ckpt": 5 for number in range(100)})
    real, asked = vars(Action)["names"].fget, list[str]()

    def names(action: Action) -> tuple[str, ...]:
        asked.append(action.name)
        found: tuple[str, ...] = real(action)
        return found

    monkeypatch.setattr(Action, "names", property(names))
    session = Session(read_command_line(["explain"]), {})
    place, rules = str(project.outputs), str(project.folder / "rules")
    options = explain.Options(outputs_dir=place, rules_dir=rules, name="epoch=*")
    assert explain.prepare(session, options).work().text.count("exp/checkpoints/epoch=") == 100
    assert len(asked) < 1000
