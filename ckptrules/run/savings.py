"""Tells what rules that are not yet written would delete."""

from __future__ import annotations

import contextlib
import textwrap
import time
from collections.abc import Mapping

from ckptrules.engine.measures import human_size
from ckptrules.engine.packs import with_packs
from ckptrules.engine.retention import assignment, pick_policy
from ckptrules.engine.ruleset import RuleSet
from ckptrules.outputs import listing
from ckptrules.outputs.links import Links
from ckptrules.outputs.picking import Tree, pick_in, survey_by
from ckptrules.report.style import Style, count_of
from ckptrules.rules.load import load_rules
from ckptrules.run import deciding, jobs, records
from ckptrules.run.first_look import WIDTH
from ckptrules.run.options import Planning


def told_savings(place: str, texts: Mapping[str, str], keeps: str) -> str:
    """Plan every directory by what is written, and say how much would go."""
    rules = load_rules(texts)
    goes, total, blind = _measured(place, rules)
    of = f"{human_size(goes)} of {human_size(total)} would go"
    text = f"If you kept {keeps}, {of}; nothing goes unless you ask for it."
    where = f"No metric is known of {count_of(blind, 'experiment')}, so no best is kept"
    text += f" {where}: name one with keep_best, or pin it." * bool(blind)
    return textwrap.fill(text, WIDTH) + "\n"


def _measured(place: str, rules: RuleSet) -> tuple[int, int, int]:
    """Return the bytes that would go by the policies, those of all that lies there, and where no best is known.

    The last is the number of experiments of which something would go.
    """
    options = Planning(outputs_dir=place, delete_old=True, dry_run=True)
    header = {"started_ns": time.time_ns()}
    job = jobs.Job(options, rules, None, "", "", Style(), header, Links(place), records.Journals(""))
    tree, seen = Tree(place), set[tuple[int, int]]()
    goes = total = blind = 0
    for found in survey_by(place, rules)[0]:
        policy = pick_policy(rules, assignment(rules, found.experiment), options.policy)
        own = jobs.with_policy(
            job._replace(rules=with_packs(rules, pick_in(tree, rules.packs, found.directory))), policy
        )
        plan, listed = deciding.plan_of(own, found)
        blind += plan.blind
        going = plan.going
        known = {name for row in plan.kept for name in row.names} | going
        with contextlib.suppress(OSError):  # gone meanwhile
            in_parts = {entry.name: entry.size for entry in listed.entries if "/" in entry.name}
            sizes = in_parts | listing.sizes(place, found.directory, seen, going)
            goes += sum(size for name, size in sizes.items() if name in going)
            total += sum(size for name, size in sizes.items() if name in known)
    return goes, total, blind
