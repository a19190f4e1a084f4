"""Find the newest save with files in folders beside each other, as ``models/model_10.pt`` and ``optim/optim_10.pt``."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from ckptrules.engine.checkpoints import Evidence, numbers_told
from ckptrules.engine.entries import Directory, Entry
from ckptrules.engine.names.sorting import HOLDING, sort_entries
from ckptrules.engine.names.words import ENDING
from ckptrules.engine.whole.cut_short import names_roles
from ckptrules.engine.whole.wholeness import unwhole
from ckptrules.outputs.evidence import Looks, look_inside
from ckptrules.outputs.glancing import Glances
from ckptrules.outputs.in_use import in_use
from ckptrules.outputs.listing import read_directory
from ckptrules.storage.reading import open_below

MOST = 64  # folders beside each other: each of them is read for each
_NUMBER = re.compile(r"(?<!\d)(?<!\d\.)\d+(?!\.?\d)")  # a whole one


class Share(NamedTuple):
    """What one of the folders holds: ``unsound`` are the entries that are not whole by their names and sizes."""

    path: str
    entries: tuple[Entry, ...]
    unsound: frozenset[Entry]

    def of(self, numbers: set[int]) -> list[Entry]:
        """Return the entries whose names tell these numbers, or some of them and no other."""
        told = ((one, {*map(int, _NUMBER.findall(ENDING.sub("", one.name)))}) for one in self.entries)
        return [one for one, own in told if own and (own <= numbers or own >= numbers)]


def newest_beside(looks: Looks) -> dict[str, tuple[str, ...]]:
    """Return the newest checkpoints that the folders beside have, too, each with the paths of these folders.

    Folders share saves if their names say what files hold, as ``models`` and ``optimizers`` do, and numbers in both
    agree. Rules need not read the names in the other folders. Empty if nothing is shared.

    Raises:
        OSError: a folder cannot be read, so what it shares is unknown.
    """
    above, own = os.path.split(looks.listing.directory)
    if not names_roles(own):
        return {}
    with open_below(looks.outputs_dir, above) as directory:
        folders = [e.name for e in os.scandir(directory) if names_roles(e.name) and e.is_dir(follow_symlinks=False)]
    if folders == [own] or len(folders) > MOST:
        return {}
    told = [(one.entry.name, {*numbers_told(one.fields).values()}) for one in looks.found.checkpoints]
    shares = [_share(looks, os.path.join(above, folder)) for folder in sorted(folders)]
    shares = [share for share in shares if any(numbers and share.of(numbers) for _, numbers in told)]
    others = tuple(f"../{os.path.basename(share.path)}" for share in shares if share.path != looks.listing.directory)
    newest = (numbers for _, numbers in reversed(told) if numbers and all(_is_whole(looks, s, numbers) for s in shares))
    saved = next(newest, None) if others else None
    return {name: others for name, numbers in told if numbers == saved}


def _share(looks: Looks, path: str) -> Share:
    """Read one of the folders."""
    with open_below(looks.outputs_dir, path) as directory:
        listing = read_directory(directory, Directory("", path))
        evidence = Evidence(inside=look_inside(directory, listing, looks.rules))
    marked, _ = unwhole(sort_entries(looks.rules, listing), listing, looks.rules, evidence)
    entries = [one for one in listing.entries if one.kind in HOLDING]
    unsound = (one for one in entries if not one.size or one.hollow or one.torn or one.name in marked)
    return Share(path, tuple(entries), frozenset(unsound))


def _is_whole(looks: Looks, share: Share, numbers: set[int]) -> bool:
    """Return whether a folder has something with these numbers, and nothing that is broken or in use."""
    entries = share.of(numbers)
    if not entries or not share.unsound.isdisjoint(entries):
        return False
    with open_below(looks.outputs_dir, share.path) as directory:
        busy = (in_use(directory, one, looks.rules.settle, looks.now_ns) for one in entries)
        return not Glances(directory).broken(entries, ()) and not any(busy)
