"""Serve the hook of a training run (`doit after`): find its checkpoint directory, and the checkpoints to spare."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ckptrules.changes.moved import follower
from ckptrules.engine.entries import Directory, Listing
from ckptrules.engine.names.naming import SlowRuleError, claim
from ckptrules.engine.names.sorting import sort_entries
from ckptrules.engine.ruleset import Reason, RuleSet
from ckptrules.engine.state_folder import STATE
from ckptrules.outputs.find import find_holders
from ckptrules.outputs.picking import Tree, holders_by, rules_here
from ckptrules.run.options import OptionError, Planning

WHY = {"best": "it is the best of the run", "resumed": "the run was resumed from it", "path": "it was just saved"}


def directory_of(options: Planning, rules: RuleSet) -> Directory:
    """Find the checkpoint directory that ``path`` lies in, and look for no other one.

    Raises:
        OptionError: ``path`` lies in no checkpoint directory, or is no checkpoint by the rules.
    """
    path, below = str(options.path), below_outputs(options.outputs_dir, str(options.path))
    if not os.path.lexists(path):
        raise OptionError(f"there is no '{path}'", "path= is the checkpoint that was just saved")
    if not below:
        fact = f"'{path}' does not lie below outputs_dir '{options.outputs_dir}'"
        raise OptionError(fact, "name the folder of the experiments with outputs_dir=PATH")
    claimed = holders_by(options.outputs_dir, rules)
    holders = find_holders(options.outputs_dir, rules.layout, claimed, rules.part_folders, below)
    tree = Tree(options.outputs_dir)
    own_rules = {holder: rules_here(tree, rules, holder.directory) for holder in holders}
    found = next((holder for holder in holders if own_rules[holder].packs or not rules.layout_of_packs), None)
    if found is None:
        fact = f"'{path}' lies in no checkpoint directory (layout: {', '.join(rules.layout)})"
        raise OptionError(fact, "'doit plan' tells which there are")
    if below == found.directory:
        raise OptionError(f"'{path}' is a folder of checkpoints", "name one of those that it holds")
    name = os.path.basename(below)
    if not is_known(name, own_rules[found], folder=os.path.isdir(path)):
        fact = f"'{path}' is no checkpoint: no rule knows the name '{name}'"
        raise OptionError(fact, "'doit plan verbose=1' tells what the rules know there")
    return found


def is_known(name: str, rules: RuleSet, *, folder: bool) -> bool:
    """Say whether the rules know a name; yes if a rule is too slow for it: the plan has a problem then."""
    try:
        return claim(name, rules, folder=folder).kind not in ("ignored", "unrecognised")
    except SlowRuleError:
        return True


def refuse_gone(options: Planning) -> None:
    """Refuse a checkpoint to spare that does not exist and that no run has moved: it may be mistyped.

    Raises:
        OptionError: with a hint for one that is gone for good.
    """
    for option in ("resumed", "best"):
        path = getattr(options, option)
        if path and not os.path.lexists(path) and not any(paths_below(options.outputs_dir, path)):
            hint = f"leave {option}= out where it is gone for good"
            raise OptionError(f"{option}={path}: there is no such checkpoint", hint)


def spared(options: Planning, listing: Listing, rules: RuleSet) -> dict[str, Reason]:
    """Return the names in a directory that this run must not touch, with reasons; empty without the option ``path``."""
    if not options.path:
        return {}
    by_age = sorted(sort_entries(rules, listing).checkpoints, key=lambda checkpoint: checkpoint.age_order)
    newest = {checkpoint.series: checkpoint for checkpoint in by_age}
    found = {checkpoint.entry.name: Reason("it is the newest") for checkpoint in newest.values()}
    names = {entry.name for entry in listing.entries}
    start = os.path.join(listing.directory, "")
    for option, why in WHY.items():
        for path in paths_below(options.outputs_dir, getattr(options, option) or ""):
            name = path.removeprefix(start) if path.startswith(start) else ""
            found |= {entry: Reason(why) for entry in (name, name.partition("/")[0]) if entry in names}
    return found


def paths_below(outputs_dir: str, path: str) -> Iterator[str]:
    """Yield the paths below ``outputs_dir`` of a checkpoint: its own and the aim of a link, or where runs moved it."""
    if os.path.lexists(path):
        yield from filter(None, (below_outputs(outputs_dir, one) for one in (path, os.path.realpath(path))))
    elif path and (below := below_outputs(outputs_dir, path)):
        yield from follower(outputs_dir)(below).paths


def below_outputs(outputs_dir: str, path: str) -> str:
    """Return a path relative to ``outputs_dir``, with links followed in all but its last part; empty if outside."""
    folder, name = os.path.split(path)
    real = os.path.realpath(path) if name in ("", ".", "..") else os.path.join(os.path.realpath(folder or "."), name)
    below = os.path.relpath(real, os.path.realpath(outputs_dir))
    return "" if below.split("/")[0] in ("..", ".", STATE) else below
