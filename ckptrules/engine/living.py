"""Pure: where a run deletes its checkpoints by a list of its own, nothing is touched while it may go on."""

from __future__ import annotations

from ckptrules.engine.actions import Plan, Problem
from ckptrules.engine.entries import Listing, in_part_folder
from ckptrules.engine.measures import NS, human_time
from ckptrules.engine.naming import fits
from ckptrules.engine.ruleset import Reason, RuleSet

OVER = 3600  # seconds after its newest file, from which on a run is taken for over
CHANGED = frozenset({"rename", "trash"})  # kinds of actions on checkpoints


def live_run(plan: Plan, listing: Listing, rules: RuleSet, now_ns: int) -> tuple[Problem, Reason] | None:
    """Tell that a run may go on which would miss what a plan touches, and why that stays; None where there is no such.

    The formats of such runs are asked, whichever rule decided about a name. Where somebody says how long a checkpoint
    must be unchanged (``settle``), that is asked of each, and this is not.
    """
    asked = [rule for rule in (*rules.legacy, *rules.formats) if rule.live]
    if not asked or (rules.settle and not rules.shared):
        return None
    names = [in_part_folder(name)[1] for action in plan.actions if action.kind in CHANGED for name in action.names]
    rule = next((rule for rule in asked for name in names if fits(rule, name) is not None), None)
    if rule is None:
        return None
    newest = max(entry.mtime_ns for entry in listing.entries)
    if (age := (now_ns - newest) // NS) >= OVER:
        return None
    changed = "is dated ahead" if age < 0 else f"changed {human_time(age)} ago"
    task = "plan delete_old=1" if any(action.kind == "trash" for action in plan.actions) else "plan"
    text = f"is left alone: its newest file {changed}, so a run may go on, and {rule.live}"
    hint = f"when it is over, settle=60 says so: 'doit {task} settle=60'; in the rules, settle: 60 does for good"
    return Problem("live_run", (listing.directory,), text, hint), Reason(f"a run may go on: {rule.live}", rule.place)
