"""What a text file names: whole names, stems, numbers alone; and what stands there when a name has changed."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptrules.engine.checkpoints import Mention
from ckptrules.engine.pointers import (
    LONGEST,
    LONGEST_LIST,
    FieldsOf,
    Index,
    by_name,
    cannot_follow,
    is_text,
    mentions,
    repoints,
    stems,
    with_other_name,
)
from tests.support.tables import every_row

SUM = "0" * 64


def said_in(content: bytes, names: Iterable[str], fields_of: FieldsOf) -> tuple[Mention, ...]:
    return Index(names, fields_of).mentioned(content)


@every_row(
    ("name", "part", "wanted"),
    [
        ("model.ckpt-2000.data-00000-of-00001", "", ["model.ckpt-2000"]),
        ("ckpt-5.index", ".index", ["ckpt-5"]),
        ("ep1-ba9-rank0.pt", "0", ["ep1-ba9-rank.pt", "ep1-ba9-rank0", "ep1-ba9-rank", "ep1-ba9.pt", "ep1-ba9"]),
        ("m-1-EMA.ckpt", "-EMA", ["m-1.ckpt", "m-1-EMA", "m-1"]),
        ("global_step9_universal", "_universal", ["global_step9"]),
        ("iter_0000300", "", []),
        ("12.pdparams", "", []),
        ("model.pt", "", []),
        ("epoch=1-loss=0.25.ckpt", "", ["epoch=1-loss=0.25", "epoch=1-loss=0"]),
        ("v1.tar.gz", "", ["v1.tar", "v1"]),
        (".hidden1", "", []),
        ("ünder1.pt", "", ["ünder1"]),
    ],
)
def test_stems(name: str, part: str, wanted: list[str]) -> None:
    assert stems(name, part) == wanted


@every_row(
    ("content", "named"),
    [
        ("epoch_12.pth", True),
        ("./epoch_12.pth\n", True),
        ("/data/other host/work dirs/epoch_12.pth", True),
        (r"C:\runs\a\epoch_12.pth", True),
        (r'{"last": "C:\\runs\\epoch_12.pth"}', True),
        ("last: 'epoch_12.pth'", True),
        ("last: epoch_12.pth.", True),
        ("(epoch_12.pth)", True),
        ("epoch_12.pth/model.safetensors", True),
        ("my_epoch_12.pth", False),
        ("epoch_12.pth.tar", False),
        ("epoch_12.pth2", False),
        ("best-epoch_12.pth", False),
        ("epoch_120.pth", False),
    ],
)
def test_a_whole_name_is_a_word_or_a_part_of_a_path(content: str, named: bool) -> None:  # noqa: FBT001
    assert mentions(content.encode(), "epoch_12.pth") == named


@pytest.mark.parametrize(
    ("written", "after"),
    [
        ("modèle_1.pt", "modèle_01.pt"),
        (r'"mod\u00e8le_1.pt"', r'"mod\u00e8le_01.pt"'),
        (r'"mod\xE8le_1.pt"', r'"mod\xE8le_01.pt"'),
    ],
)
def test_what_is_not_ascii_is_found_as_json_and_yaml_write_it(written: str, after: str) -> None:
    assert mentions(written.encode(), "modèle_1.pt")
    assert with_other_name(written.encode(), "modèle_1.pt", "modèle_01.pt") == after.encode()
    assert with_other_name(written.encode(), "modèle_1.pt", "m_01.pt").decode() == re.sub(r"mod.+1", "m_01", written)


@pytest.mark.parametrize("name", ["mod\u00e8le_1.pt", "mode\u0300le_1.pt"])
@pytest.mark.parametrize("written", ["mod\u00e8le_1.pt", "mode\u0300le_1.pt", r'"mode\u0300le_1.pt"'])
def test_a_name_is_found_in_any_form_of_unicode(name: str, written: str) -> None:
    """A copy by a Mac takes letters apart: what ``best.txt`` named went, as the name there was another."""
    assert mentions(written.encode(), name)
    assert said_in(written.encode(), [name], lambda _: {}) == (Mention(name, name),)
    assert with_other_name(written.encode(), name, "m_01.pt").decode().strip('"') == "m_01.pt"


@every_row(
    ("content", "wanted"),
    [
        ("300\n", {"iter_0000300": "300", "epoch_300_step_5.pt": "", "epoch_300.pt": "300", "n-300": "300"}),
        (" 0300 ", {"iter_0000300": "0300", "epoch_300.pt": "0300", "n-300": "0300"}),
        ("200\r\n300\r\n", {"iter_0000300": "300", "n-300": "300"}),
        ("\ufeff300\n", {"iter_0000300": "300"}),
        ("'300'", {"iter_0000300": "300"}),
        ('{"iteration": 300, "loss": 0.5}', {"iter_0000300": "300"}),
        ("iteration=300\n", {"iter_0000300": "300"}),
        ("of 300", {"iter_0000300": ""}),
        ("300.5", {"iter_0000300": ""}),
        ("step: 300", {"iter_0000300": "300"}),
        ("-300", {"iter_0000300": ""}),
        ("300.0", {"iter_0000300": "300"}),
        ("9" * 5000, {"iter_0000300": ""}),
        ('{"epoch": 300, "acc": 0.5}', {"epoch_300_step_5.pt": "300", "epoch_300.pt": "300"}),
        (
            '{"epoch": 300, "metric": "acc"}',
            {"epoch_300_step_5.pt": "300", "epoch_300.pt": "300", "iter_0000300": "300"},
        ),
        ('{"name": "a", "best_epoch": "300", "global_step": 7}', {"epoch_300_step_5.pt": "300"}),
        ("model: a.yaml\niteration: 300.0\n", {"iter_0000300": "300", "epoch_300_step_5.pt": ""}),
        ('{"m": "acc", "best_val_epoch": 300}', {"epoch_300.pt": "300", "epoch_300_step_5.pt": "300"}),
        ('{"m": "acc", "bestEpoch": 300, "best_epoch_idx": 7}', {"epoch_300.pt": "300"}),
        ('{"m": "acc", "best_checkpoint_step": 5}', {"epoch_300_step_5.pt": "5"}),
        ("Best: epoch 300 (acc 0.9)\n", {"epoch_300.pt": "300"}),
        ('{"epochs": 300, "top": "k"}', {"epoch_300.pt": ""}),
        ('{"max_epoch": 300, "m": "epoch"}', {"epoch_300.pt": ""}),
        ("runs/epoch=300-acc=0.5.pt\nepoch=300/x\n", {"epoch_300.pt": ""}),
        ("\n".join(f"a, epoch: {n}" for n in range(297, 301)), {"epoch_300.pt": ""}),
        ("", {"iter_0000300": ""}),
    ],
)
def test_a_number_among_nothing_else_names_what_tells_it(content: str, wanted: dict[str, str]) -> None:
    fields = {
        "iter_0000300": {"step": "0000300"},
        "epoch_300_step_5.pt": {"epoch": "300", "step": "5"},
        "epoch_300.pt": {"epoch": "300"},
        "n-300": {"number": "300"},
    }
    said = {one.name: one.text for one in said_in(content.encode(), fields, lambda name: fields[name])}
    assert {name: said.get(name, "") for name in wanted} == wanted


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("best=epoch_12.pth\n", True),
        ("export BEST=epoch_12\r\n", True),
        ('a: 1\nbest.path="epoch_12.pth"\n', False),
        ("run=epoch_12.pth\n", False),
        ("a run=3-epoch_12.pth\n", False),
    ],
)
def test_what_stands_behind_a_key_is_meant_and_could_not_follow(content: str, named: bool) -> None:  # noqa: FBT001
    said = said_in(content.encode(), ["epoch_12.pth", "run=epoch_12.pth"], lambda _: {})
    assert (Mention("epoch_12.pth", "") in said) == named
    assert cannot_follow(by_name({"p": said}), {"epoch_12.pth": "epoch-12.pth"}, {}) == ("p" if named else "")


@pytest.mark.parametrize(
    "text",
    ["a" * LONGEST, "a-" * (LONGEST // 2), "a=b\n" * (LONGEST // 4), "1" * LONGEST, "a " * 8000, "a" + " " * 16000],
)
def test_no_content_takes_long(text: str) -> None:
    names = [f"epoch_{number}-rank0.pt" for number in range(300)]
    start = time.process_time()
    assert said_in(text.encode(), names, lambda name: {"epoch": name[6:-9], "part": "rank0"}) == ()
    assert time.process_time() - start < 1


def test_of_many_names_few_are_found() -> None:
    names = [f"model_{step:07}.rank_{rank}.pth" for step in range(20) for rank in range(50)]
    index = Index(names, lambda name: {"step": name[6:13], "part": name[14:-4]})
    assert index.mentioned(f"run/{names[70]}\n".encode()) == (Mention(names[70], names[70]),)
    assert len(index.mentioned(b"model_0000003.pth")) == 50
    pointers = {f"last.{name}": (Mention(name, name),) for name in names}
    assert [*repoints(by_name(pointers), {names[70]: "m"})] == [(f"last.{names[70]}", names[70], "m")]


TENSORFLOW = tuple(Mention(f"m-1{end}", "m-1") for end in (".index", ".meta"))


@every_row(
    ("said", "renames", "text", "follows"),
    [
        (TENSORFLOW, {"m-1.index": "n-01.index", "m-1.meta": "n-01.meta"}, "n-01", True),
        (TENSORFLOW, {"m-1.index": "n-01.index"}, "", False),
        (TENSORFLOW, {"m-1.index": "n-01.index", "m-1.meta": "n-02.meta"}, "", False),
        (TENSORFLOW, {"m-1.index": "n-01.idx", "m-1.meta": "n-01.meta"}, "", False),
        (TENSORFLOW, {"m-1.index": "one.index", "m-1.meta": "one.meta"}, "", False),
        (TENSORFLOW, {"m-2.index": "n-02.index"}, "", True),
        ((Mention("a.pt", "a.pt"), Mention("a.pt.md5", "a.pt")), {"a.pt": "b.pt"}, "b.pt", True),
        ((Mention("a.pt", "a.pt"), Mention("a.pt.md5", "a.pt")), {"a.pt.md5": "b.md5"}, "", True),
        ((Mention("9.ckpt", ""),), {"9.ckpt": "epoch-1_step-9.ckpt"}, "", False),
        ((Mention("a-1-r0.pt", "a-1.pt"),), {"a-1-r0.pt": "b-01-r0.pt"}, "", False),
        ((Mention("a-7.pt", "7"),), {"a-7.pt": "b-7.pt"}, "", True),
        ((Mention("a-8.pt", "8"),), {"a-8.pt": "b.pt"}, "", False),
        ((Mention("300", "300"), Mention("a-300.pt", "300")), {"300": "0300"}, "0300", True),
    ],
)
def test_what_follows_a_rename(said: tuple[Mention, ...], renames: dict[str, str], text: str, follows: bool) -> None:  # noqa: FBT001
    assert [new for _, _, new in repoints(by_name({"p": said}), renames)] == [text] * bool(text)
    assert cannot_follow(by_name({"p": said}), renames, {"step": "7"}) == ("" if follows else "p")


@every_row(
    ("line", "longer"),
    [
        (f"{SUM}  name.ckpt\n", True),
        (f"{SUM} *name with spaces.ckpt\n", True),
        (f"\\{SUM}  name\\nof two lines\n", True),
        (f"SHA256 (name.ckpt) = {SUM}\n", True),
        (f"{'a' * 32}  md5.ckpt\n", True),
        ("name.ckpt\n", False),
        (f"{SUM}\n", False),
        (f'{{"{SUM}": "name.ckpt"}}\n', False),
        (f"{SUM}  name\0.ckpt\n", False),
    ],
)
def test_only_a_list_of_checksums_may_be_longer(line: str, longer: bool) -> None:  # noqa: FBT001
    some = line.encode() * (LONGEST // len(line) + 1)
    assert is_text(some) == longer
    assert is_text(some.rstrip(b"\n")) == longer
    assert not is_text(some + b"x" * 200)
    assert not is_text(line.encode() * (LONGEST_LIST // len(line) + 1))


WRAPPED = st.sampled_from(["{}", "/data/run/{}", "C:\\\\runs\\\\{}", '"{}"', "last: '{}'", "({})", "{}/model.pt"])
SAID = st.lists(st.tuples(st.integers(0, 12), st.sampled_from(["", ".index", ".meta"]), WRAPPED), max_size=6)


@given(SAID, st.permutations(range(13)), st.sampled_from(["m", "ünder", "model.ckpt"]))
def test_a_file_names_after_all_renames_what_it_named_before(
    said: list[tuple[int, str, str]], order: list[int], head: str
) -> None:
    """Whatever the order of the units, and though one stem begins like another."""
    renames = {
        step: {f"{head}-{step}{end}": f"run-{step:04}{end}" for end in (".index", ".meta")} for step in range(13)
    }
    names = [name for unit in renames.values() for name in unit]
    content = "\n".join(wrap.format(f"{head}-{step}{end}") for step, end, wrap in said).encode()
    before = said_in(content, names, lambda _: {})
    for step in order:
        if not cannot_follow(by_name({"p": before}), renames[step], {}):
            for _, was, new in repoints(by_name({"p": before}), renames[step]):
                content = with_other_name(content, was, new)
    renamed = {old: to for unit in renames.values() for old, to in unit.items()}
    after = said_in(content, renamed.values(), lambda _: {})
    assert {one.name for one in after} == {renamed[one.name] for one in before}
    assert not said_in(content, names, lambda _: {})
