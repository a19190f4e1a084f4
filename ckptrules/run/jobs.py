"""What all tasks of one run share: rules, directories, policy, fingerprint, journal. Each is found out once."""

from __future__ import annotations

import contextlib
import errno
import functools
import getpass
import hashlib
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from ckptrules import __version__
from ckptrules.changes import clock, journals
from ckptrules.changes.clock import LastRun
from ckptrules.changes.journal import Journal
from ckptrules.engine.lookalikes import Folder, looks_like, uncovered_text
from ckptrules.engine.naming import is_claimed
from ckptrules.engine.retention import assignment, pick_policy, with_min_epoch
from ckptrules.engine.values import Assignment, Directory, Policy, RuleSet
from ckptrules.outputs import find as outputs_find
from ckptrules.outputs import readings
from ckptrules.outputs.evidence import Links
from ckptrules.report.style import Style
from ckptrules.rules.load import load_rules
from ckptrules.rules.shape import closest
from ckptrules.rules.shipped import DEFAULT_RULES, RULES_DIR, rule_texts
from ckptrules.run.command_line import chosen, command_line
from ckptrules.run.hints import quoted
from ckptrules.run.options import (
    DEFAULT_TASK,
    CommandLine,
    Common,
    OptionError,
    Planning,
    a_file,
    as_pattern,
    encode_task,
    fits,
)
from ckptrules.run.workers import Workers
from ckptrules.storage import believing, notes, reading, trash
from ckptrules.storage.posix import Disk

LISTED = "'doit plan' shows those that there are"
DIGITS = 32  # of a fingerprint: 128 bits
PROOF = "proved"  # the file in the state folder
LAST_RUN = "lock.last_run"  # likewise
FULL = (errno.ENOSPC, errno.EDQUOT)


class Job(NamedTuple):
    """What all tasks of one command share; it can be sent to another process. ``number`` is that of the run."""

    options: Planning
    rules: RuleSet
    policy: Policy | None
    fingerprint: str
    run: str
    style: Style
    header: Mapping[str, Any]
    links: Links
    number: int | None = None


@functools.cache
def load(rules_dir: str | None, outputs_dir: str = "") -> RuleSet:
    """Load the rules, once, and test them, unless `note_proof` has noted for this folder that these very rules hold."""
    texts = read_rules(rules_dir)
    return load_rules(texts, proved=bool(outputs_dir) and notes.read_note(Disk(outputs_dir), PROOF) == proof_of(texts))


@functools.cache
def read_rules(rules_dir: str | None) -> Mapping[str, str]:
    """Read the rule files, once: what is noted as proved must be what was tested, also if it is edited meanwhile."""
    return rule_texts(rules_dir)


def note_proof(options: Common) -> None:
    """Note that the rules, as they stand, hold: testing them costs more than a run that has nothing to do."""
    proof = proof_of(read_rules(options.rules_dir))
    with contextlib.suppress(OSError):  # then they are tested again
        if notes.read_note(Disk(options.outputs_dir), PROOF) != proof:
            notes.write_note(Disk(options.outputs_dir), PROOF, proof)


def proof_of(texts: Mapping[str, str]) -> str:
    """Return what stands for a proof of these rules by this version, under this Python."""
    return hashlib.sha256(repr((__version__, sys.version, sorted(texts.items()))).encode()).hexdigest()


def find(path: str, rules: RuleSet) -> list[Directory]:
    """Find the checkpoint directories, once."""
    return survey(path, rules)[0]


def find_anew() -> None:
    """Forget what was found."""
    _survey.cache_clear()


def survey(path: str, rules: RuleSet) -> tuple[list[Directory], list[outputs_find.Inner]]:
    """Find the checkpoint directories, once, and those that lie in a checkpoint of another."""
    return _survey(path, rules._replace(settle=0))  # an option may change that, and it finds nothing else


@functools.cache
def _survey(path: str, rules: RuleSet) -> tuple[list[Directory], list[outputs_find.Inner]]:
    return outputs_find.survey(path, rules.layout, functools.partial(is_claimed, rules=rules))


def names_of(path: str, rules: RuleSet) -> list[str]:
    """List the experiments that there are."""
    return [found.experiment for found in find(path, rules)]


