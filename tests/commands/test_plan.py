"""`doit plan`: formats that it drafts for names that no rule reads, and policies as the options change them."""

from __future__ import annotations

import json
import os
import re

import pytest

from tests.conftest import Project

DRAFTED = r"""problems     0
Some names look like checkpoints, and no rule reads them. These lines in a file
of rules/ would; 'doit check' tests them:
    formats:
      - id: model                    # 4 names
        match: '(?P<run>model)\.ep(?P<epoch>\d+)\.it(?P<step>\d+)\.ckpt'
        examples: {'model.ep1.it100.ckpt': {epoch: 1, step: 100}}
      - id: net                      # 2 names
        match: '(?P<run>net-)(?P<number>\d+)\.npz'
        examples: {'net-1.npz': {number: 1}}
      - id: iter                     # 1 name
        match: 'iter_(?P<step>\d+)'
        folder: true
        examples: {'iter_500': {step: 500}}
    and 2 further kinds of names (verbose=1 drafts them)
The highest <number> is taken for the newest: leave out a kind whose number tells
models or trainings apart.
"""


def test_each_kind_of_name_is_drafted_once_and_no_more_than_three(project: Project) -> None:
    names = ("model.ep1.it100.ckpt", "model.ep2.it200.ckpt")
    project.make({f"{exp}/checkpoints/{name}": 5 for exp in ("a", "b") for name in names})
    project.make({f"a/checkpoints/{name}": 5 for name in ("net-1.npz", "iter_500/x", "model_step_5.pt", "x [b]7.pt")})
    project.make({"b/checkpoints/net-2.npz": 5, "b/checkpoints/epoch-03_step-000100.ckpt": 5, "b/checkpoints/f.pt": 5})
    out = project.doit("plan")
    assert out.endswith(DRAFTED)
    assert project.doit("migrate", "dry_run=1").endswith(DRAFTED)
    assert "'model_step_5.pt': {step: 5}" in project.doit("plan", "verbose=1").rpartition("tests them:\n")[2]
    assert "no rule reads" not in project.doit("migrate")
    lines = re.findall(r"^    (formats:|  .*)$", out.partition("tests them:\n")[2], re.MULTILINE)
    (project.folder / "rules/mine.yaml").write_text("\n".join([*lines, ""]))
    assert "net " in project.doit("check")
    out = project.doit("plan")
    assert re.findall(r"Skipped: (.*) \(", out) == ["model_step_5.pt", "x [b]7.pt", "f.pt"]
    assert "- id: model                    # 1 name\n" in out


def test_why_names_have_no_draft_is_said_once_for_each_reason(project: Project) -> None:
    names = ("D_10k.pth", "D_20k.pth", "G_10k.pth", "ckpt-2026-11-28_13-01-00.pt", "final.pt")
    project.make({f"a/checkpoints/{name}": 5 for name in names})
    out = project.doit("plan", check=1)
    assert "\nNo format is drafted for D_10k.pth and 1 further kind:\n    a number with a unit" in out
    assert "\nNo format is drafted for ckpt-2026-11-28_13-01-00.pt:\n    a format of yours can read a date" in out
    assert out.count("No format is drafted") == 2


def test_all_kinds_that_are_saved_together_are_drafted(project: Project) -> None:
    """A fourth had no draft: with the lines for the first three, these went, and it stayed alone."""
    names = [f"{net}_{number}.pth" for net in ("G", "D", "E", "opt") for number in (10, 20, 30)]
    project.make({f"a/checkpoints/{name}": 5 for name in [*names, "other-1.npz"]})
    lines = re.findall(
        r"^    (formats:|  .*)$", project.doit("plan", check=1).partition("tests them:\n")[2], re.MULTILINE
    )
    assert sum("- id:" in line for line in lines) == 4
    (project.folder / "rules/mine.yaml").write_text("\n".join([*lines, ""]))
    project.doit("migrate", "delete_old=1", "keep_last=1")
    assert project.names("a") == ["D_30.pth", "E_30.pth", "G_30.pth", "opt_30.pth", "other-1.npz"]


