"""Checks a checkpoint that is a directory: whether all its parts are there, and each part that is a file of its own.

What is known: torch.distributed.checkpoint (FSDP: ``.metadata`` names every shard with its bytes), DeepSpeed
(``latest`` names a folder; one optimizer file for each rank), sharded safetensors and TensorFlow
(``…-00001-of-00003…``).
"""

from __future__ import annotations

import os
import re
import stat
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ckptrules.content import Facts, Tell, UnsoundError, refuse_code
from ckptrules.formats import check_file, open_file
from ckptrules.machine import TooLongError, UnreadableError
from ckptrules.pickled import Limited, read_pickle

PART = re.compile(r"(.*-)(\d{5})-of-(\d{5})(.*)", re.DOTALL)
RANK = re.compile(r"(?:bf16_|fp16_)?zero_pp_rank_(\d+)_mp_rank_(\d+)_optim_states\.pt")
MODEL = re.compile(r"(?:zero_pp_rank_\d+_)?mp_rank_(\d+)_model_states\.pt")
WHOLE_FILES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".h5", ".hdf5", ".npy", ".npz")
SHORT = 4096  # bytes; of a file that holds one name


class Part(NamedTuple):
    """A file inside a checkpoint directory: its path in there, what ``stat`` says."""

    path: str
    inode: int
    size: int
    mtime_ns: int


def parts_of(directory: int, name: str) -> tuple[Part, ...]:
    """List the files of a checkpoint directory, sorted. Links are not followed and not listed.

    Raises:
        OSError: it cannot be read.
    """
    found = []
    for folder, _, files, inner in os.fwalk(name, dir_fd=directory, onerror=_raise):
        for file in files:
            status = os.lstat(file, dir_fd=inner)
            if stat.S_ISREG(status.st_mode):
                path = os.path.join(folder, file)[len(name) + 1 :]
                found.append(Part(path, status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(sorted(found))


def check_folder(directory: int, name: str, tell: Tell, *, quick: bool) -> Facts:
    """Check a checkpoint directory.

    Raises:
        UnsoundError: a part is missing, empty or damaged.
        OSError: it cannot be read.
    """
    sizes = {part.path: part.size for part in parts_of(directory, name)}
    for path, size in sizes.items():
        if size == 0 and path.endswith((*WHOLE_FILES, ".distcp")):
            raise UnsoundError("incomplete", f"has an empty part: '{path}'")
    _check_numbered(sizes)
    inside = dict(_check_files(directory, name, sizes, tell, quick=quick))
    kind = "directory"
    if any(os.path.basename(path) == ".metadata" or path.endswith(".distcp") for path in sizes):
        kind = "torch.distributed"
        _check_distributed(directory, name, sizes)
    if any(RANK.fullmatch(os.path.basename(path)) or MODEL.fullmatch(os.path.basename(path)) for path in sizes):
        kind = "DeepSpeed"
        _check_deepspeed(directory, name, sizes, max((facts.ranks or 0 for facts in inside.values()), default=0))
    told = [facts for facts in inside.values() if facts.epoch is not None or facts.step is not None]
    names = tuple(sorted({name for facts in inside.values() for name in facts.names}))
    checksums = bool(inside) and all(facts.checksums for facts in inside.values())
    first = told[0] if told else Facts(kind)
    return first._replace(kind=kind, names=names, checksums=checksums)


def _check_files(
    directory: int, name: str, sizes: Mapping[str, int], tell: Tell, *, quick: bool
) -> Iterator[tuple[str, Facts]]:
    for path, size in sizes.items():
        if not path.endswith(WHOLE_FILES):
            tell(size)
            continue
        with open_file(directory, f"{name}/{path}") as file:
            try:
                yield path, check_file(file, size, tell, quick=quick)
            except UnsoundError as fault:
                raise UnsoundError(fault.id, f"its part '{path}' {fault}", fault.hint) from None


def _check_numbered(sizes: Mapping[str, int]) -> None:
    """Look for gaps in ``…-00001-of-00003…``; TensorFlow counts from 0, others from 1."""
    groups: dict[tuple[str, str, int], set[int]] = defaultdict(set)
    for path in sizes:
        if match := PART.fullmatch(path):
            groups[match[1], match[4], int(match[3])].add(int(match[2]))
    for (start, end, count), numbers in groups.items():
        first = 0 if 0 in numbers else 1
        for number in range(first, first + count):
            if number not in numbers:
                raise UnsoundError("incomplete", f"lacks '{start}{number:05d}-of-{count:05d}{end}'")


def _check_distributed(directory: int, name: str, sizes: Mapping[str, int]) -> None:
    """Compare the files with the shards that ``.metadata`` speaks of (``_StorageInfo``: path, offset, length)."""
    places = [path for path in sizes if os.path.basename(path) == ".metadata"]
    if not places:
        raise UnsoundError("incomplete", "lacks '.metadata', which is written last: it was never finished")
    for place in places:
        with open_file(directory, f"{name}/{place}") as file:
            try:
                contents = read_pickle(Limited(file))
            except TooLongError:
                continue
            except UnreadableError as error:
                raise UnsoundError("damaged", f"its part '{place}': {error}") from None
        refuse_code(contents.names)
        for state in contents.states:
            shard, offset, length = (state.get(key) for key in ("relative_path", "offset", "length"))
            path = os.path.join(os.path.dirname(place), str(shard)[:1000])
            if path not in sizes:
                raise UnsoundError("incomplete", f"lacks the shard '{path}'")
            if isinstance(offset, int) and isinstance(length, int) and sizes[path] < offset + length:
                raise UnsoundError("truncated", f"its shard '{path}' is cut off")


def _check_deepspeed(directory: int, name: str, sizes: Mapping[str, int], width: int) -> None:
    """See that ``latest`` leads somewhere and that the ranks have no gap, up to the ``width`` that a model says."""
    if sizes.get("latest", 0) in range(1, SHORT):
        with open_file(directory, f"{name}/latest") as file:
            tag = file.read(SHORT).decode("utf-8", "replace").strip()
        if not any(path.startswith(f"{tag}/") for path in sizes):
            raise UnsoundError("incomplete", f"lacks the folder '{tag[:80]}' that 'latest' names")
    by_folder: dict[str, dict[str, re.Match[str]]] = defaultdict(dict)
    for path in sizes:
        folder, file_name = os.path.split(path)
        if match := RANK.fullmatch(file_name) or MODEL.fullmatch(file_name):
            by_folder[folder][file_name] = match
    for folder, files in by_folder.items():
        ranks = {(int(m[2]), int(m[1])) for n, m in files.items() if RANK.fullmatch(n)}
        models = {int(m[1]) for n, m in files.items() if MODEL.fullmatch(n)}
        width = max(width, *(rank + 1 for _, rank in ranks)) if ranks else 0
        count = max([*models, *(model for model, _ in ranks)]) + 1
        for model in range(count):
            if model not in models:
                raise UnsoundError("incomplete", f"lacks '{folder}/mp_rank_{model:02d}_model_states.pt'")
            for rank in range(width):
                if (model, rank) not in ranks:
                    raise UnsoundError("incomplete", f"lacks the optimizer state of rank {rank}, model part {model}")


def _raise(error: OSError) -> None:
    raise error
