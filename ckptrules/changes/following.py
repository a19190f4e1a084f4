"""Find what leads to the names that an undo changes, as a migrate does: it follows a rename, or holds the name."""

from __future__ import annotations

import errno
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple, TypeVar

from ckptrules.changes.doing import begins
from ckptrules.changes.history import TakeBack
from ckptrules.changes.kinds import KINDS
from ckptrules.changes.kinds.move import REPLACE, RESTORE
from ckptrules.changes.undoing import moved_path
from ckptrules.changes.units import follower_step, head_of, identity_of_entry
from ckptrules.engine.actions import DELETES, Action, Problem, Step, Unit
from ckptrules.engine.checkpoints import Mention
from ckptrules.engine.entries import (
    LEADS_NOWHERE,
    Directory,
    Entry,
    OutsideLink,
    Spot,
    folders_above,
    is_part_folder,
    lies_in,
)
from ckptrules.engine.names.companions import Sidecar
from ckptrules.engine.names.naming import reader, stem_of
from ckptrules.engine.pointers import Texts, by_name, cannot_follow
from ckptrules.engine.rows import relink_actions, repoint_actions
from ckptrules.engine.ruleset import Reason, RuleSet
from ckptrules.engine.state_folder import TRASH
from ckptrules.outputs import facts
from ckptrules.outputs.evidence import Looks
from ckptrules.outputs.links import Links
from ckptrules.outputs.listing import into_part_folders, read_directory
from ckptrules.outputs.picking import Tree, rules_here
from ckptrules.outputs.pointers import NO_POINTER, line_for, pointer_files
from ckptrules.storage import reading
from ckptrules.storage.state import Folders

NO_RULES = RuleSet((), (), (), (), (), (), ())  # where they cannot be read: links follow, no file does
POINTS, PINNED = "points to it", "is a part of it, and pinned"
HINTS = {POINTS: "re-point or remove that link", PINNED: "unpin it"}  # by what a holder does
Referrer = TypeVar("Referrer")  # a link or a text that leads to a name
Moves = Mapping[str, str]  # of one unit, old and new names in its checkpoint directory, the head first


class Referrers(NamedTuple):
    """What leads to the names of one checkpoint directory, as it is now.

    ``looks`` is what was seen there. ``links`` are the links of the directory and ``outside`` those of others, by the
    name that they lead to. ``pointers`` are the files that name something, and ``texts`` the same by what they name.
    ``sidecars`` are those of each checkpoint. ``named`` are all names that have any of these.
    """

    looks: Looks
    links: Mapping[str, Sequence[Entry]]
    outside: Mapping[str, Sequence[OutsideLink]]
    pointers: Mapping[str, tuple[Mention, ...]]
    texts: Texts
    sidecars: Mapping[str, Sequence[Sidecar]]
    named: frozenset[str]


class Holder(NamedTuple):
    """What leads to a name: its ``path`` below ``outputs_dir``, how it does, and the ``line`` of rules that ends it."""

    path: str
    does: str
    line: str = ""


