"""What all tasks of one run share: rules, directories, policy, fingerprint, journal. A session finds out each once."""

from __future__ import annotations

import functools
import hashlib
import os
import pickle
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple

from ckptrules import __version__
from ckptrules.engine.entries import Directory
from ckptrules.engine.judging import Judged
from ckptrules.engine.naming import is_ignored
from ckptrules.engine.pins import Pin, by_place, name_in
from ckptrules.engine.retention import assignment, pick_policy, with_line
from ckptrules.engine.ruleset import Assignment, Policy, RuleSet
from ckptrules.engine.spelling import one_of
from ckptrules.engine.state_folder import STATE
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
    """What all tasks of one command share; it can be sent to another process. ``number`` is that of the run.

    ``pins`` are those of the directory that the job is for, ``strays`` those of what is not where it was pinned.
    ``holding`` are, by directory, the names in it in which other checkpoint directories lie. ``tree`` is what the lines
    that go by the whole tree say of the names in that directory, by the value of the line. ``verified`` says that `doit
    verify` has been at work in this tree. ``others`` is by what a directory is planned as well, where anybody wants to
    know.
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


Pairs = Sequence[tuple[Job, Directory]]  # checkpoint directories, with the job for each


class Packed:
    """A job that is sent to other processes with each of its directories, but made and read once in each process."""

    def __init__(self, job: Job) -> None:
        self.job = job

    @functools.cached_property
    def _text(self) -> bytes:
        return pickle.dumps(self.job._replace(links=Links(self.job.options.outputs_dir, Leading())))

    def __reduce__(self) -> tuple[Callable[[bytes], Packed], tuple[bytes]]:
        return _packed_there, (self._text,)

    def apply(self, work: Callable[[Job, Directory], Answer], links: Links, found: Directory) -> Answer:
        """Do the work on one directory, to which links lead from elsewhere."""
        return work(self.job._replace(links=links), found)


@functools.lru_cache(maxsize=64)  # one a policy; a directory with pins has its own
def _packed_there(text: bytes) -> Packed:
    return Packed(pickle.loads(text))  # noqa: S301 - of our own main process


def uncovered(session: Session, base: str, options: Common) -> str:
    """Tell what looks like checkpoints below ``outputs_dir`` and is covered by no layout; nothing for a selection."""
    if selects(session, base, options):
        return ""
    from ckptrules.engine.lookalikes import PassedOver, looks_like, uncovered_text

    shown, place, rules = session.style(options).name, options.outputs_dir, load(session, options)
    found, _, passed_over = survey(session, options)
    covered = {one.directory for one in found}
    holds = holders_by(place, rules)

    def is_judged(path: str) -> bool:
        outer, name = os.path.split(path)
        own = rules_of(session, options, outer)
        in_parts = any(fnmatchcase(name, pattern) for pattern in rules.part_folders)
        return in_parts or holds(path) or is_ignored(name, own)

    alike, more = outputs_find.lookalikes(place, covered, looks_like, is_judged)
    folders = [PassedOver(shown(path), count, shown(example), path in passed_over) for path, count, example in alike]
    return uncovered_text(folders, rules.layout, shown(os.path.abspath(place)), naming_file(rules), more=more)


def naming_file(rules: RuleSet) -> str:
    """Return the rule file that people edit to have other names understood, or how to get one."""
    file = next((rule.place.file for rule in (*rules.targets, *rules.legacy, *rules.formats)), rules.files[0])
    return f"{RULES_DIR}/naming.yaml ('ckptrules init' writes it)" if file.startswith(f"{DEFAULT_RULES}/") else file


def nothing_understood(session: Session, options: Common) -> str:
    """Say that there was nothing for the rules to understand, and what helps."""
    rules = load(session, options)
    if not find(session, options):
        return f"No checkpoint directory in '{options.outputs_dir}' (layout: {', '.join(rules.layout)})."
    key = "'formats' or 'legacy'" if rules.targets else "'formats'"
    hint = f"write a rule for them below {key} in {naming_file(rules)}; 'doit check' tests it"
    hint += "" if rules.packs else "\n      or add to 'packs' what 'doit packs' finds here, if any"
    return f"Nothing was understood: there is no checkpoint here, or no rule fits its name.\n    hint: {hint}"


def to_have_a_policy(options: Common) -> str:
    """Say what to write where the rules have no policy at all."""
    folder = options.rules_dir or RULES_DIR
    line = f"write {os.path.join(folder, 'retention.yaml')} with the line: retention: {{default: {{keep_last: 2}}}}"
    return line + " ('ckptrules init' writes one with examples)" * (folder == RULES_DIR)


def job_of(session: Session, options: Planning, command: str = "migrate") -> Job:
    """Return what all tasks of a command share, with the rules and the policy that it names.

    Raises:
        RuleError, OptionError: nothing can be run with these rules and options.
    """
    rules = load(session, options)
    pins_of(session, options)
    policy = rules.policies.get(options.policy)
    if policy is None and (options.delete_old or options.policy != Planning.policy):
        if rules.policies:
            raise OptionError(f"unknown policy '{options.policy}'", one_of(options.policy, rules.policies))
        fact = f"no rule file has 'retention', so there is no policy '{options.policy}'"
        raise OptionError(fact, to_have_a_policy(options), options.rules_dir or RULES_DIR)
    if options.settle is not None:
        rules = rules._replace(settle=options.settle, shared="")
    digest = {"files": list(rules.files), "naming_digest": rules.naming_digest}
    header = run_header(session, command, options, rules=digest)
    header["command"] = "plan" if options.dry_run and command == "migrate" else command
    if policy is not None and options.delete_old:
        own = as_asked(policy, options)
        lines = (*own.lines, *([rules.budget] if rules.budget else ()))
        said = {key: [str(line.value) for line in lines if line.key == key] for key, _, _ in lines}
        header["policy"] = {"name": own.name, "lines": {key: ", ".join(values) for key, values in said.items()}}
    job = Job(options, rules, session.style(options), header, Links(options.outputs_dir), journals_of(session))
    return with_policy(job._replace(verified=was_verified(options.outputs_dir)), policy)


def with_policy(job: Job, policy: Policy | None) -> Job:
    """Return the job for what one policy decides about, with the fingerprint of all that decides there."""
    policy = as_asked(policy, job.options) if policy and job.options.delete_old else None
    deletes = policy and (
        [line[:2] for line in policy.lines],
        policy.keep_at_least,
        policy.per,
        (time.tzname, time.timezone, time.altzone),
        job.options.verified,
        [one[:2] for one in job.rules.leftovers],
    )
    decides = (__version__, job.rules.naming_digest, job.options.on_conflict, job.options.fix_state, deletes)
    return job._replace(policy=policy, fingerprint=_digest(decides))


def as_asked(policy: Policy, options: Planning) -> Policy:
    """Return a policy as the options change it.

    They are for the one that ``policy`` names. Of one that is assigned they let nothing go that its rules keep.
    """
    limit, is_named = options.keep_min_epoch, policy.name == options.policy
    if options.keep_last is not None and is_named:
        policy = with_line(policy, "keep_last", options.keep_last, "min_epoch", "min_step")
    if limit is None or (not is_named and any(k == "min_epoch" and least < limit for k, least, _ in policy.lines)):
        return policy
    return with_line(policy, "min_epoch", limit)


def _digest(decides: object) -> str:
    return hashlib.sha256(repr(decides).encode()).hexdigest()[:DIGITS]


@once
def jobs_of(session: Session, base: str, options: Planning) -> tuple[Job, Pairs]:
    """Return what all tasks of a kind share, and the job of each checkpoint directory that is meant, found out once.

    Raises:
        RuleError, OptionError: nothing can be done with these.
    """
    job = job_of(session, options, base)
    if job.header["run"] and session.line.command == "run":
        job = job._replace(number=begun(session, options.outputs_dir).last.number)
    if not selects(session, base, options):
        return job, own_jobs(session, job)
    return job, own_jobs(session, job, chosen_of(session, base, options, names_of(session, options)))


def own_jobs(session: Session, job: Job, meant: Collection[str] | None = None) -> Pairs:
    """Pair checkpoint directories with the job for each, as experiments differ in their policy; all, or the ``meant``.

    A ``path`` means the one that it lies in.
    """
    options = job.options
    if options.path:
        from ckptrules.run.hook import directory_of  # only hooks need it

        found = [directory_of(options, job.rules)]
    else:
        found = find(session, options)
    if any(one.leftovers for one in (job.rules, *(pack.rules for pack in job.rules.packs))):
        job = job._replace(holding=outputs_find.holding(one.directory for one in found))
    if meant is not None:
        names = frozenset(meant)
        found = [one for one in found if one.experiment in names]
    jobs: dict[tuple[Assignment | None, str], Job] = {}
    every = pins_of(session, options)
    strays = strays_of(session, options.outputs_dir, every)
    pins = by_place(every)
    pairs = []
    for directory in found:
        assigned = assignment(job.rules, directory.experiment)
        rules = rules_of(session, options, directory.directory)
        rules = rules._replace(settle=job.rules.settle, shared=job.rules.shared)  # an option may say another
        if options.path:
            rules = rules._replace(leftovers=())  # nobody knows which of them other directories lie in
        key = assigned, rules.naming_digest
        if key not in jobs:
            own = job._replace(rules=rules)
            jobs[key] = with_policy(own, pick_policy(job.rules, assigned, options.policy))
        own = jobs[key]
        here = tuple(pin for pin in pins.get(directory.directory, ()) if name_in(pin, directory))
        if here or strays:
            decides = (own.fingerprint, [(pin.size, pin.mtime_ns) for pin in (*here, *strays)])
            digest = _digest(decides)  # a change of the pins is a reason to plan anew
            own = own._replace(pins=here, strays=strays, fingerprint=digest)
        pairs.append((own, directory))
    return pairs


def count_asked_for(session: Session, base: str, options: Planning) -> int:
    """Count the checkpoint directories that are asked for."""
    return len(jobs_of(session, base, options)[1])


def is_up_to_date(values: Mapping[str, Any], job: Job, found: Directory) -> bool:
    """Say whether nothing has changed since the last run: neither rules and options nor the directory, nor an age.

    Where more was read than names, that is looked at as well; and what `doit verify` has found broken since is no part
    of what was remembered.
    """
    if values.get("fingerprint") != job.fingerprint or values.get("stamp") != list(found.stamp):
        return False
    since, until, now_ns = values.get("holds_since_ns") or 0, values.get("holds_until_ns"), job.header["started_ns"]
    if now_ns < since or (until is not None and now_ns > until):  # the clock was set back, or has passed a limit
        return False
    path, directory = job.options.outputs_dir, found.directory
    if job.verified and was_verified(path, directory):
        from ckptrules.verify import memory

        if memory.tells_broken(path, directory):
            return False
    return "read" not in values or readings.holds(path, directory, values["read"])


def was_verified(outputs_dir: str, directory: str = "") -> bool:
    """Say whether `doit verify` remembers anything of a directory, or of any."""
    try:
        os.stat(f"{outputs_dir}/{STATE}/verified/{directory}")  # asked of each directory in each run
    except OSError:
        return False
    return True
