"""What packs find in a tree that nobody has described: one bounded walk; what a few checkpoints hold, none executed."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ckptrules.engine.checkpoints import order_of
from ckptrules.engine.comparing import COUNTS, Compared, Inside, compare, first_middle_last
from ckptrules.engine.entries import in_part_folder
from ckptrules.engine.naming import SlowRuleError, own_claim
from ckptrules.engine.ruleset import Pack, asked_inside
from ckptrules.formats.content import UnsoundError
from ckptrules.formats.files import check_file, open_file
from ckptrules.formats.plainjson import LONGEST_JSON, parse
from ckptrules.outputs.find import is_backup
from ckptrules.outputs.picking import BY_NAME, KNOWN, Tree, holds_parts, pick_in
from ckptrules.storage import reading

DEEPEST = 6  # folders below the first one
MOST_NAMES = 50_000
OPENED = 3  # checkpoints of a directory
MOST_OPENED = 300  # of a tree
STATE_FILE = "trainer_state.json"


class Sight(NamedTuple):
    """A folder in which packs know checkpoints: the packs with their evidence, and the names that they know.

    ``directory`` is a path below the folder that was searched; it is empty for that folder itself.
    """

    directory: str
    packs: tuple[Pack, ...]
    names: tuple[str, ...]


def scout(tree: Tree, packs: Sequence[Pack]) -> Iterator[Sight]:
    """Yield the folders in which packs know checkpoints, the upper ones first.

    No deeper than `DEEPEST`, no more than `MOST_NAMES` names, and never into a checkpoint or a hidden folder. Where no
    folder that could be one holds what its format asks for, none is one, and what lies in it is looked at.
    """
    pending, looked = deque([("", 0)]), 0
    while pending and looked < MOST_NAMES:
        path, depth = pending.popleft()
        looked += len(tree.names(path)) + 1
        picked = pick_in(tree, packs, path)
        names = tree.names_of_checkpoints(path, picked)
        known = {
            name
            for name, folder in names.items()
            if any(tree.kind(pack, name, folder=folder) == "format" for pack in picked)
        }
        if not any(is_one(tree, f"{path}/{name}".lstrip("/"), pack) for name in known for pack in picked):
            known = set()
        known = known or {name for name, folder in names.items() if not folder and is_best(tree, name, picked)}
        if known:
            yield Sight(path, tuple(picked), tuple(sorted(known)))
        for name in sorted(name for name, folder in tree.names(path).items() if folder and depth < DEEPEST):
            taken = name in known or holds_parts(name, picked)
            if not (taken or name.startswith(".") or is_backup(os.path.join(tree.outputs_dir, path), name)):
                pending.append((f"{path}/{name}" if path else name, depth + 1))


def is_best(tree: Tree, name: str, packs: Sequence[Pack]) -> bool:
    """Say whether a file is protected as one of the best, by a pack of which there is a mark: some save no others."""
    marked = (pack for pack in packs if pack.evidence != BY_NAME)
    return "best" in name.lower() and any(tree.kind(pack, name, folder=False) in KNOWN for pack in marked)


def is_one(tree: Tree, path: str, pack: Pack) -> bool:
    """Say whether what a pack takes for a checkpoint holds some of what its format asks for: ``2024/`` is anybody's."""
    parent, _, name = path.rpartition("/")
    folder = tree.names(parent)[name]
    if tree.kind(pack, name, folder=folder) != "format":
        return False
    asked = asked_inside(own_claim(name, pack.rules, folder=folder).rule) if folder else ()
    return not asked or any(tree.has(path, pattern) for pattern in asked)


def by_pack(tree: Tree, sight: Sight, most: int) -> tuple[dict[str, Compared], int]:
    """Open so many checkpoints of a directory, and compare them by what each pack reads; say how many were opened."""
    names = tree.names_of_checkpoints(sight.directory, sight.packs)
    there = [name for name in sight.names if name in names]
    read = {pack.name: {name: _fields(pack, name, folder=names[name]) for name in there} for pack in sight.packs}
    ordered = sorted(there, key=lambda name: order_of(read[sight.packs[0].name][name]))
    chosen = first_middle_last(ordered)[:most]
    inside = {name: look_into(tree.outputs_dir, sight.directory, name, folder=names[name]) for name in chosen}
    compared = {pack: compare((fields[name], inside[name]) for name in chosen) for pack, fields in read.items()}
    return compared, len(chosen)


def _fields(pack: Pack, name: str, *, folder: bool) -> Mapping[str, str]:
    try:
        return own_claim(in_part_folder(name)[1], pack.rules, folder=folder).fields
    except SlowRuleError:
        return {}


def look_into(outputs_dir: str, directory: str, name: str, *, folder: bool) -> Inside:
    """Read the numbers inside a checkpoint below ``outputs_dir``; none where it tells none, or is not read."""
    try:
        with reading.open_below(outputs_dir, directory) as opened:
            if not folder:
                with open_file(opened, name) as file:
                    content = check_file(file, os.fstat(file.fileno()).st_size, lambda _: None, quick=True)
                return {"epoch": content.epoch, "step": content.step, **dict(zip(COUNTS, content.counts, strict=False))}
        with (
            reading.open_below(outputs_dir, os.path.join(directory, name)) as inner,
            open_file(inner, STATE_FILE) as file,
        ):
            state = parse(file.read(LONGEST_JSON + 1))
    except (OSError, UnsoundError, ValueError):
        return {}
    step = state.get("global_step") if isinstance(state, dict) else None
    return {"step": step if isinstance(step, int) else None}
