"""Make the job of each checkpoint directory: the rules, policy, pins and fingerprint by which it is planned."""

from __future__ import annotations

import functools
import hashlib
import os
import pickle
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ckptrules import __version__
from ckptrules.engine.entries import Directory, is_part_folder
from ckptrules.engine.names.naming import is_ignored
from ckptrules.engine.pins import Pin, by_place, name_in
from ckptrules.engine.policy.judging import Judged
from ckptrules.engine.policy.retention import assignment, pick_policy, with_line
from ckptrules.engine.ruleset import Assignment, Policy, RuleSet
from ckptrules.engine.spelling import one_of
from ckptrules.engine.state_folder import VERIFIED
from ckptrules.outputs import find as outputs_find
from ckptrules.outputs import readings
from ckptrules.outputs.links import Leading, Links
from ckptrules.outputs.picking import holders_by
from ckptrules.report.style import Style
from ckptrules.rules.shipped import DEFAULT_RULES, RULES_DIR
from ckptrules.run.finding import find, load, names_of, rules_of, survey
from ckptrules.run.options import Common, OptionError, Planning
from ckptrules.run.pinning import pins_of, strays_of
from ckptrules.run.records import Journals, begun, journals_of, run_header
from ckptrules.run.session import Session, once
from ckptrules.run.tasks import chosen_of, selects
from ckptrules.workers.pieces import Answer

if TYPE_CHECKING:
    from ckptrules.engine.what_if import WhatIf

DIGITS = 32  # of a fingerprint: 128 bits


class Job(NamedTuple):
    """The input of the work on checkpoint directories; it can be sent to another process.

    Args:
        policy: None where nothing is deleted by a policy.
        fingerprint: changes with all that decides besides the directory; empty where nothing is remembered.
        number: the number of the run; None for a run that changes nothing.
        pins: the pins in the directory that the job is for.
        strays: the pins of the whole tree that do not find their checkpoint.
        holding: by directory, the names in it that hold other checkpoint directories.
        tree: what the lines that go by the whole tree say of each name in the directory, by the value of the line.
        verified: whether `doit verify` has results in this tree.
        others: other policies by which the directory is planned as well; None where nobody asks.
    """

    options: Planning
    rules: RuleSet
    style: Style
    header: Mapping[str, Any]
    links: Links
    journals: Journals
    policy: Policy | None = None
    fingerprint: str = ""
    number: int | None = None
    pins: tuple[Pin, ...] = ()
    strays: tuple[Pin, ...] = ()
    holding: Mapping[str, frozenset[str]] = {}
    tree: Mapping[Any, Judged] = {}
    verified: bool = False
    others: WhatIf | None = None


OwnJobs = Sequence[tuple[Job, Directory]]  # checkpoint directories, with the job for each


class Packed:
    """A job for several directories, which is pickled once, and unpickled once in each process."""

    def __init__(self, job: Job) -> None:
        self.job = job

    @functools.cached_property
    def _text(self) -> bytes:
        return pickle.dumps(self.job._replace(links=Links(self.job.options.outputs_dir, Leading())))

    def __reduce__(self) -> tuple[Callable[[bytes], Packed], tuple[bytes]]:
        return _packed_there, (self._text,)

    def apply(self, work: Callable[[Job, Directory], Answer], links: Links, found: Directory) -> Answer:
        """Do the work on one directory; ``links`` are those that lead into it from other directories."""
        return work(self.job._replace(links=links), found)


@functools.lru_cache(maxsize=64)  # one for each policy, and for each directory with pins
def _packed_there(text: bytes) -> Packed:
    return Packed(pickle.loads(text))  # noqa: S301 - of our own main process


def uncovered(session: Session, base: str, options: Common) -> str:
    """Describe the folders below ``outputs_dir`` that seem to hold checkpoints and that no layout covers.

    The text is empty where there are none, or only some experiments are selected.
    """
    if selects(session, base, options):
        return ""
    from ckptrules.engine.names.lookalikes import PassedOver, looks_like, uncovered_text

    shown, outputs_dir, rules = session.style(options).name, options.outputs_dir, load(session, options)
    directories, _, passed_over = survey(session, options)
    covered = {found.directory for found in directories}
    is_holder = holders_by(outputs_dir, rules)

    def is_judged(path: str) -> bool:
        outer, name = os.path.split(path)
        own = rules_of(session, options, outer)
        return is_part_folder(name, rules.part_folders) or is_holder(path) or is_ignored(name, own)

    alike, more = outputs_find.lookalikes(outputs_dir, covered, looks_like, is_judged)
    folders = [PassedOver(shown(path), count, shown(example), path in passed_over) for path, count, example in alike]
    return uncovered_text(folders, rules.layout, shown(os.path.abspath(outputs_dir)), naming_file(rules), more=more)


