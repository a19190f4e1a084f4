"""Folders that hold less than their names say: found while they are listed, or where `complete` asks for something."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from ckptrules.engine.entries import Directory, Listing
from ckptrules.engine.names.sorting import sort_entries
from ckptrules.outputs.evidence import inside_of
from ckptrules.outputs.in_use import in_use
from ckptrules.outputs.listing import scan
from ckptrules.rules.load import load_rules
from ckptrules.storage.looking import holds_something

RULES = """
layout: ['*']
formats:
  - id: folder
    match: 'checkpoint-(?P<step>\\d+)'
    folder: true
    complete: {any: ['*.json', done, .metadata]}
    examples: {checkpoint-1: {step: 1}}
"""
WHOLE = {"model-00001-of-00002.safetensors": "x", "model-00002-of-00002.safetensors": "x", "log.txt": ""}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return tmp_path / "outputs"


def make(tree: Path, files: dict[str, str]) -> Directory:
    for path, content in files.items():
        file = tree / "exp" / "checkpoint-1" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if content.startswith("-> "):
            file.symlink_to(content.removeprefix("-> "))
        else:
            file.write_text(content)
    return Directory("exp", "exp")


@pytest.mark.parametrize(
    ("files", "hollow"),
    [
        (WHOLE, ""),
        ({"__0_0.distcp": ""}, "an empty file: __0_0.distcp"),
        ({"__0_0.distcp": "x", "__1_0.distcp": "", ".metadata": "x"}, ""),  # of a process that had nothing to save
        ({"__0_0.distcp": "", "a/.metadata": "x"}, "an empty file: __0_0.distcp"),
        ({"deep/er/x.pdparams": "", ".metadata": "x"}, "an empty file: deep/er/x.pdparams"),
        ({"ep1-rank0.pt.zst": ""}, "an empty file: ep1-rank0.pt.zst"),
        ({"model.safetensors": "-> /nowhere/blob", "x": "x"}, "a link that leads nowhere: model.safetensors"),
        ({"model.safetensors": f"-> {'x' * 300}", "x": "x"}, "a link that leads nowhere: model.safetensors"),
        ({"model.safetensors": "-> x", "x": "x"}, ""),
        ({"notes.txt": "-> /nowhere", "x": "x"}, ""),
    ],
)
def test_what_is_hollow(tree: Path, files: dict[str, str], hollow: str) -> None:
    assert [entry.hollow for entry in scan(os.fspath(tree), make(tree, files)).entries] == [hollow]


@pytest.mark.parametrize(
    ("names", "torn"),
    [
        ("model-00001-of-00002.safetensors model-00002-of-00002.safetensors", ""),
        ("model-00000-of-00002.safetensors model-00001-of-00002.safetensors", ""),
        ("model-00002-of-00002.safetensors config.json", "1 of 2 parts 'model-*-of-00002.safetensors'"),
        ("model-00001-of-00002.bin model-00002-of-00002.safetensors", "1 of 2 parts 'model-*-of-00002.bin'"),
        ("unet/model-00001-of-00003.bin unet/x", "1 of 3 parts 'model-*-of-00003.bin'"),
        ("a/m-00001-of-00002.pt b/m-00002-of-00002.pt", "1 of 2 parts 'm-*-of-00002.pt'"),
        ("v.index v.data-00000-of-00002", "1 of 2 parts 'v.data-*-of-00002'"),
        ("train-00000-of-00010.parquet model.pt", ""),
        ("epoch-1-of-9.pt", ""),
    ],
)
def test_a_folder_that_lacks_shards_that_count_themselves_is_torn(tree: Path, names: str, torn: str) -> None:
    listing = scan(os.fspath(tree), make(tree, dict.fromkeys(names.split(), "x")))
    assert [(entry.hollow, entry.torn.replace('"', "'")) for entry in listing.entries] == [("", torn)]


def zero(*ranks: int, model: int = 0, of: str = "optim") -> str:
    return " ".join(f"global_step9/zero_pp_rank_{rank}_mp_rank_{model:02d}_{of}_states.pt" for rank in ranks)


def each(name: str, *ranks: int) -> str:
    return " ".join(name.format(rank) for rank in ranks)


@pytest.mark.parametrize(
    ("names", "torn"),
    [
        (f"mp_rank_00_model_states.pt {zero(0, 1, 2)}", ""),
        (zero(0, 2), "2 of 3 ranks 'global_step9/zero_pp_rank_*_mp_rank_*_optim_states.pt'"),
        (zero(*range(11)), ""),
        (f"{zero(0, 1)} {zero(0, model=1)}", "3 of 4 ranks 'global_step9/zero_pp_rank_*_mp_rank_*_optim_states.pt'"),
        # Of a node of its own disk: its own ranks.
        (f"{zero(8, 9)} {each('rng_state_{}.pth', 8, 9)}", ""),
        # ZeRO 3: each process writes its weights as well.
        (
            f"{zero(0, 1)} {zero(0, 1, 2, of='model')}",
            "2 of 3 ranks 'global_step9/zero_pp_rank_*_mp_rank_*_optim_states.pt'",
        ),
        # Who writes no optimizer state tells how many there are: one of random numbers is of each process.
        (f"{zero(0, 1)} {each('rng_state_{}.pth', 0, 1)}", ""),
        (f"{zero(0)} {each('rng_state_{}.pth', 0, 1)}", "1 of 2 ranks 'global_step9/zero_pp_rank_*_mp_rank_*_optim_states.pt'"),
        (f"{zero(0)} {zero(0, model=1)} {each('rng_state_{}.pth', 0, 1)}", ""),
        (f"{each('pytorch_model_fsdp_0/__{}_0.distcp', 0, 1)} {each('optimizer_0/__{}_0.distcp', 0, 1)}", ""),
        (
            f"{each('pytorch_model_fsdp_0/__{}_0.distcp', 0, 1)} {each('optimizer_0/__{}_0.distcp', 0)}",
            "1 of 2 ranks 'optimizer_0/__*_0.distcp'",
        ),
        (each("__{}_0.distcp", 0, 2), "2 of 3 ranks '__*_0.distcp'"),
        ("__0_0.distcp __0_7.distcp __1_0.distcp", ""),  # a file a tensor
        # Of Megatron, a process that has none of the tensors writes no file.
        (f"{each('__{}_0.distcp', 0, 8)} metadata.json", ""),
        (f"{each('weights/__{}_0.distcp', 0, 8)} weights/metadata.json", ""),
        (f"model.pt {each('random_states_{}.pkl', 0, 1, 3)}", "3 of 4 ranks 'random_states_*.pkl'"),
        (each("pytorch_model_fsdp_0_rank{}.bin", 0, 2), "2 of 3 ranks 'pytorch_model_fsdp_0_rank*.bin'"),
        (each("train/rank{}.pt", 0, 2), "2 of 3 ranks 'train/rank*.pt'"),
        ("mp_rank_00/model_optim_rng.pt mp_rank_02/model_optim_rng.pt", "2 of 3 ranks 'mp_rank_*/model_optim_rng.pt'"),
        (each("mp_rank_00_00{}/model_optim_rng.pt", 0, 1) + " mp_rank_01_000/model_optim_rng.pt", "3 of 4 ranks 'mp_rank_*_*/model_optim_rng.pt'"),
        ("mp_rank_00_000_000/model_optim_rng.pt mp_rank_01_000_001/model_optim_rng.pt", ""),  # experts, in no grid
        (each("mp_rank_0{}_model_states.pt", 0, 2), "2 of 3 ranks 'mp_rank_*_model_states.pt'"),
        (each("actor/optim_world_size_2_rank_{}.pt", 0, 1) + " critic/model_world_size_1_rank_0.pt", ""),
        (each("actor/model_world_size_4_rank_{}.pt", 0, 1), "2 of 4 ranks 'actor/model_world_size_4_rank_*.pt'"),
        (each("layer_0{}-model_00-model_states.pt", 0, 2), ""),  # one without weights has no file
        ("epoch-3.pt rng_state.pth", ""),
    ],
)  # fmt: skip
def test_a_folder_that_lacks_a_rank_is_torn(tree: Path, names: str, torn: str) -> None:
    listing = scan(os.fspath(tree), make(tree, dict.fromkeys(names.split(), "x")))
    assert [(entry.hollow, entry.torn.replace('"', "'")) for entry in listing.entries] == [("", torn)]


HUGGING_FACE = "config.json tokenizer.json tokenizer_config.json trainer_state.json"


@pytest.mark.parametrize(
    ("names", "lacks"),
    [
        (HUGGING_FACE, True),
        ("training_args.bin optimizer.pt scheduler.pt rng_state.pth trainer_state.json", True),
        ("adapter_config.json README.md", True),
        ("optimizer_0/__0_0.distcp optimizer_0/.metadata config.json", True),
        (f"{HUGGING_FACE} model.safetensors", False),
        (f"{HUGGING_FACE} adapter_model.bin", False),
        (f"{HUGGING_FACE} global_step9/mp_rank_00_model_states.pt", False),
        (f"{HUGGING_FACE} pytorch_model_fsdp_0/__0_0.distcp", False),
        ("unet/config.json unet/diffusion_pytorch_model.safetensors optimizer.bin", False),
        ("model_index.json unet/config.json optimizer.bin", True),
        ("state.json", False),  # of Ray, where the user says what is in it
        ("trainer_state.json data.txt", False),
    ],
)
def test_a_folder_that_lacks_weights_is_torn(tree: Path, names: str, *, lacks: bool) -> None:
    listing = scan(os.fspath(tree), make(tree, dict.fromkeys(names.split(), "x")))
    assert [entry.torn.startswith("no weights") for entry in listing.entries] == [lacks]


def test_files_that_each_save_has_are_known_by_kind(tree: Path) -> None:
    """Which weights, states and settings there are; no logs, nothing that was measured, and of shards only one."""
    saved = "a/model-00001-of-00002.bin latest trainer_state.json x/.metadata x/__0_0.distcp z/manifest.ocdbt"
    parts = "s/mp_rank_00/model_optim_rng.pt s/mp_rank_01/distrib_optim.pt s/mp_rank_01/model_optim_rng.pt"
    others = "a/model-00002-of-00002.bin log.txt events.out mt_bench.json eval_results.json x/__1_0.distcp README.md"
    names = f"{saved} {parts} {others}".split()
    (entry,) = scan(os.fspath(tree), make(tree, dict.fromkeys(names, "x"))).entries
    assert entry.files == (*sorted(f"{saved} {parts}".split()),)


def test_a_folder_of_links_to_weights_has_these(tree: Path) -> None:
    (tree / "unet").mkdir(parents=True)
    files = {"config.json": "{}", "unet": f"-> {tree}/unet"}
    assert [entry.torn for entry in scan(os.fspath(tree), make(tree, files)).entries] == [""]


@pytest.mark.parametrize(
    ("names", "only_texts"),
    [
        ("a.png of/b.json", True), ("a.png of/b.pt", False), ("a.png b", False), ("a.png b.json.safetensors", False),
        ("run.sh .DS_Store tb/events.out.tfevents.1 old.log.gz model.pt.bak model.onnx", True), ("x/.metadata", False),
        (".cache/model.pt", True),
    ],
)  # fmt: skip
def test_a_folder_that_only_tells_of_checkpoints_is_none(tree: Path, names: str, *, only_texts: bool) -> None:
    listing = scan(os.fspath(tree), make(tree, dict.fromkeys(names.split(), "x")))
    assert [entry.only_texts for entry in listing.entries] == [only_texts]


@pytest.mark.parametrize(
    ("denied", "number", "hollow"),
    [
        ("deep", errno.EACCES, "what cannot be read: deep (Permission denied)"),
        ("er", errno.EACCES, "what cannot be read: deep/er (Permission denied)"),
        ("er", errno.EMFILE, "what cannot be read: deep/er (Too many open files)"),
        ("er", errno.ENOENT, "an empty file: also.pt"),  # it has just gone
        ("checkpoint-1", errno.EACCES, "what cannot be read (Permission denied)"),
    ],
)
def test_what_nobody_can_look_into_is_told(
    tree: Path, monkeypatch: pytest.MonkeyPatch, denied: str, number: int, hollow: str
) -> None:
    place = make(tree, {"model.pt": "x", "also.pt": "", "deep/er/more.pt": "x", "deep/state.pt": "x"})
    opened = os.open

    def deny(path: str, *rest: Any, **more: Any) -> int:
        if os.path.basename(path) == denied:
            raise OSError(number, os.strerror(number), path)
        return opened(path, *rest, **more)

    monkeypatch.setattr(os, "open", deny)
    entry = next(iter(scan(os.fspath(tree), place).entries))
    assert (entry.hollow, entry.unread) == (hollow, hollow.startswith("what cannot be read"))
    rules = load_rules({"rules/mine.yaml": RULES})
    found = sort_entries(rules, Listing("exp", "exp", (entry,)))
    assert found.checkpoints == ()
    assert [(one.id, one.text) for one in found.problems] == [
        ("not_read" if hollow.startswith("what") else "empty", f"holds {hollow}")
    ]


@pytest.mark.parametrize(
    ("files", "fit"),
    [
        ({"a.json": "{}"}, {"*.json"}),
        ({"a.json": ""}, set()),
        ({"a.json": "", "b.json": "{}"}, {"*.json"}),
        ({"done": ""}, {"done"}),
        ({"done": "-> /nowhere"}, set()),
        ({".metadata": ""}, set()),
    ],
)
def test_what_is_empty_or_leads_nowhere_completes_nothing(tree: Path, files: dict[str, str], fit: set[str]) -> None:
    rules = load_rules({"rules/mine.yaml": RULES})
    assert inside_of(os.fspath(tree), scan(os.fspath(tree), make(tree, files)), rules) == {"checkpoint-1": fit}


def test_what_disappears_meanwhile_completes_nothing(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    assert not holds_something(directory, "gone.json")
    os.close(directory)


def test_a_folder_of_files_of_before_1970_is_not_empty(tree: Path) -> None:
    found = make(tree, WHOLE)
    for path in (tree / "exp" / "checkpoint-1").iterdir():
        os.utime(path, ns=(-(10**9), -(10**9)))
    (entry,) = scan(str(tree), found).entries
    assert (entry.size, entry.mtime_ns < 0, entry.torn) == (2, True, "")


def test_of_a_folder_of_links_shards_that_are_missing_are_told(tree: Path) -> None:
    (tree / "exp").mkdir(parents=True)
    (tree / "blob").write_text("x")
    found = make(tree, {"model-00001-of-00002.safetensors": "-> ../../blob"})
    (entry,) = scan(str(tree), found).entries
    assert (entry.size, entry.torn) == (1, "1 of 2 parts 'model-*-of-00002.safetensors'")


@pytest.mark.parametrize("files", [{"a.pt": "x", "b.tmp": "x"}, {"b.tmp": "x"}], ids=["beside weights", "alone"])
def test_a_folder_in_which_something_disappears_while_we_look_is_not_whole(
    tree: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]
) -> None:
    place, look = make(tree, files), os.lstat

    def vanish(name: str, *, dir_fd: int | None = None) -> os.stat_result:
        if name == "b.tmp":
            (tree / "exp/checkpoint-1" / name).unlink(missing_ok=True)
        return look(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "lstat", vanish)
    (entry,) = scan(os.fspath(tree), place).entries
    assert (entry.size, entry.torn) == ((1, "lost b.tmp just now") if len(files) > 1 else (0, ""))


def test_what_disappears_from_a_folder_while_we_ask_who_writes_to_it_is_passed_over(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (entry,) = scan(os.fspath(tree), make(tree, {"a.pt": "x", "b.tmp": "x"})).entries
    files, look = tree / "exp/checkpoint-1", os.lstat

    def vanish(name: str, *, dir_fd: int | None = None) -> os.stat_result:
        (files / "b.tmp").unlink(missing_ok=True)
        return look(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "lstat", vanish)
    directory = os.open(tree / "exp", os.O_RDONLY)
    assert in_use(directory, entry, 0, 0) == ""
    with (files / "a.pt").open("a"):
        assert in_use(directory, entry, 0, 0) == "is open for writing"
    os.close(directory)


def test_a_link_that_is_made_anew_while_we_look_is_not_taken_to_be_absent(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, read = make(tree, WHOLE), os.readlink
    (tree / "exp" / "last").symlink_to("checkpoint-1")

    def removed(name: str, *, dir_fd: int | None = None) -> str:
        (tree / "exp" / name).unlink(missing_ok=True)
        return read(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "readlink", removed)
    with pytest.raises(FileNotFoundError):
        scan(os.fspath(tree), place)
