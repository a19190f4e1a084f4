"""`ckptrules init`: what it makes of trees, what it writes and what it leaves alone."""

from __future__ import annotations

import errno
import functools
import os
import pickle
import re
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from ckptrules import cli
from ckptrules.commands.demo import sample_checkpoint
from ckptrules.engine.measures import visible_lines
from ckptrules.engine.ruleset import Fault, Location, RuleError, RuleSet
from ckptrules.outputs.find import survey
from ckptrules.report.style import Style, columns
from ckptrules.rules.load import load_rules
from ckptrules.run import init
from ckptrules.run.init import NAMING, RETENTION, Start, begin, read_words, start_of
from ckptrules.run.options import OptionError
from tests.conftest import ROOT, Project, default, run_program


@functools.cache
def compiled(texts: tuple[tuple[str, str], ...], proved: bool) -> RuleSet:  # noqa: FBT001 - part of the key
    return load_rules(dict(texts), proved=proved)


@pytest.fixture(autouse=True)
def _all_packs_are_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at a tree goes by the same rules: those of all packs."""
    monkeypatch.setattr(
        init, "load_rules", lambda texts, *, proved=False: compiled(tuple(sorted(texts.items())), proved)
    )


TREES = yaml.safe_load((ROOT / "tests/cases/trees.yaml").read_text(encoding="utf-8"))


def expanded(text: str) -> Iterator[str]:
    """``a{1..3}`` → a1 a2 a3; ``{a,b}`` → a b."""
    parts = re.split(r"\{([^}]*)\}", text)
    choices = [[part] if place % 2 == 0 else choices_of(part) for place, part in enumerate(parts)]
    yield from ("".join(one) for one in product(*choices))


def choices_of(text: str) -> list[str]:
    first, dots, last = text.partition("..")
    return [str(n) for n in range(int(first), int(last) + 1)] if dots else text.split(",")


def plant(folder: Path, files: str) -> None:
    for word in files.split():
        for path in expanded(word):
            name, has, content = path.rpartition("=")
            if not (has and content.startswith(("@", "{"))):
                name, content = path, "{}" if path.endswith(".json") else "x"
            file = folder / name
            (file if name.endswith("/") else file.parent).mkdir(parents=True, exist_ok=True)
            if content.startswith("@"):
                epoch, step = map(int, content[1:].split(","))
                file.write_bytes(sample_checkpoint(epoch, step, 1500))
            elif not name.endswith("/"):
                file.write_text(content)


def looked(
    folder: Path, monkeypatch: pytest.MonkeyPatch, files: str, words: str = "", home: str = "../elsewhere"
) -> Start:
    plant(folder, files)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder / home))
    return start_of(*read_words(words.split()), Style())


@pytest.mark.parametrize("case", TREES, ids=[case["tree"] for case in TREES])
def test_trees(case: Mapping[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words, code = case.get("init", ""), case.get("code", 0)
    if code == 3:
        with pytest.raises(OptionError):
            looked(tmp_path, monkeypatch, case["files"], words, case["home"])
        return
    start = looked(tmp_path, monkeypatch, case["files"], words)
    written = yaml.safe_load(start.texts[NAMING])
    assert (written.get("packs", []), "target" in written) == (
        case["packs"] or [],
        case.get("protocol", case["packs"] is None),
    )
    assert written["layout"] == case.get("layout", ["*/checkpoints"])
    assert written.get("outputs_dir", "outputs") == case.get("outputs_dir", words or "outputs")
    assert {name for one in start.decisions for name in one.text.split(" or ")} == set(case.get("asked", []))
    assert [one for one in case.get("unknown", []) if f" knows {one}" not in start.report] == []
    assert bool(re.search("no (pack|rule here) knows", start.report)) == ("unknown" in case)
    assert start.understood == (code == 0)
    table = [line for line in start.report.splitlines() if columns(line) > 80]
    assert table == []
    load_rules(start.texts)
    for one in start.decisions:
        line = start.texts[NAMING].splitlines()[one.line - 1]
        assert re.search(r"^  (?:# )?- \w+|^packs:", line)


def test_what_it_cannot_look_into_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = os.scandir

    def deny(path: Any) -> Any:
        if os.path.basename(str(path)) in ("secret", "a", "b", "c"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", deny)
    told = looked(tmp_path, monkeypatch, f"{TRAINER} runs/secret/", "runs").report
    assert "ran none of them.\nNot looked into: secret: Permission denied.\n\nwhat " in told
    told = looked(tmp_path, monkeypatch, "runs/a/ runs/b/ runs/c/", "runs").report
    assert told.count("\nNot looked into: ") == 3
    assert "\nNor 1 further folder.\n" in told


def test_well_known_folders_beside_outputs_are_named_with_the_command_that_covers_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``outputs`` alone was covered, and nobody heard of those that Lightning had written beside it."""
    files = "outputs/a/epoch={1..3}-step={1..3}0.ckpt lightning_logs/version_0/checkpoints/epoch={1..3}-step=10.ckpt"
    (tmp_path / "saved").symlink_to("outputs")
    start = looked(tmp_path, monkeypatch, f"{files} logs/a.txt wandb/run-1/files/epoch=1-step=2.ckpt")
    assert "\nCheckpoints that these rules do not cover lie in lightning_logs, wandb.\n" in start.report
    assert "\nTo cover all: mv rules rules.old && ckptrules init .\n" in start.report
    every = start_of(".", "", Style())
    assert "do not cover" not in every.report
    assert yaml.safe_load(every.texts[NAMING])["layout"] == ["*/*", "*/*/checkpoints", "*/*/*"]