def by_default_rules(rules: RuleSet) -> bool:
    """Say whether these are the rules of the package, as there is no folder of rules."""
    return any(file.startswith(f"{DEFAULT_RULES}/") for file in rules.files)


def naming_file(rules: RuleSet) -> str:
    """Return the rule file in which formats are written; where there is none, the command that makes one."""
    if by_default_rules(rules):
        return f"{RULES_DIR}/naming.yaml ('ckptrules init' writes it)"
    return next((rule.place.file for rule in (*rules.targets, *rules.legacy, *rules.formats)), rules.files[0])


def nothing_understood(session: Session, options: Common) -> str:
    """Return the text for a run in which the rules understood no name, with a hint."""
    rules = load(session, options)
    if not find(session, options):
        return f"No checkpoint directory in '{options.outputs_dir}' (layout: {', '.join(rules.layout)})."
    key = "'formats' or 'legacy'" if rules.targets else "'formats'"
    hint = f"write a rule for them below {key} in {naming_file(rules)}; 'doit check' tests it"
    hint += "" if rules.packs else "\n      or add to 'packs' what 'doit packs' finds here, if any"
    return f"Nothing was understood: there is no checkpoint here, or no rule fits its name.\n    hint: {hint}"


def policy_hint(options: Common) -> str:
    """Return the hint for rules without any policy."""
    folder = options.rules_dir or RULES_DIR
    line = f"write {os.path.join(folder, 'retention.yaml')} with the line: retention: {{default: {{keep_last: 2}}}}"
    return line + " ('ckptrules init' writes one with examples)" * (folder == RULES_DIR)


def job_of(session: Session, options: Planning, command: str = "migrate") -> Job:
    """Return the job that all tasks of a command share, with the policy that its options name.

    Raises:
        RuleError, OptionError: the rules are wrong, or they have no such policy.
    """
    rules = load(session, options)
    pins_of(session, options)
    policy = rules.policies.get(options.policy)
    if policy is None and (options.delete_old or options.policy != Planning.policy):
        if rules.policies:
            raise OptionError(f"unknown policy '{options.policy}'", one_of(options.policy, rules.policies))
        fact = f"no rule file has 'retention', so there is no policy '{options.policy}'"
        raise OptionError(fact, policy_hint(options), options.rules_dir or RULES_DIR)
    if options.settle is not None:
        rules = rules._replace(settle=options.settle, shared="")
    digest = {"files": list(rules.files), "naming_digest": rules.naming_digest}
    header = run_header(session, command, options, rules=digest)
    header["command"] = "plan" if options.dry_run and command == "migrate" else command
    if policy is not None and options.delete_old:
        policy_now = policy_with_options(policy, options)
        lines = (*policy_now.lines, *([rules.budget] if rules.budget else ()))
        values = {key: [str(line.value) for line in lines if line.key == key] for key, _, _ in lines}
        header["policy"] = {
            "name": policy.name,
            "lines": {key: ", ".join(texts) for key, texts in values.items()},
            "others": sorted({one.policy for one in rules.experiments} - {policy.name}),
        }
    job = Job(options, rules, session.style(options), header, Links(options.outputs_dir), journals_of(session))
    return with_policy(job._replace(verified=was_verified(options.outputs_dir)), policy)


def with_policy(job: Job, policy: Policy | None) -> Job:
    """Return the job for the experiments of one policy, with its fingerprint."""
    policy = policy_with_options(policy, job.options) if policy and job.options.delete_old else None
    by_policy = policy and (
        [line[:2] for line in policy.lines],
        policy.keep_at_least,
        policy.per,
        (time.tzname, time.timezone, time.altzone),
        job.options.verified,
        [leftover[:2] for leftover in job.rules.leftovers],
    )
    inputs = (__version__, job.rules.naming_digest, job.options.on_conflict, job.options.fix_state, by_policy)
    return job._replace(policy=policy, fingerprint=_digest(inputs))


def policy_with_options(policy: Policy, options: Planning) -> Policy:
    """Return a policy with the lines that the options ``keep_last`` and ``keep_min_epoch`` replace.

    In a policy that the rules assign to experiments, and that is not the one of the option ``policy``, they let nothing
    more go: what they keep stays as well, and a line of its own that keeps more holds.
    """
    count, limit, is_named = options.keep_last, options.keep_min_epoch, policy.name == options.policy
    own = {line.key: line.value for line in policy.lines}
    if count is not None and (is_named or own.get("keep_last", 0) < count):
        policy = with_line(policy, "keep_last", count, *(("min_epoch", "min_step") if is_named else ()))
    if limit is not None and (is_named or own.get("min_epoch", limit) >= limit):
        policy = with_line(policy, "min_epoch", limit)
    return policy


