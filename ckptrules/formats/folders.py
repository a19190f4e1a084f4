"""Checks a checkpoint that is a directory: whether all its parts are there, and each part that is a file of its own.

What is known: torch.distributed.checkpoint (FSDP: ``.metadata`` names every shard with its bytes), DeepSpeed
(``latest`` names a folder; one optimizer file for each rank), Hugging Face (``*.index.json`` names every shard,
``trainer_state.json`` says the step), sharded safetensors and TensorFlow (``…-00001-of-00003…``).
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from ckptrules.engine.counted import why_ranks_lack
from ckptrules.engine.weights import may_be_weights
from ckptrules.formats.content import FileContent, Tell, UnsoundError, not_read, refuse_code, told_as_fault
from ckptrules.formats.files import HEADER, bytes_to_read, check_file, open_file
from ckptrules.formats.machine import TooLongError, UnreadableError, is_count
from ckptrules.formats.pickled import Limited, read_pickle
from ckptrules.formats.plainjson import LONGEST_JSON, parse

PART = re.compile(r"(.*-)(\d{5})-of-(\d{5})(.*)", re.DOTALL)
RANK = re.compile(r"(?:bf16_|fp16_)?zero_pp_rank_(\d+)_mp_rank_(\d+)_optim_states\.pt")
MODEL = re.compile(r"(?:zero_pp_rank_\d+_)?mp_rank_(\d+)_model_states\.pt")
WHOLE_FILES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".h5", ".hdf5", ".npy", ".npz")
NEVER_EMPTY = (*WHOLE_FILES, ".distcp", ".msgpack", ".gguf", ".onnx", ".pdparams", ".params", ".json", ".metadata")
TRACKERS = ("latest", "last_checkpoint", "latest_checkpointed_iteration.txt", "checkpoint")
STEM = re.compile(r'model_checkpoint_path: *"([^"]*)"')  # TensorFlow
SHORT = 4096  # bytes; of a file that holds one name
SPEECHBRAIN = "CKPT.yaml"  # beside it, counters and the like are text under the ending of weights
TEXT = "text"
NOTE = re.compile(rb"(?:[\w.-]+: )?[\w.+-]+")

T = TypeVar("T")
ShardAnswer = FileContent | UnsoundError | OSError
"""What stands in a file, or why that is not known."""


class Shard(NamedTuple):
    """A file inside a checkpoint directory: its path in there, what ``stat`` says."""

    path: str
    inode: int
    size: int
    mtime_ns: int


def parts_of(directory: int, name: str) -> tuple[Shard, ...]:
    """List the files of a checkpoint directory, sorted. Links are not followed and not listed."""
    return tuple(
        sorted(
            Shard(path, status.st_ino, status.st_size, status.st_mtime_ns)
            for path, status, _ in _walk(directory, name)
            if stat.S_ISREG(status.st_mode)
        )
    )


def links_in(directory: int, name: str) -> tuple[str, ...]:
    """List the links in a checkpoint directory, sorted.

    Raises:
        UnsoundError: one leads nowhere.
    """
    found = []
    for path, status, inner in _walk(directory, name):
        if stat.S_ISLNK(status.st_mode):
            if not _leads_somewhere(inner, os.path.basename(path)):
                raise UnsoundError("incomplete", f"its part '{path}' is a link that leads nowhere")
            found.append(path)
    return tuple(sorted(found))


def _walk(directory: int, name: str) -> Iterator[tuple[str, os.stat_result, int]]:
    """Yield what lies in a checkpoint directory: its path in there, its status, and its open folder."""
    for folder, folders, files, inner in os.fwalk(name, dir_fd=directory, onerror=_raise):
        for one in (*folders, *files):
            yield os.path.join(folder, one)[len(name) + 1 :], os.lstat(one, dir_fd=inner), inner


def check_folder(
    directory: int, name: str, tell: Tell, *, quick: bool, answers: Mapping[Shard, ShardAnswer] = MappingProxyType({})
) -> FileContent:
    """Check a checkpoint directory; of each part, as `check_file` does.

    Args:
        directory: where it lies.
        name: its own.
        tell: takes the bytes read, and may end the reading by raising something.
        quick: leave the checksums out.
        answers: what came of files that were read before; one that has changed since is read again.

    Raises:
        UnsoundError: a part is missing, empty, damaged, or not read.
    """
    with told_as_fault(tell) as heard:
        shards, links = _look(directory, name)
        sizes = {shard.path: shard.size for shard in shards}
        parts = dict(_check_files(directory, name, shards, heard, quick=quick, answers=answers))
        inside = {**_check_json(directory, name, sizes, links, heard), **parts}
        kind = _kind_of_folder(directory, name, sizes, inside, heard)
        if said := why_ranks_lack([*sizes, *links]):
            raise UnsoundError("incomplete", f"has {said}")
        _check_trackers(directory, name, sizes, links)
        _check_weights([path for path in sizes if path not in inside or inside[path].kind != TEXT], links)
    return FileContent(
        kind,
        epoch=_first(facts.epoch for facts in inside.values()),
        step=_first(facts.step for facts in inside.values()),
        lightning=_first(facts.lightning or None for facts in inside.values()) or "",
        checksums=bool(parts) and all(facts.checksums for facts in parts.values()),
        names=tuple(sorted({name for facts in inside.values() for name in facts.names})),
        ranks=_first(facts.ranks for facts in inside.values()),
    )


def shards_to_read(directory: int, name: str) -> tuple[Shard, ...]:
    """List the files of a checkpoint directory that `check_shard` may read, each for itself.

    There are none where the files cannot be judged one by one, or where it is plain already that something is missing.
    """
    with contextlib.suppress(OSError, UnsoundError), told_as_fault(lambda _: None):
        shards, _ = _look(directory, name)
        if not any(shard.path == SPEECHBRAIN for shard in shards):
            return tuple(shard for shard in shards if shard.path.endswith(WHOLE_FILES))
    return ()


def bytes_to_read_in(directory: int, name: str) -> int:
    """Guess how much of a checkpoint directory is read to check it: of what is no `WHOLE_FILES`, little."""
    return sum(
        bytes_to_read(shard.path, shard.size) if shard.path.endswith(WHOLE_FILES) else min(shard.size, HEADER)
        for shard in parts_of(directory, name)
    )


def check_shard(directory: int, name: str, shard: Shard, tell: Tell, *, quick: bool) -> FileContent:
    """Check one file of a checkpoint directory, as `check_file` does.

    Raises:
        UnsoundError: it is damaged, or not read.
    """
    with open_file(directory, f"{name}/{shard.path}") as file:
        try:
            return check_file(file, shard.size, tell, quick=quick)
        except UnsoundError as fault:
            raise UnsoundError(fault.id, f"its part '{shard.path}' {fault}", fault.hint) from None


def _look(directory: int, name: str) -> tuple[tuple[Shard, ...], tuple[str, ...]]:
    """List the files and the links in a checkpoint directory.

    Raises:
        UnsoundError: by the names and sizes alone, something is missing.
    """
    shards, links = parts_of(directory, name), links_in(directory, name)
    for shard in shards:
        if shard.size == 0 and shard.path.endswith(NEVER_EMPTY):
            raise UnsoundError("incomplete", f"has an empty part: '{shard.path}'")
    _check_numbered({*(shard.path for shard in shards), *links})
    return shards, links


def _first(values: Iterable[T | None]) -> T | None:
    return next((value for value in values if value is not None), None)


def _kind_of_folder(
    directory: int, name: str, sizes: Mapping[str, int], inside: Mapping[str, FileContent], tell: Tell
) -> str:
    """Find out which framework wrote a directory, and see that all is there that it writes."""
    kind = "directory"
    if any(os.path.basename(path) == ".metadata" or path.endswith(".distcp") for path in sizes):
        kind = "torch.distributed"
        _check_distributed(directory, name, sizes, tell)
    if any(RANK.fullmatch(os.path.basename(path)) or MODEL.fullmatch(os.path.basename(path)) for path in sizes):
        kind = "DeepSpeed"
        _check_deepspeed(sizes, inside)
    return kind


def _check_files(
    directory: int, name: str, shards: Sequence[Shard], tell: Tell, *, quick: bool, answers: Mapping[Shard, ShardAnswer]
) -> Iterator[tuple[str, FileContent]]:
    may_be_notes = any(shard.path == SPEECHBRAIN for shard in shards)
    for shard in shards:
        tell(0)
        if not shard.path.endswith(WHOLE_FILES):
            continue
        if may_be_notes and _is_note(directory, name, shard):
            tell(shard.size)
            yield shard.path, FileContent(TEXT, checksums=True)
        else:
            answer = answers.get(shard) or check_shard(directory, name, shard, tell, quick=quick)
            if isinstance(answer, Exception):
                raise answer
            yield shard.path, answer


def _is_note(directory: int, name: str, shard: Shard) -> bool:
    """Say whether a file is lines of one value each, as SpeechBrain writes its counters."""
    with open_file(directory, f"{name}/{shard.path}") as file:
        data = file.read(SHORT)
    return shard.size == len(data) and all(map(NOTE.fullmatch, data.splitlines()))


def _check_json(
    directory: int, name: str, sizes: Mapping[str, int], links: Collection[str], tell: Tell
) -> dict[str, FileContent]:
    """Read what is written in JSON: it must be whole, and the shards that an index names must be there."""
    found = {}
    for path in sizes:
        if path.endswith(".json"):
            tell(0)
            said = _json(directory, name, path, sizes[path])
            if path.endswith(".index.json") and isinstance(said, dict) and "weight_map" in said:
                _check_index(path, said["weight_map"], {*sizes, *links})
            if os.path.basename(path) == "trainer_state.json" and isinstance(said, dict):
                step = said.get("global_step")
                found[path] = FileContent("JSON", step=step if is_count(step) else None, checksums=True)
    return dict(sorted(found.items(), key=lambda item: item[0].count("/")))


def _json(directory: int, name: str, path: str, size: int) -> object:
    """Return what a JSON file says; nothing where it has a value a line, or is too long and ends as it should.

    Raises:
        UnsoundError: it is no whole JSON.
        TooLongError: it is an index, and too long.
    """
    with open_file(directory, f"{name}/{path}") as file:
        data = file.read(LONGEST_JSON + 1)
        file.seek(max(0, size - SHORT))
        end = file.read(SHORT)
    try:
        return parse(data)
    except TooLongError:
        if path.endswith(".index.json"):
            raise
        whole = end.rstrip().endswith((b"}", b"]"))
    except ValueError:
        whole = _has_a_value_a_line(data)
    if not whole:
        raise UnsoundError("damaged", f"its part '{path}' is no whole JSON")
    return None


def _has_a_value_a_line(data: bytes) -> bool:
    """Say whether the first and the last line are objects of their own."""
    first, newline, rest = data.strip().partition(b"\n")
    try:
        return bool(newline) and all(isinstance(parse(line), dict) for line in (first, rest.rpartition(b"\n")[2]))
    except ValueError:
        return False


def _check_index(path: str, shards: object, there: Collection[str]) -> None:
    """See that all files are there that an index names: by each tensor's name the file that holds it."""
    names = set(shards.values()) if isinstance(shards, dict) and all(map(_is_text, shards.values())) else {""}
    for shard in sorted(os.path.join(os.path.dirname(path), name) for name in names):
        if shard not in there:
            raise UnsoundError("incomplete", f"lacks '{shard[:80]}', which '{path}' names")


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _check_weights(paths: Collection[str], links: Collection[str]) -> None:
    """See that there is anything beside what stands beside weights, and that it was read."""
    away = [path for path in links if may_be_weights(path)]
    if away:
        raise not_read(f"its part '{away[0]}' is a link, and what it leads to is not read")
    if not any(map(may_be_weights, paths)):
        hint = "it was never finished, or somebody has taken them away: remove it, or bring them back"
        raise UnsoundError("incomplete", "has no weights: all that is in it stands beside them", hint)