class Followers:
    """Adds to the units of an undo what follows their renames, and holds what may not go.

    Each checkpoint directory is looked at once, by the rules of today. ``run`` is the undo, ``leaving`` are the links
    that it takes away anywhere (`links_that_leave`), ``pinned`` the paths of pinned files. ``notes`` are on files that
    may name something and are too long to follow.
    """

    def __init__(
        self,
        outputs_dir: str,
        rules: RuleSet,
        links: Links,
        run: str,
        leaving: frozenset[str] = frozenset(),
        pinned: Collection[str] = (),
    ) -> None:
        self._outputs_dir, self._links, self._run = outputs_dir, links, run
        self._rules, self._tree = rules, Tree(outputs_dir)
        self._leaving, self._pinned = leaving, pinned
        self.notes: list[Reason] = []
        self._moved: dict[str, str] = {}  # by the units before: paths of folders today, and those after
        self._home = cache(self._find_home)
        self._referrers = cache(self._look)
        self._holders = cache(self._look_for_holders)

    def add(self, folders: Folders, back: TakeBack) -> tuple[TakeBack, list[Problem]]:
        """Return what can be taken back, with what follows, and a problem for each checkpoint that cannot.

        Raises:
            OSError: nobody can see what leads to a name.
            SlowRuleError: a rule takes too long for a name.
        """
        ways = {"rename": self._renamed, "link": self._linked}
        rows: list[Unit | Problem] = []
        for unit in back.units:
            row = ways[unit.kind](folders, unit) if unit.kind in ways else unit
            moves = row.steps if isinstance(row, Unit) else ()
            self._moved |= {step.here.path: step.there.path for step in moves if step.identity.kind == "directory"}
            rows.append(row)
        deletes = {number: unit for number, unit in enumerate(back.units) if unit.kind in DELETES}
        heads = [head_of(unit) for unit in back.units if unit.kind == REPLACE.name]
        replaced = {head.here.path for head in heads if begins(folders, head)}
        # What leads there may go as well, unless it is held.
        while held := self._held(deletes, replaced, back.directory):
            for number, problem in held.items():
                rows[number] = problem
                del deletes[number]
        free = [(row, ref) for row, ref in zip(rows, back.undoes, strict=True) if isinstance(row, Unit)]
        problems = [row for row in rows if isinstance(row, Problem)]
        return back._replace(units=tuple(row for row, _ in free), undoes=tuple(ref for _, ref in free)), problems

    def _find_home(self, directory: str) -> str:
        """Return the checkpoint directory of what lies in a directory, which may be a part folder of it."""
        above, _, folder = directory.rpartition("/")
        rules = (self._rules, *(pack.rules for pack in self._rules.packs))
        if not any(is_part_folder(folder, one.part_folders) for one in rules):
            return directory
        referrers = self._referrers(above)
        return above if referrers and folder in referrers.looks.listing.part_folders else directory

    def _look(self, home: str) -> Referrers | None:
        """Look at a checkpoint directory; None where there is none now."""
        path = self._outputs_dir
        try:
            with reading.open_below(path, home) as directory:  # first, as a journal may hold any path
                rules = rules_here(self._tree, self._rules, home)
                listing = read_directory(directory, Directory(home, home, part_folders=rules.part_folders))
                looks = Looks(directory, listing, rules, self._links, 0)
                pointers = {**self._best(looks), **looks.pointers[0]}
                self.notes += [note for note in looks.pointers[1] if note.id == NO_POINTER]
                _ = looks.foreign  # while the directory is open
                return _referrers(looks, into_part_folders(self._links.into(home), listing), pointers)
        except OSError as error:
            if error.errno in (*LEADS_NOWHERE, errno.EINVAL):
                return None
            raise

    def _best(self, looks: Looks) -> Mapping[str, tuple[Mention, ...]]:
        """Return what files of facts call the best."""
        named = [fact for fact in looks.rules.facts if fact.best and not fact.inside]
        if not named:
            return {}
        sources = facts.find_sources(self._outputs_dir, looks.listing, named, looks.names)
        return looks.facts_of(sources, metrics=False)[0].pointers

    # --- renames ------------------------------------------------------------------------------------------------------

    def _renamed(self, folders: Folders, unit: Unit) -> Unit | Problem:
        """Return the unit with the sidecars, links and pointer files that there are by now.

        A link in another checkpoint is where that will be when the turn of the unit comes.
        """
        head = head_of(unit)
        home = self._home(head.directory)
        referrers = self._referrers(home)
        if referrers is None:
            return unit  # to do it will tell why
        names = (_below(home, step.here.path) for step in unit.steps)
        if referrers.named.isdisjoint(names) and not any(KINDS[step.kind].follows for step in unit.steps):
            return unit
        sidecars = _sidecars(unit, home, referrers)
        moves = {_below(home, step.here.path): _below(home, step.there.path) for step in (*_moves(unit), *sidecars)}
        if held := _cannot_follow(unit, moves, referrers):
            return _stays(unit, held)
        (old, new), *with_it = moves.items()
        action = Action("rename", old, new, 0, (), tuple(with_it))
        links = [link for link in _of(moves, referrers.links) if link.name not in moves.values()]
        relinks = relink_actions([action], links, _of(moves, referrers.outside), referrers.looks.rules)
        files = {text.pointer: referrers.pointers[text.pointer] for text in _of(moves, referrers.texts)}
        relinks = [one._replace(directory=moved_path(one.directory, self._moved)) for one in relinks]
        followers = [*relinks, *repoint_actions([action], files)]
        now = {_key(step): step for step in (follower_step(one, home, self._run) for one in followers)}
        kept = [s for s in unit.steps if not KINDS[s.kind].follows or _key(s) in now or self._may_follow(folders, s)]
        since = [step for key, step in now.items() if key not in map(_key, kept)]
        place = kept.index(head) + 1  # the other parts of a checkpoint come last where it is taken back
        return unit._replace(steps=(*kept[:place], *sidecars, *since, *kept[place:]))

    def _may_follow(self, folders: Folders, step: Step) -> bool:
        """Say whether a link or file that has followed before still names the checkpoint, though it was not found.

        A link leads elsewhere then, by another text or in a copy of the tree; unless some folder was not searched. Of a
        file, the rules may have changed.
        """
        if step.kind == "relink" and not self._links.unsearched:
            return False
        try:
            return KINDS[step.kind].begins(folders, step)
        except OSError as error:
            return error.errno not in LEADS_NOWHERE

    def _linked(self, folders: Folders, unit: Unit) -> Unit | Problem:
        """Hold a link under an old name that would lead nowhere."""
        link = head_of(unit)
        if not folders.is_free(Spot(link.directory, link.to)):
            return unit
        hint = "bring that back, then undo this again"
        return Problem("refused", (link.name,), f"does not become a link again: {link.to} is gone", hint)

    # --- deletions ----------------------------------------------------------------------------------------------------

    def _held(self, units: Mapping[int, Unit], replaced: Collection[str], directory: str) -> dict[int, Problem]:
        """Return a problem for each unit that would delete what something leads to that stays.

        What was ``replaced`` gets its former content, which led elsewhere.
        """
        steps = [step for unit in units.values() for step in _moves(unit)]
        going = {step.here.path for step in steps}.union(replaced)
        wholes = {step.here.path for step in steps if step.identity.size}  # not folders that must be empty by then
        found = {}
        for number, unit in units.items():
            holders = (holder for step in _moves(unit) for holder in self._holders_of(step, directory))
            staying = (
                one
                for one in holders
                if not (one.path in going or self._leaves(one.path, directory))
                and wholes.isdisjoint(folders_above(one.path))
            )
            if holder := next(staying, None):
                found[number] = _stays(unit, holder._replace(path=_below(directory, holder.path)))
        return found

    def _leaves(self, path: str, directory: str) -> bool:
        """Say whether this undo takes away a link in another directory, to which nothing leads in turn."""
        folder, _, name = path.rpartition("/")
        is_elsewhere = path in self._leaving and not lies_in(folder, directory)
        return is_elsewhere and not self._holders(self._home(folder)).get(name)

    def _holders_of(self, step: Step, directory: str) -> Iterator[Holder]:
        """Yield what leads to a name, or into the folder of that name."""
        path = step.here.path
        if step.identity.kind == "directory":
            yield from (Holder(Spot(place, link.name).path, POINTS) for place, link in self._links.below(path))
        if not lies_in(directory, path):  # else an experiment goes as a whole
            home = self._home(step.directory)
            yield from self._holders(home).get(_below(home, path), ())

    def _look_for_holders(self, home: str) -> Mapping[str, Sequence[Holder]]:
        """Return what leads to the names in a checkpoint directory."""
        holders: dict[str, list[Holder]] = defaultdict(list)
        referrers = self._referrers(home)
        for name, links in referrers.links.items() if referrers else ():
            holders[name] += [Holder(Spot(home, link.name).path, POINTS) for link in links]
        for name, outside in referrers.outside.items() if referrers else ():
            holders[name] += [Holder(Spot(place, link.name).path, POINTS) for place, link in outside]
        for pointer, mentions in referrers.pointers.items() if referrers else ():
            for mention in (mention for mention in mentions if mention.protects):
                holders[mention.name].append(Holder(Spot(home, pointer).path, "names it"))
        for path in self._pinned:
            holders[_below(home, path)].append(Holder(path, PINNED))
        for one in referrers.looks.found.every if referrers and holders else ():  # what holds one part holds all
            if of_all := [holder for name in one.names for holder in holders.get(name, ())]:
                holders |= dict.fromkeys(one.names, of_all)
        return holders