@functools.cache
def run_id() -> str:
    """Name this run by its start, to the microsecond, and its process; in containers, all may have the number 1."""
    seconds, fraction = divmod(started_ns(), 1_000_000_000)
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(seconds))}-{fraction // 1000:06d}{os.getpid()}"


def uncovered(base: str, options: Common, rules: RuleSet, style: Style) -> str:
    """Tell what looks like checkpoints below ``outputs_dir`` and is covered by no layout; nothing for a selection."""
    if options.experiments is not None or selects_by_word(base):
        return ""
    shown = style.name
    covered = {found.directory for found in find(options.outputs_dir, rules)}
    folders = [
        Folder(shown(path), count, shown(example))
        for path, count, example in outputs_find.lookalikes(options.outputs_dir, covered, looks_like)
    ]
    return uncovered_text(folders, rules.layout, shown(os.path.abspath(options.outputs_dir)), naming_file(rules))


def naming_file(rules: RuleSet) -> str:
    """Return the rule file that people edit to have other names understood, or how to get one."""
    file = rules.target.place.file
    return f"{RULES_DIR}/naming.yaml ('ckptrules init' writes it)" if file.startswith(f"{DEFAULT_RULES}/") else file


def nothing_understood(options: Common, rules: RuleSet) -> str:
    """Say that there was nothing for the rules to understand, and what helps."""
    if not find(options.outputs_dir, rules):
        return f"No checkpoint directory in '{options.outputs_dir}' (layout: {', '.join(rules.layout)})."
    hint = f"write a rule for them below 'legacy' in {naming_file(rules)}; 'doit check' tests it"
    return f"Nothing was understood: no rule fits the name of a checkpoint here.\n    hint: {hint}"


def run_header(command: str, options: Common, **more: Any) -> dict[str, Any]:
    """Return what a run says of itself, in its journal and in its JSON file."""
    return {
        "command": command,
        "dry_run": options.dry_run,
        "run": run_id() if options.changes and not options.dry_run else None,
        "started_ns": started_ns(),
        "when": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(started_ns() / 1e9)),
        "who": who(),
        "host": os.uname().nodename,
        "options": options.given(),
        **more,
    }


def who() -> str:
    """Return the name of the user, or the number where it has no name (in a container, say)."""
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):  # which of them depends on the version of Python
        return str(os.getuid())


@functools.cache
def started_ns() -> int:
    """Return when this run started, in nanoseconds since 1970."""
    return time.time_ns()


class Begun(NamedTuple):
    """A run that may change something: what is remembered of it, and how the clock has leapt since the one before."""

    last: LastRun
    leap: str


@functools.cache
def begun(outputs_dir: str) -> Begun:
    """Give this run its number, once, under the lock; and see whether the clock can be believed.

    Raises:
        OSError: it cannot be noted.
    """
    storage = Disk(outputs_dir)
    now, last = journals.clocks(storage), clock.read(notes.read_note(storage, LAST_RUN))
    highest = 0 if last else clock.highest(journals.journal_headers(storage))
    this = clock.begin(last, highest, now, trash.trash_runs(storage))
    try:
        notes.write_note(storage, LAST_RUN, clock.write(this))
    except OSError as error:
        if error.errno not in FULL:
            raise
        notes.drop_note(storage, LAST_RUN)  # a full disk must not stop a purge; the next run asks the journals
    return Begun(this, clock.leap(last, now))


def waits_since(outputs_dir: str, run: str) -> float:
    """Return since when what a run left in the trash waits there, in seconds since 1970."""
    return clock.waits_since(clock.read(notes.read_note(Disk(outputs_dir), LAST_RUN)), run, run_started(run))


def age_days(run: str) -> float:
    """Return how many days ago a run started, by the clock."""
    return (time.time() - run_started(run)) / 86400


def waiting_days(outputs_dir: str, run: str) -> float:
    """Return for how many days what a run left in the trash waits there, as far as the clock can be believed."""
    return (time.time() - waits_since(outputs_dir, run)) / 86400