def _check_trackers(directory: int, name: str, sizes: Mapping[str, int], links: Collection[str]) -> None:
    """See that the short files that name a part, or say its number, lead to something."""
    for tracker in TRACKERS:
        if sizes.get(tracker, SHORT) >= SHORT:
            continue
        with open_file(directory, f"{name}/{tracker}") as file:
            data = file.read(SHORT)
        text = data.decode("utf-8", "replace").strip()
        if tracker == "checkpoint":
            text = match[1] if (match := STEM.search(text)) else "."
        if text == "." or data.startswith((b"PK", b"\x80")):  # it is no tracker
            continue
        if not _leads_to_any(text, [path for path in (*sizes, *links) if path != tracker]):
            raise UnsoundError("incomplete", f"lacks the folder '{text[:80]}' that '{tracker}' names")


def _leads_to_any(text: str, paths: Collection[str]) -> bool:
    """Say whether a name, of a file or folder or the stem of one, or a number is that of any of the paths."""
    wanted = os.path.basename(text)
    firsts = {path.split("/")[0] for path in paths} | {*paths}
    if wanted.isascii() and wanted.isdigit():
        return any(wanted.lstrip("0") == digits.lstrip("0") for one in firsts for digits in re.findall(r"\d+", one))
    return bool(wanted) and any(one == wanted or one.startswith((f"{wanted}.", f"{wanted}/")) for one in firsts)


