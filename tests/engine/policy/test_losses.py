"""What a policy takes that a person may miss is told in the plan, and by the run."""

from __future__ import annotations

import json
import os
import re
from typing import NamedTuple

import pytest

from ckptrules.engine.checkpoints import Checkpoint
from ckptrules.engine.entries import Entry
from ckptrules.engine.policy.lines.keep_best import shortened
from ckptrules.engine.policy.losses import losses
from ckptrules.engine.ruleset import Location, Policy, Reason
from tests.conftest import Project, by_experiment


class Case(NamedTuple):
    """Names (with a sidecar's JSON, or nothing), a policy, and the notes that are wanted; no others of their kind."""

    names: dict[str, str]
    notes: tuple[str, ...] = ()
    policy: str = "{min_epoch: 10}"


def named(metric: str, *values: str, first: int = 1) -> dict[str, str]:
    return {f"epoch-{n:02}_step-{n:06}_{metric}-{v}.ckpt": "" for n, v in enumerate(values, start=first)}


def beside(key: str, *values: float, first: int = 1) -> dict[str, str]:
    return {f"epoch-{n:02}_step-{n:06}.ckpt": json.dumps({key: v}) for n, v in enumerate(values, start=first)}


def fill(project: Project, experiment: str, names: dict[str, str]) -> None:
    for file, sidecar in names.items():
        project.make({f"{experiment}/checkpoints/{file}" + "model.pt" * file.endswith("/"): 9})
        if sidecar:
            path = project.outputs / f"{experiment}/checkpoints" / file.replace(".ckpt", ".metadata.json")
            path.write_text(sidecar)


STEPS = r"""
formats:
  - id: steps
    match: '(?P<run>\w+)-step=(?P<step>\d+)(?:-(?P<metric>val_loss)=(?P<value>[\d.]+))?(?:-rank(?P<part>\d+))?\.pt'
    examples: {a-step=1-rank0.pt: {run: a, step: 1, part: 0}}
"""
SIX = named("hmean", "0.10", "0.91", "0.20", "0.30", "0.40", "0.50")
LAST = {"last.ckpt": ""}
BEST_GOES = "the best by hmean (0.91), epoch-02_step-000002_hmean-0.91.ckpt, goes"
CASES = {
    "a short run with the shipped default": Case(SIX, (BEST_GOES, "all but one of 6 checkpoints go"), ""),
    "a short run beside last.ckpt": Case({**SIX, **LAST}, (BEST_GOES, "all of 6 checkpoints go"), ""),
    "the best stays under a protected name": Case({**SIX, "best-hmean-0.91.ckpt": ""}, ("all of 6 checkpoints go",), ""),
    "a protected name tells a worse one": Case({**SIX, "best-hmean-0.5.ckpt": ""}, (BEST_GOES, "all of 6 checkpoints go"), ""),
    "a loss is best where it is low": Case(
        named("val_loss", "0.10", "0.90", "0.50", first=9), ("the best by val_loss (0.10), epoch-09",)
    ),
    "the worst by a loss is no loss": Case(named("val_loss", "0.90", "0.10", "0.20", first=9)),
    "a metric that nobody knows, the highest": Case(named("foo", "0.9", "0.1", "0.5", first=9), ("the highest foo (0.9)",)),
    "a metric that nobody knows, the lowest": Case(named("foo", "0.1", "0.9", "0.5", first=9), ("the lowest foo (0.1)",)),
    "a metric in a sidecar": Case(beside("accuracy", 0.9, 0.1, 0.5, first=9), ("the best by accuracy (0.9)",)),
    "a number in a sidecar that is no metric": Case(beside("learning_rate", 0.9, 0.1, 0.5, first=9)),
    "one that stays is as good": Case(named("hmean", "0.90", "0.10", "0.90", first=9)),
    "nan is never the best": Case(beside("accuracy", float("nan"), 0.1, 0.5, first=9)),
    "keep_best says which end is the best": Case(
        named("foo", "0.9", "0.1", "0.5", "0.6"), (), "{keep_best: {metric: foo, mode: max, count: 2}}"
    ),
    "keep_best takes the highest loss for the best": Case(
        named("val_loss", "0.5", "0.1", "0.9", "0.6"), ("the lowest val_loss (0.1; keep_best has mode: max), epoch-02",),
        "{keep_best: {metric: val_loss, mode: max, count: 2}}",
    ),
    "three of which one stays": Case(beside("x", 1, 2, 3), ("all but one of 3 checkpoints go",), "{keep_last: 1}"),
    "two of which one stays": Case(beside("x", 1, 2), (), "{keep_last: 1}"),
    "four of which two stay": Case(beside("x", 1, 2, 3, 4), (), "{keep_last: 2}"),
    "nothing goes": Case(SIX, (), "{keep: all}"),
    "three directories": Case({f"epoch-0{n}_step-000001.ckpt/": "" for n in (1, 2, 3)}, ("all but one of 3",)),
    "two runs in one directory, of which one loses nothing": Case(
        {f"a-step={n}.pt": "" for n in (1, 2, 3)} | {"b-step=1.pt": ""}, ("all but one of 3 checkpoints of a go",), "{keep_last: 1}"
    ),
    "two runs of two": Case({f"{run}-step={n}.pt": "" for n in (1, 2) for run in "ab"}, (), "{keep_last: 1}"),
    "the best of one run is not that of the other": Case(
        {f"{run}-step={n}-val_loss={v}.pt": "" for run, n, v in [("a", 1, 0.3), ("a", 2, 0.4), ("b", 1, 0.1), ("b", 2, 0.05)]},
        ("the best by val_loss (0.3), a-step=1-val_loss=0.3.pt, goes",), "{keep_last: 1}",
    ),
    "steps beside epochs": Case(
        {f"epoch-0{n}_step-000001.ckpt": "" for n in (1, 2, 3)} | {f"x-step={n}.pt": "" for n in (1, 2, 3, 4)},
        ("all but one of 3 checkpoints named by epoch go", "all but one of 4 checkpoints of x go"), "{keep_last: 1}",
    ),
    "files of one checkpoint": Case({f"x-step={n}-rank{r}.pt": "" for n in (1, 2) for r in range(4)}, (), "{keep_last: 1}"),
    "legacy names": Case({f"epoch={n}-step=1.ckpt": "" for n in (1, 2, 3)}, ("all but one of 3",)),
}  # fmt: skip


