"""What goes by all directories together: each is planned by its own lines first, then told what the tree decides."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from fnmatch import fnmatchcase
from typing import Any

from ckptrules.engine.entries import Directory
from ckptrules.engine.facts import believed
from ckptrules.engine.judging import Judged
from ckptrules.engine.naming import SlowRuleError
from ckptrules.engine.retention import by_tree
from ckptrules.engine.ruleset import Best, PolicyLine
from ckptrules.engine.tree import OwnPlan, best_across, budget_note, part_of, share_out
from ckptrules.outputs.glancing import Glances
from ckptrules.outputs.in_use import in_use
from ckptrules.outputs.listing import read_names
from ckptrules.run.deciding import decided_of
from ckptrules.run.jobs import Job, Pairs, own_jobs
from ckptrules.run.session import Session
from ckptrules.storage import reading


def told_by_tree(
    session: Session, job: Job, pairs: Pairs, changed: Callable[[Job, Directory], Job] = lambda own, _: own
) -> tuple[list[tuple[Job, Directory]], list[str]]:
    """Tell each job what the lines that go by the whole tree say of its directory; the second value is for people.

    Whatever is selected, all directories count. ``changed`` says what becomes of the job of any directory; of the
    selected ``pairs`` it has become already.
    """
    if not lines_of(pairs):
        return list(pairs), []
    whole = own_jobs(session, job._replace(options=job.options.but(verified=False)))
    every = [(changed(own, found), found) for own, found in whole]
    said: dict[str, dict[Any, Judged]] = {found.directory: {} for _, found in every}
    notes = []
    for line in lines_of(every):  # the budget comes last: it goes by what the others keep
        every = told(every, said)
        if line.key == "budget":
            parts = [part_in(without_budget(own), found) for own, found in every]
            shared = share_out(line.value, parts, job.header["started_ns"])
            judged, note = shared.says, budget_note(line.value, shared)
            notes += [note, *(f"{job.style.name(part.directory)} {part.live}" for part in parts if part.live)]
        else:
            judged = ranked(line.value, every)
        for directory, opinions in judged.items():
            said[directory][line.value] = opinions
    return told(pairs, said), notes


def lines_of(pairs: Pairs) -> list[PolicyLine]:
    """Return the lines that go by the whole tree, each once, the budget last."""
    found = {line[:2]: line for own, _ in pairs for line in (by_tree(own.policy) if own.policy else ())}
    return sorted(found.values(), key=lambda line: line.key == "budget")


def told(pairs: Pairs, said: Mapping[str, Mapping[Any, Judged]]) -> list[tuple[Job, Directory]]:
    """Give each job what is said of its directory."""
    return [(own._replace(tree=said.get(found.directory, {})), found) for own, found in pairs]


def without_budget(job: Job) -> Job:
    """Return a job that lets go whatever no other line keeps."""
    policy = job.policy
    lines = tuple(line for line in policy.lines if line.key != "budget") if policy else ()
    return job._replace(policy=policy and policy._replace(lines=lines))


def part_in(job: Job, found: Directory) -> OwnPlan:
    """Plan a directory, and return its part in what the tree decides; nothing of it goes where that cannot be done."""
    decided = decided_of(job, found)
    try:
        listing = believed(decided.listing, decided.known.times)
        return part_of(job.rules, listing, decided.plan, decided.known)
    except SlowRuleError:
        return OwnPlan(found.directory)


def ranked(best: Best, every: Pairs) -> Mapping[str, Judged]:
    """Rank the checkpoints of all experiments that are meant; what is among the best must be whole."""
    meant = {found.directory: (own, found) for own, found in every if fnmatchcase(found.experiment, best.across)}
    parts = {directory: part_in(without_budget(own), found) for directory, (own, found) in meant.items()}
    while True:
        judged = best_across(best, parts.values())
        out = {
            directory: unsound_in(meant[directory][0], parts[directory], [name for name in said if said[name].keeps])
            for directory, said in judged.items()
        }
        if not any(out.values()):
            return judged
        for directory, names in out.items():
            parts[directory] = parts[directory]._replace(whole=parts[directory].whole.difference(names))


def unsound_in(job: Job, part: OwnPlan, names: Collection[str]) -> set[str]:
    """Return which of some checkpoints of a directory are written to or broken, as far as a look at them shows."""
    whole = {one.entry.name: one.names for one in (*part.rest, *part.stays)}
    try:
        with reading.open_below(job.options.outputs_dir, part.directory) as directory:
            entries = {entry: name for name in names for entry in read_names(directory, whole[name])}
            broken = Glances(directory).broken(entries, (one.entry for one in part.rest))
            settle, now_ns = job.rules.settle, job.header["started_ns"]
            return {n for e, n in entries.items() if e.name in broken or in_use(directory, e, settle, now_ns)}
    except OSError:
        return set(names)
