"""The packs that are shipped: each proves itself, has a page, and reads no name otherwise than its neighbours."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from itertools import combinations
from pathlib import Path

from ckptrules.commands.packs import as_rules
from ckptrules.engine.checkpoints import NUMBERS, Claim, numbers_told
from ckptrules.engine.names.naming import fits, own_claim
from ckptrules.engine.names.packs import agreed_fields
from ckptrules.engine.ruleset import Fault, Pack, Rule
from ckptrules.outputs.find import survey
from ckptrules.outputs.picking import Tree
from ckptrules.rules import packs
from ckptrules.rules.load import compile_pack, load_rules
from ckptrules.rules.proving import prove
from tests.support.tables import every

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "packs"


def shipped(name: str) -> Pack:
    """Compile a pack with all tests that compiling does."""
    faults: list[Fault] = []
    pack = compile_pack(name, packs.text_of(name, packs.sources()[name]), faults)
    assert not faults
    return pack


PACKS = {name[:-5]: shipped(name[:-5]) for name in sorted(p.name for p in Path(packs.FOLDER).glob("*.yaml"))}
FORMATS = {rule.id: rule for pack in PACKS.values() for rule in pack.rules.formats}
EXAMPLES = [(pack, rule, name) for pack in PACKS.values() for rule in pack.rules.formats for name in rule.examples]

# Names that two packs read otherwise, as they may: a mark picks one of them, else the name is nothing but a number.
IGNITE = "Ignite counts what it is attached to"
EPOCHS = "Coqui counts steps, LAVIS epochs"
SAVES = "accelerate and Ray count saves, Orbax steps; what lies inside tells"
AMBIGUOUS: Mapping[str, tuple[set[str], str]] = {
    "checkpoint_0": ({"huggingface", "orbax", "words"}, SAVES),
    "checkpoint_3": ({"huggingface", "orbax", "words"}, SAVES),
    "checkpoint_12": ({"huggingface", "orbax", "words"}, SAVES),
    "checkpoint_000000": ({"huggingface", "orbax", "ray", "words"}, SAVES),
    "checkpoint_000010": ({"huggingface", "orbax", "ray", "words"}, SAVES),
    "checkpoint_999900": ({"huggingface", "orbax", "ray", "words"}, SAVES),
    "meta_model_0.pt": ({"ignite", "torchtune"}, f"an epoch of torchtune, {IGNITE}"),
    "model_2000.pt": ({"ignite", "rsl_rl", "vits"}, f"so-vits-svc's diffusion counts steps, {IGNITE}"),
    "model_1500.pt": ({"ignite", "rsl_rl", "vits"}, f"so-vits-svc's diffusion counts steps, {IGNITE}"),
    "model_149.pt": ({"ignite", "rsl_rl", "vits"}, f"RSL-RL counts steps, {IGNITE}"),
    "model_000100.pt": ({"ignite", "nanochat"}, f"nanochat counts steps, {IGNITE}"),
    "model_500000.pt": ({"ignite", "rsl_rl", "vits"}, f"so-vits-svc's diffusion counts steps, {IGNITE}"),
    "checkpoint_7.pth": ({"coqui", "detr"}, EPOCHS),
    "checkpoint_10.pth": ({"coqui", "detr"}, EPOCHS),
    "checkpoint_5000.pth.tar": ({"coqui", "detr"}, EPOCHS),
}


@every(list(PACKS))
def test_a_pack_proves_itself(name: str) -> None:
    pack = PACKS[name]
    assert not list(prove(pack.rules))
    assert pack.rules.layout
    for rule in pack.rules.formats:
        assert len(rule.examples) >= 2, f"{rule.called} needs two examples"
        assert rule.near_misses, f"{rule.called} needs a near miss"


@every(list(PACKS))
def test_a_pack_says_where_it_has_this_from(name: str) -> None:
    text = packs.text_of(name, packs.sources()[name])
    assert re.search(r"^# Source: .*\b[0-9a-f]{7,40}\b|not read again", text, re.MULTILINE)
    assert PACKS[name].name == re.search(r"^pack: (\w+)$", text, re.MULTILINE)[1]  # type: ignore[index]


@every(list(PACKS))
def test_a_pack_that_is_copied_holds_as_rules_of_the_user(name: str) -> None:
    """As ``doit packs copy=NAME`` writes it: in all that it says, but for where checkpoints lie and what marks them."""
    text = packs.text_of(name, packs.sources()[name])
    rules = load_rules({f"rules/{name}.yaml": as_rules(text), "rules/naming.yaml": "layout: ['*']"})
    pack = PACKS[name].rules
    for key in ("protected", "ignored", "pointers", "facts", "unfinished", "part_folders", "sidecars", "formats"):
        assert len(getattr(rules, key)) == len(getattr(pack, key)), key


# --- pages ------------------------------------------------------------------------------------------------------------


@every(list(PACKS))
def test_a_pack_has_a_page(name: str) -> None:
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        texts = {"rules/page.yaml": block}
        if not re.search(r"^packs:", block, re.MULTILINE):
            texts["rules/packs.yaml"] = f"packs: [{name}]\n"
        assert name in [pack.name for pack in load_rules(texts).packs]


def test_the_first_page_lists_every_pack() -> None:
    page = (PAGES / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[(\w+)\]\(\1\.md\)", page, re.MULTILINE)
    assert listed == sorted(PACKS)


def test_the_pack_of_the_first_page_proves_itself() -> None:
    [text] = re.findall(
        r"^```yaml\n(.*?)^```$", (PAGES / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    faults: list[Fault] = []
    pack = compile_pack("acme", text, faults)
    assert not faults
    assert not list(prove(pack.rules))


# --- names ------------------------------------------------------------------------------------------------------------


def is_folder(rule: Rule, name: str) -> bool:
    """Say whether an example is a folder: of a format for both, what has no ending is one."""
    return "." not in name if rule.folder is None else rule.folder


def reading(pack: Pack, name: str, *, folder: bool) -> Claim | None:
    """Return what a pack reads of a name, if it takes it for a checkpoint."""
    said = own_claim(name, pack.rules, folder=folder)
    return said if said.rule and said.kind in ("format", "protected") else None


def differing() -> Iterator[tuple[str, set[str]]]:
    """Yield the examples that packs read otherwise, and these packs."""
    for _, rule, name in EXAMPLES:
        said = {other.name: reading(other, name, folder=is_folder(rule, name)) for other in PACKS.values()}
        read = {pack: one.fields for pack, one in said.items() if one}
        for one, other in combinations(read, 2):
            agreed = agreed_fields([read[one], read[other]])
            both = numbers_told(read[one]).keys() & numbers_told(read[other]).keys()
            if agreed is None or not agreed.keys() <= both:
                yield name, {one, other}


def test_no_two_packs_read_a_name_otherwise_but_those_of_the_table() -> None:
    found: dict[str, set[str]] = {}
    for name, both in differing():
        found.setdefault(name, set()).update(both)
    assert found == {name: both for name, (both, _) in AMBIGUOUS.items()}


PATHOLOGICAL = [
    "1" * 255,
    "-" * 255,
    "_" * 2000,
    "." * 2000,
    "9" * 5000 + ".ckpt",
    "epoch=" * 500,
    "epoch=1-" * 500 + ".ckpt",
    "epoch=1-step=" * 400,
    "epoch_" * 500 + "1.pth",
    "step=" * 500 + "1.ckpt",
    "a-1" * 2000,
    "a_1" * 2000 + ".keras",
    "-a=1" * 1000 + ".ckpt",
    "epoch=1" + "-a=1" * 1000 + "!.ckpt",
    "epoch=1" + "-a=1e-5" * 800 + "x",
    "epoch=1-" + "a" * 3000 + ".ckpt",
    "--" * 1000 + "epoch=1.ckpt",
    "x--" + "a=1" * 1000 + ".ckpt",
    "x--" + "-epoch=1" * 500 + "-last",
    "checkpoint" * 300,
    "checkpoint_" + "1_" * 1000 + ".pt",
    "checkpoint-" + "1" * 3000 + "x",
    "best_" + "a_" * 1500 + "epoch_1",
    "best_" * 600 + ".pth",
    "ep" * 1000 + "1-ba1",
    "ep1-ba2-" * 400 + "rank0.pt",
    "model.ckpt-" * 300 + "1.index",
    "ckpt-" * 500 + "1",
    "weights." + "1-0.1" * 600 + ".hdf5",
    "weights" * 400 + ".1.h5",
    " (1)" * 500 + ".pt",
    "iter_" * 500 + "1",
    "step_1_" * 400,
    "0" * 1000 + "_" + "1" * 1000,
    "é1" * 1000,
]


@every(FORMATS)
def test_no_name_takes_a_format_long(rule: Rule) -> None:
    for name in PATHOLOGICAL:
        fits(rule, name)  # SlowRuleError where it takes a second


INJECTED = ["rank0", "rank_1", "rank-2", "shard3", "shard-0", "copy", "copy2", "tmp", "bak"]


def injected(name: str) -> Iterator[str]:
    """Yield names that stand beside a checkpoint of this name, and are no checkpoint alone."""
    dots = [place for place, letter in enumerate(name) if letter == "."] or [len(name)]
    for word in INJECTED:
        yield from (f"{word}{between}{name}" for between in "-_.")
        yield from (f"{name}{between}{word}" for between in "-_.")
        yield from (f"{name[:dot]}{between}{word}{name[dot:]}" for dot in dots for between in "-_. ")
    yield from (f"{name[:dot]}{between}(1){name[dot:]}" for dot in [*dots, len(name)] for between in ("", " "))
    yield from (f"Copy of {name}", f"{name}~", f".{name}.swp", f"{name}.partial")


@every({f"{pack.name}: {name}": (pack, rule, name) for pack, rule, name in EXAMPLES})
def test_a_part_or_a_copy_is_not_read_as_the_checkpoint(example: tuple[Pack, Rule, str]) -> None:
    pack, rule, name = example
    whole = fits(rule, name) or {}
    for other in injected(name):
        said = reading(pack, other, folder=is_folder(rule, name))
        if said is None or said.kind == "protected":
            continue
        assert said.fields.get("part", "") not in ("", whole.get("part")) or numbers_told(said.fields) != numbers_told(
            whole
        ), other


SAYS_WHAT_IT_COUNTS = re.compile(r"(?i)ep|step|iter|phase|ba\d|ckpt-|(?:^|[-_])\d*e_?\d|frame|shard|^(?:hpc|g|do)_")
WIDE = ("mlagents", "orbax", "stylegan", "tensorflow")  # their steps may be that many, and two files are one checkpoint


@every({f"{pack.name}: {name}": (pack, rule, name) for pack, rule, name in EXAMPLES})
def test_a_date_or_a_time_is_no_number_of_a_training(example: tuple[Pack, Rule, str]) -> None:
    """``weights_20240115.h5`` and that of the next day are two trainings: none makes the other go."""
    pack, rule, name = example
    if pack.name in WIDE or is_folder(rule, name) or SAYS_WHAT_IT_COUNTS.search(name):
        return
    read = fits(rule, name) or {}
    numbers = [read[key] for key in NUMBERS if key in read]
    for other in ("20240115", "20240115_103000", "1705312345") if len(numbers) == 1 else ():
        dated = name.replace(numbers[0], other)
        assert not numbers_told(own_claim(dated, pack.rules, folder=False).fields), dated


SAYS_WHY_IT_STAYS = re.compile(r"best|last|avg|release|concat|light|_0\.pth")


def test_nothing_is_protected_for_a_word_that_every_name_has() -> None:
    """As ``last*`` would protect all of rl_games: what tells a number is protected only where it says more than that."""
    for pack, rule, name in EXAMPLES:
        said = own_claim(name, pack.rules, folder=is_folder(rule, name))
        assert said.kind == "format" or (said.kind == "protected" and SAYS_WHY_IT_STAYS.search(name)), name
    for pack in PACKS.values():
        numbered = [name for rule in pack.rules.formats for name in rule.examples if re.search(r"\d", name)]
        for pattern in pack.rules.protected:
            assert not all(fnmatchcase(name, pattern.text) for name in numbered), pattern


# --- marks and layouts ------------------------------------------------------------------------------------------------

UNSPECIFIC = {"config.json", "train.log", "README.md", "*.py", "*.json", "*.log", "*.yaml", "*"}


def test_a_mark_is_a_path_that_is_found(tmp_path: Path) -> None:
    for number, mark in enumerate(sorted({mark for pack in PACKS.values() for mark in pack.marks})):
        assert mark not in UNSPECIFIC
        assert "tfevents" not in mark
        outputs = tmp_path / str(number)
        path = (outputs / "a/b/c" / mark.replace("*", "1").replace("[0-9]", "1").replace("[1-9]", "1")).resolve()
        path.parent.mkdir(parents=True)
        path.touch()
        assert Tree(str(outputs)).has("a/b/c", mark), mark


def test_a_layout_finds_its_folder(tmp_path: Path) -> None:
    for name, pack in PACKS.items():
        for pattern in pack.rules.layout:
            folder = pattern.replace("**", "x/y").replace("*", "z")
            (tmp_path / name / folder).mkdir(parents=True, exist_ok=True)
            assert folder in [one.directory for one in survey(str(tmp_path / name), [pattern])[0]], name
