"""Checks a checkpoint directory by the files in which frameworks note what belongs to it.

These are: torch.distributed.checkpoint (FSDP: ``.metadata`` names every shard with its bytes), DeepSpeed (``latest``
names a folder; one optimizer file for each rank), Hugging Face (``*.index.json`` names every shard,
``trainer_state.json`` has the step), sharded safetensors and TensorFlow (``…-00001-of-00003…``). Each check raises
`UnsoundError` if something is missing.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import BinaryIO, NamedTuple

from ckptrules.formats.content import (
    FileContent,
    Progress,
    UnsoundError,
    check_size,
    errors_as_faults,
    faults_of_part,
)
from ckptrules.formats.files import open_file
from ckptrules.formats.limits import NotReadError, is_count
from ckptrules.formats.pickled import Limited, read_pickle, refuse_code
from ckptrules.formats.plainjson import LONGEST_JSON, parse
from ckptrules.formats.tensorflow import shards_of

PART = re.compile(r"(.*-)(\d{5})-of-(\d{5})(.*)", re.DOTALL)
OF_TENSORFLOW = ".data-"  # stands before the number of a shard
RANK = re.compile(r"(?:bf16_|fp16_)?zero_pp_rank_(\d+)_mp_rank_(\d+)_optim_states\.pt")
MODEL = re.compile(r"(?:zero_pp_rank_\d+_)?mp_rank_(\d+)_model_states\.pt")
TRACKERS = ("latest", "last_checkpoint", "latest_checkpointed_iteration.txt", "checkpoint")
STEM = re.compile(r'model_checkpoint_path: *"([^"]*)"')  # TensorFlow
INDEX = ".index.json"
SHORT = 4096  # bytes; of a file that holds one name


class Folder(NamedTuple):
    """A checkpoint directory: the open directory that holds it, its name, its files with their bytes, its links."""

    directory: int
    name: str
    sizes: Mapping[str, int]
    links: tuple[str, ...]
    progress: Progress

    def open(self, path: str) -> BinaryIO:
        """Open one of its files for reading."""
        return open_file(self.directory, f"{self.name}/{path}")


def check_json(folder: Folder, ending: str = ".json") -> dict[str, FileContent]:
    """Check that each JSON file is whole, and that the shards are there that an index names.

    Return what ``trainer_state.json`` says, by its path, the uppermost first.
    """
    found = {}
    for path in folder.sizes:
        if path.endswith(ending):
            folder.progress(0)
            with faults_of_part(path):
                value = _json(folder, path)
            if path.endswith(INDEX) and isinstance(value, dict) and "weight_map" in value:
                _check_index(path, value["weight_map"], {*folder.sizes, *folder.links})
            if os.path.basename(path) == "trainer_state.json" and isinstance(value, dict):
                step = value.get("global_step")
                found[path] = FileContent("JSON", step=step if is_count(step) else None, checksums=True)
    return dict(sorted(found.items(), key=lambda item: item[0].count("/")))


def _json(folder: Folder, path: str) -> object:
    """Return the value in a JSON file.

    None, if the file has one value on each line, or is no index, too long to be parsed, and ends as JSON does.
    """
    with folder.open(path) as file:
        data = file.read(LONGEST_JSON + 1)
        file.seek(max(0, folder.sizes[path] - SHORT))
        end = file.read(SHORT)
    try:
        return parse(data)
    except NotReadError:
        if path.endswith(INDEX):
            raise
        whole = end.rstrip().endswith((b"}", b"]"))
    except ValueError:
        whole = _is_json_lines(data)
    if not whole:
        raise UnsoundError("damaged", "is no whole JSON")
    return None


def _is_json_lines(data: bytes) -> bool:
    """Say whether the first and the last line are JSON objects."""
    first, _, rest = data.strip().partition(b"\n")
    try:
        return all(isinstance(parse(line), dict) for line in (first, rest.rpartition(b"\n")[2]))
    except ValueError:
        return False


def _check_index(path: str, shards: object, there: Collection[str]) -> None:
    """Check that all shards of an index are there; ``shards`` has the file of each tensor by its name."""
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise UnsoundError("damaged", f"its part '{path}' does not name a file for each tensor")
    for shard in sorted(os.path.join(os.path.dirname(path), name) for name in set(shards.values())):
        if shard not in there:
            raise UnsoundError("incomplete", f"lacks '{shard[:80]}', which '{path}' names")


def check_trackers(folder: Folder) -> None:
    """Check that each short file that has the name or the number of a part leads to one."""
    for tracker in TRACKERS:
        if folder.sizes.get(tracker, SHORT) >= SHORT:
            continue
        with folder.open(tracker) as file:
            data = file.read(SHORT)
        text = data.decode("utf-8", "replace").strip()
        if tracker == "checkpoint":
            text = match[1] if (match := STEM.search(text)) else "."
        if text == "." or data.startswith((b"PK", b"\x80")):  # not a tracker
            continue
        if not _leads_to_any(text, [path for path in (*folder.sizes, *folder.links) if path != tracker]):
            raise UnsoundError("incomplete", f"lacks the folder '{text[:80]}' that '{tracker}' names")


def _leads_to_any(text: str, paths: Collection[str]) -> bool:
    """Say whether any of the paths has this number, or begins with this name of a file, folder or stem."""
    wanted = os.path.basename(text)
    firsts = {path.split("/")[0] for path in paths} | {*paths}
    if wanted.isascii() and wanted.isdigit():
        return any(wanted.lstrip("0") == digits.lstrip("0") for one in firsts for digits in re.findall(r"\d+", one))
    return bool(wanted) and any(one == wanted or one.startswith((f"{wanted}.", f"{wanted}/")) for one in firsts)


def check_numbered(paths: Collection[str]) -> None:
    """Check that ``…-00001-of-00003…`` has no gaps; TensorFlow counts from 0, others from 1."""
    groups: dict[tuple[str, str, int], set[int]] = defaultdict(set)
    for path in paths:
        if match := PART.fullmatch(path):
            groups[match[1], match[4], int(match[3])].add(int(match[2]))
    for (start, end, count), numbers in groups.items():
        first = 0 if 0 in numbers or start.endswith(OF_TENSORFLOW) else 1
        for number in range(first, first + count):
            if number not in numbers:
                raise UnsoundError("incomplete", f"lacks '{start}{number:05d}-of-{count:05d}{end}'")


def check_tensorflow(folder: Folder, *, quick: bool) -> bool:
    """Compare the data files of TensorFlow with the index beside them; return whether there are any."""
    matches = (match for match in map(PART.fullmatch, folder.sizes) if match and match[1].endswith(OF_TENSORFLOW))
    stems = {match[1].removesuffix(OF_TENSORFLOW) for match in matches}
    for stem in sorted(stems):
        if f"{stem}.index" in folder.links:
            raise NotReadError(f"its part '{stem}.index' is a link, and what it leads to is not read")
        if f"{stem}.index" not in folder.sizes:
            raise UnsoundError("incomplete", f"lacks '{stem}.index', which is written last: it was never finished")
        with faults_of_part(f"{stem}.index"), errors_as_faults(folder.progress) as guarded:
            ends = shards_of(folder.directory, f"{folder.name}/{stem}", guarded, quick=quick)
        if not ends:
            raise UnsoundError("damaged", f"its part '{stem}.index' is no index of TensorFlow")
        for path, end in ((f"{stem}{ending}", end) for ending, end in ends.items()):
            if path not in folder.sizes and path not in folder.links:
                raise UnsoundError("incomplete", f"lacks '{path}'")
            with faults_of_part(path):
                check_size("TensorFlow", folder.sizes.get(path, end), end)
    return bool(stems)


def check_distributed(folder: Folder) -> bool:
    """Compare the files with the shards in ``.metadata`` (``_StorageInfo``: path, offset, length).

    Return whether torch.distributed wrote the directory.
    """
    places = [path for path in folder.sizes if os.path.basename(path) == ".metadata"]
    shards = [path for path in folder.sizes if path.endswith(".distcp")]
    if not places and shards:
        raise UnsoundError("incomplete", "lacks '.metadata', which is written last: it was never finished")
    named: set[str] = set()
    for place in places:
        with faults_of_part(place), errors_as_faults(folder.progress) as guarded, folder.open(place) as file:
            contents = read_pickle(Limited(file, guarded))
            refuse_code(contents.names)
        named |= {_named_shard(place, state, folder.sizes) for state in contents.states}
    if shards and not named:
        raise UnsoundError("incomplete", f"has a '{places[0]}' that names no shard, not even '{shards[0]}'")
    return bool(places)


def _named_shard(place: str, state: Mapping[object, object], sizes: Mapping[str, int]) -> str:
    """Check that a shard that ``.metadata`` names is there and long enough; return its path."""
    shard, offset, length = (state.get(key) for key in ("relative_path", "offset", "length"))
    if not isinstance(shard, str) or not is_count(offset) or not is_count(length):
        raise UnsoundError("damaged", f"its part '{place}' names a shard that cannot be")
    path = os.path.join(os.path.dirname(place), shard[:1000])
    if path not in sizes:
        raise UnsoundError("incomplete", f"lacks the shard '{path[-80:]}'")
    if sizes[path] < offset + length:
        raise UnsoundError("truncated", f"its shard '{path}' is cut off")
    return path


def check_deepspeed(folder: Folder, inside: Mapping[str, FileContent]) -> bool:
    """Check that no rank is missing, up to the number in the model files, and that all are of one step.

    ``inside`` is what each file holds. Return whether DeepSpeed wrote the directory.
    """
    known = max((facts.ranks or 0 for facts in inside.values()), default=0)
    by_folder: dict[str, list[str]] = defaultdict(list)
    for place, name in map(os.path.split, folder.sizes):
        if RANK.fullmatch(name) or MODEL.fullmatch(name):
            by_folder[place].append(name)
    for place, names in by_folder.items():
        ranks = {(int(match[2]), int(match[1])) for match in map(RANK.fullmatch, names) if match}
        models = {int(match[1]) for match in map(MODEL.fullmatch, names) if match}
        width = max(known, *(rank + 1 for _, rank in ranks)) if ranks else 0
        count = max([*models, *(model for model, _ in ranks)]) + 1
        for model in range(count):
            if model not in models:
                raise UnsoundError("incomplete", f"lacks '{place}/mp_rank_{model:02d}_model_states.pt'")
            for rank in range(width):
                if (model, rank) not in ranks:
                    raise UnsoundError("incomplete", f"lacks the optimizer state of rank {rank}, model part {model}")
        steps = {facts.step: name for name in names if (facts := inside[os.path.join(place, name)]).step is not None}
        if len(steps) > 1:
            parts = ", ".join(f"'{steps[step]}' of {step}" for step in sorted(steps, key=str)[:2])
            raise UnsoundError("incomplete", f"holds parts of several steps: {parts}")
    return bool(by_folder)
