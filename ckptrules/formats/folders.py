"""Checks a checkpoint that is a directory: whether all its parts are there, and each part that is a file of its own."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from ckptrules.engine.counted import why_ranks_lack
from ckptrules.engine.weights import NO_WEIGHTS, may_be_weights
from ckptrules.formats import layouts
from ckptrules.formats.content import FileContent, Tell, UnsoundError, not_read, of_part, together, told_as_fault
from ckptrules.formats.files import HEADER, bytes_to_read, check_file, glance, open_file
from ckptrules.formats.layouts import INDEX, MODEL, SHORT, Folder

WHOLE_FILES = tuple(".pt .pth .ckpt .bin .safetensors .h5 .hdf5 .npy .npz .msgpack .nemo .ply .gguf".split())
NEVER_EMPTY = (*WHOLE_FILES, ".onnx", ".pdparams", ".params", ".json", ".metadata")
SPEECHBRAIN = "CKPT.yaml"  # beside it, counters and the like are text under the ending of weights
TEXT = "text"
NOTE = re.compile(rb"(?:[\w.-]+: )?[\w.+-]+")

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


def _walk(directory: int, name: str) -> Iterator[tuple[str, os.stat_result, int]]:
    """Yield what lies in a checkpoint directory: its path in there, its status, and its open folder."""
    for folder, folders, files, inner in os.fwalk(name, dir_fd=directory, onerror=_raise):
        for one in (*folders, *files):
            yield os.path.join(folder, one)[len(name) + 1 :], os.lstat(one, dir_fd=inner), inner


def check_folder(
    directory: int, name: str, tell: Tell, *, quick: bool, answers: Mapping[Shard, ShardAnswer] = MappingProxyType({})
) -> FileContent:
    """Check a checkpoint directory; of each part, as `check_file` does.

    ``answers`` are what came of files that were read before; one that has changed since is read again.

    Raises:
        UnsoundError: a part is missing, empty, damaged, or not read.
    """
    with told_as_fault(tell) as heard:
        folder, shards = _look(directory, name, heard)
        parts = dict(_check_files(folder, shards, quick=quick, answers=answers))
        inside = {**layouts.check_json(folder), **parts}
        kind = _kind_of(folder, inside, quick=quick)
        _check_weights([path for path in folder.sizes if path not in inside or inside[path].kind != TEXT], folder.links)
    content = together(kind, inside.values())
    return content._replace(checksums=bool(parts) and content.checksums)


def shards_to_read(directory: int, name: str) -> tuple[Shard, ...]:
    """List the files of a checkpoint directory that `check_shard` may read, each for itself.

    There are none where the files cannot be judged one by one, or where it is plain already that something is missing.
    """
    with contextlib.suppress(OSError, UnsoundError), told_as_fault(lambda _: None) as heard:
        _, shards = _look(directory, name, heard)
        if not any(shard.path == SPEECHBRAIN for shard in shards):
            return tuple(shard for shard in shards if _is_read(shard.path, shard.size))
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
    with of_part(shard.path), open_file(directory, f"{name}/{shard.path}") as file:
        return check_file(file, shard.size, tell, quick=quick)


def glance_at_folder(directory: int, name: str, tell: Tell) -> dict[str, str]:
    """Look at what a checkpoint directory must hold, and at each part as `glance` does; `check_folder` reads them.

    Return the format of each part, by its path.

    Raises:
        UnsoundError: it is plain that something is missing or cut off; ``not_read`` as for `check_folder`.
    """
    with told_as_fault(tell) as heard:
        folder, _ = _look(directory, name, heard)
        formats = {}
        for path, size in folder.sizes.items():
            if _is_read(path, size):
                heard(0)
                with of_part(path), folder.open(path) as file:
                    formats[path] = glance(file, size)
        layouts.check_json(folder, INDEX)
        _kind_of(folder, {**dict.fromkeys(folder.sizes, FileContent("")), **_first_model(folder)}, quick=True)
        return formats


def _first_model(folder: Folder) -> dict[str, FileContent]:
    """Read what a model of DeepSpeed says and no name does: how many ranks there are (it loads by that number)."""
    for path in (path for path in folder.sizes if MODEL.fullmatch(os.path.basename(path))):
        with contextlib.suppress(UnsoundError), told_as_fault(folder.tell) as heard, folder.open(path) as file:
            return {path: check_file(file, folder.sizes[path], heard, quick=True)}
    return {}


def _look(directory: int, name: str, tell: Tell) -> tuple[Folder, tuple[Shard, ...]]:
    """List the files and the links in a checkpoint directory, sorted.

    Raises:
        UnsoundError: by the names and sizes alone, something is missing.
    """
    shards, links = parts_of(directory, name), list[str]()
    for path, status, inner in _walk(directory, name):
        if stat.S_ISLNK(status.st_mode):
            if not os.access(os.path.basename(path), os.F_OK, dir_fd=inner):
                raise UnsoundError("incomplete", f"its part '{path}' is a link that leads nowhere")
            links.append(path)
    for shard in shards:
        if shard.size == 0 and shard.path.endswith(NEVER_EMPTY):
            raise UnsoundError("incomplete", f"has an empty part: '{shard.path}'")
    layouts.check_numbered({*(shard.path for shard in shards), *links})
    sizes = {shard.path: shard.size for shard in shards}
    return Folder(directory, name, sizes, tuple(sorted(links)), tell), shards


def _kind_of(folder: Folder, inside: Mapping[str, FileContent], *, quick: bool) -> str:
    """Find out which framework wrote a directory, and see that all is there that it says.

    Raises:
        UnsoundError: a part is missing.
    """
    kind = "torch.distributed" if layouts.check_distributed(folder) else "directory"
    kind = "TensorFlow" if layouts.check_tensorflow(folder, quick=quick) else kind
    kind = "DeepSpeed" if layouts.check_deepspeed(folder, inside) else kind
    if said := why_ranks_lack([*folder.sizes, *folder.links]):
        raise UnsoundError("incomplete", f"has {said}")
    layouts.check_trackers(folder)
    return kind


def _check_files(
    folder: Folder, shards: Sequence[Shard], *, quick: bool, answers: Mapping[Shard, ShardAnswer]
) -> Iterator[tuple[str, FileContent]]:
    for shard in shards:
        folder.tell(0)
        if not _is_read(shard.path, shard.size):
            continue
        if SPEECHBRAIN in folder.sizes and _is_note(folder, shard):
            folder.tell(shard.size)
            yield shard.path, FileContent(TEXT, checksums=True)
        else:
            answer = answers.get(shard) or check_shard(folder.directory, folder.name, shard, folder.tell, quick=quick)
            if isinstance(answer, Exception):
                raise answer
            yield shard.path, answer


def _is_read(path: str, size: int) -> bool:
    """Say whether the format of a part can be told: msgpack of one byte, an empty dictionary, is as a pickle begins."""
    return path.endswith(WHOLE_FILES) and not (path.endswith(".msgpack") and size == 1)


def _is_note(folder: Folder, shard: Shard) -> bool:
    """Say whether a file is lines of one value each, as SpeechBrain writes its counters."""
    with folder.open(shard.path) as file:
        data = file.read(SHORT)
    return shard.size == len(data) and all(map(NOTE.fullmatch, data.splitlines()))


def _check_weights(paths: Collection[str], links: Collection[str]) -> None:
    """See that there is anything beside what stands beside weights, and that it was read."""
    away = [path for path in links if may_be_weights(path)]
    if away:
        raise not_read(f"its part '{away[0]}' is a link, and what it leads to is not read")
    if not any(map(may_be_weights, paths)):
        hint = "it was never finished, or somebody has taken them away: remove it, or bring them back"
        raise UnsoundError("incomplete", f"has {NO_WEIGHTS}", hint)


def _raise(error: OSError) -> None:
    raise error