def test_a_home_folder_beside_outputs_is_not_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = "outputs/a/epoch={1..3}-step={1..3}0.ckpt runs/me/epoch=1-step=2.ckpt"
    assert "do not cover" not in looked(tmp_path, monkeypatch, files, home="runs/me").report


def test_outputs_that_nobody_knows_are_not_passed_over_for_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = looked(tmp_path, monkeypatch, "outputs/a/net-{1..3}.npz logs/v/epoch={1..3}-step=10.ckpt")
    assert "no pack knows net-1.npz" in start.report


def test_there_are_forty_trees() -> None:
    assert len(TREES) >= 40


TRAINER = "runs/sft/checkpoint-{500,1000,1500}/trainer_state.json"


def at_work(folder: Path, monkeypatch: pytest.MonkeyPatch, files: str, *words: str) -> tuple[int, str]:
    plant(folder, files)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder / "../elsewhere"))
    code, text, fault = begin(words, "doit", "utf-8")
    assert fault == ""
    return code, text


@pytest.mark.parametrize(
    ("files", "goes"),
    [
        (TRAINER, ["sft/checkpoint-500"]),
        ("runs/lit/version_0/checkpoints/epoch={1..4}-step=40.ckpt runs/lit/version_0/hparams.yaml", ["step=40.ckpt"]),
        (f"{TRAINER} runs/sft/epoch-0{{1..3}}_step-000100.ckpt", ["sft/checkpoint-500", "epoch-01_step-000100.ckpt"]),
        (f"{TRAINER} runs/lit/checkpoints/epoch=1-step=40-val_loss=0.{{1..4}}.ckpt", ["sft/checkpoint-500"]),
    ],
)
def test_init_and_a_plan_are_all_that_it_takes(project: Project, files: str, goes: list[str]) -> None:
    """No edit between the two, and what `init` says would go is what the plan says."""
    (project.folder / "dodo.py").unlink()
    for file in (project.folder / "rules").iterdir():
        file.unlink()
    plant(project.folder, files)
    said = run_program("ckptrules", "init", "runs", folder=project.folder, environment=default())
    assert said[0] == 0, said[1]
    share = re.search(r"(\S+ \S+) of \S+ \S+ would go", " ".join(said[1].split()))
    assert share is not None
    out = project.doit("plan", "delete_old=1")
    assert [one for one in goes if one not in out] == []
    assert f"{share[1]} to the trash" in out
    assert "outputs_dir" not in out
    project.doit("check")
    project.doit("migrate", "delete_old=1")
    assert "to delete   0" in project.doit("plan", "delete_old=1") or "up to date" in project.doit(
        "plan", "delete_old=1"
    )


