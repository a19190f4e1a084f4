"""Find missing files of numbered sets, such as ``model-00001-of-00003.safetensors`` or ``rng_state_3.pth``. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from math import prod

from ckptrules.engine.shapes import in_yaml

# Read in DeepSpeed edaa7221, deepspeed/runtime/engine.py:4195-4257, :5409 (in ZeRO 3 the weights too); accelerate
# 16cb6eb8, checkpointing.py and utils/fsdp_utils.py; pytorch 0140b62d, torch/distributed/checkpoint/filesystem.py,
# write_data (a file for each process, an empty one where it has nothing); OLMo-core, train/checkpoint.py:387; verl
# b178a3cd5, utils/checkpoint/fsdp_checkpoint_manager.py:135-150; Megatron-LM d98e8a64, training/checkpointing.py,
# get_checkpoint_name, and of a process without tensors of its own, which writes no .distcp,
# core/dist_checkpointing/strategies/filesystem_async.py, prepare_write_data.
OF_A_PROCESS = re.compile(
    r"(?:.*/)?(?:(?:bf16_|fp16_)?zero_pp_rank_(\d+)_mp_rank_(\d+)_(?:optim|model)_states\.pt"  # DeepSpeed
    r"|rng_state_(\d+)\.pth|random_states_(\d+)\.pkl|\w+_rank(\d+)\.bin"  # transformers, accelerate
    r"|__(\d+)_0\.distcp|rank(\d+)\.pt)",  # torch.distributed.checkpoint, OLMo
    re.ASCII,
)
"""Files that every process of a training writes, even one without any data."""
OF_A_MODEL_PART = re.compile(
    r"(?:.*/)?mp_rank_(\d+)(?:_model_states\.pt|(?:_(\d+))?/(?:model_optim_rng|distrib_optim)\.pt)", re.ASCII
)  # DeepSpeed, Megatron: where a third number (the part of the experts) stands, the numbers are no full grid
OF_A_WORLD = re.compile(r"(?:.*/)?\w+_world_size_(?P<world>\d+)_rank_(\d+)\.pt", re.ASCII)  # verl
ONE_OF_SEVERAL = (OF_A_PROCESS, OF_A_MODEL_PART, OF_A_WORLD)
NOT_OF_EACH = "metadata.json"  # of Megatron: beside this file, some processes may have written no .distcp

OF_EACH_SAVE = re.compile(
    r"(?:.*/)?(?:latest|.*\.metadata|.*_METADATA|.*\.ocdbt|[^/]*(?:args|checkpoint|ckpt|config|index|info|meta|state)[^/]*\.(?:json|ya?ml))"
)
"""Files beside the weights that each save has; others may be written later (``eval_results.json``)."""
SOME = 64
_NUMBER = re.compile(r"[-_.]?\d+(?:-of-\d+)?", re.ASCII)
_NTH = re.compile(r"(.*?)(\d+)([-_. ]?of[-_. ]?)(\d+)(.*)", re.ASCII | re.DOTALL)


def why_too_few(texts: Iterable[str]) -> str:
    """Return how many parts exist of a set whose names give the count (``00001-of-00003``); empty if all do."""
    found: dict[tuple[str, ...], set[int]] = defaultdict(set)
    for text in texts:
        if match := _NTH.fullmatch(text):
            before, nth, of, count, behind = match.groups()
            found[before, of, count, behind].add(int(nth))
    for (before, of, count, behind), there in sorted(found.items()):
        if len(there) < int(count):
            return f"{len(there)} of {int(count)} parts {in_yaml(f'{before}*{of}{count}{behind}')}"
    return ""


def families(texts: Iterable[str]) -> set[str]:
    """Return the texts of parts, with ``00001-of-00003`` as one pattern: a resumed training may have another count."""
    return {_NTH.sub(r"\1*\3*\5", text) for text in texts}


def kind_of(path: str) -> str:
    """Return a path in a folder without its numbers: of a step, a rank or a shard. A part of a model keeps its own."""
    return path[path.rindex("mp_rank_") :] if OF_A_MODEL_PART.fullmatch(path) else _NUMBER.sub("", path)


def of_kinds(paths: Iterable[str]) -> dict[str, list[str]]:
    """Return the files in a folder by `kind_of`: up to `SOME`, but one where their names tell how many there are."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(paths):
        is_told = path.endswith(".distcp") or _NTH.search(path) or any(one.fullmatch(path) for one in ONE_OF_SEVERAL)
        kind = found[kind_of(path)]
        if len(kind) < (1 if is_told else SOME):
            kind.append(path)
    return found


def why_ranks_lack(paths: Collection[str]) -> str:
    """Return which files of a folder checkpoint exist for some ranks only; empty if none is missing.

    Ranks may begin at any number: the local disk of a node holds only the files of its own processes.
    """
    not_of_each = {path.removesuffix(NOT_OF_EACH) for path in paths if path.endswith(NOT_OF_EACH)}
    found: dict[tuple[re.Pattern[str], str], set[tuple[int, ...]]] = defaultdict(set)
    worlds: dict[str, int] = {}
    for path in paths:
        match = next(filter(None, (pattern.fullmatch(path) for pattern in ONE_OF_SEVERAL)), None)
        if match is None or (path.endswith(".distcp") and path[: path.rfind("/") + 1] in not_of_each):
            continue
        world = match.re.groupindex.get("world")
        groups = [group for group, text in enumerate(match.groups(), start=1) if text is not None and group != world]
        family = path
        for group in reversed(groups):
            family = f"{family[: match.start(group)]}*{family[match.end(group) :]}"
        found[match.re, family].add(tuple(int(match[group]) for group in groups))
        if world:
            worlds[family] = int(match[world])
    spans = {key: _span(ranks) for key, ranks in found.items()}
    processes = max((span for (pattern, _), span in spans.items() if pattern is OF_A_PROCESS), default=0)
    for (pattern, family), there in sorted(found.items(), key=lambda one: one[0][1]):
        count = worlds.get(family) or (processes if pattern is OF_A_PROCESS else spans[pattern, family])
        if len(there) < count:
            return f"{len(there)} of {count} ranks {in_yaml(family)}"
    return ""


def _span(ranks: Iterable[tuple[int, ...]]) -> int:
    """Return how many ranks there are from the lowest to the highest, as a grid over all their numbers."""
    return prod(max(numbers) - min(numbers) + 1 for numbers in zip(*ranks, strict=True))
