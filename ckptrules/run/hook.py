"""What the hook of a training run names: where its checkpoints lie, and which of them nothing is done to now."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ckptrules.changes.moved import follower
from ckptrules.engine.entries import Directory, Listing
from ckptrules.engine.naming import SlowRuleError, claim
from ckptrules.engine.ruleset import Reason, RuleSet
from ckptrules.engine.sorting import sort_entries
from ckptrules.engine.state_folder import STATE
from ckptrules.outputs.find import find_holders
from ckptrules.outputs.picking import Tree, holders_by, rules_here
from ckptrules.run.options import OptionError, Planning

WHY = {"best": "it is the best of the run", "resumed": "the run was resumed from it", "path": "it was just saved"}


def directory_of(options: Planning, rules: RuleSet) -> Directory:
    """Find the checkpoint directory that ``path`` lies in; no other one is looked for.

    Raises:
        OptionError: it lies in none, or is no checkpoint by the rules.
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
    here = {one: rules_here(tree, rules, one.directory) for one in holders}
    found = next((one for one in holders if here[one].packs or not rules.layout_of_packs), None)
    if found is None:
        fact = f"'{path}' lies in no checkpoint directory (layout: {', '.join(rules.layout)})"
        raise OptionError(fact, "'doit plan' tells which there are")
    if below == found.directory:
        raise OptionError(f"'{path}' is a folder of checkpoints", "name one of those that it holds")
    name = os.path.basename(below)
    if not is_known(name, here[found], folder=os.path.isdir(path)):
        fact = f"'{path}' is no checkpoint: no rule knows the name '{name}'"
        raise OptionError(fact, "'doit plan verbose=1' tells what the rules know there")
    return found


def is_known(name: str, rules: RuleSet, *, folder: bool) -> bool:
    """Say whether the rules take a name for a checkpoint; one that they take too long for is told of by the plan."""
    try:
        return claim(name, rules, folder=folder).kind not in ("ignored", "unrecognised")
    except SlowRuleError:
        return True


def refuse_gone(options: Planning) -> None:
    """Refuse a checkpoint to spare that is not there, and that no run has moved: it may be mistyped.

    Raises:
        OptionError: with what to do where it is gone for good.
    """
    for option in ("resumed", "best"):
        path = getattr(options, option)
        if path and not os.path.lexists(path) and not any(paths_below(options.outputs_dir, path)):
            hint = f"leave {option}= out where it is gone for good"
            raise OptionError(f"{option}={path}: there is no such checkpoint", hint)


def spared(options: Planning, listing: Listing, rules: RuleSet) -> dict[str, Reason]:
    """Return the names in a directory that nothing is done to now, and why; none where no hook names a checkpoint."""
    if not options.path:
        return {}
    newest = {
        one.series: one for one in sorted(sort_entries(rules, listing).checkpoints, key=lambda one: one.age_order)
    }
    found = {one.entry.name: Reason("it is the newest") for one in newest.values()}  # of each series
    names = {entry.name for entry in listing.entries}
    start = f"{listing.directory}/".lstrip("/")
    for option, why in WHY.items():
        for path in paths_below(options.outputs_dir, getattr(options, option) or ""):
            name = path.removeprefix(start) if path.startswith(start) else ""
            found |= {one: Reason(why) for one in (name, name.partition("/")[0]) if one in names}
    return found


def paths_below(outputs_dir: str, path: str) -> Iterator[str]:
    """Yield what a path means below ``outputs_dir``: what stands there, and where it leads, or has been moved to."""
    below = below_outputs(outputs_dir, path) if path else ""
    if not below:
        return
    if not os.path.lexists(path):
        yield from follower(outputs_dir)(below).paths
        return
    yield below
    if os.path.islink(path) and (aim := below_outputs(outputs_dir, os.path.realpath(path))):
        yield aim


def below_outputs(outputs_dir: str, path: str) -> str:
    """Return the path below ``outputs_dir``, wherever links above its last part lead; nothing where it is outside."""
    folder, name = os.path.split(path)
    here = os.path.realpath(path) if name in ("", ".", "..") else os.path.join(os.path.realpath(folder or "."), name)
    below = os.path.relpath(here, os.path.realpath(outputs_dir))
    return "" if below.split("/")[0] in ("..", ".", STATE) else below