@pytest.mark.parametrize("policy", sorted({case.policy for case in CASES.values()}))
def test_what_may_be_missed_is_told_before_and_when_it_goes(project: Project, policy: str) -> None:
    cases = {name: case for name, case in CASES.items() if case.policy == policy}
    arrange(project, cases, policy)
    arguments = ("delete_old=1", *(["policy=mine"] if policy else []))
    for command in ("plan", "migrate"):
        told = by_experiment(project.doit(command, *arguments))
        for name, case in cases.items():
            notes = [line for line in told.get(name, "").splitlines() if line.startswith("  * Note: ")]
            assert len(notes) == len(case.notes), (name, notes)
            assert all(any(note in line for line in notes) for note in case.notes), (name, notes)


@pytest.mark.parametrize("policy", sorted({case.policy for case in CASES.values() if case.notes}))
def test_by_which_metrics_the_best_goes_is_told_programs_as_well(project: Project, policy: str) -> None:
    cases = {name: case for name, case in CASES.items() if case.policy == policy}
    arrange(project, cases, policy or "{min_epoch: 10}")
    project.doit("plan", "delete_old=1", "policy=mine", "json=plan.json")
    plans = {one["experiment"]: one for one in json.loads((project.folder / "plan.json").read_text())["experiments"]}
    for name, case in cases.items():
        assert plans[name]["best_goes"] == re.findall(r"the best by (\w+) \(", " ".join(case.notes)), name


def arrange(project: Project, cases: dict[str, Case], policy: str) -> None:
    """Make an experiment of each case."""
    (project.folder / "rules" / "steps.yaml").write_text(STEPS)
    if policy:
        (project.folder / "rules" / "mine.yaml").write_text(f"retention:\n  mine: {policy}\n")
    for name, case in cases.items():
        fill(project, name, case.names)


@pytest.mark.parametrize(
    ("last", "policy", "is_told"),
    [
        (2, "{min_epoch: 10}", True),
        (2, "{keep_best: {metric: hmean, mode: max, count: 1}}", True),
        (2, "{keep_last: 1}", False),
        (11, "{min_epoch: 10}", False),
    ],
)
def test_that_what_was_written_last_goes_is_told(project: Project, last: int, policy: str, *, is_told: bool) -> None:
    """A run that begins again counts from the start, and lost each checkpoint that it wrote, without a word."""
    (project.folder / "rules" / "mine.yaml").write_text(f"retention:\n  mine: {policy}\n")
    for epoch in (1, 2, 10, 11):
        name = f"exp/checkpoints/epoch-{epoch:02}_step-000001_hmean-0.{epoch:02}.ckpt"
        project.make({name: 9})
        time = 1_700_000_000 + (1000 if epoch == last else epoch)
        os.utime(project.outputs / name, (time, time))
    told = f"epoch-{last:02}_step-000001_hmean-0.{last:02}.ckpt, written last, goes: "
    assert (told in project.doit("plan", "delete_old=1", "policy=mine")) == is_told


