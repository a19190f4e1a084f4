"""Find trainings that keep their own list of checkpoints and may still run: nothing of theirs is touched. Pure."""

from __future__ import annotations

from ckptrules.engine.actions import Plan, Problem
from ckptrules.engine.entries import Listing, in_part_folder
from ckptrules.engine.measures import NS, human_time
from ckptrules.engine.names.naming import fits
from ckptrules.engine.ruleset import Reason, RuleSet

OVER = 3600  # seconds after its newest file after which a training counts as over
CHANGED = frozenset({"rename", "trash"})  # kinds of actions on checkpoints


def live_run(plan: Plan, listing: Listing, rules: RuleSet, now_ns: int) -> tuple[Problem, Reason] | None:
    """Return the problem that a training may still run and would miss what the plan changes, and the reason for rows.

    None where no ``live`` format fits a changed name, the newest file is older than `OVER`, or the user gives
    ``settle``, which then decides for each checkpoint.
    """
    live = [rule for rule in (*rules.legacy, *rules.formats) if rule.live]
    if not live or (rules.settle and not rules.shared):
        return None
    names = [in_part_folder(name)[1] for action in plan.actions if action.kind in CHANGED for name in action.names]
    rule = next((rule for rule in live for name in names if fits(rule, name) is not None), None)
    if rule is None:
        return None
    newest = max(entry.mtime_ns for entry in listing.entries)
    if (age := (now_ns - newest) // NS) >= OVER:
        return None
    changed = "is dated ahead" if age < 0 else f"changed {human_time(age)} ago"
    task = "plan delete_old=1" if any(action.kind == "trash" for action in plan.actions) else "plan"
    text = f"is left alone: its newest file {changed}, so a run may go on, and {rule.live}"
    hint = f"if that run is over, settle=60 tells so: 'doit {task} settle=60'"
    return Problem("live_run", (listing.directory,), text, hint), Reason(f"a run may go on: {rule.live}", rule.place)
