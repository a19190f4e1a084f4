"""Recognise names that look like checkpoints, and propose a ``layout`` that covers their folders. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ckptrules.engine.entries import NO_CHECKPOINT_ENDINGS
from ckptrules.engine.measures import count_of
from ckptrules.engine.ruleset import is_pattern, pattern_of
from ckptrules.engine.shapes import in_yaml

ENDINGS = tuple(
    ".ckpt .pt .pth .pyth .pth.tar .safetensors .h5 .hdf5 .keras .npz .msgpack .distcp .nemo .pdparams .pdopt".split()
)
# A word with a number, and perhaps more: checkpoint-500, epoch_3, iter_0005000, global_step100, model.ckpt-1000.index
_NUMBERED = re.compile(
    r"(?:.*[-_. ])?(?:checkpoint|ckpt|epoch|global_?step|step|iter|iteration)[-_=]?\d+(?:[-_=. ].*)?", re.IGNORECASE
)
_COUNT = re.compile(r"-[0-9]+\Z")  # model.pth.tar-60, checkpoint.npz-000005000
# Files that are being written or copied: checkpoint_4000.tmp, checkpoint_4000.tmp-1681, epoch=3.ckpt.part. And what
# `RulesCheckpoint` has set aside: epoch-3.ckpt.replaced-20261128T145955Z-8636
_UNFINISHED = re.compile(
    r"\.(?:(?:tmp|part|partial|filepart|crdownload|lock)(?![A-Za-z0-9])|replaced-\d{8}T\d{6}Z-\d+\Z)", re.IGNORECASE
)
# Endings of logs, settings and the like; an array (.npy) may be weights.
BESIDE = tuple(ending for ending in NO_CHECKPOINT_ENDINGS if ending != ".npy")
HOLDERS = frozenset("checkpoints checkpoint ckpts ckpt weights models model snapshots saved_models save nn".split())
EXAMPLES = 3  # folders that a message shows


class PassedOver(NamedTuple):
    """A folder below ``outputs_dir`` with names that look like checkpoints, and that no command reads.

    ``number`` is how many names look like checkpoints, ``example`` one of them. ``is_covered`` is whether the layout
    covers the folder, but no rule knows any name in it.
    """

    path: str
    number: int
    example: str
    is_covered: bool = False


def looks_like(name: str) -> bool:
    """Return whether a name looks like a checkpoint, by its ending or by a word with a number."""
    if ends_as_weights(name):
        return True
    is_other = name.lower().endswith((*BESIDE, ".gz", ".zip")) or _UNFINISHED.search(name)
    return _NUMBERED.fullmatch(name) is not None and not is_other


def ends_as_weights(name: str) -> bool:
    """Return whether a name has an ending of weights, and perhaps a number behind it."""
    return _COUNT.sub("", name.lower()).endswith(ENDINGS)


def stands_beside(name: str, *, folder: bool) -> bool:
    """Return whether a name is one that frameworks write beside checkpoints: logs, settings, other folders."""
    is_log = name.lower().endswith(BESIDE) or name.startswith("events.out.")
    return not looks_like(name) and (folder or is_log)


def patterns_for(paths: Iterable[str]) -> dict[str, str]:
    """Return the pattern that covers each folder: ``*/*/checkpoints`` for ``a/b/checkpoints``.

    The last part stays if it is one of `HOLDERS`, or if several folders have it and it has no number (``seed1``).
    """
    parts = [path.split("/") for path in paths if path]
    shared = Counter((len(one), one[-1]) for one in parts)
    return {"/".join(one): "/".join([*"*" * (len(one) - 1), _last(one, shared)]) for one in parts}


def layout_for(paths: Iterable[str]) -> list[str]:
    """Return the `patterns_for` folders, the shortest first."""
    return sorted({*patterns_for(paths).values()}, key=lambda pattern: (pattern.count("/"), pattern))


def uncovered_text(
    folders: Sequence[PassedOver], layout: Sequence[str], outputs_dir: str, rules: str, *, more: bool = False
) -> str:
    """Return a message on folders that no command reads, with the line that would cover them; empty without folders.

    ``folders`` have printable names. ``rules`` is the file to edit, or how to get one. ``more`` is whether some folders
    were not looked at.
    """
    unread = [one for one in folders if one.is_covered]
    outside = [one for one in folders if not one.is_covered]
    lines = _listed("These look like checkpoints, and no layout covers them:", outside, outputs_dir)
    patterns = [*layout, *layout_for(one.path for one in outside)]
    if all(one.path for one in outside):
        lines += [f"    hint: in {rules}: layout: {as_line(patterns)}"] * bool(outside)
    else:
        here = pattern_of(outputs_dir.rstrip("/").rpartition("/")[2])
        lines.append("    hint: some lie in outputs_dir itself: name the folder above with outputs_dir=PATH, and in")
        lines.append(f"      {rules}: layout: {as_line([*(f'{here}/{one}' for one in patterns), here])}")
    lines += _listed("These look like checkpoints, and no pack that is listed knows any there:", unread, outputs_dir)
    if unread:
        lines.append(f"    hint: 'doit packs' tells which one does; list it under 'packs' in {rules}")
    if more:
        lines.append("There is too much beside the checkpoint directories to look for others in all of it.")
    return "\n".join(lines)


def _listed(title: str, folders: Sequence[PassedOver], outputs_dir: str) -> list[str]:
    """Return the title and lines that name the first folders; empty without folders."""
    lines = [f"    {one.path or outputs_dir}: {one.number}, such as {one.example}" for one in folders[:EXAMPLES]]
    if more := folders[EXAMPLES:]:
        lines.append(f"    and in {count_of(len(more), 'other folder')}: {sum(one.number for one in more)}")
    return [title, *lines] if lines else []


def as_line(patterns: Iterable[str]) -> str:
    """Write patterns as YAML has a list in one line."""
    return "[" + ", ".join(map(in_yaml, dict.fromkeys(patterns))) + "]"


def _last(parts: Sequence[str], shared: Mapping[tuple[int, str], int]) -> str:
    last = parts[-1]
    says_so = last in HOLDERS or (shared[len(parts), last] > 1 and not (looks_like(last) or re.search(r"\d", last)))
    return last if says_so and not is_pattern(last) else "*"