def _check_numbered(paths: Collection[str]) -> None:
    """Look for gaps in ``…-00001-of-00003…``; TensorFlow counts from 0, others from 1."""
    groups: dict[tuple[str, str, int], set[int]] = defaultdict(set)
    for path in paths:
        if match := PART.fullmatch(path):
            groups[match[1], match[4], int(match[3])].add(int(match[2]))
    for (start, end, count), numbers in groups.items():
        first = 0 if 0 in numbers else 1
        for number in range(first, first + count):
            if number not in numbers:
                raise UnsoundError("incomplete", f"lacks '{start}{number:05d}-of-{count:05d}{end}'")


def _check_distributed(directory: int, name: str, sizes: Mapping[str, int], tell: Tell) -> None:
    """Compare the files with the shards that ``.metadata`` speaks of (``_StorageInfo``: path, offset, length)."""
    places = [path for path in sizes if os.path.basename(path) == ".metadata"]
    if not places:
        raise UnsoundError("incomplete", "lacks '.metadata', which is written last: it was never finished")
    named: set[str] = set()
    for place in places:
        with open_file(directory, f"{name}/{place}") as file:
            try:
                contents = read_pickle(Limited(file, tell=tell))
            except TooLongError:
                raise
            except UnreadableError as error:
                raise UnsoundError("damaged", f"its part '{place}': {error}") from None
        refuse_code(contents.names)
        for state in contents.states:
            named.add(_check_shard(place, state, sizes))
    for path in sizes:
        if path.endswith(".distcp") and not named:
            raise UnsoundError("incomplete", f"has a '{places[0]}' that names no shard, not even '{path}'")


