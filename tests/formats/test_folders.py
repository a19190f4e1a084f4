"""A checkpoint that is a directory and lacks something is told, and proves nothing for ``verified=1``."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ckptrules.formats.content import UnsoundError
from ckptrules.formats.folders import check_folder
from tests.commands.test_verify import DEEPSPEED, FSDP, RANKS, problem_ids, put, result, safetensors
from tests.conftest import Project
from tests.support import weights
from tests.support.tables import every_row
from tests.support.torch_files import torch_zip

Files = Mapping[str, "bytes | str | Callable[[], bytes] | None"]  # what is large is made when it is needed
RULES = r"""
layout: ['*/checkpoints']
target:
  template: 'checkpoint-{{ step | int }}'
  match: 'checkpoint-(?P<step>\d+)'
  examples: [checkpoint-500]
legacy:
  - id: old
    match: 'step_(?P<step>\d+)'
    examples: {step_0500: checkpoint-500}
"""
KEEP = "retention:\n  default: {keep_last: %d}\n"

WEIGHTS = safetensors()
OPTIMIZER = {"optimizer.pt": torch_zip({"state": {}}), "scheduler.pt": torch_zip({"last_epoch": 7})}


def state(step: object) -> bytes:
    return json.dumps({"epoch": 1.25, "global_step": step, "log_history": [{"loss": float("nan")}]}).encode()


def index(*shards: object) -> bytes:
    return json.dumps({"metadata": {}, "weight_map": {f"w{n}": shard for n, shard in enumerate(shards)}}).encode()


def hugging_face(step: int) -> dict[str, bytes]:
    return {
        "model.safetensors": WEIGHTS, **OPTIMIZER, "trainer_state.json": state(step), "config.json": b"{}",
        "rng_state.pth": torch_zip({}), "training_args.bin": torch_zip({}), "tokenizer.json": b'{"a": [1, 2]}',
    }  # fmt: skip


ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
SHARDED = {
    **hugging_face(500), "model.safetensors": None,
    ONE: WEIGHTS, TWO: WEIGHTS, "model.safetensors.index.json": index(ONE, TWO, TWO),
}  # fmt: skip
LORA = {"adapter_config.json": b"{}", "adapter_model.safetensors": WEIGHTS, "README.md": b"# x"}
ACCELERATE = {"model.safetensors": WEIGHTS, "optimizer.bin": torch_zip({}), "random_states_0.pkl": pickle.dumps(1)}
ACCELERATE_FSDP = {
    "pytorch_model_fsdp_0/.metadata": FSDP[".metadata"], "optimizer_0/.metadata": FSDP[".metadata"],
    **{f"{folder}/__{n}_0.distcp": b"w" * 100 for folder in ("pytorch_model_fsdp_0", "optimizer_0") for n in (0, 1)},
}  # fmt: skip
IN_ZERO = {
    "latest": b"global_step500\n", "trainer_state.json": state(500), "zero_to_fp32.py": b"",
    "global_step500/mp_rank_00_model_states.pt": torch_zip({"dp_world_size": 1}),
    "global_step500/zero_pp_rank_0_mp_rank_00_optim_states.pt": torch_zip({}),
}  # fmt: skip
TENSORFLOW = {
    "checkpoint": b'model_checkpoint_path: "ckpt-5"\nall_model_checkpoint_paths: "ckpt-5"\n',
    "ckpt-5.index": weights.INDEX, "ckpt-5.data-00000-of-00001": weights.DATA,
}  # fmt: skip
MEGATRON = {"latest_checkpointed_iteration.txt": b"500", "iter_0000500/mp_rank_00/model_optim_rng.pt": torch_zip({})}
SPEECHBRAIN = {
    "CKPT.yaml": b"loss: 0.5\nunixtime: 1700000000.5\n", "model.ckpt": torch_zip({}), "optimizer.ckpt": torch_zip({}),
    "brain.ckpt": b"avg_train_loss: 1.5e-03\noptimizer_step: 4\nstep: 0\n", "counter.ckpt": b"7",
}  # fmt: skip
WHOLE: dict[str, Files] = {
    "SpeechBrain": SPEECHBRAIN,
    "Hugging Face": hugging_face(500), "in shards": SHARDED, "an adapter": LORA, "accelerate": ACCELERATE, "FSDP": ACCELERATE_FSDP,
    "ZeRO": IN_ZERO, "TensorFlow": TENSORFLOW, "Megatron": MEGATRON, "DeepSpeed": DEEPSPEED, "FSDP of Lightning": FSDP,
    "FSDP, of which a process had nothing to save": {**FSDP, "__2_0.distcp": b""},
    "msgpack": {"flax_model.msgpack": weights.flax(), "batch_stats.msgpack": b"\x80", "config.json": b"{}"},
    "Orbax": {"_CHECKPOINT_METADATA": b"{}", "_METADATA": b"{}", "manifest.ocdbt": b"w", "d/1": b"w"},
    "Orbax of old": {"checkpoint": weights.flax(), "params.kernel/0.0": b"w"},
    "shards that are counted from 0": {f"model-0000{n}-of-00002.safetensors": WEIGHTS for n in range(2)},
    "unknown": {"whatever": b"w"},
    "weights in a folder": {"unet/diffusion_pytorch_model.safetensors": WEIGHTS, "optimizer.bin": torch_zip({})},
    "values line by line": {"model.safetensors": WEIGHTS, "log.json": b'{"loss": 1}\n{"loss": 2}\n'},
    "a link for what is beside weights": {"model.safetensors": WEIGHTS, "tokenizer.json": "-> ../tokenizer.json"},
    "very long JSON": {"model.safetensors": WEIGHTS, "tokenizer.json": lambda: b'{"a": "' + b"a" * 17 * 2**20 + b'"}\n'},
    "a tracker of a file": {"last_checkpoint": b"model_5.pth", "model_5.pth": torch_zip({})},
    "a shard of TensorFlow without tensors": {
        "a.index": weights.tensorflow(weights.tensor(4), head=weights.message({1: 2, 3: weights.message({1: 1})})),
        "a.data-00000-of-00002": b"wwww", "a.data-00001-of-00002": b"",
    },
    "a pickle of the name of a tracker": {"model.safetensors": WEIGHTS, "latest": pickle.dumps({"a": 1})},
}  # fmt: skip

PART = "model.safetensors.index.json"
NO_FILES = f"damaged: its part '{PART}' does not name a file for each tensor"
BROKEN: dict[str, tuple[Files, Files, str]] = {
    "no weights": (hugging_face(500), {"model.safetensors": None}, "incomplete: has no weights"),
    "no adapter": (LORA, {"adapter_model.safetensors": None}, "incomplete: has no weights"),
    "no weights of accelerate": (ACCELERATE, {"model.safetensors": None}, "incomplete: has no weights"),
    "no weights of FSDP": (
        ACCELERATE_FSDP, {path: None for path in ACCELERATE_FSDP if path.startswith("pytorch")}, "incomplete: has no weights",
    ),
    "no weights beside ZeRO": (
        IN_ZERO, {path: None for path in IN_ZERO if path.startswith("global")}, "incomplete: lacks the folder 'global_step500'",
    ),
    "a configuration only": ({"config.json": b"{}"}, {}, "incomplete: has no weights"),
    "no data of TensorFlow": (TENSORFLOW, {"ckpt-5.data-00000-of-00001": None}, "incomplete: has no weights"),
    "no index of TensorFlow": (TENSORFLOW, {"ckpt-5.index": None}, "incomplete: lacks 'ckpt-5.index', which is written last"),
    "another index": (TENSORFLOW, {"ckpt-5.index": b"x"}, "damaged: its part 'ckpt-5.index' is no index of TensorFlow"),
    "an index of TensorFlow that is cut off": (
        TENSORFLOW, {"ckpt-5.index": weights.INDEX[:-1]}, "truncated: its part 'ckpt-5.index' is cut off: the end of its index"
    ),
    "a damaged index of TensorFlow": (
        TENSORFLOW, {"ckpt-5.index": weights.INDEX.replace(b"w1", b"w0")}, "damaged: its part 'ckpt-5.index': its index has a block of another checksum",
    ),
    "data of TensorFlow that are cut off": (
        TENSORFLOW, {"ckpt-5.data-00000-of-00001": weights.DATA[:-1]},
        "truncated: its part 'ckpt-5.data-00000-of-00001' is cut off: it has 447 bytes and should have 448",
    ),
    "data of TensorFlow that are not there": (
        {"a.index": weights.tensorflow(weights.tensor(4, 0, 1), head=weights.message({1: 2, 3: weights.message({1: 1})}))},
        {"a.data-00000-of-00001": b"w"}, "incomplete: lacks 'a.data-00000-of-00002'",
    ),
    "an index of TensorFlow that is a link": (TENSORFLOW, {"ckpt-5.index": "-> ../tokenizer.json"}, "not_read: is not verified: its part 'ckpt"),
    "no data of Orbax": ({"_METADATA": b"{}"}, {}, "incomplete: has no weights"),
    "a shard is missing": (SHARDED, {TWO: None}, f"incomplete: lacks '{TWO}'"),
    "a shard is missing and no index names it": ({ONE: WEIGHTS}, {}, f"incomplete: lacks '{TWO}'"),
    "the first shard of TensorFlow": ({"a.data-00001-of-00002": b"w"}, {}, "incomplete: lacks 'a.data-00000-of-00002'"),
    "a shard without a number": (
        {"a.safetensors": WEIGHTS}, {"model.safetensors.index.json": index("a.safetensors", "b.safetensors")},
        "incomplete: lacks 'b.safetensors', which 'model.safetensors.index.json' names",
    ),
    "a shard of torch": (
        {"a.bin": torch_zip({})}, {"pytorch_model.bin.index.json": index("a.bin", "b.bin")},
        "incomplete: lacks 'b.bin', which 'pytorch_model.bin.index.json' names",
    ),
    "a shard in a folder": (
        {"unet/a.safetensors": WEIGHTS}, {"unet/diffusion_pytorch_model.safetensors.index.json": index("a.safetensors", "b")},
        "incomplete: lacks 'unet/b', which",
    ),
    "an index that is too long": (SHARDED, {"model.safetensors.index.json": lambda: b" " * 17 * 2**20 + b"{}"}, f"not_read: its part '{PART}' is not verified: JSON of"),
    "an index of nothing": (SHARDED, {"model.safetensors.index.json": b'{"weight_map": 5}'}, NO_FILES),
    "an index of numbers": (SHARDED, {"model.safetensors.index.json": index(1)}, NO_FILES),
    "an index that leads out": (SHARDED, {"model.safetensors.index.json": index("../../a\0b")}, "incomplete: lacks '../../a"),
    "a dead link as a shard": (SHARDED, {TWO: "-> ../nowhere"}, f"incomplete: its part '{TWO}' is a link that leads nowhere"),
    "a link as weights": (hugging_face(500), {"model.safetensors": "-> ../tokenizer.json"}, "not_read: is not verified: its part 'model"),
    "nothing but links": ({}, {"model.safetensors": "-> ../tokenizer.json"}, "not_read: is not verified: its part 'model"),
    "empty weights": (hugging_face(500), {"model.safetensors": b""}, "incomplete: has an empty part: 'model.safetensors'"),
    "empty weights of flax": ({"flax_model.msgpack": b""}, {}, "incomplete: has an empty part"),
    "weights of flax that are cut off": ({"flax_model.msgpack": weights.flax()[:-1]}, {}, "truncated: its part 'flax_model.msgpack'"),
    "text in place of weights": (ACCELERATE, {"optimizer.bin": b"7"}, "unknown_format: its part 'optimizer.bin' is in no known format"),
    "no weights of SpeechBrain": (SPEECHBRAIN, {"model.ckpt": None}, "incomplete: has no weights"),
    "an empty counter of SpeechBrain": (SPEECHBRAIN, {"counter.ckpt": b""}, "incomplete: has an empty part: 'counter.ckpt'"),
    "a counter of SpeechBrain that is zeros": (SPEECHBRAIN, {"counter.ckpt": bytes(9)}, "damaged: its part 'counter.ckpt' begins with"),
    "a page in place of SpeechBrain's model": (
        SPEECHBRAIN, {"model.ckpt": b"<html>\nnot found\n"}, "damaged: its part 'model.ckpt' is a page of the web",
    ),
    "the pointer of Git LFS": (
        SPEECHBRAIN, {"model.ckpt": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"}, "incomplete: its part 'model.ckpt' is a pointer of Git LFS",
    ),
    "an empty index": (SHARDED, {"model.safetensors.index.json": b""}, "incomplete: has an empty part"),
    "an empty tracker": (IN_ZERO, {"latest": b""}, "incomplete: lacks the folder ''"),
    "JSON that is cut off": (hugging_face(500), {"trainer_state.json": state(500)[:-3]}, "damaged: its part 'trainer_state.json' is no whole"),
    "JSON of zeros": (hugging_face(500), {"trainer_state.json": bytes(90)}, "damaged: its part 'trainer_state.json' is no whole"),
    "JSON with more behind it": (hugging_face(500), {"config.json": b"{}}"}, "damaged: its part 'config.json' is no whole"),
    "JSON in no UTF-8": (hugging_face(500), {"config.json": b'{"a": "\xff"}'}, "damaged: its part 'config.json' is no whole"),
    "JSON that is deep": (hugging_face(500), {"config.json": b"[" * 100_000}, "damaged: its part 'config.json' is no whole"),
    "an index that is cut off": (SHARDED, {"model.safetensors.index.json": index(ONE, TWO)[:-2]}, "damaged: its part 'model.safetensors.index"),
    "long JSON that is cut off": (
        {"model.safetensors": WEIGHTS}, {"tokenizer.json": lambda: b'{"a": "' + b"a" * 17 * 2**20}, "damaged: its part 'tokenizer.json'",
    ),
    "lines that are cut off": ({"model.safetensors": WEIGHTS}, {"log.json": b'{"loss": 1}\n{"loss"'}, "damaged: its part 'log.json'"),
    "latest leads nowhere": (IN_ZERO, {"latest": b"global_step400"}, "incomplete: lacks the folder 'global_step400' that 'latest' names"),
    "latest is NULs": (IN_ZERO, {"latest": bytes(14)}, "incomplete: lacks the folder"),
    "the iteration is not there": (MEGATRON, {"latest_checkpointed_iteration.txt": b"600"}, "incomplete: lacks the folder '600'"),
    "the stem is not there": (TENSORFLOW, {"checkpoint": b'model_checkpoint_path: "ckpt-6"'}, "incomplete: lacks the folder 'ckpt-6'"),
    "parts of several steps": (
        {"a/mp_rank_00_model_states.pt": torch_zip({"global_step": 1})}, {"a/mp_rank_01_model_states.pt": torch_zip({"global_step": 2})},
        "incomplete: holds parts of several steps: 'mp_rank_00_model_states.pt' of 1, 'mp_rank_01_model_states.pt' of 2",
    ),
    "an empty shard that holds something": (FSDP, {"__1_0.distcp": b""}, "truncated: its shard '__1_0.distcp' is cut off"),
    "shards of no number": (FSDP, {".metadata": pickle.dumps({"a": 1})}, "incomplete: has a '.metadata' that names no shard"),
    "shards that are made up": (
        FSDP, {".metadata": b"\x80\x02NN\x81}(X\x0d\0\0\0relative_path]X\x06\0\0\0offsetK\x00X\x06\0\0\0lengthK\x01ub."},
        "damaged: its part '.metadata' names a shard that cannot be",
    ),
    "negative shards": (
        FSDP, {".metadata": b"\x80\x02NN\x81}(X\x0d\0\0\0relative_pathX\x01\0\0\0aX\x06\0\0\0offsetJ\xff\xff\xff\xffX\x06\0\0\0lengthK\x01ub."},
        "damaged: its part '.metadata' names a shard that cannot be",
    ),
    "a bomb": (FSDP, {".metadata": lambda: b"\x80\x02" + b"}" * 2**22 + b"."}, "not_read: its part '.metadata' is not verified: a pickle of more than 3 million"),
    "code in the metadata": (FSDP, {".metadata": pickle.dumps(os.getcwd)}, "runs_code: its part '.metadata' would run 'posix.getcwd'"),
    "a rank of random states": (
        {**hugging_face(500), "rng_state_0.pth": torch_zip({})}, {"rng_state_2.pth": torch_zip({})}, "incomplete: has 2 of 3 ranks 'rng_state_*.pth'",
    ),
    "a rank of ZeRO": (DEEPSPEED, {RANKS.format(2): None}, "incomplete: lacks the optimizer state of rank 2"),
}  # fmt: skip


def rows(names: Iterable[str]) -> list[Any]:
    """Leave to the whole suite what takes a second."""
    return [pytest.param(name, marks=pytest.mark.whole if name == "a bomb" else ()) for name in names]


def said(folder: Path, files: Files) -> str:
    """Return what is known of a directory with these files (None: without), or what is wrong with it."""
    (folder / "tokenizer.json").write_bytes(b"{}")
    for path, content in files.items():
        if content is not None:
            (folder / "c" / path).parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str):
                (folder / "c" / path).symlink_to(content.removeprefix("-> "))
            else:
                (folder / "c" / path).write_bytes(content() if callable(content) else content)
    directory = os.open(folder, os.O_RDONLY)
    try:
        facts = check_folder(directory, "c", lambda _: None, quick=False)
    except UnsoundError as fault:
        return f"{fault.id}: {fault}"
    finally:
        os.close(directory)
    return f"{facts.kind} {facts.step}"


@every_row("name", WHOLE)
def test_what_frameworks_write_is_whole(name: str, tmp_path: Path) -> None:
    assert ":" not in said(tmp_path, WHOLE[name])


@pytest.mark.parametrize("name", rows(BROKEN))
def test_what_is_incomplete_is_told(name: str, tmp_path: Path) -> None:
    files, change, expected = BROKEN[name]
    assert said(tmp_path, {**files, **change}).startswith(expected)


def test_a_folder_in_it_that_cannot_be_read_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, onerror: Callable[[OSError], None], **__: object) -> Iterator[None]:
        onerror(OSError(5, "Input/output error"))
        return iter(())

    monkeypatch.setattr(os, "fwalk", fail)
    with pytest.raises(OSError, match="Input/output error"):
        said(tmp_path, LORA)


def test_epoch_and_step_may_stand_in_different_parts(tmp_path: Path) -> None:
    files = {**hugging_face(500), "meta.pt": torch_zip({"epoch": 3})}
    assert said(tmp_path, files) == "directory 500"
    directory = os.open(tmp_path, os.O_RDONLY)
    assert check_folder(directory, "c", lambda _: None, quick=True).epoch == 3
    os.close(directory)


# --- the whole command -----------------------------------------------------------------------------------------------


def make(project: Project, keep: int, **checkpoints: Files) -> None:
    """Make checkpoints by their step, and rules that keep some."""
    (project.folder / "rules" / "naming.yaml").write_text(RULES)
    (project.folder / "rules" / "retention.yaml").write_text(KEEP % keep)
    for step, files in checkpoints.items():
        for path, content in files.items():
            if isinstance(content, bytes):
                put(project, f"checkpoint-{step.removeprefix('s')}/{path}", content)


@pytest.mark.parametrize(
    ("inside", "ids"),
    [
        (500, []), (400, ["other_content"]), (-500, []), ("500", []), (True, []), (None, []), (500.0, []), (10**30, []),
    ],
)  # fmt: skip
def test_the_step_inside_is_compared_with_the_name(project: Project, inside: object, ids: list[str]) -> None:
    make(project, 1, s500={**hugging_face(500), "trainer_state.json": state(inside)})
    found = result(project, check=1 if ids else 0)
    assert problem_ids(found) == ids
    step = inside if type(inside) is int and 0 < inside < 2**63 else None
    assert found["experiments"][0]["checkpoints"][0]["step"] == step


LOSES_NOTHING = "exp/checkpoints loses nothing (1 could go): no checkpoint that stays is verified"
SAYS = {"empty weights": "checkpoint-200 holds an empty file: model.safetensors", "another step": LOSES_NOTHING}
LACKS: dict[str, Files] = {
    "no weights": {**hugging_face(200), "model.safetensors": None},
    "a shard is missing": {**SHARDED, "trainer_state.json": state(200), TWO: None},
    "JSON that is cut off": {**hugging_face(200), "config.json": b"{"},
    "latest leads nowhere": {**hugging_face(200), "latest": b"global_step200"},
    "another step": hugging_face(100),
    "empty weights": {**hugging_face(200), "model.safetensors": b""},
    "cut off weights": {**hugging_face(200), "model.safetensors": WEIGHTS[:-1]},
}


@pytest.mark.whole
@pytest.mark.parametrize("lack", LACKS)
def test_nothing_whole_is_deleted_on_account_of_what_is_incomplete(project: Project, lack: str) -> None:
    make(project, 1, s100=hugging_face(100), s200=LACKS[lack])
    found = result(project, check=1)
    assert len(found["experiments"][0]["problems"]) == 1
    assert [row["name"] for row in found["experiments"][0]["checkpoints"] if row["verified"]] == ["checkpoint-100"]
    for command in ("plan", "migrate"):
        out = project.doit(command, "delete_old=1", "verified=1", check=1)
        assert SAYS.get(lack, "Problem: checkpoint-200 is broken, as verify found: it") in out
    assert project.names("exp") == ["checkpoint-100", "checkpoint-200"]
    for path, content in hugging_face(200).items():
        put(project, f"checkpoint-200/{path}", content)
    for path in LACKS[lack]:
        if path not in hugging_face(200):
            (project.outputs / "exp/checkpoints/checkpoint-200" / path).unlink(missing_ok=True)
    assert problem_ids(result(project)) == []
    project.doit("migrate", "delete_old=1", "verified=1")
    assert project.names("exp") == ["checkpoint-200"]


def test_neither_is_it_where_all_that_would_stay_are_incomplete(project: Project) -> None:
    lacks = LACKS["no weights"]
    make(project, 2, s100=hugging_face(100), s200=lacks, s300={**lacks, "trainer_state.json": state(300)})
    assert problem_ids(result(project, check=1)) == ["incomplete", "incomplete"]
    project.doit("migrate", "delete_old=1", "verified=1", check=1)
    assert project.names("exp") == ["checkpoint-100", "checkpoint-200", "checkpoint-300"]


def test_one_whole_one_that_stays_is_enough_and_what_lacks_something_takes_no_place(project: Project) -> None:
    lacks = LACKS["no weights"]
    make(project, 2, s100=hugging_face(100), s200=hugging_face(200), s300={**lacks, "trainer_state.json": state(300)})
    result(project, check=1)
    project.doit("migrate", "delete_old=1", "verified=1", check=1)
    assert project.names("exp") == ["checkpoint-100", "checkpoint-200", "checkpoint-300"]
    make(project, 1)
    project.doit("migrate", "delete_old=1", "verified=1", check=1)
    assert project.names("exp") == ["checkpoint-200", "checkpoint-300"]


def test_what_an_older_version_has_verified_is_read_again(project: Project) -> None:
    make(project, 1, s100=hugging_face(100), s200=hugging_face(200))
    result(project)
    memory = project.outputs / ".ckptrules/verified/exp/checkpoints/files.jsonl"
    memory.write_text(memory.read_text().replace('"version": 3', '"version": 2'))
    project.doit("migrate", "delete_old=1", "verified=1", check=1)
    assert result(project)["summary"]["read"] == 2


@pytest.mark.whole
def test_what_is_not_read_is_a_problem_and_no_proof(project: Project) -> None:
    make(project, 1, s100=hugging_face(100))
    put(project, "checkpoint-200", b"\x80\x02" + b"}" * 2**22 + b".")
    assert problem_ids(result(project, check=1)) == ["not_read"]
    project.doit("migrate", "delete_old=1", "verified=1", check=1)
    assert project.names("exp") == ["checkpoint-100", "checkpoint-200"]
