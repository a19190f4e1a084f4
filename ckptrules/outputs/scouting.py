"""Search a tree without rules for checkpoints: one bounded walk, the packs that know the names, and how sure they are.

The numbers inside a few checkpoints are read; nothing in them is executed.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ckptrules.engine.checkpoints import order_of
from ckptrules.engine.entries import Directory, Listing, folders_above, in_part_folder
from ckptrules.engine.measures import and_more
from ckptrules.engine.names.comparing import COUNTS, Compared, NumbersInside, compare, first_middle_last
from ckptrules.engine.names.lookalikes import looks_like
from ckptrules.engine.names.naming import CHECKPOINTS, SlowRuleError, named, own_claim
from ckptrules.engine.names.packs import is_undecided, with_packs
from ckptrules.engine.names.sorting import sort_entries
from ckptrules.engine.names.starting import PROTOCOL, Seen, numbers_of
from ckptrules.engine.ruleset import Pack, RuleSet
from ckptrules.formats.content import UnsoundError
from ckptrules.formats.files import check_file, open_file
from ckptrules.formats.limits import NotReadError
from ckptrules.formats.plainjson import LONGEST_JSON, parse
from ckptrules.outputs.facts import all_facts
from ckptrules.outputs.find import has_manifest
from ckptrules.outputs.listing import scan
from ckptrules.outputs.picking import BY_NAME, KNOWN, Tree, claim_by, holds_parts, is_one, pick_in
from ckptrules.storage import reading

DEEPEST = 6  # folders below the first one
MOST_NAMES = 50_000
MOST_OPENED = 300  # checkpoints that are opened in the tree
STATE_FILE = "trainer_state.json"
ENOUGH = 2  # opened checkpoints that must agree to decide between packs: one may agree by chance
LIGHTNING = "lightning-default"  # the only rule of this package for names of a framework


class Sight(NamedTuple):
    """A folder with names that packs know.

    ``directory`` is its path below the searched folder, empty for that folder itself. ``packs`` have their evidence.
    """

    directory: str
    packs: tuple[Pack, ...]
    names: tuple[str, ...]


def scout(tree: Tree, packs: Sequence[Pack]) -> Iterator[Sight]:
    """Yield the folders in which packs know checkpoints, the upper ones first.

    The search ends at `DEEPEST` and `MOST_NAMES`, and leaves out checkpoints and hidden folders. If no folder with the
    name of a checkpoint has the files that its format needs, none is a checkpoint, and all are searched.
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
        if not any(is_one(tree, os.path.join(path, name), pack) for name in known for pack in picked):
            known = set()
        known = known or {name for name, folder in names.items() if not folder and is_best(tree, name, picked)}
        if known:
            yield Sight(path, tuple(picked), tuple(sorted(known)))
        for name in sorted(name for name, folder in tree.names(path).items() if folder and depth < DEEPEST):
            taken = name in known or holds_parts(name, picked)
            if not (taken or name.startswith(".") or has_manifest(os.path.join(tree.outputs_dir, path), name)):
                pending.append((os.path.join(path, name), depth + 1))


def is_best(tree: Tree, name: str, packs: Sequence[Pack]) -> bool:
    """Return whether a pack with a mark protects a file as one of the best: some trainings save no other checkpoint."""
    marked = (pack for pack in packs if pack.evidence != BY_NAME)
    return "best" in name.lower() and any(tree.kind(pack, name, folder=False) in KNOWN for pack in marked)


def by_pack(tree: Tree, sight: Sight) -> tuple[dict[str, Compared], int]:
    """Open some checkpoints of a directory, and compare the numbers inside with those that each pack reads in names.

    Returns the comparison by pack, and how many were opened: none after `MOST_OPENED` in the tree.
    """
    names = tree.names_of_checkpoints(sight.directory, sight.packs)
    present = [name for name in sight.names if name in names]
    read = {
        pack.name: {name: claim_by(pack.rules, name, folder=names[name]).fields for name in present}
        for pack in sight.packs
    }
    ordered = sorted(present, key=lambda name: order_of(read[sight.packs[0].name][name]))
    chosen = first_middle_last(ordered)[: MOST_OPENED - tree.opened]
    tree.opened += len(chosen)
    inside = {name: look_into(tree.outputs_dir, sight.directory, name, folder=names[name]) for name in chosen}
    compared = {pack: compare((fields[name], inside[name]) for name in chosen) for pack, fields in read.items()}
    return compared, len(chosen)