def test_without_delete_old_nothing_is_said(project: Project) -> None:
    project.make({f"exp/checkpoints/{name}": 9 for name in SIX})
    assert "Note" not in project.doit("plan")


NO_METRIC = {"epoch-01_step-000001.ckpt": "", "epoch-02_step-000002.ckpt": ""}


@pytest.mark.parametrize(
    ("more", "policy", "said"),
    [
        ({}, "{keep_last: 1}", True),
        ({"last.ckpt": ""}, "{keep_last: 1}", True),
        ({"best.ckpt": ""}, "{keep_last: 1}", False),
        ({"best-hmean-0.5.ckpt": ""}, "{keep_last: 1}", False),
        ({}, "{keep_last: 2}", False),
        ({}, "{keep_last: 1, keep_best: {metric: hmean, mode: max, count: 1}}", False),
        (named("hmean", "0.1", first=3), "{keep_last: 1}", False),
        (beside("accuracy", 0.5, first=3), "{keep_last: 1}", False),
        (beside("learning_rate", 0.5, first=3), "{keep_last: 1}", True),
    ],
)
def test_a_plan_says_once_where_nothing_tells_the_best(
    project: Project,
    more: dict[str, str],
    policy: str,
    said: bool,  # noqa: FBT001 - a table
) -> None:
    (project.folder / "rules" / "mine.yaml").write_text(f"retention:\n  mine: {policy}\n")
    for experiment in ("a", "b"):
        fill(project, experiment, {**NO_METRIC, **more})
    asked = ("plan", "delete_old=1", "policy=mine")
    out = project.doit(*asked)
    assert out.count("\nNo metric is known of 2 experiments, so no best is kept.\n    hint: ") == said, out
    assert out.count("No metric is known") == said
    if said:
        told = re.search(r"pin the best: '(doit pin name=\S+)' \(only an example\)$", out, re.MULTILINE)
        assert told
        project.doit(*told[1].split()[1:])
        assert "No metric is known of 1 experiment, so" in project.doit(*asked)


@pytest.mark.parametrize(
    ("texts", "shown"),
    [
        ("0.2602260112762451 0.3", "0.260226 0.3"),
        ("0.2602260112762451 0.2602260112762452", "0.2602260112762451 0.2602260112762452"),
        ("0.2602260112762451 0.260226", "0.2602260112762451 0.260226"),
        ("0.10 nan inf 12 -0.000001234567891", "0.10 nan inf 12 -1.23457e-06"),
        ("1234567.25 12345678 0.123456", "1234567.25 12345678 0.123456"),
    ],
)
def test_people_read_six_digits_and_all_where_two_would_look_the_same(texts: str, shown: str) -> None:
    assert list(shortened(texts.split()).values()) == shown.split()


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ((2000, 2000, 100), "(100 B at most, of 2 KB or more)"),
        ((2000, 1000, 899), "(899 B at most, of 1 KB or more)"),
        ((2000, 1000, 900), ""),
        ((100, 100, 2000), ""),
        ((100, 2000, 1000), ""),
    ],
)
def test_where_all_that_stays_is_smaller_than_what_goes_that_is_told(
    project: Project, sizes: tuple[int, ...], told: str
) -> None:
    project.make({f"exp/checkpoints/epoch-1{n}_step-00000{n}.ckpt": size for n, size in enumerate(sizes)})
    out = project.doit("plan", "delete_old=1", "keep_last=1")
    note = f"* Note: all that stays is smaller than what goes {told}: is it whole?\n"
    assert (note in out) == bool(told), out
    assert ("is smaller than" in out) == bool(told), out


def test_no_checkpoint_is_compared_with_all_others() -> None:
    """Those that go were looked for among those that stay: 20,000 in one directory took seven seconds of nine."""

    class Apart(Checkpoint):
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            raise AssertionError

    names = [f"e{number}" for number in range(6)]
    series = [Apart(Entry(name, "file", 9, 0), {"epoch": name[1:]}, name, Reason("")) for name in names]
    place = Location("x.yaml", 1, 1)
    assert losses(Policy("p", (), 1, place, place), series, [], names[:3]).notes == ()