def test_nothing_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules/naming.yaml").write_text("packs: [lightning]\n")
    (tmp_path / "dodo.py").write_text("def task_mine():\n    return {'actions': []}\n")
    code, text = at_work(tmp_path, monkeypatch, TRAINER, "runs")
    assert code == 1
    assert "rules/naming.yaml is there already: left as it is\n" in text
    assert (tmp_path / "rules/naming.yaml").read_text() == "packs: [lightning]\n"
    assert "To have the commands in your dodo.py, add:\n    from ckptrules.run import doit_config\n" in text
    assert '\n    plan = command("plan", "' in text
    (tmp_path / "dodo.py").write_text("DOIT_CONFIG = {'verbosity': 2}\n")
    assert "\n    DOIT_CONFIG = doit_config(**DOIT_CONFIG)\n" in at_work(tmp_path, monkeypatch, "", "runs")[1]
    (tmp_path / "dodo.py").write_bytes((ROOT / "dodo.py").read_bytes())
    assert "add:" not in at_work(tmp_path, monkeypatch, "", "runs")[1]


def test_rules_that_say_otherwise_are_told_first_and_no_deletion_is_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a first `init` before the first training, say: by them, all checkpoints of others would go."""
    code, text = at_work(tmp_path, monkeypatch, "")
    assert (code, "says otherwise" in text) == (1, False)
    assert text.endswith("\nNext: when there are checkpoints, move rules/ away and run 'ckptrules init FOLDER'\n")
    before = {name: (tmp_path / name).read_bytes() for name in (NAMING, RETENTION)}
    code, text = at_work(tmp_path, monkeypatch, TRAINER)
    assert (code, text.startswith("rules/ is there already and says otherwise; what is there stays.")) == (1, True)
    assert "\n    outputs_dir: 'runs'\n    layout:\n      - '*'\n    packs:\n      - huggingface\n" in text
    assert "\n    retention:\n      default:\n        keep_last: 2\n" in text
    assert "delete_old=1" not in text
    (tmp_path / "my runs").mkdir()
    assert "mv rules rules.old && ckptrules init 'my runs'\n" in at_work(tmp_path, monkeypatch, TRAINER, "my runs")[1]
    assert {name: (tmp_path / name).read_bytes() for name in (NAMING, RETENTION)} == before
    os.rename("rules", "rules.old")
    assert at_work(tmp_path, monkeypatch, "")[0] == 0
    with (tmp_path / NAMING).open("a") as file:
        file.write("# a note\n")
    code, text = at_work(tmp_path, monkeypatch, "")
    assert (code, "says otherwise" in text) == (0, False)


def test_broken_rules_are_told_and_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path, f"{TRAINER} rules/")
    (tmp_path / NAMING).write_text("garbage: : :\n{{")
    monkeypatch.chdir(tmp_path)
    code, text, fault = begin(["runs"], "doit", "utf-8")
    assert (code, text, fault.startswith("rules/naming.yaml:1:10: not valid YAML")) == (3, "", True)
    assert sorted(os.listdir(tmp_path)) == ["rules", "runs"]


UNKNOWN = [
    ("models/net-{1..3}.npz", "", ".", ["models"]),
    ("models/net-{1..3}.npz", "models", ".", ["models"]),
    ("mine/net-{1..3}.npz src/a.py", "", ".", ["mine"]),
    ("runs/{a,b}/checkpoints/net-{1..3}.npz", "", "runs", ["*/checkpoints"]),
    ("net-1.npz", "", None, ["*/checkpoints"]),
    ("models/best_{1,2}.pt", "models preset=ignite", ".", ["models", "models/*", "models/*/checkpoints"]),
    ("models/a/checkpoint_1.pt", "models preset=ignite", "models", ["*", "*/checkpoints"]),
]


@pytest.mark.parametrize(("files", "words", "outputs_dir", "layout"), UNKNOWN)
def test_what_nobody_knows_is_covered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: str, words: str, outputs_dir: str | None, layout: list[str]
) -> None:
    _, text = at_work(tmp_path, monkeypatch, files, *words.split())
    rules = load_rules({one: (tmp_path / one).read_text() for one in (NAMING, RETENTION)})
    assert (rules.outputs_dir, list(rules.layout)) == (outputs_dir, layout)
    assert text.endswith("Next: 'doit check', then 'doit plan'\n") == (outputs_dir is not None)
    asked_for = [line.key for line in rules.policies["default"].lines]  # nobody chose a first epoch that may stay
    assert asked_for == (["min_epoch"] if outputs_dir is None else ["keep_last"])


def test_rules_of_ones_own_get_no_others_beside_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two would say a key twice, and no command would run."""
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules/mine.yaml").write_text("packs: [huggingface]\n")
    _, text = at_work(tmp_path, monkeypatch, TRAINER, "runs")
    assert "rules/naming.yaml is not written: rules/mine.yaml is there already\n" in text
    assert sorted(os.listdir(tmp_path / "rules")) == ["experiment_log.md.j2", "mine.yaml", "schema.json"]


