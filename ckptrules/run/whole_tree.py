"""Apply the policy lines that go by all directories together: `budget`, and `keep_best` with `across`.

Each directory is planned by its own lines first. The engine decides over these plans, and each job gets its part.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from fnmatch import fnmatchcase
from typing import Any

from ckptrules.engine.entries import Directory
from ckptrules.engine.facts import believed
from ckptrules.engine.names.naming import SlowRuleError
from ckptrules.engine.policy.judging import Judged
from ckptrules.engine.policy.retention import budget_last, by_tree, without_budget
from ckptrules.engine.ruleset import Best, PolicyLine
from ckptrules.engine.tree import OwnPlan, best_across, budget_note, part_of, share_out
from ckptrules.outputs.glancing import Glances
from ckptrules.outputs.in_use import in_use
from ckptrules.outputs.listing import read_names
from ckptrules.run.deciding import decided_of
from ckptrules.run.jobs import Job, OwnJobs, own_jobs
from ckptrules.run.session import Session
from ckptrules.storage import reading


def with_tree(
    session: Session, job: Job, pairs: OwnJobs, changed: Callable[[Job, Directory], Job] = lambda own, _: own
) -> tuple[list[tuple[Job, Directory]], list[str]]:
    """Add to each job what the lines that go by the whole tree say of its directory; the second value are notes.

    All directories count, also those that are not selected. ``changed`` returns the job of a directory as the caller
    has changed it; the jobs of the selected ``pairs`` are changed already.
    """
    if not tree_lines(pairs):
        return list(pairs), []
    whole = own_jobs(session, job._replace(options=job.options.but(verified=False)))
    every = [(changed(own, found), found) for own, found in whole]
    by_directory: dict[str, dict[Any, Judged]] = {found.directory: {} for _, found in every}
    notes = []
    for line in tree_lines(every):
        every = with_opinions(every, by_directory)
        if line.key == "budget":
            parts = [part_in(own, found) for own, found in every]
            shared = share_out(line.value, parts, job.header["started_ns"])
            judged, note = shared.says, budget_note(line.value, shared)
            notes += [note, *(f"{job.style.name(part.directory)} {part.live}" for part in parts if part.live)]
        else:
            judged = ranked(line.value, every)
        for directory, opinions in judged.items():
            by_directory[directory][line.value] = opinions
    return with_opinions(pairs, by_directory), notes


def tree_lines(pairs: OwnJobs) -> list[PolicyLine]:
    """Return the lines that go by the whole tree, each once, in the order in which they decide."""
    lines = {line[:2]: line for own, _ in pairs for line in (by_tree(own.policy) if own.policy else ())}
    return budget_last(lines.values())


def with_opinions(pairs: OwnJobs, by_directory: Mapping[str, Mapping[Any, Judged]]) -> list[tuple[Job, Directory]]:
    """Add to each job the opinions on the names in its directory."""
    return [(own._replace(tree=by_directory.get(found.directory, {})), found) for own, found in pairs]


def part_in(job: Job, found: Directory) -> OwnPlan:
    """Plan a directory without the budget, for the decision over the tree; by too slow a rule, all of it stays."""
    decided = decided_of(job._replace(policy=job.policy and without_budget(job.policy)), found)
    try:
        listing = believed(decided.listing, decided.known.times)
        return part_of(job.rules, listing, decided.plan, decided.known)
    except SlowRuleError:
        return OwnPlan(found.directory)


def ranked(best: Best, every: OwnJobs) -> Mapping[str, Judged]:
    """Rank the checkpoints of the experiments that ``across`` fits, until all of the best are whole and not in use."""
    jobs = {found.directory: (own, found) for own, found in every if fnmatchcase(found.experiment, best.across)}
    parts = {directory: part_in(own, found) for directory, (own, found) in jobs.items()}
    while True:
        judged = best_across(best, parts.values())
        out = {
            directory: unsound_in(jobs[directory][0], parts[directory], [n for n in opinions if opinions[n].keeps])
            for directory, opinions in judged.items()
        }
        if not any(out.values()):
            return judged
        for directory, names in out.items():
            parts[directory] = parts[directory]._replace(whole=parts[directory].whole.difference(names))


def unsound_in(job: Job, part: OwnPlan, names: Collection[str]) -> set[str]:
    """Return which of the named checkpoints are in use or broken, as far as a glance at their files shows."""
    all_names = {checkpoint.entry.name: checkpoint.names for checkpoint in (*part.rest, *part.stays)}
    try:
        with reading.open_below(job.options.outputs_dir, part.directory) as directory:
            entries = {entry: name for name in names for entry in read_names(directory, all_names[name])}
            broken = Glances(directory).broken(entries, (checkpoint.entry for checkpoint in part.rest))
            settle, now_ns = job.rules.settle, job.header["started_ns"]
            return {n for e, n in entries.items() if e.name in broken or in_use(directory, e, settle, now_ns)}
    except OSError:
        return set(names)