def links_that_leave(backs: Iterable[TakeBack]) -> frozenset[str]:
    """Return the paths of the links that an undo of these units takes away or replaces."""
    steps = (
        step
        for back in backs
        for unit in back.units
        if unit.kind in (RESTORE.name, REPLACE.name)
        for step in unit.steps
    )
    return frozenset(
        step.there.path for step in steps if step.identity.kind == "link" and not lies_in(step.to_directory, TRASH)
    )


def _moves(unit: Unit) -> list[Step]:
    """List the steps that move something, the head first."""
    head = head_of(unit)
    return [head, *(step for step in unit.steps if step is not head and KINDS[step.kind].moves)]


def _referrers(looks: Looks, outside: Iterable[OutsideLink], pointers: Mapping[str, tuple[Mention, ...]]) -> Referrers:
    """Sort what leads to names by these names: each rename of a directory asks for its own."""
    links, elsewhere = defaultdict[str, list[Entry]](list), defaultdict[str, list[OutsideLink]](list)
    for link in (entry for entry in looks.listing.entries if entry.kind == "link"):
        links[link.sibling or ""].append(link)
    for one in outside:
        elsewhere[one.entry.sibling or ""].append(one)
    has_sidecars = any(entry.name.endswith(looks.rules.sidecars) for entry in looks.listing.entries)
    texts, sidecars = by_name(pointers), looks.found.sidecars if has_sidecars else {}
    named = frozenset(name for found in (links, elsewhere, texts, sidecars) for name in found)
    return Referrers(looks, links, elsewhere, pointers, texts, sidecars, named)