def _check_shard(place: str, state: Mapping[object, object], sizes: Mapping[str, int]) -> str:
    shard, offset, length = (state.get(key) for key in ("relative_path", "offset", "length"))
    if not isinstance(shard, str) or not is_count(offset) or not is_count(length):
        raise UnsoundError("damaged", f"its part '{place}' names a shard that cannot be")
    path = os.path.join(os.path.dirname(place), shard[:1000])
    if path not in sizes:
        raise UnsoundError("incomplete", f"lacks the shard '{path[-80:]}'")
    if sizes[path] < offset + length:
        raise UnsoundError("truncated", f"its shard '{path}' is cut off")
    return path


def _check_deepspeed(sizes: Mapping[str, int], inside: Mapping[str, FileContent]) -> None:
    """See that the ranks have no gap, up to the number that a model says, and that all are of one step."""
    said = max((facts.ranks or 0 for facts in inside.values()), default=0)
    by_folder: dict[str, dict[str, re.Match[str]]] = defaultdict(dict)
    for path in sizes:
        folder, file_name = os.path.split(path)
        if match := RANK.fullmatch(file_name) or MODEL.fullmatch(file_name):
            by_folder[folder][file_name] = match
    for folder, files in by_folder.items():
        ranks = {(int(m[2]), int(m[1])) for n, m in files.items() if RANK.fullmatch(n)}
        models = {int(m[1]) for n, m in files.items() if MODEL.fullmatch(n)}
        width = max(said, *(rank + 1 for _, rank in ranks)) if ranks else 0
        count = max([*models, *(model for model, _ in ranks)]) + 1
        for model in range(count):
            if model not in models:
                raise UnsoundError("incomplete", f"lacks '{folder}/mp_rank_{model:02d}_model_states.pt'")
            for rank in range(width):
                if (model, rank) not in ranks:
                    raise UnsoundError("incomplete", f"lacks the optimizer state of rank {rank}, model part {model}")
        steps = {facts.step: path for path in files if (facts := inside[os.path.join(folder, path)]).step is not None}
        if len(steps) > 1:
            parts = ", ".join(f"'{steps[step]}' of {step}" for step in sorted(steps, key=str)[:2])
            raise UnsoundError("incomplete", f"holds parts of several steps: {parts}")


def _leads_somewhere(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory)
    except OSError:
        return False
    return True


def _raise(error: OSError) -> None:
    raise error
