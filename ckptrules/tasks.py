"""Options + rules → doit task dicts, one for each checkpoint directory, with an up-to-date check."""

from __future__ import annotations

import contextlib
import functools
import gc
import getpass
import hashlib
import inspect
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from doit import task_params
from doit.dependency import DatabaseException, JSONCodec, SqliteDB
from doit.exceptions import InvalidDodoFile, TaskFailed
from doit.task import Task

from ckptrules import __version__, scan, stopping, store, watch
from ckptrules.apply import Outcome, Workplace, carry_out, names_left, told
from ckptrules.facts import ignore_lease_breaks, look, read_metrics, to_look_at
from ckptrules.journal import Journal
from ckptrules.measures import human_size, seconds
from ckptrules.model import STATE, Assignment, Facts, Found, Listing, MaxDelete, Plan, Policy, Problem, RuleSet, Stamp
from ckptrules.naming import SlowRuleError
from ckptrules.options import (
    CHANGING,
    DEFAULT_TASK,
    OPTIONS,
    SELECTING,
    CommandLine,
    OptionError,
    Options,
    encode_task,
    read_command_line,
)
from ckptrules.plan import make_plan, sort_entries
from ckptrules.recovery import interrupted, recover
from ckptrules.report import Style, count_of, experiment_block, going, plan_as_data, tally
from ckptrules.reporter import Reporter, RunContext, Told
from ckptrules.retention import Excess, assignment, holds_until, pick_policy, too_many, with_min_epoch
from ckptrules.rules import SLOW_HINT, load_rules
from ckptrules.shape import RuleError, closest
from ckptrules.shipped import rule_texts

TASKS = (
    "plan",
    "migrate",
    "verify",
    "catalog",
    "check",
    "history",
    "undo",
    "purge",
    "explain",
    "trash",
    "usage",
    "archive",
    "unarchive",
    "schedule",
    "fix_state",
    "drop_links",
    "refs",
    "log",
    "backup",
    "backups",
    "restore",
    "drop_backup",
    "demo",
)
SHARING = ("migrate", "plan", "verify")  # what is done by several processes where the tree is large
SHARE = 40  # directories, below which a process of its own is not worth its start
GC_AFTER = 1_000_000  # objects; tasks live to the end: searching 10,000 for garbage costs a quarter of a run
DIGITS = 32  # of a fingerprint: 128 bits
IN_MEMORY = ":memory:"
OWN_DATABASE = ".doit.db"  # for tasks that are not ours
TRASH_TASK = "%trash"
BACKUP = "backup"  # comes first where both are asked for; nothing is migrated if it fails
SQLITE = b"SQLite format 3\0"  # https://www.sqlite.org/fileformat.html, section 1.3
TaskDict = dict[str, Any]
Creator = Callable[..., Iterator[TaskDict]]


def params_of(task: str) -> list[dict[str, Any]]:
    """Return the options of a task as doit wants them told."""
    return [
        {
            "name": option.name,
            "long": option.dashed,
            "type": bool if option.flag else str,
            "default": None,
            "inverse": f"no-{option.dashed}" if option.flag else "",
            "help": option.help.replace("%", "%%") + f" [{option.default}]" * bool(option.default),
        }
        for option in OPTIONS
        if not option.tasks or task in option.tasks
    ]


class Job(NamedTuple):
    """What all tasks of one command share; it can be sent to another process."""

    options: Options
    rules: RuleSet
    policy: Policy | None
    fingerprint: str
    run: str
    style: Style
    header: Mapping[str, Any]


# --- what dodo.py uses -----------------------------------------------------------------------------------------------


def doit_config() -> dict[str, Any]:
    """Return ``DOIT_CONFIG``. Everything that can refuse a run does it here, before any task exists."""
    ignore_lease_breaks()
    watch.install()
    gc.set_threshold(GC_AFTER)
    with told_by_doit():
        return {
            "default_tasks": [DEFAULT_TASK],
            "reporter": Reporter,
            "continue": True,
            "backend": "sqlite3",
            "dep_file": _database(command_line()),
            "num_process": processes(command_line()),
        }


def with_options(function: Callable[[Options], Iterator[TaskDict]]) -> Creator:
    """Turn a function of `Options` into a task creator: doit learns the flags, and unneeded tasks are not made."""
    name = function.__name__.removeprefix("task_")

    @functools.wraps(function)
    def creator(**given: Any) -> Iterator[TaskDict]:
        with told_by_doit():
            line = command_line()
            if line.asks_for(name):
                options = line.options(name, given)
                refuse_configured_folder(options, line.options(name))
                yield from function(options)

    wrapped: Creator = task_params(params_of(name))(creator)
    return wrapped


