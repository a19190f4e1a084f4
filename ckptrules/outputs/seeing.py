"""What a tree that nobody has described holds: directories, the packs that know them, and how sure that is."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ckptrules.engine.lookalikes import looks_like
from ckptrules.engine.naming import CHECKPOINTS, SlowRuleError, named, own_claim
from ckptrules.engine.packs import told, with_packs
from ckptrules.engine.sorting import sort_entries
from ckptrules.engine.starting import Compared, Seen, numbers_of
from ckptrules.engine.values import Checkpoint, Directory, Listing, Pack, RuleSet, Stamp, in_part_folder
from ckptrules.formats.content import UnsoundError
from ckptrules.formats.files import check_file, open_file
from ckptrules.formats.plainjson import LONGEST_JSON, parse
from ckptrules.outputs.facts import all_facts
from ckptrules.outputs.listing import scan
from ckptrules.outputs.picking import BY_NAME, Tree, pick_in
from ckptrules.outputs.scouting import MOST_NAMES, Sight, is_one, scout
from ckptrules.storage import reading

OPENED = 3  # checkpoints of a directory
MOST_OPENED = 300  # of a tree
PROTOCOL = "protocol"
LIGHTNING = "lightning-default"  # the one rule of this package that is about names of another
STATE_FILE = "trainer_state.json"


class Found(NamedTuple):
    """What was seen. ``strangers`` look like checkpoints that no pack knows; ``opened`` is how many were read."""

    seen: tuple[Seen, ...]
    strangers: tuple[Seen, ...]
    folders: int
    opened: int
    stopped: bool


def see(outputs_dir: str, rules: RuleSet, own: RuleSet) -> Found:
    """Look at a tree; nothing of it is executed.

    Args:
        outputs_dir: the folder to look in.
        rules: those with all packs.
        own: the rules of this package; directories in which they know names are those of `PROTOCOL`.
    """
    tree = Tree(outputs_dir)
    sights = list(scout(tree, rules.packs))
    seen, left = [], MOST_OPENED
    for sight in sights:
        paths = [f"{sight.directory}/{name}".lstrip("/") for name in sight.names]
        packs = tuple(pack for pack in sight.packs if any(is_one(tree, path, pack) for path in paths))
        with contextlib.suppress(OSError, SlowRuleError):  # then its names are those of a stranger
            if one := _protocol(tree, sight, own):
                seen.append(one)
            elif packs:
                one, opened = _seen(tree, sight._replace(packs=packs), rules, min(left, OPENED))
                seen.append(one)
                left -= opened
    judging = [pack for pack in rules.packs if any(pack.name in one.packs for one in seen)]
    strangers = tuple(_strangers(tree, sights, {one.directory: one.packs for one in seen}, own, judging))
    looked = sum(map(len, tree.listed.values()))
    return Found(tuple(seen), strangers, len(tree.listed), MOST_OPENED - left, stopped=looked >= MOST_NAMES)


def _protocol(tree: Tree, sight: Sight, own: RuleSet) -> Seen | None:
    """Return a directory whose names are in the format of this package or one of its older forms."""
    names = tree.names_of_checkpoints(sight.directory, sight.packs)
    claims = (own_claim(in_part_folder(name)[1], own, folder=names[name]) for name in sight.names)
    mine = [claim for claim in claims if claim.rule and claim.rule.id != LIGHTNING and claim.kind in CHECKPOINTS]
    if not mine:
        return None
    listing = _listing(tree, sight)
    found = sort_entries(own, listing).checkpoints
    size = sum(one.entry.size for one in found)
    return Seen(sight.directory, (PROTOCOL,), True, "epoch and step in its format", len(found), size)  # noqa: FBT003 - a value


def _seen(tree: Tree, sight: Sight, rules: RuleSet, most: int) -> tuple[Seen, int]:
    """Judge a directory, opening so many of its checkpoints at most, and count those that were opened."""
    names, own = tree.names_of_checkpoints(sight.directory, sight.packs), with_packs(rules, sight.packs)
    claims = {name: named(in_part_folder(name)[1], own, folder=names[name]).claim for name in sight.names}
    clear = [name for name, claim in claims.items() if claim.rule]
    listing = _listing(tree, sight)
    found = sort_entries(own, listing).checkpoints
    chosen = [found[place] for place in sorted({0, len(found) // 2, len(found) - 1})][:most] if found else []
    compared = _compare(tree.outputs_dir, sight.directory, chosen)
    marks = sight.packs[0].evidence
    speaks = marks != BY_NAME or (compared.opened > 0 and compared.agrees)
    evidence = marks if clear else next(claim.reason.text.partition(";")[0] for claim in claims.values())
    metrics = all_facts(tree.outputs_dir, listing, own).metrics
    numbers = tuple(numbers_of(one.fields, metrics.get(one.entry.name, ())) for one in found)
    one = Seen(
        directory=sight.directory,
        packs=tuple(pack.name for pack in sight.packs),
        sure=bool(clear) and speaks,
        evidence=evidence,
        checkpoints=len(found) or len(sight.names),
        size=sum(entry.size for entry in listing.entries if entry.name in sight.names),
        numbers=numbers,
        compared=compared,
    )
    return one, len(chosen)


def _listing(tree: Tree, sight: Sight) -> Listing:
    parts = tuple(text for pack in sight.packs for text in pack.rules.part_folders)
    return scan(tree.outputs_dir, Directory(sight.directory, sight.directory, Stamp(0, 0, 0), parts))


# --- the numbers inside -----------------------------------------------------------------------------------------------


def _compare(outputs_dir: str, path: str, chosen: Iterable[Checkpoint]) -> Compared:
    """Compare the numbers in the names of checkpoints with those inside."""
    compared = Compared()
    for one in chosen:
        inside = _inside(outputs_dir, path, one.entry.name, folder=one.entry.kind == "directory")
        pairs = [(number, inside[key]) for key, number in told(one.fields).items() if inside.get(key) is not None]
        if pairs:
            compared = Compared(
                compared.opened + 1,
                compared.equal + all(one == other for one, other in pairs),
                compared.one_less + all(one + 1 == other for one, other in pairs),
            )
    return compared


def _inside(outputs_dir: str, path: str, name: str, *, folder: bool) -> Mapping[str, int | None]:
    """Read the numbers inside a checkpoint; none where it tells none, or is not read."""
    try:
        with reading.open_below(outputs_dir, path) as directory:
            if not folder:
                with open_file(directory, name) as file:
                    content = check_file(file, os.fstat(file.fileno()).st_size, lambda _: None, quick=True)
                return {"epoch": content.epoch, "step": content.step}
            with (
                reading.open_below(outputs_dir, os.path.join(path, name)) as inner,
                open_file(inner, STATE_FILE) as file,
            ):
                state = parse(file.read(LONGEST_JSON + 1))
    except (OSError, UnsoundError, ValueError):
        return {}
    step = state.get("global_step") if isinstance(state, dict) else None
    return {"step": step if isinstance(step, int) else None}


# --- what nobody knows ------------------------------------------------------------------------------------------------


def _strangers(
    tree: Tree, sights: Sequence[Sight], seen: Mapping[str, Sequence[str]], own: RuleSet, judging: Sequence[Pack]
) -> Iterator[Seen]:
    """Yield folders with what looks like checkpoints that no pack knows; nothing inside of checkpoints.

    ``seen`` are the directories that were understood, and the names of their packs, which are ``judging``: in others
    they may protect all that is there, as what Keras' BackupAndRestore writes.
    """
    here = {sight.directory: sight for sight in sights if sight.directory in seen}
    units = {f"{one.directory}/{name}".lstrip("/") for one in here.values() for name in one.names}
    for path, names in sorted(tree.listed.items()):
        if any(part.startswith(".") for part in path.split("/")) or _lies_in(path, units):
            continue
        rules = [pack.rules for pack in (here[path].packs if path in here else pick_in(tree, judging, path))]
        rules += [own] * (PROTOCOL in seen.get(path, ()))
        free = [name for name in sorted(names) if looks_like(name) and f"{path}/{name}".lstrip("/") not in units]
        unknown = [name for name in free if not _is_known(rules, name, names[name])]
        units.update(f"{path}/{name}".lstrip("/") for name in unknown)
        if unknown:
            size = sum(_size(tree.outputs_dir, path, name) for name in unknown)
            more = f" and {len(unknown) - 1} more" if unknown[1:] else ""
            text = f"no pack knows {unknown[0]}{more}"
            yield Seen(path, (), False, text, len(unknown), size)  # noqa: FBT003 - a value


def _is_known(rules: Iterable[RuleSet], name: str, folder: bool) -> bool:  # noqa: FBT001 - of `Tree.names`
    try:
        return any(own_claim(name, one, folder=folder).kind != "unrecognised" for one in rules)
    except SlowRuleError:
        return False


def _lies_in(path: str, units: Collection[str]) -> bool:
    parts = path.split("/")
    return any("/".join(parts[:depth]) in units for depth in range(1, len(parts) + 1))


def _size(outputs_dir: str, path: str, name: str) -> int:
    try:
        status = os.lstat(os.path.join(outputs_dir, path, name))
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0
