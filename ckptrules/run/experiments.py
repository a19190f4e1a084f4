"""Make one doit task for each checkpoint directory, with its up-to-date check."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ckptrules.changes.journals import interrupted
from ckptrules.engine.entries import Directory
from ckptrules.engine.measures import NS, count_of
from ckptrules.engine.policy.retention import by_tree, too_many
from ckptrules.engine.ruleset import Fault, MaxDelete
from ckptrules.outputs import find as outputs_find
from ckptrules.outputs.links import Links
from ckptrules.report.style import Style
from ckptrules.report.text import Tally
from ckptrules.rules.shipped import RULES_DIR
from ckptrules.run import pinning
from ckptrules.run.command_line import params_of
from ckptrules.run.finding import SETTLE, find, load, shared_with, survey
from ckptrules.run.hints import as_named
from ckptrules.run.jobs import (
    Job,
    OwnJobs,
    Packed,
    by_default_rules,
    is_up_to_date,
    jobs_of,
    nothing_understood,
    uncovered,
)
from ckptrules.run.options import Common, Migrating, OptionError, Planning
from ckptrules.run.outcome import Apart, Done, RunContext
from ckptrules.run.records import DAY, begun
from ckptrules.run.remembered import remembered
from ckptrules.run.session import Session
from ckptrules.run.tasks import TaskDict, hand_over, selects
from ckptrules.run.words import encode_task
from ckptrules.storage.believing import own_state
from ckptrules.storage.trash import run_started
from ckptrules.workers.pieces import Lost
from ckptrules.workers.workers import in_main_thread

if TYPE_CHECKING:  # processes at work import the file of a command, for its options
    from doit.exceptions import TaskFailed
    from doit.task import Task

Rows = tuple[Mapping[str, Any], ...]
BACKUP = "backup"  # in one call with migrate, the backup runs first; nothing is migrated if it fails


def experiments(
    session: Session,
    base: str,
    options: Planning,
    work: Callable[[Job, Directory], Done | Apart],
    understood: Callable[[Any], int] | None = None,
    **more: Any,
) -> Iterator[TaskDict]:
    """Make one task for each checkpoint directory; ``more`` are further fields of the `RunContext`.

    ``understood`` counts in a tally the names that the rules understood; a run without any has the exit code 1.

    Raises:
        RuleError, OptionError: as `jobs_of`; or the run would delete more than `max_delete` allows.
    """
    job, jobs = jobs_of(session, base, options)
    notes = [*notes_before(session, base, job, jobs)]
    jobs, tree_notes, rows = by_the_tree(session, base, job, jobs)
    notes += tree_notes
    excess = refuse_too_many(session, job, jobs)
    if excess:
        notes.append(f"Nothing would be deleted: {excess.fact}.\n    hint: {excess.hint}")
    header = {**job.header, "refused": excess.fact if excess else None}
    silent: list[Directory] = []  # directories that are up to date, and in which the rules understand no name
    counted = understood and (lambda total: understood(total) - len(silent))
    session.contexts[base] = RunContext(
        options, job.style, header, job.rules.trash_days, tuple(notes),
        came_to=partial(notes_after, session, base, job, counted), lacks=partial(lacking, session, base, job, counted),
        rows=rows, **more
    )  # fmt: skip
    return tasks_of(session, base, jobs, work, remembered(session, options), silent)


def tasks_of(
    session: Session,
    base: str,
    jobs: OwnJobs,
    work: Callable[[Job, Directory], Done | Apart],
    known: Mapping[str, Mapping[str, Any]],
    silent: list[Directory],
) -> Iterator[TaskDict]:
    """Yield the doit task of each directory.

    ``known`` is what doit remembers of earlier runs, by task. ``silent`` collects the directories that are up to date,
    and in which the rules understand no name.
    """
    first = backups_first(session) if base == "migrate" else []
    listed = session.line.command != "run"
    packed: dict[int, Packed] = {}
    for own, found in jobs:
        name = encode_task(found.experiment)
        values = known.get(f"{base}:{name}", {}).get("_values_:", {})
        up_to_date = is_up_to_date(values, own, found)
        if up_to_date and "not_understood" in values:
            silent.append(found)
        yield {
            "name": name,
            "doc": f"checkpoints in {name}" if listed else None,
            "actions": [(do, [session, work, packed.setdefault(id(own), Packed(own)), found])],
            "io": {"capture": False},  # doit captures the output of the whole process, which other threads use too
            "uptodate": [up_to_date],
            "params": params_of(base) if f"{base}:{name}" in session.chosen else (),
            "task_dep": first,
            "meta": {"found": found},
        }


def notes_before(session: Session, base: str, job: Job, jobs: OwnJobs) -> Iterator[str]:
    """Yield the notes that need no plan of a directory."""
    options = job.options
    if not options.path:
        for name, what in outputs_find.not_followed(options.outputs_dir):  # links and backups may look like experiments
            yield f"Not followed: {job.style.name(name)} is {what}."
        yield from inner_directories(session, job)
    if options.dry_run and interrupted(options.outputs_dir, own_state(options.outputs_dir)):
        yield "A run was interrupted, or is at work now; the next 'doit migrate' first finishes what it began."
    yield from useless_options(job, jobs)
    yield from unseen_writers(session, base, job)
    yield from clock_note(session, base, options)
    if options.path:
        for line in (line for own, _ in jobs if own.policy for line in by_tree(own.policy)):
            yield f"Left to 'doit migrate', as it goes by the whole tree, so nothing goes by it now: {line.key}."


def by_the_tree(session: Session, base: str, job: Job, jobs: OwnJobs) -> tuple[OwnJobs, list[str], Rows]:
    """Add to the jobs what depends on all directories: lines that go by the whole tree, and in a preview other options.

    Returns the jobs, notes, and the rows that describe the other options.
    """
    options, notes, rows = job.options, list[str](), Rows()
    if options.path or session.line.command != "run":
        return jobs, notes, rows
    if any(map(by_tree, {id(own.policy): own.policy for own, _ in jobs if own.policy}.values())):
        from ckptrules.run.whole_tree import with_tree

        jobs, notes = with_tree(session, job, jobs)
    if options.tells_data and options.dry_run and isinstance(options, Migrating):
        from ckptrules.run.what_if import with_others

        jobs, rows = with_others(session, base, job, jobs)
    return jobs, notes, rows


def clock_note(session: Session, base: str, options: Common) -> Iterator[str]:
    """Yield a note where the clock has leapt, and by it something in the trash would be old enough to be freed."""
    if base == "migrate" and not options.dry_run and session.line.command == "run":
        run = begun(session, options.outputs_dir)
        days = load(session, options).trash_days
        latest = session.started_ns / NS - days * DAY
        if run.leap and days and any(run_started(waiting) <= latest for waiting in run.last.waited):
            yield f"The clock {run.leap}: nothing in the trash is freed by its age; what is there waits anew from now."


def inner_directories(session: Session, job: Job) -> list[str]:
    """Return a note on the directories that fit the layout but lie in a checkpoint: the first, and how many more."""
    if job.rules.packs:
        return []  # layouts of packs fit any folder, so also those in a checkpoint
    inner = survey(session, job.options)[1]
    more = f", and {len(inner) - 1} more such" if len(inner) > 1 else ""
    return [f"Left to the checkpoint that it is a part of: {job.style.name(first)}{more}." for first in inner[:1]]


def in_tally(total: Tally) -> int:
    """Count the names that the rules understood."""
    return total.up_to_date + total.kept + total.changes + total.problems


def lacking(session: Session, base: str, job: Job, understood: Callable[[Any], int] | None, total: Any) -> str:
    """Say why a run without problems is still no success: no name is understood, or a pin is lost.

    A run that changes something first updates the names of pinned checkpoints here.
    """
    options = job.options
    lacks = [nothing_understood(session, options)] if understood and not understood(total) else []
    if pinning.pins_of(session, options):
        lacks += [pinning.renew(options.rules_dir, options.outputs_dir)] if options.will_change else []
        if understood and not selects(session, base, options):
            directories = find(session, options)
            lacks += pinning.astray(session, options, directories)
    return "\n".join(filter(None, lacks))


def notes_after(
    session: Session, base: str, job: Job, understood: Callable[[Any], int] | None, total: Any
) -> Iterator[str]:
    """Yield notes on folders that no layout covers, on what nobody typed, and on folders not searched for links.

    `doit migrate` looks for the first only if it changed something or understood nothing: a run without work must not
    walk the tree.
    """
    if understood and (job.options.dry_run or base == "verify" or not understood(total) or total.changes):
        yield uncovered(session, base, job.options)
    if isinstance(job.options, Migrating) and (job.options.dry_run or total.changes):
        yield from untyped(job)
        yield from without_experiment(session, base, job)
    yield from unsearched_notes(job.links, job.style)


def untyped(job: Job) -> Iterator[str]:
    """Yield notes on what nobody typed: a tree elsewhere, which copied rules may name, and the default rules."""
    outputs_dir = job.options.outputs_dir
    if outputs_dir == job.rules.outputs_dir and os.path.relpath(outputs_dir).split(os.sep)[0] == os.pardir:
        yield f"The tree is {job.style.name(os.path.abspath(outputs_dir))}, as 'outputs_dir' in the rules says."
    if by_default_rules(job.rules):
        yield f"No {RULES_DIR}/ is here, so the default rules decided.\n    hint: 'ckptrules init' writes rules to edit"


def without_experiment(session: Session, base: str, job: Job) -> Iterator[str]:
    """Yield a note on each pattern below ``experiments`` that fits none: what it was to keep goes by another policy."""
    if not job.options.delete_old or job.options.path or selects(session, base, job.options):
        return
    names = sorted(found.experiment for found in find(session, job.options))
    for one in job.rules.experiments:
        if names and not any(map(one.pattern.fits, names)):
            fact = f"no experiment fits '{job.style.name(one.pattern.text)}' ({one.pattern.place})"
            hint = f"a pattern must fit the whole name, as in '{job.style.name(names[0])}'"
            yield f"Policy '{one.policy}' is for none: {fact}.\n    hint: {hint}"


def unsearched_notes(links: Links, style: Style) -> Iterator[str]:
    """Yield a note on each folder that could not be searched for links."""
    for path, why in sorted(links.unsearched.items()):
        yield f"Not searched for links: {style.name(path)}: {why}. A link in there may come to lead nowhere."


def backups_first(session: Session) -> list[str]:
    """Return the backup tasks of the same call, which must run first."""
    return sorted({word.task for word in session.line.words if word.base == BACKUP})


def useless_options(job: Job, jobs: OwnJobs) -> Iterator[str]:
    """Yield a note on options that have no effect, or not on all experiments: ``policy=``, ``keep_last=`` and such."""
    others = [own.policy for own, _ in jobs if own.policy and own.policy.name != job.options.policy]
    options = job.options
    names = "policy", "keep_last", *(("keep_min_epoch", "max_delete", "verified") if not options.delete_old else ())
    given = {name: getattr(options, name) for name in names if getattr(options, name) != getattr(Planning, name)}
    typed = [f"{name}={1 if value is True else value}" for name, value in given.items()]
    if typed and not options.delete_old:
        yield f"Nothing is deleted by {' and '.join(typed)} alone: only delete_old=1 deletes."
    elif others and typed:
        where = f"in {count_of(len(others), 'experiment')}: 'experiments' in the rules gives another policy."
        yield from (f"{one} {'has no effect' if 'policy=' in one else 'lets nothing more go'} {where}" for one in typed)


def unseen_writers(session: Session, base: str, job: Job) -> Iterator[str]:
    """Yield a note where other hosts may write to a checkpoint unseen, and how `settle` guards against that."""
    options, settle = job.options, job.rules.settle
    if "settle" not in options.known() or options.path or not (options.dry_run or settle == 0):
        return
    kind = job.rules.shared or (settle == 0 and shared_with(session, options.outputs_dir))
    fact = f"{job.style.name(options.outputs_dir)} lies on {kind}, where nobody sees what other hosts write to"
    if job.rules.shared:
        yield f"{fact}: what has changed within {settle} s is left alone, unless 'settle' says otherwise."
    elif kind:
        shown = as_named(session.command(base, options.but(settle=SETTLE), base))
        yield f"{fact}.\n    hint: {shown} leaves alone what has just changed; in the rules, settle: {SETTLE}"


def refuse_too_many(session: Session, job: Job, jobs: OwnJobs) -> Fault | None:
    """Plan all selected directories, and return by how much these plans exceed ``max_delete``; None if they do not.

    Raises:
        OptionError: they do, and this is no preview.
    """
    limit = as_limit(job.options.max_delete) if job.options.max_delete else job.rules.max_delete
    if limit is None or not job.options.delete_old or session.line.command != "run":
        return None
    from ckptrules.run.deciding import decided_of

    excess = too_many(limit, (decided_of(own, found).plan for own, found in jobs))
    if excess and not job.options.dry_run:
        raise OptionError(excess.fact, excess.hint, str(excess.place))
    return excess


def as_limit(text: str) -> MaxDelete:
    """Read ``25`` (checkpoints) or ``20%`` (of them) as a limit."""
    return MaxDelete(None, int(text[:-1])) if text.endswith("%") else MaxDelete(int(text), None)


def do(
    session: Session,
    work: Callable[[Job, Directory], Done | Apart],
    packed: Packed,
    found: Directory,
    task: Task,
) -> TaskFailed | None:
    """Do the work on one directory, here or in a worker, and hand the outcome to doit. This is the action of a task."""
    links = packed.job.links if in_main_thread() else packed.job.links.only(found.directory)
    return hand_over(lambda: _finished(session, session.workers.do(packed.apply, work, links, found)), task)


def _finished(session: Session, done: Done | Apart | Lost) -> Done | Lost:
    """Finish the work on a directory: do what it leaves to all workers, and count the bytes."""
    if isinstance(done, Lost):
        return done
    if isinstance(done, Apart) and done.work:
        session.bar.know()
        with session.each(done.work, done.files) as answers:
            return done.then(answers)
    done = done.then(()) if isinstance(done, Apart) else done
    session.bar.know(done.moved, done.passed)
    session.workers.pay(done.passed)
    return done


vars(do)["__signature__"] = inspect.signature(do)  # doit asks for the signature for each task: so it is made once