def plan(options: Options) -> Iterator[TaskDict]:
    """Make one previewing task for each checkpoint directory."""
    return experiments("plan", options._replace(dry_run=True))


def migrate(options: Options) -> Iterator[TaskDict]:
    """Make one task for each checkpoint directory, and one for what has waited in the trash long enough."""
    yield from experiments("migrate", options)
    days = load(options.rules_dir).trash_days
    expired = [run for run in scan.trash_runs(options.outputs_dir) if run_age_days(run, time.time()) >= days > 0]
    if expired and not options.dry_run:
        first = [BACKUP] if any(word.task == BACKUP for word in command_line().words) else []
        actions = [(free, [options, expired])]
        yield {"name": TRASH_TASK, "actions": actions, "task_dep": first, "doc": "free what waited for trash_days"}


def check(options: Options) -> Iterator[TaskDict]:
    """Test the rules (loading them does) and show them."""
    yield {"basename": "check", "actions": [(show_rules, [load(options.rules_dir)])]}


def purge(options: Options) -> Iterator[TaskDict]:
    """Empty the trash, or free what has waited there for some time."""
    outputs_dir(options)
    least = seconds(options.older_than) / 86_400 if options.older_than else 0
    runs = [run for run in scan.trash_runs(options.outputs_dir) if run_age_days(run, time.time()) >= least]
    yield {"basename": "purge", "actions": [(free, [options, runs])]}


@contextlib.contextmanager
def told_by_doit() -> Iterator[None]:
    """Hand our refusals to doit, which prints them without a traceback and exits with 3."""
    try:
        yield
    except (OptionError, RuleError, store.LockedError) as error:
        raise InvalidDodoFile(str(error)) from None


# --- before the run --------------------------------------------------------------------------------------------------


@functools.cache
def command_line() -> CommandLine:
    """Read the command line, once."""
    return read_command_line(sys.argv[1:], TASKS)


@functools.cache
def chosen() -> frozenset[str]:
    """Return the tasks that were named as they are."""
    return frozenset(word.task for word in command_line().words)


@functools.cache
def load(rules_dir: str | None) -> RuleSet:
    """Load and test the rules, once."""
    watch.start()
    return load_rules(rule_texts(rules_dir))


@functools.cache
def find(path: str, layout: tuple[str, ...]) -> list[Found]:
    """Find the checkpoint directories, once."""
    return scan.find_directories(path, layout)


@functools.cache
def run_id() -> str:
    """Name this run by its start and its process."""
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(started_ns() / 1e9))}-{os.getpid()}"


def run_header(command: str, options: Options, **more: Any) -> dict[str, Any]:
    """Return what a run says of itself, in its journal and in its JSON file."""
    return {
        "command": command,
        "dry_run": options.dry_run,
        "run": run_id() if command in CHANGING and not options.dry_run else None,
        "started_ns": started_ns(),
        "when": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(started_ns() / 1e9)),
        "who": getpass.getuser(),
        "host": socket.gethostname(),
        "options": options._asdict(),
        **more,
    }


@functools.cache
def started_ns() -> int:
    """Return when this run started, in nanoseconds since 1970."""
    return time.time_ns()


def run_age_days(run: str, now: float) -> float:
    """Return how many days ago a run started. Args: ``now`` in seconds since 1970."""
    return (now - run_started(run)) / 86400


