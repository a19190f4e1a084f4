"""Opens a few checkpoints to see which numbers stand inside; nothing of them is executed."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ckptrules.engine.checkpoints import order_of
from ckptrules.engine.comparing import COUNTS, Compared, Inside, compare, first_middle_last
from ckptrules.engine.entries import in_part_folder
from ckptrules.engine.naming import SlowRuleError, own_claim
from ckptrules.engine.ruleset import Pack
from ckptrules.formats.content import UnsoundError
from ckptrules.formats.files import check_file, open_file
from ckptrules.formats.plainjson import LONGEST_JSON, parse
from ckptrules.outputs.picking import Tree
from ckptrules.outputs.scouting import Sight
from ckptrules.storage import reading

OPENED = 3  # checkpoints of a directory
MOST_OPENED = 300  # of a tree
STATE_FILE = "trainer_state.json"


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
