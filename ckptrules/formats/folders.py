"""Checks a checkpoint that is a directory: that all its parts are there, and each part whose format is known."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from ckptrules.engine.entries import LEADS_NOWHERE
from ckptrules.engine.whole.counted import why_ranks_lack
from ckptrules.engine.whole.weights import NO_WEIGHTS, may_be_weights
from ckptrules.formats import layouts
from ckptrules.formats.content import (
    FileContent,
    Progress,
    UnsoundError,
    combine,
    errors_as_faults,
    faults_of_part,
)
from ckptrules.formats.files import HEADER, bytes_to_read, check_file, glance, open_file
from ckptrules.formats.layouts import INDEX, MODEL, SHORT, Folder
from ckptrules.formats.limits import NotReadError

WHOLE_FILES = tuple(".pt .pth .ckpt .bin .safetensors .h5 .hdf5 .npy .npz .msgpack .nemo .ply .gguf".split())
NEVER_EMPTY = (*WHOLE_FILES, ".onnx", ".pdparams", ".params", ".json", ".metadata")
SPEECHBRAIN = "CKPT.yaml"  # beside this file, counters and the like are text files with the ending of weights
TEXT = "text"
TEXT_LINE = re.compile(rb"(?:[\w.-]+: )?[\w.+-]+")

FileAnswer = FileContent | UnsoundError | OSError
"""What a file holds, or why that is not known."""


class InnerFile(NamedTuple):
    """A file inside a checkpoint directory: its path from there, and what ``stat`` says."""

    path: str
    inode: int
    size: int
    mtime_ns: int


def files_in(directory: int, name: str) -> tuple[InnerFile, ...]:
    """List the files of a checkpoint directory, sorted. Links are not followed and not listed."""
    found = _walk(directory, name)
    return tuple(sorted(_file(path, status) for path, status, _ in found if stat.S_ISREG(status.st_mode)))


def _walk(directory: int, name: str) -> Iterator[tuple[str, os.stat_result, int]]:
    """Yield all that lies in a checkpoint directory: its path from there, its status, and its open folder."""
    for folder, folders, files, inner in os.fwalk(name, dir_fd=directory, onerror=_raise):
        for one in (*folders, *files):
            yield os.path.join(folder, one)[len(name) + 1 :], os.lstat(one, dir_fd=inner), inner


def _file(path: str, status: os.stat_result) -> InnerFile:
    return InnerFile(path, status.st_ino, status.st_size, status.st_mtime_ns)


def check_folder(
    directory: int,
    name: str,
    progress: Progress,
    *,
    quick: bool,
    answers: Mapping[InnerFile, FileAnswer] = MappingProxyType({}),
) -> FileContent:
    """Check a checkpoint directory, and each of its parts as `check_file` does.

    ``answers`` are the results of parts that workers have read; a part that has changed since is read again.

    Raises:
        UnsoundError: a part is missing, empty, damaged, or not read.
    """
    with errors_as_faults(progress) as guarded:
        folder, files = _look(directory, name, guarded)
        parts = dict(_check_files(folder, files, quick=quick, answers=answers))
        inside = {**layouts.check_json(folder), **parts}
        kind = _kind_of(folder, inside, quick=quick)
        _check_weights([path for path in folder.sizes if path not in inside or inside[path].kind != TEXT], folder.links)
    content = combine(kind, inside.values())
    return content._replace(checksums=bool(parts) and content.checksums)


def files_to_read(directory: int, name: str) -> tuple[InnerFile, ...]:
    """List the files of a checkpoint directory that `check_inner_file` may read one by one.

    Empty, if something is missing already, or if the files of its framework can only be judged together.
    """
    with contextlib.suppress(OSError, UnsoundError), errors_as_faults(lambda _: None) as guarded:
        _, files = _look(directory, name, guarded)
        if not any(file.path == SPEECHBRAIN for file in files):
            return tuple(file for file in files if _is_read(file.path, file.size))
    return ()


def bytes_to_read_in(directory: int, name: str) -> int:
    """Estimate how many bytes a check of a checkpoint directory reads: few of all but `WHOLE_FILES`."""
    return sum(
        bytes_to_read(file.path, file.size) if file.path.endswith(WHOLE_FILES) else min(file.size, HEADER)
        for file in files_in(directory, name)
    )


def check_inner_file(directory: int, name: str, file: InnerFile, progress: Progress, *, quick: bool) -> FileContent:
    """Check one file of a checkpoint directory, as `check_file` does.

    Raises:
        UnsoundError: the file is damaged, or not read.
    """
    with faults_of_part(file.path), open_file(directory, f"{name}/{file.path}") as content:
        return check_file(content, file.size, progress, quick=quick)


def glance_at_folder(directory: int, name: str, progress: Progress) -> dict[str, str]:
    """Look for missing parts of a checkpoint directory, and at each part as `glance` does.

    Return the format of each part, by its path.

    Raises:
        UnsoundError: a part is missing or cut off; ``not_read`` as for `check_folder`.
    """
    with errors_as_faults(progress) as guarded:
        folder, _ = _look(directory, name, guarded)
        formats = {}
        for path, size in folder.sizes.items():
            if _is_read(path, size):
                guarded(0)
                with faults_of_part(path), folder.open(path) as file:
                    formats[path] = glance(file, size)
        layouts.check_json(folder, INDEX)
        _kind_of(folder, {**dict.fromkeys(folder.sizes, FileContent("")), **_first_model(folder)}, quick=True)
        return formats


def _first_model(folder: Folder) -> dict[str, FileContent]:
    """Read a model file of DeepSpeed: it holds the number of ranks, which no name does, and which loading needs."""
    for path in (path for path in folder.sizes if MODEL.fullmatch(os.path.basename(path))):
        with contextlib.suppress(UnsoundError), errors_as_faults(folder.progress) as guarded, folder.open(path) as file:
            return {path: check_file(file, folder.sizes[path], guarded, quick=True)}
    return {}


def _look(directory: int, name: str, progress: Progress) -> tuple[Folder, tuple[InnerFile, ...]]:
    """List the files and the links in a checkpoint directory, sorted."""
    files, links = list[InnerFile](), list[str]()
    for path, status, inner in _walk(directory, name):
        if stat.S_ISREG(status.st_mode):
            files.append(_file(path, status))
        elif stat.S_ISLNK(status.st_mode):
            try:
                os.stat(os.path.basename(path), dir_fd=inner)
            except OSError as error:
                if error.errno not in LEADS_NOWHERE:
                    raise
                raise UnsoundError("incomplete", f"its part '{path}' is a link that leads nowhere") from None
            links.append(path)
    files.sort()
    for file in files:
        if file.size == 0 and file.path.endswith(NEVER_EMPTY):
            raise UnsoundError("incomplete", f"has an empty part: '{file.path}'")
    layouts.check_numbered({*(file.path for file in files), *links})
    sizes = {file.path: file.size for file in files}
    return Folder(directory, name, sizes, tuple(sorted(links)), progress), tuple(files)


def _kind_of(folder: Folder, inside: Mapping[str, FileContent], *, quick: bool) -> str:
    """Return which framework wrote a directory, and check that all parts are there that it names."""
    kind = "torch.distributed" if layouts.check_distributed(folder) else "directory"
    kind = "TensorFlow" if layouts.check_tensorflow(folder, quick=quick) else kind
    kind = "DeepSpeed" if layouts.check_deepspeed(folder, inside) else kind
    if gap := why_ranks_lack([*folder.sizes, *folder.links]):
        raise UnsoundError("incomplete", f"has {gap}")
    layouts.check_trackers(folder)
    return kind


def _check_files(
    folder: Folder, files: Sequence[InnerFile], *, quick: bool, answers: Mapping[InnerFile, FileAnswer]
) -> Iterator[tuple[str, FileContent]]:
    for file in files:
        folder.progress(0)
        if not _is_read(file.path, file.size):
            continue
        if SPEECHBRAIN in folder.sizes and _is_text(folder, file):
            folder.progress(file.size)
            yield file.path, FileContent(TEXT, checksums=True)
        else:
            answer = answers.get(file) or check_inner_file(
                folder.directory, folder.name, file, folder.progress, quick=quick
            )
            if isinstance(answer, Exception):
                raise answer
            yield file.path, answer


def _is_read(path: str, size: int) -> bool:
    """Say whether a part is checked as a file. Msgpack of one byte, an empty dictionary, looks like a pickle."""
    return path.endswith(WHOLE_FILES) and not (path.endswith(".msgpack") and size == 1)


def _is_text(folder: Folder, file: InnerFile) -> bool:
    """Say whether a file is text with one value a line, as SpeechBrain writes its counters."""
    with folder.open(file.path) as content:
        data = content.read(SHORT)
    return file.size == len(data) and all(map(TEXT_LINE.fullmatch, data.splitlines()))


def _check_weights(paths: Collection[str], links: Collection[str]) -> None:
    """Check that there are weights, and that none of them are links, which are not read."""
    linked = [path for path in links if may_be_weights(path)]
    if linked:
        raise NotReadError(f"its part '{linked[0]}' is a link, and what it leads to is not read")
    if not any(map(may_be_weights, paths)):
        hint = "it was never finished, or somebody has taken them away: remove it, or bring them back"
        raise UnsoundError("incomplete", f"has {NO_WEIGHTS}", hint)


def _raise(error: OSError) -> None:
    raise error