def test_of_many_names_that_no_rule_fits_the_first_are_shown(project: Project) -> None:
    project.make({f"{exp}/checkpoints/{n:02}k.pt": 5 for exp, most in (("few", 20), ("many", 24)) for n in range(most)})
    project.make({"few/checkpoints/epoch-03_step-000100.ckpt": 5})
    few, many = project.doit("plan").partition("Processing experiment: many\n")[::2]
    assert few.count("? Skipped: ") == 20
    assert many.partition("Summary")[0] == (
        "".join(f"  ? Skipped: {n:02}k.pt (unable to parse: no rule fits the whole name)\n" for n in range(18))
        + "  ? Skipped: 6 more (verbose=1 names them)\n"
    )
    assert project.doit("plan:many", "verbose=1", check=1).count("? Skipped: ") == 24


def test_what_goes_is_named_once_where_it_is_little(project: Project) -> None:
    project.make({f"a/checkpoints/epoch-{n:02}_step-000100.ckpt": 5 for n in range(12)})
    assert "The largest" not in project.doit("plan", "delete_old=1")
    assert "The largest" in project.doit("page")
    project.make({f"a/checkpoints/epoch-0{n}_step-000200.ckpt": 5 for n in range(2)})
    assert "The largest" in project.doit("plan", "delete_old=1")


def test_text_overview_and_json_draft_the_same(project: Project) -> None:
    """A kind that goes on behind its number has no draft: the overview counted one, the text left out the run."""
    project.make({f"exp/checkpoints/a_ep{number}{end}.pt": 5 for number in (5, 6) for end in ("", "_swa")})
    assert "1 needs you" in project.doit("plan", "summary=1", check=1).partition("\n")[0]
    out = project.doit("plan", "json=plan.json", check=1).partition("tests them:\n")[2]
    lines = out.partition("No format is drafted for a_ep5_swa.pt:")[0].splitlines()
    data = json.loads((project.folder / "plan.json").read_text())
    (draft,) = {row["draft"] for row in data["experiments"][0]["skipped"] if row["draft"]}
    assert [line.partition(" #")[0].strip() for line in lines] == [line.strip() for line in draft.splitlines()]


@pytest.mark.parametrize(
    ("paper", "goes_there"),
    [("{min_epoch: 5}", {0}), ("{min_epoch: 12}", {0, 7}), ("{keep: all}", set()), ("{keep_last: 1}", {0, 7})],
)
def test_a_higher_minimum_is_for_the_policy_of_the_run_alone(
    project: Project, paper: str, goes_there: set[int]
) -> None:
    """An assigned policy keeps what it kept; what the option keeps stays there as well."""
    policies = f"retention: {{default: {{min_epoch: 1}}, paper: {paper}}}"
    (project.folder / "rules/retention.yaml").write_text(f"{policies}\nexperiments: [{{match: b, policy: paper}}]\n")
    names = [f"epoch-{epoch:02}_step-000100.ckpt" for epoch in (0, 7, 10, 20)]
    project.make({f"{experiment}/checkpoints/{name}": 5 for experiment in "ab" for name in names})
    project.doit("plan", "delete_old=1", "keep_min_epoch=10", "json=plan.json")
    plan = json.loads((project.folder / "plan.json").read_text())
    goes = {
        one["experiment"]: {int(action["name"][6:8]) for action in one["actions"] if action["action"] == "trash"}
        for one in plan["experiments"]
    }
    assert goes == {"a": {0, 7}, "b": goes_there}


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("latest", "epoch-04_step-000400.ckpt\n", "epoch-04_step-000400.ckpt"),
        ("latest", "/home/me/run/epoch-04_step-000400.ckpt", "epoch-04_step-000400.ckpt"),
        ("latest_checkpointed_iteration.txt", "400", "400"),
        ("latest_checkpointed_iteration.txt", "100", ""),
        ("latest_checkpointed_iteration.txt", "1e2", "1e2"),
        ("latest_checkpointed_iteration.txt", "1.000000000000000000e+02\n", "1.000000000000000000e+02"),  # of savetxt
        ("latest_checkpointed_iteration.txt", "+100", "+100"),
        ("latest_checkpointed_iteration.txt", "release", ""),
        ("latest", "", ""),
        ("latest", "400 401", ""),
    ],
)
def test_a_tracker_that_names_what_is_gone_is_told(project: Project, name: str, content: str, told: str) -> None:
    """It protected nothing, and nobody was told; training would not find what it names either."""
    (project.folder / "rules/pointers.yaml").write_text("pointers: [latest, 'latest_*.txt']\n")
    project.make({f"a/checkpoints/{n}": 5 for n in ("epoch-01_step-000100.ckpt", "epoch=2-step=200.ckpt")})
    (project.outputs / "a/checkpoints" / name).write_text(content)
    notes = re.findall(r"Note: (.*)", project.doit("plan"))
    assert notes == [f"{name} names {told}: nothing beside it is called so"] * bool(told)


