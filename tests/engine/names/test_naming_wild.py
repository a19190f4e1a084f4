"""Real names from the wild: each is renamed rightly, or left alone with a reason. None is half understood."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from ckptrules.engine.entries import Entry, Listing
from ckptrules.engine.names.naming import claim, fits
from ckptrules.engine.plan import make_plan
from ckptrules.engine.ruleset import Location, Rule
from ckptrules.rules.load import load_rules
from tests.conftest import ROOT
from tests.support.tables import every

RULES = load_rules({path.name: path.read_text(encoding="utf-8") for path in (ROOT / "rules").glob("*.yaml")})
WILD = [
    line.split("\t")[0].rpartition("/")[2]
    for line in (ROOT / "tests/cases/wild_names.tsv").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]
RENAMED = {
    "epoch=0-step=90000.ckpt": "epoch-00_step-090000.ckpt",
    "epoch=1-step=20.ckpt": "epoch-01_step-000020.ckpt",
    "epoch=1521-step=35000.ckpt": "epoch-1521_step-035000.ckpt",
    "epoch=19-step=86400.ckpt": "epoch-19_step-086400.ckpt",
    "epoch=29-step=420.ckpt": "epoch-29_step-000420.ckpt",
    "epoch=49-step=699.ckpt": "epoch-49_step-000699.ckpt",
    "epoch=50-step=12345.ckpt": "epoch-50_step-012345.ckpt",
    "epoch=9-step=499.ckpt": "epoch-09_step-000499.ckpt",
}
PROTECTED = [
    "best-checkpoint (1).ckpt",
    "best-checkpoint-v8.ckpt",
    "best-fasterrcnn-v2.ckpt",
    "best-states-dev.ckpt",
    "best-v2.ckpt",
    "last.ckpt",
]
IGNORED = ["step-000004000.ckpt.tmp"]
VALID = [
    "epoch_epoch_22_step_step_001932_20251009_015037.ckpt",
    "epoch_09_step_002730.ckpt",
    "epoch=67-step=18564.ckpt",
    "epoch-22_step-001932.ckpt",
]
DAMAGE: dict[str, Callable[[str], str]] = {
    "prefix": lambda name: f"model-{name}",
    "suffix": lambda name: f"{name}.bak",
    "version": lambda name: name.replace(".ckpt", "-v1.ckpt"),
    "best": lambda name: name.replace(".ckpt", "_best.ckpt"),
    "copy": lambda name: name.replace(".ckpt", " (1).ckpt"),
    "newline": lambda name: f"{name}\n",
    "leading dash": lambda name: f"-{name}",
    "upper case": lambda name: name.upper(),
    "arabic digits": lambda name: name.replace("2", "٢").replace("6", "٦").replace("9", "٩"),
    "scientific": lambda name: name.replace("step", "step1e"),
    "negative": lambda name: name.replace("step", "step-", 1) if "=" not in name else name.replace("=", "=-"),
    "other extension": lambda name: name.replace(".ckpt", ".pt"),
    "encoded": lambda name: name.replace("=", "%3D").replace("_", "%5F"),
    "number behind": lambda name: f"{name}-40",
    "doubled key": lambda name: name.replace("step", "step_step=step", 1),
    "doubled name": lambda name: name + name,
    "half written": lambda name: f"{name}.tmp",
    "sidecar": lambda name: f"._{name}",
    "full width digits": lambda name: name.translate({ord("0") + digit: 0xFF10 + digit for digit in range(10)}),
    "superscript": lambda name: name.replace("2", "²").replace("8", "⁸"),
    "not a number": lambda name: re.sub(r"\d+(?=\.ckpt)", "nan", name),
    "fraction": lambda name: re.sub(r"(\d+)(?=\.ckpt)", r"\1.0", name),
    "without an epoch": lambda name: re.sub(r"\d+", "", name, count=1),
}
FOREIGN = "-_=.,:;+%() \t\n\r\0xeE٣²\u200b\udcff"


def test_every_wild_name_is_renamed_rightly_or_left_alone_with_a_reason() -> None:
    entries = tuple(Entry(name, "file", 1, 0) for name in dict.fromkeys(WILD))
    plan = make_plan(RULES, Listing("wild", "wild", entries))
    assert {action.name: action.to for action in plan.actions} == RENAMED
    assert [row.name for row in plan.kept] == PROTECTED
    assert [row.name for row in plan.skipped if row.kind == "ignored"] == IGNORED
    assert not plan.problems
    rest = set(WILD) - set(RENAMED) - set(PROTECTED) - set(IGNORED)
    assert {row.name for row in plan.skipped if row.kind == "unrecognised"} == rest
    assert all(row.reason.text for row in plan.skipped)


@every([(name, damaged) for name in VALID for damage in DAMAGE.values() if (damaged := damage(name)) != name])
def test_a_name_that_is_only_nearly_in_a_format_is_not_claimed(row: tuple[str, str]) -> None:
    name, damaged = row
    assert claim(name, RULES).kind in ("legacy", "target")
    assert claim(damaged, RULES).kind in ("unrecognised", "ignored")


@pytest.mark.parametrize("name", VALID)
def test_a_character_more_or_less_anywhere_makes_it_another_name(name: str) -> None:
    more = [name[:at] + character + name[at:] for at in range(len(name) + 1) for character in FOREIGN]
    less = [name[:at] + name[at + 1 :] for at, character in enumerate(name) if not character.isdigit()]
    assert [damaged for damaged in more + less if claim(damaged, RULES).kind in ("legacy", "target")] == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("val_loss=0.02_acc=0.9", {"val_loss": "0.02", "acc": "0.9"}),
        ("val_loss=-1.5e-05-acc=nan_top1=inf", {"val_loss": "-1.5e-05", "acc": "nan", "top1": "inf"}),
        ("loss=0.5abc", {}),
        ("loss=1.5e3x", {}),
        ("step=10k", {}),
        ("step=1_000", {}),
        ("version=1.2.3", {}),
    ],
)
def test_a_metric_is_a_whole_number_or_none(text: str, told: dict[str, str]) -> None:
    """What stands behind a number must not cost it a digit: ``0.02_acc`` was read as 0."""
    rule = Rule("any", re.compile("(?P<metrics>.*)"), "", Location("x.yaml", 1, 1))
    assert fits(rule, text) == {"metrics": text, **told}


@pytest.mark.parametrize("pack", ["lightning", "words"])
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("val_loss=0.094-epoch=1.ckpt", {"run": "val_loss-", "val_loss": "0.094", "epoch": "1"}),
        ("a-acc=0.91-loss=1.50-epoch=2.ckpt", {"run": "a-acc-loss-", "acc": "0.91", "loss": "1.50", "epoch": "2"}),
        ("lr=0.001-epoch=1.ckpt", {"run": "lr=0.001-", "epoch": "1"}),
        ("iou=0.5-epoch=1.ckpt", {"run": "iou=0.5-", "epoch": "1"}),  # may be a setting
        ("top_p=0.95-epoch=1.ckpt", {"run": "top_p=0.95-", "epoch": "1"}),
        ("acc_drop=0.95-epoch=1.ckpt", {"run": "acc_drop=0.95-", "epoch": "1"}),
    ],
)
def test_a_metric_before_the_number_is_no_run(pack: str, name: str, fields: dict[str, str]) -> None:
    """Each epoch was a run of its own, so none went, and no best was known."""
    rules = load_rules({"rules/x.yaml": f"packs: [{pack}]"}, proved=True)
    read = claim(name, rules).fields
    assert {key: read[key] for key in read if key != "metrics"} == fields
