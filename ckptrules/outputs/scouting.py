"""What a tree that nobody has described holds: one bounded walk, the packs that know it, and how sure that is.

Of a few checkpoints the numbers inside are read; nothing of them is executed.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ckptrules.engine.checkpoints import order_of
from ckptrules.engine.comparing import COUNTS, Compared, Inside, compare, first_middle_last
from ckptrules.engine.entries import Directory, Listing, folders_above, in_part_folder
from ckptrules.engine.lookalikes import looks_like
from ckptrules.engine.naming import CHECKPOINTS, SlowRuleError, named, own_claim
from ckptrules.engine.packs import is_undecided, with_packs
from ckptrules.engine.ruleset import Pack, RuleSet, asked_inside
from ckptrules.engine.sorting import sort_entries
from ckptrules.engine.starting import PROTOCOL, Seen, numbers_of
from ckptrules.formats.content import UnsoundError
from ckptrules.formats.files import check_file, open_file
from ckptrules.formats.plainjson import LONGEST_JSON, parse
from ckptrules.outputs.facts import all_facts
from ckptrules.outputs.find import has_manifest
from ckptrules.outputs.listing import scan
from ckptrules.outputs.picking import BY_NAME, KNOWN, Tree, holds_parts, pick_in
from ckptrules.storage import reading

DEEPEST = 6  # folders below the first one
MOST_NAMES = 50_000
OPENED = 3  # checkpoints of a directory
MOST_OPENED = 300  # of a tree
STATE_FILE = "trainer_state.json"
ENOUGH = 2  # of them must agree to decide between packs: one may do so by chance
LIGHTNING = "lightning-default"  # the one rule of this package that is about names of another


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
            if not (taken or name.startswith(".") or has_manifest(os.path.join(tree.outputs_dir, path), name)):
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


# --- how sure that is -------------------------------------------------------------------------------------------------


class Scouted(NamedTuple):
    """What was seen. ``strangers`` look like checkpoints that no pack knows; ``opened`` is how many were read.

    ``closed`` are the folders that could not be looked into, with the reason.
    """

    seen: tuple[Seen, ...]
    strangers: tuple[Seen, ...]
    folders: int
    opened: int
    stopped: bool
    closed: tuple[tuple[str, str], ...] = ()


def see(outputs_dir: str, rules: RuleSet, own: RuleSet) -> Scouted:
    """Look at a tree; nothing of it is executed.

    ``rules`` are those with all packs, ``own`` those of this package; directories in which these know names are those
    of `PROTOCOL`.
    """
    tree = Tree(outputs_dir)
    sights = list(scout(tree, rules.packs))
    seen, left = [], MOST_OPENED
    for sight in sights:
        with contextlib.suppress(OSError, SlowRuleError):  # then its names are those of a stranger
            one, theirs = _protocol(tree, sight, own)
            paths = [f"{sight.directory}/{name}".lstrip("/") for name in theirs]
            readers = tuple(pack for pack in sight.packs if any(is_one(tree, path, pack) for path in paths))
            packs = readers or tuple(
                pack for pack in sight.packs if any(is_best(tree, name, [pack]) for name in theirs)
            )
            if packs:
                other, opened = _seen(tree, sight._replace(packs=packs, names=theirs), rules, min(left, OPENED))
                left -= opened
                one = _both(one, other) if one else other
            seen += [one] if one else []
    judging = [pack for pack in rules.packs if any(pack.name in one.packs for one in seen)]
    strangers = tuple(_strangers(tree, sights, {one.directory: one.packs for one in seen}, own, judging))
    looked = sum(map(len, tree.listed.values()))
    return Scouted(
        tuple(seen), strangers, len(tree.listed), MOST_OPENED - left, looked >= MOST_NAMES, tuple(tree.closed.items())
    )


def _protocol(tree: Tree, sight: Sight, own: RuleSet) -> tuple[Seen | None, tuple[str, ...]]:
    """Judge a directory by its names in the format of this package or an older form; return those of others as well."""
    names = tree.names_of_checkpoints(sight.directory, sight.packs)
    claims = {name: own_claim(in_part_folder(name)[1], own, folder=folder) for name, folder in names.items()}
    mine = {name for name, claim in claims.items() if claim.rule and claim.kind in CHECKPOINTS}
    if all(rule and rule.id == LIGHTNING for rule in (claims[name].rule for name in mine)):
        return None, sight.names
    found = sort_entries(own, _listing(tree, sight)).checkpoints
    size = sum(one.entry.size for one in found)
    numbers = tuple(numbers_of(one.fields, ()) for one in found)
    one = Seen(sight.directory, (PROTOCOL,), True, "epoch and step in its format", len(found), size, numbers)  # noqa: FBT003 - a value
    return one, tuple(name for name in sight.names if name not in mine)


def _both(mine: Seen, other: Seen) -> Seen:
    """Put together what a directory holds in the format of this package and in others; of these, what is sure."""
    if not other.sure:
        return mine
    return other._replace(
        packs=(*other.packs, PROTOCOL),
        evidence=f"{other.evidence}; {mine.evidence}",
        checkpoints=other.checkpoints + mine.checkpoints,
        size=other.size + mine.size,
        numbers=(*other.numbers, *mine.numbers),
    )


def _seen(tree: Tree, sight: Sight, rules: RuleSet, most: int) -> tuple[Seen, int]:
    """Judge a directory, opening so many of its checkpoints at most, and count those that were opened.

    Where several packs read the names otherwise, it is the one that reads what stands inside all that are opened.
    """
    names, own = tree.names_of_checkpoints(sight.directory, sight.packs), with_packs(rules, sight.packs)
    claims = {name: named(in_part_folder(name)[1], own, folder=names[name]).claim for name in sight.names}
    clear = [one for one in claims.values() if one.rule and one.kind != "ambiguous" and not is_undecided(one.rule)]
    clear = clear or [one for one in claims.values() if one.kind == "protected" and len(sight.packs) == 1]
    every, opened = by_pack(tree, sight, most)
    proved = [pack for pack in sight.packs if every[pack.name].agrees and every[pack.name].opened == opened]
    if not clear and len(proved) == 1 < len(sight.packs) and opened >= ENOUGH:
        return _seen(tree, sight._replace(packs=tuple(proved)), rules, most)
    listing = _listing(tree, sight)
    mine = frozenset(sight.names)
    found = [one for one in sort_entries(own, listing).checkpoints if one.entry.name in mine]
    marks, compared = sight.packs[0].evidence, every[sight.packs[0].name]
    speaks = marks != BY_NAME or (compared.opened > 0 and compared.agrees)
    evidence = marks if clear else next(claim.reason.text.partition(";")[0] for claim in claims.values())
    told = all_facts(tree.outputs_dir, listing, own)
    numbers = tuple(numbers_of(one.fields, told.metrics.get(one.entry.name, ())) for one in found)
    one = Seen(
        directory=sight.directory,
        packs=tuple(pack.name for pack in sight.packs),
        sure=bool(clear) and speaks,
        evidence=evidence,
        checkpoints=len(found) or len(sight.names),
        size=sum(entry.size for entry in listing.entries if entry.name in mine),
        numbers=numbers,
        compared=compared,
        best_by=told.best_by,
    )
    return one, opened


def _listing(tree: Tree, sight: Sight) -> Listing:
    parts = tuple(text for pack in sight.packs for text in pack.rules.part_folders)
    return scan(tree.outputs_dir, Directory(sight.directory, sight.directory, part_folders=parts))


# --- what nobody knows ------------------------------------------------------------------------------------------------


def _strangers(
    tree: Tree, sights: Sequence[Sight], seen: Mapping[str, Sequence[str]], own: RuleSet, judging: Sequence[Pack]
) -> Iterator[Seen]:
    """Yield folders with what looks like checkpoints that no pack knows; nothing inside of checkpoints.

    ``seen`` are the directories that were understood, and the names of their packs, which are ``judging``: in others
    they may protect all that is there, as what Keras' BackupAndRestore writes.
    """
    here = {sight.directory: sight for sight in sights if sight.directory in seen}
    rules_of = {path: _rules_of(one, seen[path], own) for path, one in here.items()}
    units = {
        f"{path}/{name}".lstrip("/")
        for path, one in here.items()
        for name in one.names
        if PROTOCOL not in seen[path] or _is_known(rules_of[path], name, tree.names(path).get(name, False))
    }
    for path, names in sorted(tree.listed.items()):
        above = (path, *folders_above(path))
        if any(part.startswith(".") for part in path.split("/")) or not units.isdisjoint(above):
            continue
        rules = rules_of[path] if path in here else [pack.rules for pack in pick_in(tree, judging, path)]
        free = [name for name in sorted(names) if looks_like(name) and f"{path}/{name}".lstrip("/") not in units]
        unknown = [name for name in free if not _is_known(rules, name, names[name])]
        units.update(f"{path}/{name}".lstrip("/") for name in unknown)
        if unknown:
            size = sum(_size(tree.outputs_dir, path, name) for name in unknown)
            more = f" and {len(unknown) - 1} more" if unknown[1:] else ""
            who = "rule here" if PROTOCOL in seen.get(path, ()) else "pack"
            text = f"no {who} knows {unknown[0]}{more}"
            yield Seen(path, (), False, text, len(unknown), size)  # noqa: FBT003 - a value


def _rules_of(sight: Sight, packs: Collection[str], own: RuleSet) -> list[RuleSet]:
    """Return the rules that judge a directory; beside the format of this package only the packs that are sure."""
    if PROTOCOL not in packs:
        return [pack.rules for pack in sight.packs]
    return [own, *(pack.rules for pack in sight.packs if pack.name in packs)]


def _is_known(rules: Iterable[RuleSet], name: str, folder: bool) -> bool:  # noqa: FBT001 - of `Tree.names`
    try:
        return any(own_claim(name, one, folder=folder).kind != "unrecognised" for one in rules)
    except SlowRuleError:
        return False


def _size(outputs_dir: str, path: str, name: str) -> int:
    try:
        status = os.lstat(os.path.join(outputs_dir, path, name))
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0