def test_a_sidecar_of_one_part_counts_before_facts_of_the_others(project: Project) -> None:
    (project.folder / "rules/mine.yaml").write_text(
        "sidecars: [.json]\n"
        "facts: [{file: log.jsonl, by: {step: step}}]\n"
        "retention: {mine: {keep_best: {metric: acc, mode: max, count: 1}}}\n"
        "formats:\n"
        "  - {id: shards, match: 'ck_(?P<step>\\d+)-(?P<part>\\d)\\.pt', examples: {ck_5-0.pt: {step: 5, part: 0}}}\n"
    )
    project.make({f"a/checkpoints/ck_{step}-{part}.pt": 5 for step in (1, 2, 3) for part in (0, 1)})
    there = project.outputs / "a/checkpoints"
    (there / "ck_1-0.json").write_text('{"acc": 0.9}')
    (there / "log.jsonl").write_text("".join(f'{{"step": {step}, "acc": 0.{step}}}\n' for step in (1, 2, 3)))
    project.doit("plan", "delete_old=1", "policy=mine", "json=plan.json")
    rows = json.loads((project.folder / "plan.json").read_text())["experiments"][0]["checkpoints"]
    assert {row["name"]: (row["state"], row["metrics"]["acc"]) for row in rows} == {
        "ck_1-0.pt": ("stays", 0.9),
        "ck_2-0.pt": ("goes", 0.2),
        "ck_3-0.pt": ("stays", 0.3),
    }


@pytest.mark.parametrize("line", ["budget: {total: 20B, order: [{metric: acc, mode: max}]}", ""])
def test_what_goes_by_the_whole_tree_goes_by_sidecars_and_ranks_what_tells_a_time(project: Project, line: str) -> None:
    across = "keep: protected" if line else "keep_best: {metric: acc, mode: max, count: 2, across: '*'}"
    (project.folder / "rules/mine.yaml").write_text(
        f"sidecars: [.json]\nretention: {{mine: {{{across}}}}}\n{line}\n"
        "formats:\n"
        "  - {id: at, match: 'at_(?P<timestamp>\\d{8}_\\d{6})\\.pt', examples: {at_20260102_030405.pt: {epoch: null}}}\n"
    )
    for day, acc in ((1, 0.5), (2, 0.9), (3, 0.1), (4, 0.8), (5, 0.2)):
        project.make({f"a/checkpoints/at_2026010{day}_000000.pt": 5})
        os.utime(project.outputs / f"a/checkpoints/at_2026010{day}_000000.pt", (10**9 + day, 10**9 + day))
        (project.outputs / f"a/checkpoints/at_2026010{day}_000000.json").write_text(json.dumps({"acc": acc}))
    project.doit("plan", "delete_old=1", "policy=mine", "json=plan.json")
    rows = json.loads((project.folder / "plan.json").read_text())["experiments"][0]["checkpoints"]
    stays = [row["name"][10] for row in rows if row["state"] == "stays"]
    assert stays == (["1", "2", "4", "5"] if line else ["2", "4", "5"])


@pytest.mark.parametrize(
    ("order", "tells"), [("[{metric: acc, mode: max}, oldest]", True), ("[{metric: acc, mode: max}]", False)]
)
def test_a_rename_that_drops_what_the_budget_judges_by_is_told(project: Project, order: str, *, tells: bool) -> None:
    """After it, the best went by its age, and nothing had told of that."""
    (project.folder / "rules/mine.yaml").write_text(
        f"budget: {{total: 25B, order: {order}}}\nlegacy:\n"
        "  - {id: a, match: 'e(?P<epoch>\\d)s(?P<step>\\d)(_acc(?P<acc>[\\d.]+))?\\.pt', examples: {e1s1_acc0.5.pt: epoch-01_step-000001.ckpt}}\n"
    )
    project.make({f"a/checkpoints/e{n}s{n}_acc0.{n}.pt": 5 for n in (1, 2, 3)} | {"a/checkpoints/e4s4.pt": 5})
    said = "epoch-01_step-000001.ckpt will not tell acc, as e1s1_acc0.1.pt does, nor will 2 more"
    for words in ([], ["delete_old=1", "policy=keep_all"]):
        assert (said in project.doit("plan", *words)) == tells
    project.doit("migrate")
    assert "will not tell" not in project.doit("plan", "delete_old=1")