def _digest(inputs: object) -> str:
    return hashlib.sha256(repr(inputs).encode()).hexdigest()[:DIGITS]


@once
def jobs_of(session: Session, base: str, options: Planning) -> tuple[Job, OwnJobs]:
    """Return the job that all tasks of a command share, and each selected directory with a job of its own.

    Raises:
        RuleError, OptionError: as `job_of`; or there is no such experiment.
    """
    job = job_of(session, options, base)
    if job.header["run"] and session.line.command == "run":
        job = job._replace(number=begun(session, options.outputs_dir).last.number)
    if not selects(session, base, options):
        return job, own_jobs(session, job)
    return job, own_jobs(session, job, chosen_of(session, base, options, names_of(session, options)))


def own_jobs(session: Session, job: Job, selected: Collection[str] | None = None) -> OwnJobs:
    """Pair each checkpoint directory with the job for it, as directories differ in policy, packs and pins.

    ``selected`` are the experiments that are asked for; None asks for all. With the option ``path``, there is only the
    directory in which that checkpoint lies.
    """
    options = job.options
    if options.path:
        from ckptrules.run.hook import directory_of  # only hooks need it

        directories = [directory_of(options, job.rules)]
    else:
        directories = find(session, options)
    if any(rules.leftovers for rules in (job.rules, *(pack.rules for pack in job.rules.packs))):
        job = job._replace(holding=outputs_find.holding(found.directory for found in directories))
    if selected is not None:
        names = frozenset(selected)
        directories = [found for found in directories if found.experiment in names]
    jobs: dict[tuple[Assignment | None, str], Job] = {}
    every_pin = pins_of(session, options)
    strays = strays_of(session, options.outputs_dir, every_pin)
    pins = by_place(every_pin)
    pairs = []
    for found in directories:
        assigned = assignment(job.rules, found.experiment)
        rules = rules_of(session, options, found.directory) if job.rules.packs else job.rules
        if rules.settle != job.rules.settle or rules.shared != job.rules.shared:  # the option `settle` changes them
            rules = rules._replace(settle=job.rules.settle, shared=job.rules.shared)
        if options.path:
            rules = rules._replace(leftovers=())  # one of them may hold another directory, which was not looked for
        key = assigned, rules.naming_digest
        if key not in jobs:
            jobs[key] = with_policy(job._replace(rules=rules), pick_policy(job.rules, assigned, options.policy))
        own_pins = tuple(pin for pin in pins.get(found.directory, ()) if name_in(pin, found))
        pairs.append((with_own_pins(jobs[key], own_pins, strays), found))
    return pairs


def with_own_pins(job: Job, pins: tuple[Pin, ...], strays: tuple[Pin, ...]) -> Job:
    """Return the job for a directory with pins; its fingerprint changes with them, so a new pin makes a new plan."""
    if not (pins or strays):
        return job
    inputs = (job.fingerprint, [(pin.size, pin.mtime_ns) for pin in (*pins, *strays)])
    return job._replace(pins=pins, strays=strays, fingerprint=_digest(inputs))


def count_asked_for(session: Session, base: str, options: Planning) -> int:
    """Count the selected checkpoint directories."""
    return len(jobs_of(session, base, options)[1])


def is_up_to_date(values: Mapping[str, Any], job: Job, found: Directory) -> bool:
    """Say whether a plan would find nothing to do, by the ``values`` that the last run left (`what_to_remember`).

    That is so while rules, options, directory and all files that were read are the same, no limit of age has passed,
    and `doit verify` has found nothing broken.
    """
    if values.get("fingerprint") != job.fingerprint or values.get("stamp") != list(found.stamp):
        return False
    since, until, now_ns = values.get("holds_since_ns") or 0, values.get("holds_until_ns"), job.header["started_ns"]
    if now_ns < since or (until is not None and now_ns > until):  # the clock was set back, or a limit of age has passed
        return False
    path, directory = job.options.outputs_dir, found.directory
    if job.verified and was_verified(path, directory):
        from ckptrules.verify import memory

        if memory.has_broken(path, directory):
            return False
    return "read" not in values or readings.holds(path, directory, values["read"])


def was_verified(outputs_dir: str, directory: str = "") -> bool:
    """Say whether `doit verify` has results of a directory, or of any if none is given."""
    try:
        os.stat(f"{outputs_dir}/{VERIFIED}/{directory}")  # each run asks this of each directory, so it is cheap
    except OSError:
        return False
    return True