@pytest.mark.parametrize("preset", ["huggingface", "lightning", "keras"])
def test_a_preset_is_written_without_a_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preset: str) -> None:
    code, text = at_work(tmp_path, monkeypatch, "", f"preset={preset}", "runs")
    assert (code, text.startswith("wrote dodo.py\n")) == (0, True)
    rules = load_rules({name: (tmp_path / name).read_text() for name in (NAMING, RETENTION)})
    assert ([pack.name for pack in rules.packs], rules.outputs_dir) == ([preset], "runs")
    assert rules.layout == rules.packs[0].rules.layout


def test_the_rules_of_the_protocol_are_those_that_are_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert at_work(tmp_path, monkeypatch, "", "preset=protocol")[0] == 0
    for name in (NAMING, RETENTION):
        assert (tmp_path / name).read_bytes() == (ROOT / name).read_bytes()


@pytest.mark.parametrize(
    ("words", "fact"),
    [
        ("preset=hugingface", "no preset 'hugingface'\n    hint: did you mean 'huggingface'?"),
        ("preset=hf", "no preset 'hf'\n    hint: did you mean 'huggingface'?"),
        ("preset=pl", "no preset 'pl'\n    hint: did you mean 'lightning'?"),
        ("nowhere", "there is no folder 'nowhere'"),
        ("a b", "init takes a folder and preset=NAME, not 'b'"),
        ("--deep", "init takes a folder and preset=NAME, not '--deep'"),
        ("depth=3", "init takes a folder and preset=NAME, not 'depth=3'"),
        ("/", "'/' holds the whole home folder"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, fact: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError) as raised:
        begin(words.split(), "doit", "utf-8")
    assert fact in str(raised.value)
    assert os.listdir(tmp_path) == []


def test_doit_is_named_only_where_it_can_be_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who calls .venv/bin/ckptrules was told to call doit, which no shell finds."""
    for folder, path, program in (("a", os.environ["PATH"], "doit"), ("b", str(tmp_path), "ckptrules")):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        monkeypatch.setenv("PATH", path)
        plant(Path.cwd(), "runs/a/checkpoint-1/trainer_state.json runs/a/checkpoint-1/model.safetensors")
        for _ in range(2):  # the second time there is a dodo.py, which is ours
            cli.init(["runs"])
            assert f"Next: '{program} check'" in capsys.readouterr().out


@pytest.mark.parametrize(("typed", "near"), [("RUN", "runs"), ("deep/rum/", "deep/run"), ("deep/a_fil", ""), ("x", "")])
def test_a_folder_that_is_mistyped_is_told_with_the_near_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, near: str
) -> None:
    monkeypatch.chdir(tmp_path)
    plant(tmp_path, "runs/a.txt deep/run/a.txt deep/a_file")
    with pytest.raises(OptionError) as raised:
        begin([typed], "doit", "utf-8")
    hint = f"\n    hint: did you mean '{near}'?" if near else ""
    assert str(raised.value) == f"command line: there is no folder '{typed}'{hint}"


def test_ctrl_c_and_a_pack_that_does_not_hold_give_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    def broken(*_: object) -> None:
        raise RuleError([Fault(Location("packs/theirs.yaml", 2, 1), "no rule")])

    monkeypatch.setattr(init, "start_of", interrupted)
    assert cli.init([]) == 130
    monkeypatch.setattr(init, "start_of", broken)
    assert cli.init([]) == 3
    assert "ERROR: packs/theirs.yaml:2:1: no rule" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_an_open_question_names_the_line_that_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = at_work(tmp_path, monkeypatch, f"{TRAINER} runs/x/checkpoint_5500.pt", "runs")
    assert code == 0
    line = int(re.findall(r"Decide: rules/naming\.yaml:(\d+) packs: fairseq or ignite, for x\n", text)[0])
    left = (tmp_path / NAMING).read_text().splitlines()[line - 2 : line]
    assert [one.split("     ")[0] for one in left] == ["  # - fairseq", "  # - ignite"]


def test_numbers_that_are_not_those_inside_are_told_beside_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = "runs/{a,b,c}/checkpoints/epoch=1-step=10.ckpt=@1,10 runs/d/checkpoints/epoch=1-step=10.ckpt=@5,70"
    start = looked(tmp_path, monkeypatch, f"{files} runs/e/checkpoints/epoch=1-step=10.ckpt=@2,11", "runs")
    assert "; 3 of 3 numbers agree with those inside; no metric\n" in start.report
    assert "; 0 of 1 numbers agree with those inside; no metric\n" in start.report
    assert "; 1 of 1 numbers inside are one higher; no metric\n" in start.report


def test_how_many_folders_of_a_kind_tell_no_metric_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was "no metric" of all, where one of them told none."""
    files = " ".join(
        f"runs/{folder}/checkpoints/epoch={n}-step={n}0{metric}.ckpt=@{n},{n}0"
        for folder, metric in (("a", "-val_loss=0.1"), ("b", "-val_loss=0.2"), ("c", ""))
        for n in (1, 2)
    )
    assert "agree with those inside; no metric in 1 of 3\n" in looked(tmp_path, monkeypatch, files, "runs").report


def test_the_bytes_of_folders_that_nobody_knows_are_not_said_to_be_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = looked(tmp_path, monkeypatch, "runs/a/ckpt_{10,20}/model.pt", "runs").report
    assert re.search(r"(?m)^\? unknown +a +2 +no$", report)


def test_what_a_trap_holds_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    plant(tmp_path, "runs/a/epoch=1-step=10.ckpt runs/a/checkpoint-5/trainer_state.json")
    (tmp_path / "runs/a/epoch=1-step=10.ckpt").write_bytes(pickle.dumps(Trap(), protocol=2))
    looked(tmp_path, monkeypatch, "", "runs")
    assert os.listdir(tmp_path) == ["runs"]


HOSTILE = ["a\npacks: [x]", "b\x1b[2J", "c' # x", "d\udcff", "e: [", "*"]


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_becomes_a_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Whatever folders are called, in any place of a path, the rules hold and cover them."""
    trainer, unsure = "checkpoint-5/trainer_state.json", "checkpoint_5500.pt"
    paths = [f"{name}/{trainer}", f"x/{name}/{trainer}", f"y/{name}/{trainer}", f"u/{name}/{unsure}"]
    for path in paths:
        (tmp_path / "runs" / path).parent.mkdir(parents=True)
        (tmp_path / "runs" / path).write_text("x")
    code, text = at_work(tmp_path, monkeypatch, "", "runs")
    assert code == 0
    assert visible_lines(text) == text
    rules = load_rules({one: (tmp_path / one).read_text() for one in (NAMING, RETENTION)})
    assert [pack.name for pack in rules.packs] == ["huggingface"]
    assert {one.directory for one in survey("runs", rules.layout)[0]} >= {name, f"x/{name}", f"u/{name}"}


# --- the page ---------------------------------------------------------------------------------------------------------

PAGE = (ROOT / "docs/init.md").read_text(encoding="utf-8")
CONSOLE = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def sample(folder: Path) -> None:
    """Make the tree of docs/init.md."""
    for run, steps in (("sft", (500, 1000, 1500, 2000)), ("dpo", (100, 200, 300))):
        for step in steps:
            one = folder / f"runs/{run}/checkpoint-{step}"
            one.mkdir(parents=True)
            (one / "trainer_state.json").write_text(f'{{"global_step": {step}}}')
            (one / "model.safetensors").write_bytes(b"w" * 40_000)
    logged = folder / "runs/asr/version_0/checkpoints"
    logged.mkdir(parents=True)
    (logged.parent / "hparams.yaml").write_text("{}\n")
    for epoch in range(4):
        name = f"epoch={epoch}-step={(epoch + 1) * 50}-val_loss=0.{9 - epoch}1.ckpt"
        (logged / name).write_bytes(sample_checkpoint(epoch, (epoch + 1) * 50, 20_000))
    plant(folder, "runs/nmt/checkpoint_5500.pt runs/old/net-{1..3}.npz")


def test_the_page_shows_what_really_comes(tmp_path: Path) -> None:
    sample(tmp_path)
    for block in CONSOLE:
        shown = ""
        for command in re.findall(r"^\$ (.*)$", block, re.MULTILINE):
            program, *words = command.split()
            shown += f"$ {command}\n" + run_program(program, *words, folder=tmp_path, environment=default())[1]
        assert shown == block
