"""Options + rules → doit task dicts, one for each checkpoint directory, with an up-to-date check."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from doit.exceptions import TaskFailed
from doit.task import Task

from ckptrules import emptying, evidence, scan, stopping, store, watch
from ckptrules.apply import Outcome, Workplace, carry_out, is_plain, settle
from ckptrules.asked import chosen, command_line
from ckptrules.facts import look, metric_files, obstacle, pointer_names, read_metrics, to_look_at
from ckptrules.jobs import (
    Job,
    age_days,
    begun,
    is_selected,
    is_up_to_date,
    jobs_of,
    load,
    names_of,
    note_stop,
    nothing_understood,
    open_journal,
    outputs_dir,
    own_state,
    refuse_unknown_experiments,
    style,
    survey,
    uncovered,
    waiting_days,
)
from ckptrules.losses import losses
from ckptrules.model import Facts, Found, Listing, MaxDelete, OutsideLink, Plan, Policy, Problem, Reason, RuleSet
from ckptrules.naming import SlowRuleError
from ckptrules.options import TRASH_TASK, OptionError, Options, encode_task
from ckptrules.plan import make_plan, sort_entries, with_metrics
from ckptrules.progress import StoppedError
from ckptrules.recovery import interrupted
from ckptrules.report import Tally, count_of, experiment_block, going, plan_as_data, several, table, tally
from ckptrules.reporter import Reporter, RunContext, Told
from ckptrules.retention import Excess, holds_until, reads_files, too_many
from ckptrules.rules import SLOW_HINT
from ckptrules.startup import TaskDict, params_of

FAULTS = (
    OSError,
    SlowRuleError,
    StoppedError,
)  # what lets one directory be told of as `untouched`, and the others be done
BACKUP = "backup"  # comes first where both are asked for; nothing is migrated if it fails


# --- what dodo.py uses -----------------------------------------------------------------------------------------------


def plan(options: Options) -> Iterator[TaskDict]:
    """Make one previewing task for each checkpoint directory."""
    return experiments("plan", options._replace(dry_run=True), understood=in_tally)


def purge(options: Options) -> Iterator[TaskDict]:
    """Make the task that empties the trash."""
    return emptying.purge(options)


def migrate(options: Options) -> Iterator[TaskDict]:
    """Make one task for each checkpoint directory, and one for what has waited in the trash long enough."""
    yield from experiments("migrate", options, understood=in_tally)
    days = load(options.rules_dir, options.outputs_dir).trash_days
    waiting = scan.trash_runs(options.outputs_dir) if days else []
    expired = [run for run in waiting if waiting_days(options.outputs_dir, run) >= days]
    if expired and not options.dry_run and command_line().command == "run":
        yield {
            "name": TRASH_TASK,
            "actions": [(emptying.free_expired, [options, style(options), expired])],
            "task_dep": backups_first(),
        }


def check(options: Options) -> Iterator[TaskDict]:
    """Test the rules (loading them does) and show them."""
    yield {"basename": "check", "actions": [(show_rules, [load(options.rules_dir)])]}


# --- the tasks -------------------------------------------------------------------------------------------------------


def experiments(
    base: str,
    options: Options,
    action: Callable[..., Any] | None = None,
    understood: Callable[[Any], int] | None = None,
    **more: Any,
) -> Iterator[TaskDict]:
    """Make one task for each checkpoint directory.

    Args:
        base: the name of the task.
        options: its options.
        action: takes a `Job`, a `Found` and doit's task; without one, `work_on`.
        understood: tells from a tally of how many names the rules could say anything; nothing understood is no success.
        more: further fields of the `RunContext`.

    Raises:
        RuleError, OptionError: nothing can be done with these.
    """
    outputs_dir(options)
    job, jobs = jobs_of(base, options)
    refuse_unknown_experiments(command_line(), base, options, partial(names_of, options.outputs_dir, job.rules))
    notes = [
        f"Not followed: {job.style.name(name)} is a link." for name in scan.linked_directories(options.outputs_dir)
    ]
    notes += inner_directories(job)
    if options.dry_run and interrupted(options.outputs_dir, own_state(options.outputs_dir)):
        notes.append("A run was interrupted, or is at work now; the next 'doit migrate' first finishes what it began.")
    notes += not_asked_for(job, jobs)
    notes += leapt(base, options)
    excess = refuse_too_many(base, job, jobs)
    if excess:
        notes.append(f"Nothing would be deleted: {excess}.\n    hint: {advice(excess)}")
    header = {**job.header, "refused": str(excess) if excess else None}
    Reporter.contexts[base] = RunContext(
        options, job.style, header, job.rules.trash_days, tuple(notes), refused=bool(excess),
        came_to=partial(around, base, job, understood), lacks=partial(lacking, job, understood), **more
    )  # fmt: skip
    first = backups_first() if base == "migrate" else []
    listed = command_line().command != "run"
    selected = chosen() - {base}
    for own, found in jobs:
        name = encode_task(found.experiment)
        yield {
            "name": name,
            "doc": f"checkpoints in {name}" if listed else None,
            "actions": [(action or work_on, [own, found])],
            "uptodate": [False if options.dry_run or action else (check_up_to_date, [own, found])],
            "params": params_of(base) if selected and f"{base}:{name}" in selected else (),
            "task_dep": first,
            "meta": {"found": found},
        }


def leapt(base: str, options: Options) -> Iterator[str]:
    """Say so where the clock cannot be believed, and by it something in the trash would be old enough to be freed."""
    if base == "migrate" and not options.dry_run and command_line().command == "run":
        run, days = begun(options.outputs_dir), load(options.rules_dir, options.outputs_dir).trash_days
        if run.leap and any(age_days(one) >= days > 0 for one in run.last.waited):
            yield f"The clock {run.leap}: nothing in the trash is freed by its age; what is there waits anew from now."


def inner_directories(job: Job) -> list[str]:
    """Tell which directories the layout would take though they lie in checkpoints: the first, and how many."""
    inner = survey(job.options.outputs_dir, job.rules)[1]
    more = f", and {len(inner) - 1} more such" if len(inner) > 1 else ""
    return [f"Left to the checkpoint that it is a part of: {job.style.name(str(one))}{more}." for one in inner[:1]]


def in_tally(total: Tally) -> int:
    """Count the names that the rules could say anything of."""
    return total.up_to_date + total.kept + total.changes + total.problems


def lacking(job: Job, understood: Callable[[Any], int] | None, total: Any) -> str:
    """Say why a run is no success although no problem is left: there was nothing that the rules understand."""
    return "" if understood is None or understood(total) else nothing_understood(job.options, job.rules)


def around(base: str, job: Job, understood: Callable[[Any], int] | None, total: Any) -> Iterator[str]:
    """Tell what looks like checkpoints and is not covered.

    `doit migrate` looks only where it has understood nothing: a run that has nothing to do must not walk the tree.
    """
    if understood and (job.options.dry_run or base == "verify" or not understood(total)):
        yield uncovered(base, job.options, job.rules, job.style)


def backups_first() -> list[str]:
    """Return the tasks that make a backup, where one is asked for as well."""
    return sorted(word for word in chosen() if word.partition(":")[0] == BACKUP)


def not_asked_for(job: Job, jobs: Iterable[tuple[Job, Found]]) -> Iterator[str]:
    """Say so where ``policy=`` is not what decides."""
    others = [own.policy for own, _ in jobs if own.policy and own.policy.name != job.options.policy]
    if others and job.options.policy != Options().policy:
        what = count_of(len(others), "experiment has", "experiments have")
        yield f"Not by policy={job.options.policy}: {what} another policy, by 'experiments' in the rules."


def refuse_too_many(base: str, job: Job, jobs: Iterable[tuple[Job, Found]]) -> Excess | None:
    """Plan everything that was selected, and see whether that deletes more than one run may.

    Raises:
        OptionError: it does, and it is not only a preview.
    """
    limit = as_limit(job.options.max_delete) if job.options.max_delete else job.rules.max_delete
    if limit is None or not job.options.delete_old or command_line().command != "run":
        return None
    excess = too_many(limit, (plan_of(own, found)[0] for own, found in jobs if is_selected(base, found.experiment)))
    if excess and not job.options.dry_run:
        raise OptionError(f"{excess.place or 'command line'}: {excess}\n    hint: {advice(excess)}")
    return excess


def as_limit(text: str) -> MaxDelete:
    """Turn ``25`` or ``20%`` into a limit."""
    return MaxDelete(None, int(text[:-1])) if text.endswith("%") else MaxDelete(int(text), None)


def advice(excess: Excess) -> str:
    """Say how to go on."""
    return (
        f"look at 'doit plan delete_old=1'; max_delete={excess.deletions} allows this run, "
        "and without delete_old=1 it only renames"
    )


def check_up_to_date(
    task: Task,  # noqa: ARG001 - doit passes values second only
    values: Mapping[str, Any],
    job: Job,
    found: Found,
) -> bool:
    """Tell doit whether an experiment is up to date."""
    return is_up_to_date(values, job, found)


def work_on(job: Job, found: Found, task: Task) -> TaskFailed | None:
    """Plan one checkpoint directory and, unless it is a dry run, carry the plan out; note what to remember of it."""
    if stopping.stopped():
        note_stop()
        task.meta["told"] = Told("")
        return TaskFailed("stopped", report=False)
    decided = decided_of(job, found)
    plan, listing = decided.plan, decided.listing
    outcome = Outcome(plan, None)
    try:
        if not job.options.dry_run:
            outcome = carry_out(plan, listing, workplace(job))
        if job.options.fix_state:
            outcome = fix_as_well(job, found, outcome, listing)
    except OSError as error:
        outcome = Outcome(untouched(found, error), None)
    if failed := tell(job, task, outcome.plan, listing):
        return failed
    if outcome.stamp:
        task.values = what_to_remember(job, found, decided, outcome)
    return None


def what_to_remember(job: Job, found: Found, decided: Decided, outcome: Outcome) -> dict[str, Any]:
    """Return by what the next run knows that there is nothing to do; nothing where a plan would not say so now."""
    if outcome.plan.actions and (job.policy or decided.read):
        decided = decided_of(job, found)
        if decided.plan.actions or decided.plan.problems:
            return {}
    if decided.plan.unwhole or decided.read is None or is_not_understood(outcome.plan):
        return {}
    now_ns = job.header["started_ns"]
    values: dict[str, Any] = {"fingerprint": job.fingerprint, "stamp": outcome.stamp}
    if job.policy and reads_files(job.policy):
        times = (entry.mtime_ns for entry in decided.listing.entries)
        values |= {"holds_since_ns": now_ns, "holds_until_ns": holds_until(job.policy, times, now_ns)}
    if decided.read:
        values["read"] = decided.read
    if is_plain(outcome.plan, decided.listing):
        values["plain"] = True
    return values


def is_not_understood(plan: Plan) -> bool:
    """Say whether the rules know nothing in a directory that is not empty: it is never up to date."""
    unknown = any(row.kind == "unrecognised" for row in plan.skipped)
    return unknown and not (plan.kept or plan.actions)


def tell(job: Job, task: Task, done: Plan, listing: Listing) -> TaskFailed | None:
    """Tell what came of one directory; problems left are a failure without words of its own."""
    if stopping.stopped():
        note_stop()
    state = "problems" if done.problems else "planned" if job.options.dry_run else "done"
    data = plan_as_data(done, state) if job.options.json else None
    links = several(done, listing.entries)
    text = experiment_block(done, listing.entries, job.style)
    task.meta["told"] = Told(text, tally(done, links), data, going(done), links)
    return TaskFailed("problems left", report=False) if done.problems else None


def fix_as_well(job: Job, found: Found, outcome: Outcome, listing: Listing) -> Outcome:
    """Bring the paths inside the checkpoints up to date, after the renames; in a preview by the names to come."""
    from ckptrules.fixing import fix, foresee
    from ckptrules.progress import stoppable

    place = None if job.options.dry_run else workplace(job)
    try:
        if place is None:
            more = foresee(job.options.outputs_dir, job.rules, listing, outcome.plan)
        else:
            now = scan.scan(place.outputs_dir, found)
            more = fix(place, job.rules, now, job.header["started_ns"], stoppable, kept=outcome.plan.remaining)
    except FAULTS as fault:
        more = untouched(found, fault)
    plan = outcome.plan._replace(
        actions=(*outcome.plan.actions, *more.actions),
        skipped=(*outcome.plan.skipped, *more.skipped),
        problems=(*outcome.plan.problems, *more.problems),
    )
    if place is None or plan.problems or not more.actions:
        return Outcome(plan, None if plan.problems else outcome.stamp)
    with store.Folders(place.outputs_dir) as folders:
        return Outcome(plan, settle(folders.descriptor(found.directory), plan, listing, changed=True))


for _function in (check_up_to_date, work_on):  # doit asks for the signature once for each task
    vars(_function)["__signature__"] = inspect.signature(_function)


class Decided(NamedTuple):
    """A plan, what it was made from, and what it read beyond names (`evidence.read_by`)."""

    plan: Plan
    listing: Listing
    read: Mapping[str, Any] | None = None


def plan_of(job: Job, found: Found) -> tuple[Plan, Listing]:
    """Read one checkpoint directory and plan what is to happen in it."""
    return decided_of(job, found)[:2]


def decided_of(job: Job, found: Found) -> Decided:
    """Read one checkpoint directory and plan what is to happen in it; say what it was read from."""
    listing = Listing(found.experiment, found.directory, ())
    try:
        with scan.open_below(job.options.outputs_dir, found.directory) as directory:
            listing = scan.read_directory(directory, found)
            contents = evidence.marks(directory, names_to_read(job, listing))
            plan, links = decide(job, listing, directory)
            if job.options.dry_run and plan.actions and (problem := obstacle(directory, plan)):
                plan = plan._replace(notes=(*plan.notes, Reason(f"nothing could be changed now: it {problem.text}")))
            looked_at = names_to_compare(job, listing, plan)
            return Decided(plan, listing, evidence.read_by(listing, looked_at, contents, links))
    except FAULTS as fault:
        return Decided(untouched(found, fault), listing)


def names_to_read(job: Job, listing: Listing) -> list[str]:
    """Return the files whose content a policy goes by: what names a checkpoint, and what tells a metric."""
    if job.policy is None:
        return []
    files = metric_files(sort_entries(job.rules, listing).sidecars) if asks_for_metrics(job) else {}
    return [*pointer_names(listing, job.rules), *(name for names in files.values() for name in names)]


def names_to_compare(job: Job, listing: Listing, plan: Plan) -> list[str] | None:
    """Return the names of which a plan goes by more than that they are there; None for all."""
    if job.options.fix_state or (job.policy and reads_files(job.policy)):
        return None
    skipped = {row.name for row in plan.skipped}
    return [
        entry.name
        for entry in listing.entries
        if (entry.kind == "directory" and entry.name not in skipped)
        or (entry.kind == "link" and entry.link_text != entry.sibling)
    ]


def decide(job: Job, listing: Listing, directory: int) -> tuple[Plan, tuple[OutsideLink, ...]]:
    """Plan one directory; where more than names must be known, find that out by its descriptor and plan again.

    The second value are the links elsewhere that lead into it, as far as it was asked.
    """
    watch.start()
    known = Facts(
        verified=verified_names(job, listing), now_ns=job.header["started_ns"], metrics=metrics_of(job, listing)
    )
    plan = planned(job, listing, known)
    looked_at: set[str] = set()
    while not (names := to_look_at(plan)) <= looked_at:  # what is found out may bring other names into play
        looked_at |= names
        facts = look(job.options.outputs_dir, directory, listing, plan, job.rules, known)
        if facts == known:
            break
        known = facts
        plan = planned(job, listing, known)
    return with_losses(job, listing, plan), known.links


def with_losses(job: Job, listing: Listing, plan: Plan) -> Plan:
    """Add notes of what goes by the policy that a person may miss."""
    goes = {action.name for action in plan.actions if action.kind == "trash" and not action.keep_in_trash}
    if not (job.policy and goes):
        return plan
    found = sort_entries(job.rules, listing)
    out = {name for problem in plan.problems for name in problem.names}.union(plan.unwhole)
    out |= {action.name for action in plan.actions if action.keep_in_trash}
    told = Facts(metrics=read_metrics(job.options.outputs_dir, listing, found.sidecars))
    series = [with_metrics(one, told) for one in found.checkpoints if one.entry.name not in out]
    protected = [entry.name for entry, _ in found.protected if entry.name not in out]
    return plan._replace(notes=(*plan.notes, *losses(job.policy, series, protected, goes)))


def planned(job: Job, listing: Listing, known: Facts) -> Plan:
    """Plan one directory by what is known."""
    options = job.options
    return make_plan(job.rules, listing, job.policy, options.on_conflict, known, leave_links=options.leave_links)


def metrics_of(job: Job, listing: Listing) -> Mapping[str, Mapping[str, str]]:
    """Return the metrics that sidecars tell, where the policy asks for any."""
    if not asks_for_metrics(job):
        return {}
    return read_metrics(job.options.outputs_dir, listing, sort_entries(job.rules, listing).sidecars)


def asks_for_metrics(job: Job) -> bool:
    """Say whether the policy goes by a metric."""
    return job.policy is not None and any(line.key == "keep_best" for line in job.policy.lines)


def verified_names(job: Job, listing: Listing) -> frozenset[str] | None:
    """Return which checkpoints were verified; None where nothing depends on it."""
    if not (job.policy and job.options.verified):
        return None
    from ckptrules.verify import proved_names

    return proved_names(job.options.outputs_dir, job.rules, listing)


def workplace(job: Job) -> Workplace:
    """Return where this process works."""
    journal = open_journal(job.options.outputs_dir, job.run, job.header)
    return Workplace(job.options.outputs_dir, job.run, journal, job.rules.trash_days, stopping.stopped)


def untouched(found: Found, fault: OSError | SlowRuleError | StoppedError) -> Plan:
    """Tell of a directory that could not be read, or not to its end, or of a rule that was given up on a name in it."""
    if isinstance(fault, StoppedError):
        problem = Problem("stopped", (found.directory,), "was not looked at to its end", "run again to go on")
    elif isinstance(fault, SlowRuleError):
        text = f"cannot be named: legacy rule '{fault.rule.id}' ({fault.rule.place.file_line}) needs too long for it"
        problem = Problem("slow_rule", (fault.name,), text, SLOW_HINT)
    else:
        hint = fault.hint if isinstance(fault, scan.StateError) else "look at the owner and the mode: ls -la"
        problem = Problem("unreadable", (found.directory,), f"cannot be read: {scan.told(fault)}", hint)
    return Plan(found.experiment, found.directory, problems=(problem,))


def show_rules(rules: RuleSet, task: Task) -> None:
    """Show every rule with the place where it stands and the number of examples that prove it."""
    rows = [
        (rule.id, count_of(len(rule.examples), "example"), rule.place.file_line, "")
        for rule in (rules.target, *rules.legacy)
    ]
    rows += [
        (f"policy {policy.name}", count_of(len(policy.examples), "example"), policy.place.file_line, words(policy))
        for policy in rules.policies.values()
    ]
    task.meta = {"told": Told("All rules hold.\n" + table((), [("", *row) for row in rows]))}


def words(policy: Policy) -> str:
    """Write a policy in one line."""
    return ", ".join([*map(str, policy.lines), f"keep_at_least: {policy.keep_at_least}"])