def look_into(outputs_dir: str, directory: str, name: str, *, folder: bool) -> NumbersInside:
    """Return the numbers inside a checkpoint below ``outputs_dir``; empty if it has none, or cannot be read."""
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
    except (OSError, UnsoundError, NotReadError, ValueError):
        return {}
    step = state.get("global_step") if isinstance(state, dict) else None
    return {"step": step if isinstance(step, int) else None}


# --- how sure that is -------------------------------------------------------------------------------------------------


class Scouted(NamedTuple):
    """The result of a search.

    ``seen`` are the directories of checkpoints. ``strangers`` are those with names that look like checkpoints and that
    no pack knows. ``folders`` and ``opened`` are the numbers of listed folders and opened checkpoints. ``stopped`` is
    whether the search ended at `MOST_NAMES`. ``closed`` are the folders that could not be listed, and why.
    """

    seen: tuple[Seen, ...]
    strangers: tuple[Seen, ...]
    folders: int
    opened: int
    stopped: bool
    closed: tuple[tuple[str, str], ...] = ()


def see(outputs_dir: str, rules: RuleSet, own: RuleSet) -> Scouted:
    """Search a tree; nothing in it is executed.

    ``rules`` have all packs. ``own`` are the rules of this package: directories with names in its formats are of
    `PROTOCOL`.
    """
    tree = Tree(outputs_dir)
    sights = list(scout(tree, rules.packs))
    seen = []
    for sight in sights:
        with contextlib.suppress(OSError, SlowRuleError):  # such a directory is told as a stranger
            one, theirs = _protocol(tree, sight, own)
            paths = [os.path.join(sight.directory, name) for name in theirs]
            readers = tuple(pack for pack in sight.packs if any(is_one(tree, path, pack) for path in paths))
            packs = readers or tuple(
                pack for pack in sight.packs if any(is_best(tree, name, [pack]) for name in theirs)
            )
            if packs:
                other = _seen(tree, sight._replace(packs=packs, names=theirs), rules)
                one = _both(one, other) if one else other
            seen += [one] if one else []
    judging = [pack for pack in rules.packs if any(pack.name in one.packs for one in seen)]
    strangers = tuple(_strangers(tree, sights, {one.directory: one.packs for one in seen}, own, judging))
    looked = sum(map(len, tree.listed.values()))
    closed = tuple(tree.closed.items())
    return Scouted(tuple(seen), strangers, len(tree.listed), tree.opened, looked >= MOST_NAMES, closed)


def _protocol(tree: Tree, sight: Sight, own: RuleSet) -> tuple[Seen | None, tuple[str, ...]]:
    """Judge a directory by its names in the formats of this package; return the names in other formats as well."""
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
    """Join what was seen in one directory in the formats of this package, and in others if these are sure."""
    if not other.sure:
        return mine
    return other._replace(
        packs=(*other.packs, PROTOCOL),
        evidence=f"{other.evidence}; {mine.evidence}",
        checkpoints=other.checkpoints + mine.checkpoints,
        size=other.size + mine.size,
        numbers=(*other.numbers, *mine.numbers),
    )