def run_started(run: str) -> float:
    """Return when a run started, in seconds since 1970."""
    return datetime.strptime(run.partition("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc).timestamp()


def outputs_dir(options: Options) -> None:
    """Refuse an ``outputs_dir`` that is no directory or cannot be listed.

    Raises:
        OptionError: with the hint what to do.
    """
    try:
        with os.scandir(options.outputs_dir):
            pass
    except OSError as error:
        fact = f"outputs_dir '{options.outputs_dir}': {os.strerror(error.errno or 0)}"
        raise OptionError(f"{fact}\n    hint: name the folder of the experiments with outputs_dir=PATH") from None


def prepare(options: Options, command: str = "migrate") -> Job:
    """Load the rules and find the policy, for a command.

    Raises:
        RuleError, OptionError: nothing can be run with these rules and options.
    """
    if options.json and not os.path.isdir(os.path.dirname(options.json) or "."):
        raise OptionError(f"command line: json={options.json}: there is no such folder to write in")
    rules = load(options.rules_dir)
    policy = rules.policies.get(options.policy)
    if policy is None and (options.delete_old or options.policy != Options().policy):
        hint = closest(options.policy, rules.policies) or f"there are: {', '.join(rules.policies) or 'none'}"
        raise OptionError(f"command line: unknown policy '{options.policy}'\n    hint: {hint}")
    if options.settle is not None:
        rules = rules._replace(settle=options.settle)
    digest = {"files": list(rules.files), "naming_digest": rules.naming_digest}
    header = run_header("plan" if options.dry_run and command == "migrate" else command, options, rules=digest)
    if policy is not None and options.delete_old:
        own = with_min_epoch(policy, options.keep_min_epoch) if options.keep_min_epoch is not None else policy
        header["policy"] = {"name": own.name, "lines": {line.key: str(line.value) for line in own.lines}}
    return with_policy(Job(options, rules, None, "", run_id(), style(options), header), policy)


def with_policy(job: Job, policy: Policy | None) -> Job:
    """Return the job for what one policy decides about, with the fingerprint of all that decides there."""
    if policy is not None and job.options.keep_min_epoch is not None:
        policy = with_min_epoch(policy, job.options.keep_min_epoch)
    policy = policy if job.options.delete_old else None
    deletes = policy and ([line[:2] for line in policy.lines], policy.keep_at_least, job.options.verified)
    decides = (__version__, job.rules.naming_digest, job.options.on_conflict, job.options.fix_state, deletes)
    return job._replace(policy=policy, fingerprint=hashlib.sha256(repr(decides).encode()).hexdigest()[:DIGITS])


def style(options: Options) -> Style:
    """Find out what the terminal can show."""
    to_file = any(word.startswith(("-o", "--output-file")) for word in command_line().arguments)
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or to_file or not sys.stdout.isatty()
    return Style(not plain, sys.stdout.encoding or "ascii", options.verbose, options.dry_run)


@functools.cache
def take_lock(path: str, wait: int = 0) -> int:
    """Take the lock for as long as this process lives. Args: ``wait`` in seconds for another run to finish.

    Raises:
        LockedError: another run has it, told for people.
        OptionError: ``outputs_dir`` cannot be written.
    """
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    try:
        return store.lock(path, f"process {os.getpid()} on {socket.gethostname()}, since {started}", wait)
    except store.LockedError as held:
        hint = "wait=60 waits a minute for it to finish; the lock goes with its holder"
        raise store.LockedError(f"another run is at work in '{path}': {held}\n    hint: {hint}") from None
    except OSError as error:
        raise OptionError(f"outputs_dir '{path}' cannot be written: {os.strerror(error.errno or 0)}") from None


def _database(line: CommandLine) -> str:
    """Return where doit keeps what is up to date: in the state folder; in memory where nothing may be changed."""
    database = os.path.join(line.options("migrate").outputs_dir, STATE, "doit.db")
    refuse_damaged(database)
    if not line.has_foreign_words and line.command == "run":
        stopping.install()
    if line.command != "run":
        return database if os.path.exists(database) else IN_MEMORY
    changing = [task for task in CHANGING if line.asks_for(task) and changes(task, line.options(task))]
    for task in changing:
        options = line.options(task)
        outputs_dir(options)
        if task in SELECTING:
            layout = prepare(options).rules.layout
            if any(word.base == task != word.task for word in line.words):
                refuse_unknown_experiments(line, task, find(options.outputs_dir, layout))
        take_lock(options.outputs_dir, options.wait)
        refuse_unwritable(database)
        for sentence in recover_first(options.outputs_dir):
            print(sentence)
        find.cache_clear()  # another run may have been at work until the lock was free
    if not changing and line.has_foreign_words:
        return OWN_DATABASE
    return database if changing else IN_MEMORY


def processes(line: CommandLine) -> int:
    """Return how many processes are worth their start, where ``-n`` does not say it; 0 is this one alone."""
    task = next((task for task in SHARING if line.command == "run" and line.asks_for(task)), None)
    if task is None or line.has_foreign_words:
        return 0
    options = line.options(task)
    outputs_dir(options)
    shares = len(find(options.outputs_dir, load(options.rules_dir).layout)) // SHARE
    number = min(shares, cores())
    return number if number > 1 else 0


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def changes(task: str, options: Options) -> bool:
    """Say whether a task is to change anything."""
    return options.apply if task == "refs" else not options.dry_run


def recover_first(path: str) -> list[str]:
    """Finish what an interrupted run began; return what to tell.

    Raises:
        OptionError: the journals cannot be read, so nothing is begun.
    """
    try:
        store.clear_work(path)
        return recover(path)
    except OSError as error:
        fact = f"{path}/{scan.JOURNALS} cannot be read or written: {os.strerror(error.errno or 0)}"
        raise OptionError(f"{fact}\n    hint: look at it: ls -la; nothing is begun without a journal") from None


def refuse_unknown_experiments(line: CommandLine, task: str, found: Iterable[Found]) -> None:
    """Refuse a selection that names no experiment, before anything is written.

    Raises:
        OptionError: with the name that is nearest.
    """
    known = [f"{task}:{name}" for name in (*(encode_task(directory.experiment) for directory in found), TRASH_TASK)]
    for word in line.words:
        if word.base == task and word.task != task and "*" not in word.task and word.task not in known:
            hint = closest(word.task, known) or "'doit list --all' tells which there are"
            raise OptionError(f"command line: no experiment '{word.task}'\n    hint: {hint}")


def refuse_configured_folder(options: Options, said: Options) -> None:
    """Refuse an ``outputs_dir`` that stands in doit's own configuration: the lock was taken before that is read.

    Raises:
        OptionError: with where to say it instead.
    """
    if options.outputs_dir != said.outputs_dir:
        fact = f"outputs_dir '{options.outputs_dir}' stands in doit's configuration, where the lock does not see it"
        raise OptionError(f"{fact}\n    hint: give it on the command line: outputs_dir={options.outputs_dir}")


def refuse_damaged(database: str) -> None:
    """Refuse a database that is none; doit would end with a traceback.

    Raises:
        OptionError: with the advice to remove it.
    """
    with contextlib.suppress(OSError), open(database, "rb") as file:
        if file.read(len(SQLITE)) not in (SQLITE, b""):
            hint = "remove it; it only remembers what is up to date"
            raise OptionError(f"{database}: is damaged, or no database of doit\n    hint: {hint}")


def refuse_unwritable(database: str) -> None:
    """Refuse a database that cannot be made or opened for writing; doit would end with a traceback.

    Raises:
        OptionError: with what the database says.
    """
    import sqlite3

    try:
        SqliteDB(database, JSONCodec()).dump()
    except (DatabaseException, sqlite3.Error) as error:
        fact = str(error).rpartition("Original error: ")[2]
        raise OptionError(f"{database}: cannot be written: {fact}\n    hint: look at the free space: df -h") from None


# --- the tasks -------------------------------------------------------------------------------------------------------


def experiments(
    base: str, options: Options, action: Callable[..., Any] | None = None, **more: Any
) -> Iterator[TaskDict]:
    """Make one task for each checkpoint directory.

    Args:
        base: the name of the task.
        options: its options.
        action: takes a `Job`, a `Found` and doit's task; without one, `work_on`.
        more: further fields of the `RunContext`.
    """
    outputs_dir(options)
    job = prepare(options, base)
    notes = [
        f"Not followed: {job.style.name(name)} is a link." for name in scan.linked_directories(options.outputs_dir)
    ]
    if not find(options.outputs_dir, job.rules.layout):
        notes.append(f"No checkpoint directory in '{options.outputs_dir}' (layout: {', '.join(job.rules.layout)}).")
    if options.dry_run and interrupted(options.outputs_dir):
        notes.append("A run was interrupted, or is at work now; the next 'doit migrate' first finishes what it began.")
    jobs = own_jobs(job)
    notes += not_asked_for(job, jobs)
    excess = refuse_too_many(base, job, jobs)
    if excess:
        notes.append(f"Nothing would be deleted: {excess}.\n    hint: {advice(excess)}")
    header = {**job.header, "refused": str(excess) if excess else None}
    Reporter.contexts[base] = RunContext(
        options, job.style, header, job.rules.trash_days, tuple(notes), refused=bool(excess), **more
    )
    first = [BACKUP] if base == "migrate" and BACKUP in chosen() else []
    listed = command_line().command != "run"
    selected = chosen() - {base}
    now_ns = started_ns()
    for own, found in jobs:
        name = encode_task(found.experiment)
        yield {
            "name": name,
            "doc": f"checkpoints in {name}" if listed else None,
            "actions": [(action or work_on, [own, found])],
            "uptodate": [
                False if options.dry_run or action else (is_up_to_date, [own.fingerprint, found.stamp, now_ns])
            ],
            "params": params_of(base) if selected and f"{base}:{name}" in selected else (),
            "task_dep": first,
            "meta": {"found": found},
        }


def own_jobs(job: Job) -> list[tuple[Job, Found]]:
    """Pair the checkpoint directories that are meant with the job for each: experiments differ in their policy."""
    options, pattern = job.options, job.options.experiments or "*"
    found = find(options.outputs_dir, job.rules.layout)
    jobs: dict[Assignment | None, Job] = {}
    pairs = []
    for directory in found if pattern == "*" else [one for one in found if fnmatchcase(one.experiment, pattern)]:
        assigned = assignment(job.rules, directory.experiment)
        if assigned not in jobs:
            jobs[assigned] = with_policy(job, pick_policy(job.rules, assigned, options.policy))
        pairs.append((jobs[assigned], directory))
    return pairs


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
    excess = too_many(limit, (plan_of(own, found)[0] for own, found in jobs if is_selected(base, found)))
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


def is_selected(base: str, found: Found) -> bool:
    """Say whether the command line asks for an experiment, by the name of the task or with all the others."""
    words = [word.task for word in command_line().words] or [DEFAULT_TASK]
    return any(word == base or fnmatchcase(f"{base}:{encode_task(found.experiment)}", word) for word in words)


def is_up_to_date(
    task: Task,  # noqa: ARG001 - doit passes values second only
    values: Mapping[str, Any],
    fingerprint: str,
    stamp: Stamp,
    now_ns: int,
) -> bool:
    """Say whether nothing has changed since the last run: neither rules and options nor the directory, nor an age."""
    same = values.get("fingerprint") == fingerprint and values.get("stamp") == list(stamp)
    return same and now_ns <= (values.get("holds_until_ns") or now_ns)


def work_on(job: Job, found: Found, task: Task) -> TaskFailed | None:
    """Plan one checkpoint directory and, unless it is a dry run, carry the plan out; note what to remember of it."""
    if stopping.stopped():
        task.meta["told"] = Told("")
        return TaskFailed("stopped", report=False)
    plan, listing = plan_of(job, found)
    outcome = Outcome(plan, None)
    try:
        if not job.options.dry_run:
            outcome = carry_out(plan, listing, workplace(job))
        if job.options.fix_state:
            outcome = fix_as_well(job, found, outcome, listing)
    except OSError as error:
        outcome = Outcome(unreadable(found, error), None)
    if failed := tell(job, task, outcome.plan, listing):
        return failed
    times = (entry.mtime_ns for entry in listing.entries)
    until = holds_until(job.policy, times, job.header["started_ns"]) if job.policy else None
    task.values = {"fingerprint": job.fingerprint, "stamp": outcome.stamp, "holds_until_ns": until}
    return None


def tell(job: Job, task: Task, done: Plan, listing: Listing) -> TaskFailed | None:
    """Tell what came of one directory; problems left are a failure without words of its own."""
    state = "problems" if done.problems else "planned" if job.options.dry_run else "done"
    data = plan_as_data(done, state) if job.options.json else None
    task.meta["told"] = Told(experiment_block(done, listing.entries, job.style), tally(done), data, going(done))
    return TaskFailed("problems left", report=False) if done.problems else None


def fix_as_well(job: Job, found: Found, outcome: Outcome, listing: Listing) -> Outcome:
    """Bring the paths inside the checkpoints up to date, after the renames; in a preview by the names to come.

    Raises:
        OSError: the directory cannot be read.
    """
    from ckptrules.fixing import fix, foresee
    from ckptrules.progress import bar

    place = None if job.options.dry_run else workplace(job)
    if place is None:
        more = foresee(job.options.outputs_dir, job.rules, listing, outcome.plan)
    else:
        more = fix(place, job.rules, scan.scan(place.outputs_dir, found), job.header["started_ns"], bar)
    plan = outcome.plan._replace(
        actions=(*outcome.plan.actions, *more.actions),
        skipped=(*outcome.plan.skipped, *more.skipped),
        problems=(*outcome.plan.problems, *more.problems),
    )
    if place is None or plan.problems or not more.actions:
        return Outcome(plan, None if plan.problems else outcome.stamp)
    with store.Folders(place.outputs_dir) as folders:
        return Outcome(plan, store.settle(folders.descriptor(found.directory), names_left(plan, listing), changed=True))


for _function in (is_up_to_date, work_on):  # doit asks for the signature once for each task
    vars(_function)["__signature__"] = inspect.signature(_function)


def plan_of(job: Job, found: Found) -> tuple[Plan, Listing]:
    """Read one checkpoint directory and plan what is to happen in it."""
    listing = Listing(found.experiment, found.directory, ())
    try:
        listing = scan.scan(job.options.outputs_dir, found)
        return decide(job, listing), listing
    except OSError as error:
        return unreadable(found, error), listing
    except SlowRuleError as slow:
        return too_slow(found, slow), listing


def decide(job: Job, listing: Listing) -> Plan:
    """Plan one directory; where more than names must be known, find that out and plan again.

    Raises:
        OSError: the directory cannot be opened any more.
    """
    watch.start()
    known = Facts(
        verified=verified_names(job, listing), now_ns=job.header["started_ns"], metrics=metrics_of(job, listing)
    )
    plan = planned(job, listing, known)
    looked_at: set[str] = set()
    while not to_look_at(plan) <= looked_at:  # what is found out may bring other names into play
        looked_at |= to_look_at(plan)
        facts = look(job.options.outputs_dir, listing, plan, job.rules, known)
        if facts == known:
            break
        known = facts
        plan = planned(job, listing, known)
    return plan


def planned(job: Job, listing: Listing, known: Facts) -> Plan:
    """Plan one directory by what is known."""
    options = job.options
    return make_plan(job.rules, listing, job.policy, options.on_conflict, known, leave_links=options.leave_links)


def metrics_of(job: Job, listing: Listing) -> Mapping[str, Mapping[str, str]]:
    """Return the metrics that sidecars tell, where the policy asks for any."""
    if not (job.policy and any(line.key == "keep_best" for line in job.policy.lines)):
        return {}
    return read_metrics(job.options.outputs_dir, listing, sort_entries(job.rules, listing).sidecars)


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


_journals: dict[tuple[str, str, int], Journal] = {}


def open_journal(path: str, run: str, header: Mapping[str, Any]) -> Journal:
    """Open the journal of this process in one run, once."""
    key = (path, run, os.getpid())
    if key not in _journals:
        _journals[key] = Journal(store.Appender(path, f"journal/{run}.{key[2]}.jsonl"), header)
    return _journals[key]


def unreadable(found: Found, error: OSError) -> Plan:
    """Tell of a directory that could not be read."""
    text = f"cannot be read: {os.strerror(error.errno or 0)}"
    hint = "look at the owner and the mode: ls -la"
    return Plan(found.experiment, found.directory, problems=(Problem("unreadable", (found.directory,), text, hint),))


def too_slow(found: Found, slow: SlowRuleError) -> Plan:
    """Tell of a rule that was given up on a name; nothing in the directory is touched."""
    text = f"cannot be named: legacy rule '{slow.rule.id}' ({slow.rule.place.file_line}) needs too long for it"
    return Plan(found.experiment, found.directory, problems=(Problem("slow_rule", (slow.name,), text, SLOW_HINT),))


def free(options: Options, runs: list[str], task: Task) -> TaskFailed | None:
    """Free what some runs left in the trash."""
    verb = "Would free" if options.dry_run else "Freed"
    header = run_header("purge", options)
    try:
        freed = (scan.trash_use if options.dry_run else store.empty_trash)(options.outputs_dir, runs)
    except OSError as error:
        task.meta = {"told": Told(f"The trash cannot be emptied: {error}\n")}
        return TaskFailed("the trash cannot be emptied", report=False)
    if runs and not options.dry_run:
        try:
            open_journal(options.outputs_dir, run_id(), header).purged(runs)
        except OSError as error:
            task.meta = {"told": Told(f"The trash is empty, but the journal cannot be written: {told(error)}\n")}
            return TaskFailed("the journal cannot be written", report=False)
    task.meta = {"told": Told(f"{verb}: {count_of(freed.items, 'item')} from the trash, {human_size(freed.size)}\n")}
    return None


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
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "  " + "  ".join([*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    ]
    task.meta = {"told": Told("\n".join(["All rules hold.", *lines, ""]))}


def words(policy: Policy) -> str:
    """Write a policy in one line."""
    return ", ".join([*map(str, policy.lines), f"keep_at_least: {policy.keep_at_least}"])