def run_started(run: str) -> float:
    """Return when a run started, in seconds since 1970."""
    return datetime.strptime(run.partition("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()


def outputs_dir(options: Common) -> None:
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


def is_inside(path: str, folder: str) -> bool:
    """Say whether a path is a folder or lies in it, wherever links lead."""
    path, folder = os.path.realpath(path), os.path.realpath(folder)
    return os.path.commonpath([path, folder]) == folder


def refuse_report_place(options: Common) -> None:
    """Refuse to write a report where it could take the place of a checkpoint, a rule file or a device.

    Raises:
        OptionError: there is no place for a file.
    """
    files = [name for name, option in options.known().items() if option.read is a_file]
    places = [(name, path) for name in files if (path := getattr(options, name))]
    for name, path in places:
        real = os.path.realpath(path)
        fact = ""
        if not os.path.isdir(os.path.dirname(real)):
            fact = "there is no such folder to write in"
        elif os.path.exists(real) and not os.path.isfile(real):
            fact = "is no file"
        for folder in (options.outputs_dir, options.rules_dir or RULES_DIR):
            if is_inside(real, folder):
                fact = f"would be written into '{folder}', among what it tells of\n    hint: write it elsewhere"
        if fact:
            raise OptionError(f"command line: {name}={path}: {fact}")


def prepare(options: Planning, command: str = "migrate") -> Job:
    """Load the rules and find the policy, for a command.

    Raises:
        RuleError, OptionError: nothing can be run with these rules and options.
    """
    rules = load(options.rules_dir, options.outputs_dir)
    policy = rules.policies.get(options.policy)
    if not rules.policies and (options.delete_old or options.policy != Planning.policy):
        folder = options.rules_dir or RULES_DIR
        hint = (
            f"write {os.path.join(folder, 'retention.yaml')} with the line: retention: {{default: {{min_epoch: 10}}}}"
        )
        hint += " ('ckptrules init' writes one with examples)" * (folder == RULES_DIR)
        fact = f"{folder}: no rule file has 'retention', so there is no policy '{options.policy}'"
        raise OptionError(f"{fact}\n    hint: {hint}")
    if policy is None and (options.delete_old or options.policy != Planning.policy):
        hint = closest(options.policy, rules.policies) or f"there are: {', '.join(rules.policies) or 'none'}"
        raise OptionError(f"command line: unknown policy '{options.policy}'\n    hint: {hint}")
    if options.settle is not None:
        rules = rules._replace(settle=options.settle)
    digest = {"files": list(rules.files), "naming_digest": rules.naming_digest}
    header = run_header("plan" if options.dry_run and command == "migrate" else command, options, rules=digest)
    if policy is not None and options.delete_old:
        own = with_min_epoch(policy, options.keep_min_epoch) if options.keep_min_epoch is not None else policy
        header["policy"] = {"name": own.name, "lines": {line.key: str(line.value) for line in own.lines}}
    job = Job(options, rules, None, "", run_id(), style(options), header, Links(options.outputs_dir))
    return with_policy(job, policy)


def with_policy(job: Job, policy: Policy | None) -> Job:
    """Return the job for what one policy decides about, with the fingerprint of all that decides there."""
    if policy is not None and job.options.keep_min_epoch is not None:
        policy = with_min_epoch(policy, job.options.keep_min_epoch)
    policy = policy if job.options.delete_old else None
    deletes = policy and ([line[:2] for line in policy.lines], policy.keep_at_least, job.options.verified)
    decides = (__version__, job.rules.naming_digest, job.options.on_conflict, job.options.fix_state, deletes)
    return job._replace(policy=policy, fingerprint=hashlib.sha256(repr(decides).encode()).hexdigest()[:DIGITS])


@functools.cache
def jobs_of(base: str, options: Planning) -> tuple[Job, list[tuple[Job, Directory]]]:
    """Return what all tasks of a kind share, and the job of each checkpoint directory that is meant, found out once."""
    job = prepare(options, base)
    if job.header["run"] and command_line().command == "run":
        job = job._replace(number=begun(options.outputs_dir).last.number)
    return job, own_jobs(job)


def own_jobs(job: Job) -> list[tuple[Job, Directory]]:
    """Pair the checkpoint directories that are meant with the job for each: experiments differ in their policy."""
    options = job.options
    found = find(options.outputs_dir, job.rules)
    pattern = as_pattern(options.experiments, [one.experiment for one in found] if options.experiments else ()) or "*"
    jobs: dict[Assignment | None, Job] = {}
    pairs = []
    for directory in found if pattern == "*" else [one for one in found if fnmatchcase(one.experiment, pattern)]:
        assigned = assignment(job.rules, directory.experiment)
        if assigned not in jobs:
            jobs[assigned] = with_policy(job, pick_policy(job.rules, assigned, options.policy))
        pairs.append((jobs[assigned], directory))
    return pairs


def is_selected(base: str, experiment: str) -> bool:
    """Say whether the command line asks for an experiment, by the name of the task or with all the others."""
    words = chosen() or {DEFAULT_TASK}
    return base in words or any(fits(word, f"{base}:{encode_task(experiment)}") for word in words)


def selects_by_word(base: str) -> bool:
    """Say whether a command is asked for by words with experiments only: ``usage:ocr``, not ``usage``."""
    words = [word.task for word in command_line().words if word.base == base]
    return bool(words) and base not in words


def refuse_unknown_experiments(
    line: CommandLine, task: str, options: Common, names_of: Callable[[], Iterable[str]]
) -> None:
    """Refuse a selection that fits no experiment: to do nothing, and say nothing, would look like success.

    ``names_of`` gives the experiments that there are; it is asked only where there is a selection.

    Raises:
        OptionError: with the name that is nearest.
    """
    words = [word for word in line.words if word.base == task != word.task and line.command == "run"]
    if not words and options.experiments is None:
        return
    names = list(names_of())
    known = [f"{task}:{encode_task(name)}" for name in names]
    for word in words:
        if not any(fits(word.task, name) for name in known):
            near = nearest(word.task, known)
            raise _no_experiment(word.typed or word.task, near and f"did you mean {in_quotes(near)}?")
    pattern = as_pattern(options.experiments, names)
    if pattern is not None and not any(fnmatchcase(name, pattern) for name in names):
        near = nearest(pattern, names)
        raise _no_experiment(str(options.experiments), near and f"did you mean experiments={quoted(near)}?")


def nearest(word: str, names: Iterable[str]) -> str:
    """Return the name that is nearest to a mistyped one, or nothing."""
    import difflib

    return next(iter(difflib.get_close_matches(word.replace("*", ""), list(names), n=1)), "")


def in_quotes(word: str) -> str:
    """Write a word with quotes around it, as a shell takes it."""
    text = quoted(word)
    return f"'{text}'" if text == word else text


def _no_experiment(word: str, hint: str) -> OptionError:
    return OptionError(f"command line: no experiment '{word}'\n    hint: {hint or LISTED}")


def chosen_of(base: str, options: Common, names: Collection[str]) -> list[str]:
    """Return the experiments that are meant: by words of the command line (``usage:ocr``) and by ``experiments=``.

    Raises:
        OptionError: one of the two fits none of the names.
    """
    refuse_unknown_experiments(command_line(), base, options, lambda: names)
    pattern = as_pattern(options.experiments, names)
    return [
        name
        for name in names
        if (pattern is None or fnmatchcase(name, pattern)) and (not selects_by_word(base) or is_selected(base, name))
    ]


def one_task(base: str, actions: list[Any], names: Iterable[str] = ()) -> Iterator[dict[str, Any]]:
    """Make the one task of a command; where words name experiments, doit wants one for each: the first does it all."""
    if not selects_by_word(base):
        yield {"basename": base, "actions": actions}
        return
    for number, name in enumerate(dict.fromkeys(encode_task(name) for name in names if is_selected(base, name))):
        yield {"basename": base, "name": name, "actions": [] if number else actions}


def count_asked_for(base: str, options: Planning) -> int:
    """Count the checkpoint directories that are asked for."""
    outputs_dir(options)
    return sum(is_selected(base, found.experiment) for _, found in jobs_of(base, options)[1])


def is_up_to_date(values: Mapping[str, Any], job: Job, found: Directory) -> bool:
    """Say whether nothing has changed since the last run: neither rules and options nor the directory, nor an age.

    Where more was read than names, that is looked at as well.
    """
    same = values.get("fingerprint") == job.fingerprint and values.get("stamp") == list(found.stamp)
    if not (same and _is_the_time(values)):
        return False
    return "read" not in values or readings.holds(job.options.outputs_dir, found.directory, values["read"])


def _is_the_time(values: Mapping[str, Any]) -> bool:
    """Say whether ages are still what they were: the clock has neither passed a limit nor been set back."""
    since, until = values.get("holds_since_ns") or 0, values.get("holds_until_ns")
    return since <= started_ns() and (until is None or started_ns() <= until)


@functools.cache
def workers() -> Workers:
    """Return where the work is done."""
    return Workers(asked=any(re.match("-n|--pro", word) for word in command_line().arguments))


def style(options: Common) -> Style:
    """Find out what the terminal can show."""
    to_file = any(word.startswith(("-o", "--output-file")) for word in command_line().arguments)
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or to_file or not sys.stdout.isatty()
    return Style(not plain, sys.stdout.encoding or "ascii", options.verbose, options.dry_run)


_journals: dict[tuple[str, str, int], Journal] = {}


def open_journal(
    path: str, run: str, header: Mapping[str, Any], own_state: str = "", number: int | None = None
) -> Journal:
    """Open the journal of this thread in one run, once.

    Args:
        path: the ``outputs_dir``.
        run: the run's name.
        header: what it says of itself.
        own_state: where the journal lies, if not in the state of ``outputs_dir``.
        number: that of the run; this process has begun it where none is given.
    """
    root = own_state or path
    key = (root, run, threading.get_native_id())
    if key not in _journals:
        begun_as = begun(path).last.number if number is None else number
        _journals[key] = Journal(Disk(root), run, key[2], {**header, "number": begun_as})
    return _journals[key]


def own_state(outputs_dir: str) -> str:
    """Return the folder of a tree in the user's own state, or nothing where none can be had.

    Raises:
        OptionError: somebody else could write there.
    """
    try:
        return believing.own_state(outputs_dir)
    except OSError as error:
        raise OptionError(f"{error.filename}: {reading.why_of(error)}") from None


def note_stop() -> None:
    """Let the journal of this thread say that the run ends before its time."""
    for (_, _, thread), journal in _journals.items():
        if thread == threading.get_native_id():
            with contextlib.suppress(OSError):  # then history tells less
                journal.stopped()
