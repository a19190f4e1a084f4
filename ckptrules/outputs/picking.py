"""Pick the packs for a checkpoint directory: those whose marks are in it, beside it or in its checkpoints."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from ckptrules.engine.checkpoints import Claim, ClaimKind
from ckptrules.engine.entries import Directory, in_part_folder, is_part_folder
from ckptrules.engine.measures import and_more
from ckptrules.engine.names.naming import SlowRuleError, claim, is_claimed, own_claim
from ckptrules.engine.names.packs import with_packs
from ckptrules.engine.ruleset import Pack, Reason, RuleSet, is_pattern, needed_inside
from ckptrules.outputs.find import survey
from ckptrules.storage.looking import WEIGHTS

LAST_RESORT = "words"  # the pack that reads names which no other pack knows
BY_NAME, BY_TARGET = "its names", "names of the target"  # the evidence if there is no mark
NUMBERED: tuple[ClaimKind, ...] = ("target", "legacy", "format")  # kinds of claims of a rule that reads numbers
KNOWN: tuple[ClaimKind, ...] = ("format", "protected", "ambiguous")  # kinds of claims that a pack makes
LOOKED_AT = 20  # folders that are searched for one part of a mark: a real mark is in all of them
SHOWN = 3  # marks that the evidence names
MATCHINGS = 10_000  # parts of marks whose matches in a folder are cached
KINDS = 100_000  # kinds of names, by pack, that are cached from one directory to the next


def rules_here(tree: Tree, rules: RuleSet, directory: str) -> RuleSet:
    """Return the rules for one checkpoint directory: with the packs that its evidence picks, if any are listed.

    The tree caches the kinds of names and the folders above for other directories, but nothing inside this one.
    """
    return with_packs(rules, pick_by(tree.inside(), rules, directory)) if rules.packs else rules


def pick_by(tree: Tree, rules: RuleSet, directory: str) -> list[Pack]:
    """Return the packs for one checkpoint directory, including those whose names were renamed to a target.

    The other rules of such a pack (protected names, facts) hold after the rename as before.
    """
    picked = pick_in(tree, rules.packs, directory)
    more = [pack for pack in renamed_packs(rules) if pack.name not in {one.name for one in picked}]
    if picked and not more:
        return picked
    names, own = tree.names_of_checkpoints(directory, rules.packs), Pack("", "", (), rules)
    kinds = {tree.kind(own, name, folder=folder) for name, folder in names.items()}
    if not picked and kinds.isdisjoint(NUMBERED):
        return _without_last_resort(_protecting(tree, rules.packs, names))
    every = [*picked, *more] if "target" in kinds else picked
    return [one for one in every if one.name != LAST_RESORT or one.evidence not in (BY_NAME, BY_TARGET)] or every


def _protecting(tree: Tree, packs: Sequence[Pack], names: Mapping[str, bool]) -> list[Pack]:
    """Return the packs that protect a file of weights: of a training, nothing but ``last.ckpt`` may be left."""
    weights = [name for name, folder in names.items() if not folder and name.endswith(WEIGHTS)]
    protects = (pack for pack in packs if any(tree.kind(pack, name, folder=False) == "protected" for name in weights))
    return [pack._replace(evidence=BY_NAME) for pack in protects]


def _without_last_resort(packs: list[Pack]) -> list[Pack]:
    return [pack for pack in packs if pack.name != LAST_RESORT] or packs


@lru_cache(maxsize=8)
def renamed_packs(rules: RuleSet) -> tuple[Pack, ...]:
    """Return the packs whose names a legacy rule renames, as the examples of that rule show."""
    old = [(name, bool(rule.folder)) for rule in rules.legacy for name in rule.examples]
    kind = Tree("").kind
    known = (pack for pack in rules.packs if any(kind(pack, name, folder=folder) == "format" for name, folder in old))
    return tuple(pack._replace(evidence=BY_TARGET) for pack in known)


def pick_in(tree: Tree, packs: Sequence[Pack], directory: str) -> list[Pack]:
    """Return the packs for one checkpoint directory, each with its evidence.

    A pack is picked if it has a mark there and knows a name there. If no pack has both, those are picked that know the
    name of a checkpoint there; of several, those whose format finds what it needs in a folder, if any does.
    """
    names = tree.names_of_checkpoints(directory, packs)
    marked = []
    for pack in packs:
        found = [mark for mark in pack.marks if tree.has(directory, mark)]
        if found and any(tree.kind(pack, name, folder=folder) in KNOWN for name, folder in names.items()):
            marked.append(pack._replace(evidence=and_more(found, SHOWN)))
    if marked:
        return marked
    by_name = [
        pack._replace(evidence=BY_NAME)
        for pack in packs
        if any(
            tree.kind(pack, name, folder=folder) == "format"
            and not _is_anybodys(tree, os.path.join(directory, name), pack.rules)
            for name, folder in names.items()
        )
    ]
    if by_name[1:]:
        by_name = [pack for pack in by_name if _has_one(tree, directory, names, pack)] or by_name
    return _without_last_resort(by_name)


def _has_one(tree: Tree, directory: str, names: Mapping[str, bool], pack: Pack) -> bool:
    """Return whether a checkpoint of a pack is a file, or a folder with what its format needs.

    All may be looked at: by another pack, those that lack it would count.
    """
    known = (name for name, folder in names.items() if tree.kind(pack, name, folder=folder) == "format")
    return any(is_one(tree, os.path.join(directory, name), pack) for name in known)


def is_one(tree: Tree, path: str, pack: Pack) -> bool:
    """Return whether a path has the name of a checkpoint of a pack and, if a folder, a file that the format needs.

    Without such a file, a folder like ``2024/`` may be anything.
    """
    parent, _, name = path.rpartition("/")
    folder = tree.names(parent)[name]
    if tree.kind(pack, name, folder=folder) != "format":
        return False
    patterns = needed_inside(own_claim(name, pack.rules, folder=folder).rule) if folder else ()
    return not patterns or any(tree.has(path, pattern) for pattern in patterns)


def survey_by(outputs_dir: str, rules: RuleSet) -> tuple[list[Directory], list[str]]:
    """Return the checkpoint directories of rules, as `find.survey`, without the folder of the rule files."""
    found, inner = survey(outputs_dir, rules.layout, holders_by(outputs_dir, rules), rules.part_folders)
    root = os.path.join(os.path.realpath(outputs_dir), "")
    folders = {os.path.join(os.path.realpath(os.path.dirname(file)), "") for file in rules.files}
    own = tuple(folder.removeprefix(root) for folder in folders if folder != root and folder.startswith(root))
    return [one for one in found if not f"{one.directory}/".startswith(own)] if own else found, inner


def holders_by(outputs_dir: str, rules: RuleSet) -> Callable[[str], bool]:
    """Return a function that tells whether the folder of a path belongs to a checkpoint, by the rules of its parent."""
    tree = Tree(outputs_dir)
    rules_of = lru_cache(lambda outer: with_packs(rules, pick_by(tree, rules, outer)))

    def belongs(path: str) -> bool:
        outer, name = os.path.split(path)
        if not is_claimed(name, rules):  # a name that no pack claims needs no pick of packs
            return False
        return is_claimed(name, rules_of(outer)) and not _is_anybodys(tree, path, rules_of(outer))

    return belongs


def claim_by(rules: RuleSet, name: str, *, folder: bool) -> Claim:
    """Return the claim that rules, without their packs, have on a name; none if one of them is too slow for it."""
    try:
        return own_claim(in_part_folder(name)[1], rules, folder=folder)
    except SlowRuleError as error:
        return Claim("unrecognised", Reason("a rule takes too long", error.rule.place))


def holds_parts(name: str, packs: Sequence[Pack]) -> bool:
    """Return whether a folder of this name is a part folder by any of the packs."""
    return any(is_part_folder(name, pack.rules.part_folders) for pack in packs)


def _is_anybodys(tree: Tree, path: str, rules: RuleSet) -> bool:
    """Return whether a folder is no checkpoint of ours: only digits for a name, and no file that its format needs."""
    name = os.path.basename(path)
    if not name.isdigit():
        return False
    try:
        asked = needed_inside(claim(name, rules, folder=True).rule)
    except SlowRuleError:
        return False
    return bool(asked) and not any(tree.has(path, pattern) for pattern in asked)


class Tree:
    """The folders below ``outputs_dir``, each listed once; no link is followed, and no folder above is listed."""

    def __init__(self, outputs_dir: str) -> None:
        self.outputs_dir = outputs_dir
        self.listed: dict[str, dict[str, bool]] = {}
        self.closed: dict[str, str] = {}  # the folders that could not be listed, and why
        self.matching = lru_cache(MATCHINGS)(self._matching)  # cached, as many folders share the folder above
        self.kinds: dict[tuple[str, str, bool], ClaimKind] = {}  # by pack, name, and whether it is a folder
        self.opened = 0  # checkpoints, which `scouting` counts
        self.above = self  # the tree that lists folders above a directory

    def inside(self) -> Tree:
        """Return a tree for one directory, which uses this one for folders above, and forgets the others with it."""
        inner = Tree(self.outputs_dir)
        if len(self.kinds) > KINDS:
            self.kinds.clear()
        inner.above, inner.kinds = self, self.kinds
        return inner

    def names(self, path: str) -> dict[str, bool]:
        """Return the names in a folder, and whether each is a folder; empty if the folder cannot be read."""
        if path not in self.listed:
            try:
                with os.scandir(os.path.join(self.outputs_dir, path)) as entries:
                    self.listed[path] = {one.name: one.is_dir(follow_symlinks=False) for one in entries}
            except OSError as error:
                self.listed[path] = {}
                if not isinstance(error, FileNotFoundError | NotADirectoryError):
                    self.closed[path] = os.strerror(error.errno or 0)
        return self.listed[path]

    def names_of_checkpoints(self, directory: str, packs: Sequence[Pack]) -> dict[str, bool]:
        """Return the names in a checkpoint directory and its part folders, written as in a listing."""
        names = self.names(directory)
        folders = [name for name, folder in names.items() if folder and holds_parts(name, packs)][:LOOKED_AT]
        inner = {folder: self.names(os.path.join(directory, folder)) for folder in folders}
        return names | {f"{folder}/{name}": kind for folder, own in inner.items() for name, kind in own.items()}

    def has(self, directory: str, mark: str) -> bool:
        """Return whether a file fits a mark: a path from the directory, whose parts may be shell patterns."""
        parts, path, tree = mark.split("/"), directory, self
        while parts[0] == "..":
            if not path:
                return False
            parts, path, tree = parts[1:], os.path.dirname(path), self.above
        return tree.holds(path, parts)

    def holds(self, path: str, parts: Sequence[str]) -> bool:
        """Return whether a file in a folder fits the parts of a mark."""
        fitting = self.matching(path, parts[0])
        if len(parts) == 1:
            return bool(fitting)
        names = self.names(path)
        inner = [name for name in fitting if names[name]][:LOOKED_AT]
        return any(self.holds(os.path.join(path, name), parts[1:]) for name in inner)

    def _matching(self, path: str, part: str) -> list[str]:
        """Return the names in a folder that fit one part of a mark."""
        names = self.names(path)
        if not is_pattern(part):
            return [part] if part in names else []
        return fnmatch.filter(names, part)

    def kind(self, pack: Pack, name: str, *, folder: bool) -> ClaimKind:
        """Return the kind of claim that a pack has on a name; cached, as thousands of folders may have the name."""
        key = pack.name, in_part_folder(name)[1], folder
        if key not in self.kinds:
            self.kinds[key] = claim_by(pack.rules, key[1], folder=folder).kind
        return self.kinds[key]
