"""Collect what a JSON file has beyond a plan; imported only if one is asked for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Any

from ckptrules import __version__
from ckptrules.engine.checkpoints import Evidence
from ckptrules.engine.facts import believed
from ckptrules.engine.measures import NS
from ckptrules.engine.names.naming import SlowRuleError
from ckptrules.engine.policy.retention import assignment, pick_policy
from ckptrules.report.checkpoints import Before, space_of
from ckptrules.report.data import SCHEMA_VERSION
from ckptrules.report.style import Style
from ckptrules.report.text import Tally
from ckptrules.report.what_if import lines_as_data, rows_as_data
from ckptrules.run import past
from ckptrules.run.deciding import Decided, all_metrics, looks_of
from ckptrules.run.jobs import Job, was_verified
from ckptrules.run.options import Common
from ckptrules.run.outcome import Collected, RunContext
from ckptrules.run.records import DAY, waits_since, zoned
from ckptrules.run.session import Session
from ckptrules.stopping import StoppedError
from ckptrules.storage import reading, writing
from ckptrules.storage.posix import Disk
from ckptrules.storage.trash import trash_runs, trash_use

DOES_IT = {"plan": "migrate", "page": "migrate"}  # the command that does what another one previews
MOST = 100  # earlier runs in the file


def look_before(job: Job, decided: Decided) -> Before | None:
    """Look at all checkpoints of a directory before anything is changed; None if a rule is too slow or the run stops.

    A file that cannot be read is left out: where it matters, the plan has a problem for it.
    """
    listing, known, path = decided.listing, decided.known, job.options.outputs_dir
    facts, pointers, verified = Evidence(metrics=known.metrics), known.pointers, frozenset[str]()
    try:
        with contextlib.suppress(OSError):
            facts = all_metrics(job, listing)
        with contextlib.suppress(OSError), reading.open_below(path, listing.directory) as directory:
            pointers = looks_of(job, listing, directory).pointers[0]
        if was_verified(path, listing.directory):
            from ckptrules.verify.check import proved_names

            verified = proved_names(path, job.rules, listing)
    except (SlowRuleError, StoppedError):
        return None
    return Before(
        believed(listing, facts.times),
        job.rules,
        known._replace(metrics=facts.metrics, pointers=pointers),
        pick_policy(job.rules, assignment(job.rules, listing.experiment), job.options.policy),
        frozenset(decided.plan.unwhole),
        verified,
        frozenset(known.best_inside).union(one.name for mentions in facts.pointers.values() for one in mentions),
    )


def head_of(header: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys with which every JSON file begins; None for those that a command does not have."""
    rules = header.get("rules")
    return {
        "schema_version": SCHEMA_VERSION,
        "version": __version__,
        **header,
        **{key: header.get(key) for key in ("policy", "refused", "takes_back")},
        "when": zoned(header["started_ns"] // NS),
        "outputs_dir": header["options"]["outputs_dir"],
        "rules": {"lines": [], **rules} if rules else None,
    }


def write_data(options: Common, data: Any, style: Style) -> dict[str, str]:
    """Write data as JSON and as a page, as the options ask; return an error text for each path that failed."""
    faults = {}
    for path, write in ((options.json, writing.write_json), (options.html, _write_page)):
        if path:
            try:
                write(path, data)
            except OSError as error:
                faults[path] = f"{style.name(path)} cannot be written: {reading.why_of(error)}\n"
    return faults


def _write_page(path: str, data: Mapping[str, Any]) -> None:
    """Draw a page and write it as a whole file."""
    from ckptrules.report.page.drawing import draw

    in_memory = {key: list(value) if key == "experiments" else value for key, value in data.items()}
    writing.write_report(path, draw(in_memory))


def full_head(session: Session, base: str, context: RunContext, collected: Collected, total: Tally) -> dict[str, Any]:
    """Return `head_of` a plan or a run of checkpoints, with the space of the tree, other options, and earlier runs."""
    path, days = context.options.outputs_dir, context.trash_days
    head, weighed = head_of(context.header), collected.all("weighed")
    if context.rows:
        head["rules"]["lines"] = lines_as_data(weighed)
    return {
        **head,
        "does_it": does_it(session, base, context) if total.changes else None,
        "space": space(path, collected, total, days),
        "what_if": rows_as_data(context.rows, weighed),
        "history": history(session, path, days),
    }


def does_it(session: Session, base: str, context: RunContext) -> str | None:
    """Return the command that does what a dry run shows; None if it would be refused, or this is no dry run."""
    options, run = context.options, context.header.get("takes_back")
    if not options.dry_run or context.header.get("refused"):
        return None
    return session.command(DOES_IT.get(base, base), options.but(run=run) if run else options, base)


def space(path: str, collected: Collected, total: Tally, days: int | None) -> dict[str, Any]:
    """Return the bytes of a tree by their use, and of its disk; None for what is not known."""
    storage, spaces = Disk(path), collected.all("space")
    known = space_of(total, collected.links, spaces)
    in_trash, since = None, list[float]()
    with contextlib.suppress(OSError):
        in_trash = trash_use(storage).size
        since = [waits_since(path, run) for run in trash_runs(storage)] if days else []
    disk = os.statvfs(path)
    return {
        **(known if spaces else dict.fromkeys(known)),
        "trash": in_trash,
        "trash_until": zoned(min(since) + (days or 0) * DAY) if since else None,
        "disk_free": storage.free(),
        "disk_total": disk.f_blocks * disk.f_frsize or None,
    }


def history(session: Session, path: str, days: int | None) -> list[dict[str, Any]]:
    """Return the last runs as data; none if the journals cannot be read, for which `doit history` has a message."""
    try:
        runs = past.runs_of(path, session.run_id)
    except OSError:
        return []
    return list(past.as_data(session, path, runs[-MOST:], days))