def _of(names: Iterable[str], found: Mapping[str, Sequence[Referrer]]) -> list[Referrer]:
    return [one for name in names for one in found.get(name, ())]


def _sidecars(unit: Unit, home: str, referrers: Referrers) -> list[Step]:
    """Return the moves of the sidecars that a checkpoint got since it was renamed; a shared one stays."""
    head = head_of(unit)
    own = referrers.sidecars.get(_below(home, head.here.path), ())
    to = {_below(home, step.here.path): step.to for step in _moves(unit)} if own else {}
    since = [one for one in own if one.suffix and not one.shared and one.name not in to]
    return [
        Step(
            "move", home, one.name, home, stem_of(to.get(one.owner, head.to)) + one.suffix,
            identity=identity_of_entry(referrers.looks.entries[one.name]),
        )
        for one in since
    ]  # fmt: skip


def _cannot_follow(unit: Unit, moves: Moves, referrers: Referrers) -> Holder | None:
    """Return what leads to a renamed checkpoint and could not follow it."""
    for place, link in _of(moves, referrers.outside):
        if not link.link_text:  # it leads here through a link that is not ours
            return Holder(Spot(place, link.name).path, POINTS)
    own = {step.name for step in unit.steps}
    for link in _of(moves, referrers.links):
        if link.name in moves.values() and link.name not in own:
            return Holder(link.name, POINTS)
    named = _of(moves, referrers.texts)
    fields = reader(referrers.looks.rules)(head_of(unit).name, None).claim.fields if named else {}
    if pointer := cannot_follow(referrers.texts, moves, fields):
        is_tracker = pointer in referrers.looks.pointers[0] and pointer not in pointer_files(
            referrers.looks.listing, referrers.looks.rules
        )
        return Holder(pointer, "names it, and could not follow", line_for(pointer) if is_tracker else "")
    for text in named:
        if (owner := referrers.looks.foreign.get(text.pointer)) and not text.text.isdigit():
            return Holder(text.pointer, f"names it, and belongs to {owner}")
    return None


def _stays(unit: Unit, holder: Holder) -> Problem:
    what = HINTS.get(holder.does, "change that file, or move it away")
    what += f" (in the rules, {holder.line})" * bool(holder.line)
    text = f"stays as it is: {holder.path} {holder.does}"
    return Problem("refused", (head_of(unit).name,), text, f"{what}, then undo this again")


def _key(step: Step) -> tuple[str, Spot, str]:
    """Return what a step of a follower changes."""
    return step.kind, step.here, step.was


def _below(folder: str, path: str) -> str:
    """Return a path from a folder, where it lies in it."""
    return path.removeprefix(f"{folder}/") if folder else path