def _seen(tree: Tree, sight: Sight, rules: RuleSet) -> Seen:
    """Judge a directory by opening some of its checkpoints.

    If packs read the names differently, the one decides that agrees with the numbers inside all opened checkpoints.
    """
    names, own = tree.names_of_checkpoints(sight.directory, sight.packs), with_packs(rules, sight.packs)
    claims = {name: named(in_part_folder(name)[1], own, folder=names[name]).claim for name in sight.names}
    clear = [one for one in claims.values() if one.rule and one.kind != "ambiguous" and not is_undecided(one.rule)]
    clear = clear or [one for one in claims.values() if one.kind == "protected" and len(sight.packs) == 1]
    every, opened = by_pack(tree, sight)
    proved = [pack for pack in sight.packs if every[pack.name].agrees and every[pack.name].opened == opened]
    if not clear and len(proved) == 1 < len(sight.packs) and opened >= ENOUGH:
        tree.opened -= opened  # the same are opened again
        return _seen(tree, sight._replace(packs=tuple(proved)), rules)
    listing = _listing(tree, sight)
    mine = frozenset(sight.names)
    found = [one for one in sort_entries(own, listing).checkpoints if one.entry.name in mine]
    marks, compared = sight.packs[0].evidence, every[sight.packs[0].name]
    has_evidence = marks != BY_NAME or (compared.opened > 0 and compared.agrees)
    evidence = marks if clear else next(claim.reason.text.partition(";")[0] for claim in claims.values())
    facts = all_facts(tree.outputs_dir, listing, own)
    numbers = tuple(numbers_of(one.fields, facts.metrics.get(one.entry.name, ())) for one in found)
    return Seen(
        directory=sight.directory,
        packs=tuple(pack.name for pack in sight.packs),
        sure=bool(clear) and has_evidence,
        evidence=evidence,
        checkpoints=len(found) or len(sight.names),
        size=sum(entry.size for entry in listing.entries if entry.name in mine),
        numbers=numbers,
        compared=compared,
        best_by=facts.best_by,
    )


def _listing(tree: Tree, sight: Sight) -> Listing:
    parts = tuple(text for pack in sight.packs for text in pack.rules.part_folders)
    return scan(tree.outputs_dir, Directory(sight.directory, sight.directory, part_folders=parts))


# --- what nobody knows ------------------------------------------------------------------------------------------------


def _strangers(
    tree: Tree, sights: Sequence[Sight], seen: Mapping[str, Sequence[str]], own: RuleSet, judging: Sequence[Pack]
) -> Iterator[Seen]:
    """Yield folders with names that look like checkpoints and that no pack knows; none inside checkpoints.

    ``seen`` maps the directories that were understood to the names of their packs. ``judging`` are all these packs. In
    other folders they may protect everything, as the files of Keras' BackupAndRestore.
    """
    here = {sight.directory: sight for sight in sights if sight.directory in seen}
    rules_of = {path: _rules_of(one, seen[path], own) for path, one in here.items()}
    units = {
        os.path.join(path, name)
        for path, one in here.items()
        for name in one.names
        if PROTOCOL not in seen[path] or _is_known(rules_of[path], name, tree.names(path).get(name, False))
    }
    for path, names in sorted(tree.listed.items()):
        above = (path, *folders_above(path))
        if any(part.startswith(".") for part in path.split("/")) or not units.isdisjoint(above):
            continue
        rules = rules_of[path] if path in here else [pack.rules for pack in pick_in(tree, judging, path)]
        free = [name for name in sorted(names) if looks_like(name) and os.path.join(path, name) not in units]
        unknown = [name for name in free if not _is_known(rules, name, names[name])]
        units.update(os.path.join(path, name) for name in unknown)
        if unknown:
            size = sum(_size(tree.outputs_dir, path, name) for name in unknown)
            who = "rule here" if PROTOCOL in seen.get(path, ()) else "pack"
            text = f"no {who} knows {and_more(unknown)}"
            yield Seen(path, (), False, text, len(unknown), size)  # noqa: FBT003 - a value


def _rules_of(sight: Sight, packs: Collection[str], own: RuleSet) -> list[RuleSet]:
    """Return the rules that judge a directory: all its packs, or, with `PROTOCOL`, our own rules and the sure packs."""
    if PROTOCOL not in packs:
        return [pack.rules for pack in sight.packs]
    return [own, *(pack.rules for pack in sight.packs if pack.name in packs)]


def _is_known(rules: Iterable[RuleSet], name: str, folder: bool) -> bool:  # noqa: FBT001 - of `Tree.names`
    return any(claim_by(one, name, folder=folder).kind != "unrecognised" for one in rules)


def _size(outputs_dir: str, path: str, name: str) -> int:
    try:
        status = os.lstat(os.path.join(outputs_dir, path, name))
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0
