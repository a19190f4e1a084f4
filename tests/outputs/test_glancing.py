"""What others go for is glanced at before they go: whoever was killed while saving leaves a name like any other."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ckptrules.formats.content import UnsoundError
from ckptrules.formats.files import glance
from ckptrules.formats.folders import glance_at_folder
from ckptrules.formats.torchfile import MAGIC_NUMBER
from tests.commands.test_verify import DEEPSPEED, FSDP, RANKS, WHOLE, hdf5, lightning, numpy, put, safetensors
from tests.conftest import Project, by_experiment
from tests.formats.test_folders import ONE, SHARDED, TWO
from tests.formats.test_folders import WHOLE as WHOLE_FOLDERS
from tests.support.crash import run_in_turn
from tests.support.disturbing import Fault
from tests.support.tables import every_row
from tests.support.torch_files import torch_zip

NAMES = [f"epoch-{epoch}_step-{epoch:05}0.ckpt" for epoch in (10, 11, 12)]
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 400000\n"
Files = Mapping[str, "bytes | str | Callable[[], bytes] | None"]

CUT_OFF: dict[str, tuple[bytes, str]] = {
    "half a zip": (lightning(12, 120)[:300], "was never finished: the directory at its end is missing"),
    "a zip but for a byte": (lightning(12, 120)[:-1], "was never finished: the directory at its end is missing"),
    "safetensors but for a byte": (safetensors()[:-1], "is cut off: it has "),
    "half a header of safetensors": (safetensors()[:20], "is cut off inside its header"),
    "hdf5 but for a byte": (hdf5(2)[:-1], "is cut off: it has 199 bytes and should have 200"),
    "numpy but for a byte": (numpy()[:-1], "is cut off: it has "),
    "a pickle but for a byte": (pickle.dumps({"step": 120, "w": "w" * 99})[:-1], "is cut off: its pickle has no end"),
    "zeros": (bytes(400), "begins with nothing but zeros"),
    "a pointer of Git LFS": (LFS, "is a pointer of Git LFS"),
    "a page of the web": (b"\n<!DOCTYPE html>\n<html><title>404</title></html>", "is a page of the web"),
}
PLY = b"ply\nformat binary_little_endian 1.0\nelement vertex 4\nproperty float x\nend_header\n" + bytes(16)
CUT_FOLDERS: dict[str, tuple[Files, Files, str]] = {
    "a shard": (SHARDED, {TWO: safetensors()[:-1]}, f"its part '{TWO}' is cut off"),
    "an index": (SHARDED, {ONE: None}, f"lacks '{ONE}'"),
    "an index that is cut off": (SHARDED, {"model.safetensors.index.json": b'{"weight_map": {'}, "is no whole JSON"),
    "a rank of DeepSpeed": (DEEPSPEED, {RANKS.format(1): None}, "lacks the optimizer state of rank 1"),
    "the last rank of DeepSpeed": (DEEPSPEED, {RANKS.format(2): None}, "lacks the optimizer state of rank 2"),
    "the metadata of FSDP": (FSDP, {".metadata": None}, "lacks '.metadata', which is written last"),
    "a shard of FSDP": (FSDP, {"__1_0.distcp": None}, "lacks the shard '__1_0.distcp'"),
    "half a shard of FSDP": (FSDP, {"__1_0.distcp": b"w" * 50}, "its shard '__1_0.distcp' is cut off"),
    "half of the points of a splat": ({}, {"point_cloud.ply": PLY[:-8]}, "is cut off: it has 89 bytes"),
    "the folder of a tracker": (DEEPSPEED, {"latest": b"global_step352"}, "lacks the folder 'global_step352'"),
}


class Counting(io.BytesIO):
    """Counts the bytes that are read."""

    count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data


def rules_of_lightning(project: Project) -> None:
    (project.folder / "rules" / "naming.yaml").write_text("packs: [lightning]\nlayout: ['*/checkpoints']\n")
    (project.folder / "rules" / "retention.yaml").write_text("retention: {default: {keep_last: 1}}\n")


def fill(folder: Path, files: Files) -> Path:
    for path, content in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            file.symlink_to(content.removeprefix("-> "))
        elif content is not None:
            file.write_bytes(content() if callable(content) else content)
    return folder


def plan_of(project: Project, *options: str, check: int = 0) -> dict[str, Any]:
    return next(iter(plans_of(project, *options, check=check).values()))


def plans_of(project: Project, *options: str, check: int = 0) -> dict[str, dict[str, Any]]:
    project.doit("plan", "delete_old=1", f"json={project.folder / 'p.json'}", *options, check=check)
    plans = json.loads((project.folder / "p.json").read_text())["experiments"]
    return {plan["experiment"]: plan for plan in plans}


def goes(plan: dict[str, Any]) -> list[str]:
    return [row["name"] for row in plan["checkpoints"] if row["state"] == "goes"]


def words_alone(project: Project, policy: str) -> None:
    (project.folder / "rules" / "naming.yaml").unlink()
    (project.folder / "rules" / "retention.yaml").write_text(f"packs: [words]\nretention: {{default: {{{policy}}}}}\n")


def said(plan: dict[str, Any]) -> str:
    return "\n".join(f"{problem['names']} {problem['text']}" for problem in plan["problems"])


@every_row("content", WHOLE.values(), ids=list(WHOLE))
def test_what_is_whole_passes(content: bytes) -> None:
    glance(io.BytesIO(content), len(content))


@pytest.mark.parametrize(
    "content",
    [b"weights", b"\x80\x02 is no pickle", b"PK", b"\0" * 999 + b"w"],
    ids=["text", "what begins like a pickle", "two letters", "zeros at first"],
)
def test_what_no_format_tells_of_passes(content: bytes) -> None:
    glance(io.BytesIO(content), len(content))


STATE = {"v": "1.0", "w": list(range(3000)), "name": "x" * 70_000, "data": bytes(3_000_000), "more": {"step": 2**70}}
MAGIC = pickle.dumps(MAGIC_NUMBER, protocol=2)
SOUND_PICKLES: Mapping[str, Callable[[], bytes]] = {
    **{f"protocol {n}": partial(pickle.dumps, STATE, protocol=n) for n in range(pickle.HIGHEST_PROTOCOL + 1)},
    "several": lambda: pickle.dumps(STATE, protocol=4) + pickle.dumps([], protocol=2),
    "an array behind it": lambda: pickle.dumps(STATE, protocol=4) + b"w" * 999,
    "torch before 1.6": lambda: MAGIC + pickle.dumps(1001, protocol=2) + b"w" * 999,
    "an array of joblib in it": lambda: b"\x80\x02cjoblib.numpy_pickle\nNumpyArrayWrapper\nX\xff\xff\xff\x7fweights",
}


@every_row("name", SOUND_PICKLES)
def test_no_sound_pickle_is_called_cut_off(name: str) -> None:
    content = SOUND_PICKLES[name]()
    glance(io.BytesIO(content), len(content))


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_is_cut_off_is_seen_by_few_reads(protocol: int) -> None:
    whole = pickle.dumps(STATE, protocol=protocol)
    for length in (5, 99, whole.index(b"1.0") + 2, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        with pytest.raises(UnsoundError, match="is cut off: its pickle has no end"):
            glance(io.BytesIO(whole[:length]), length)
    file = Counting(whole[:-1_000_000])
    with pytest.raises(UnsoundError, match="its pickle has no end"):
        glance(file, len(whole) - 1_000_000)
    assert file.count < 300_000


@every_row("files", WHOLE_FOLDERS.values(), ids=list(WHOLE_FOLDERS))
def test_a_folder_that_is_whole_passes(tmp_path: Path, files: Files) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    fill(tmp_path / "x", files)
    directory = os.open(tmp_path, os.O_RDONLY)
    glance_at_folder(directory, "x", lambda _: None)
    os.close(directory)


@every_row(("files", "change", "text"), CUT_FOLDERS.values(), ids=list(CUT_FOLDERS))
def test_what_a_folder_plainly_lacks_is_seen(tmp_path: Path, files: Files, change: Files, text: str) -> None:
    fill(tmp_path / "x", {**files, **change})
    directory = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(UnsoundError) as fault:
        glance_at_folder(directory, "x", lambda _: None)
    os.close(directory)
    assert text in str(fault.value)


def test_the_newest_that_is_cut_off_makes_no_other_go(project: Project) -> None:
    for experiment, (content, _) in CUT_OFF.items():
        for name in NAMES[:2]:
            put(project, name, lightning(10, 100), experiment)
        put(project, NAMES[2], content, experiment)
    plans = plans_of(project, "keep_last=1", check=1)
    for experiment, (_, text) in CUT_OFF.items():
        assert goes(plans[experiment]) == NAMES[:1]
        assert f"['{NAMES[2]}'] is broken, as a glance at it shows: it {text}"[:60] in said(plans[experiment])
        assert text in said(plans[experiment])
    for _ in range(2):
        done = by_experiment(project.doit("migrate", "delete_old=1", "keep_last=1", check=1))
        for experiment, (_, text) in CUT_OFF.items():
            assert text in done[experiment]
            assert project.names(experiment) == NAMES[1:]
    for experiment in CUT_OFF:
        put(project, NAMES[2], lightning(12, 120), experiment)
    project.doit("migrate", "delete_old=1", "keep_last=1")
    assert [project.names(experiment) for experiment in CUT_OFF] == [NAMES[2:]] * len(CUT_OFF)


UNKNOWN = [
    (".safetensors", safetensors(), b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>"),
    (".safetensors", safetensors(), b'{"message": "Not found"}'),
    (".safetensors", safetensors(), (2**50).to_bytes(8, "little") + b"{}"),
    (".safetensors", safetensors(), safetensors()[:3]),
    (".h5", hdf5(2), hdf5(2)[:4]),
    (".h5", hdf5(2), hdf5(2)[:7]),
    (".ckpt", lightning(10, 100), b"upstream connect error"),
    (".pt", lightning(10, 100), b"PK"),
]


@pytest.mark.parametrize("newest", ["epoch_3", "last", "folder"])
def test_the_newest_in_no_known_format_makes_none_go_that_is_in_one(project: Project, newest: str) -> None:
    """An answer of a server, or a first block that is cut off, counted as the newest, as nobody knows its format."""
    policy = "min_epoch: 9" if newest == "last" else "keep_last: 1"
    words_alone(project, policy)
    inside = "/model" if newest == "folder" else ""
    stems = [f"{stem}{inside}" for stem in ("epoch_1", "epoch_2", "epoch_3" if inside else newest)]
    for number, (ending, whole, content) in enumerate(UNKNOWN):
        for stem in stems:
            put(project, f"{stem}{ending}", content if stem == stems[2] else whole, f"of {number}")
    plans = plans_of(project, check=1)
    for number, (ending, whole, _) in enumerate(UNKNOWN):
        plan = plans[f"of {number}"]
        assert len(goes(plan)) == 1
        where = f"its part 'model{ending}'" if inside else "it"
        assert re.search(rf"shows: {where} is in no known format, and epoch_[12]{inside}{ending} is", said(plan))
        put(project, f"{stems[2]}{ending}", whole, f"of {number}")
    assert [len(goes(plan)) for plan in plans_of(project).values()] == [2] * len(UNKNOWN)


def test_a_format_that_nobody_knows_is_left_alone(project: Project) -> None:
    """Neither are all of a kind that is not known broken, nor those of another run."""
    words_alone(project, "keep_last: 1")
    for number in (1, 2, 3):
        put(project, f"llama_step{number}.bin", b"raw weights")
        put(project, f"bert_step{number}.bin", lightning(number, 100))
    assert len(goes(plan_of(project))) == 4


def test_the_newest_that_the_disk_cannot_read_makes_no_other_go(project: Project) -> None:
    for name in NAMES:
        put(project, name, lightning(10, 100))
    words = ("plan", "delete_old=1", "keep_last=1")
    told = 0
    for at, read in enumerate(run_in_turn(project.folder, *words, count="reads").reads, 1):
        if read.call == "open" and read.path.endswith(NAMES[2]):
            ended = run_in_turn(project.folder, *words, fault=Fault(at, errno.EIO, "reads", lasts=True))
            told += "is broken, as a glance at it shows: it cannot be read: Input/output error" in ended.output
            assert f"Would delete: {NAMES[1]}" not in ended.output, ended
    assert told


def test_all_that_others_go_for_are_looked_at(project: Project) -> None:
    for epoch in (7, 8, 9):
        put(project, f"epoch-{epoch:02}_step-{epoch:05}0.ckpt", lightning(epoch, 10 * epoch))
    for name in NAMES:
        put(project, name, lightning(10, 100)[:-1])
    plan = plan_of(project, "keep_last=2", check=1)
    assert goes(plan) == ["epoch-07_step-000070.ckpt"]
    assert [problem["names"] for problem in plan["problems"]] == [[name] for name in NAMES]


@pytest.mark.parametrize("reward", ["1", "-0.5", "1e-05", "nan"])
def test_a_stub_is_told_by_those_that_are_called_alike_whatever_its_metric_is(project: Project, reward: str) -> None:
    """All others went for it where it had a metric without a fraction, or below zero."""
    rules_of_lightning(project)
    for epoch, told in ((1, "0.25"), (2, "12.5"), (3, reward)):
        content = b"502 Bad Gateway" if epoch == 3 else torch_zip({})
        put(project, f"epoch={epoch}-step={epoch}0-reward={told}.ckpt", content)
    plan = plan_of(project, check=1)
    assert goes(plan) == ["epoch=1-step=10-reward=0.25.ckpt"]


def test_a_stub_is_told_by_what_goes_also_where_stubs_go_as_well(project: Project) -> None:
    """A few were looked at, the newest: all were stubs, and every whole one went."""
    words_alone(project, "keep_last: 1")
    for epoch in range(1, 9):
        put(project, f"epoch_{epoch}.pt", torch_zip({}) if epoch < 3 else b"502 Bad Gateway")
    assert goes(plan_of(project, check=1)) == ["epoch_1.pt"]


@pytest.mark.parametrize(
    ("cut", "told"),
    [(["last.ckpt"], "is broken"), (["epoch=3-step=30.ckpt", "epoch_03_step_000030.ckpt"], "2 checkpoints for one")],
)
def test_what_stays_in_any_case_and_is_cut_off_is_not_all_that_remains(
    project: Project, cut: list[str], told: str
) -> None:
    """As what is protected does, and what wants the name of another."""
    put(project, "epoch-01_step-000010.ckpt", lightning(1, 10))
    put(project, "epoch-02_step-000020.ckpt", lightning(2, 20))
    for name in cut:
        put(project, name, lightning(2, 20)[:-1])
    plan = plan_of(project, "keep_min_epoch=15", check=1)
    assert goes(plan) == ["epoch-01_step-000010.ckpt"]
    assert f"{cut} {told}" in said(plan)


def test_the_best_that_is_cut_off_is_not_the_best(project: Project) -> None:
    (project.folder / "rules" / "retention.yaml").write_text(
        "retention: {default: {keep_best: {metric: val_loss, mode: min, count: 1}}}\n"
    )
    names = [*NAMES, "epoch-13_step-000130.ckpt"]
    contents = [torch_zip({})[:-9], *[torch_zip({})] * 3]
    for name, loss, content in zip(names, (0.1, 0.2, 0.4, 0.3), contents, strict=True):
        put(project, name, content)
        put(project, name.replace(".ckpt", ".metadata.json"), json.dumps({"val_loss": loss}).encode())
    plan = plan_of(project, check=1)
    assert goes(plan) == [NAMES[2]]
    assert f"['{NAMES[0]}'] is broken" in said(plan)


def test_the_best_of_all_that_is_cut_off_makes_no_best_of_another_directory_go(project: Project) -> None:
    (project.folder / "rules" / "retention.yaml").write_text(
        "retention: {default: {keep_best: {metric: val_loss, mode: min, count: 1, across: '*'}, keep_at_least: 1}}\n"
    )
    told = {"a": ((0.5, 0.6, 0.1), torch_zip({})[:-9]), "b": ((0.3, 0.4, 0.5), torch_zip({}))}
    for experiment, (losses, newest) in told.items():
        for name, loss, content in zip(NAMES, losses, (torch_zip({}), torch_zip({}), newest), strict=True):
            put(project, name, content, experiment)
            put(project, name.replace(".ckpt", ".metadata.json"), json.dumps({"val_loss": loss}).encode(), experiment)
    project.doit("migrate", "delete_old=1", check=1)
    left = [[name for name in project.names(experiment) if name.endswith(".ckpt")] for experiment in "ab"]
    assert left == [NAMES[1:], [NAMES[0], NAMES[2]]]


def test_a_broken_one_is_not_renamed_by_the_run_that_has_nothing_to_delete(project: Project) -> None:
    for epoch in (10, 11):
        put(project, f"epoch={epoch}-step={epoch}0.ckpt", lightning(epoch, 10 * epoch))
    put(project, "epoch=12-step=120.ckpt", lightning(12, 120)[:-1])
    for options in (["delete_old=1", "keep_last=1"], ["delete_old=1", "keep_last=2"], []):
        for command in ("plan", "migrate"):
            assert "is broken, as a glance at it shows" in project.doit(command, *options, check=1)
        assert project.names("exp") == [NAMES[1], "epoch=12-step=120.ckpt"]


def test_where_nothing_goes_and_nothing_is_renamed_no_content_is_looked_at(project: Project) -> None:
    put(project, NAMES[2], lightning(12, 120)[:-1])
    project.doit("migrate", "delete_old=1", "keep_last=1")
    assert project.names("exp") == NAMES[2:]
