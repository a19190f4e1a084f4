"""`doit usage`: how many bytes are protected, kept, could go, or wait in the trash."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Collection
from functools import partial

from ckptrules.commands.trash import stranger_notes
from ckptrules.engine.actions import Plan
from ckptrules.engine.entries import Listing
from ckptrules.engine.measures import human_size, taken
from ckptrules.report.style import count_of, table
from ckptrules.run import deciding, finding, jobs, whole_tree
from ckptrules.run.options import ARCHIVE_DIR, EXPERIMENTS, KEEP_LAST, KEEP_MIN_EPOCH, POLICY, OptionError, Planning
from ckptrules.run.outcome import Done, Output, Prepared
from ckptrules.run.session import Session
from ckptrules.run.tasks import chosen_of
from ckptrules.storage.posix import Disk
from ckptrules.storage.reading import why_of
from ckptrules.storage.trash import trash_use

ARCHIVES = (".tar.zst", ".tar.gz")

KINDS = ("protected", "kept", "could go", "other")  # the last: what the rules do not know, or leave to a person
HEADINGS = ("experiment", *KINDS, "total")
DROPS = ("other", "protected", "kept", "total")


class Options(Planning):
    """What `doit usage` may be told."""

    experiments: str | None = EXPERIMENTS
    keep_min_epoch: int | None = KEEP_MIN_EPOCH
    keep_last: int | None = KEEP_LAST
    policy: str = POLICY
    archive_dir: str | None = ARCHIVE_DIR


def prepare(session: Session, options: Options) -> Prepared:
    """Find out which experiments are meant."""
    if options.archive_dir and not os.path.isdir(options.archive_dir):
        raise OptionError(f"archive_dir={options.archive_dir}: is no folder")
    job = jobs.prepare(session, options.but(delete_old=True, dry_run=True), "usage")
    names = chosen_of(session, "usage", options, finding.names_of(session, options))
    return Prepared(partial(show_usage, session, job, names, options.archive_dir), names)


def show_usage(session: Session, job: jobs.Job, names: Collection[str], archive_dir: str | None) -> Done:
    """Measure everything and show it as a table."""
    counted: set[tuple[int, int]] = set()
    rows: list[tuple[str, Counter[str]]] = []
    failed = []
    for own, found in whole_tree.told_by_tree(session, job, jobs.own_jobs(session, job))[0]:
        if found.experiment not in names:
            continue
        plan, listing = deciding.decided_of(own, found)[:2]
        rows.append((found.experiment, sort(listing, plan, counted)))
        unknown = [problem for problem in plan.problems if problem.id in ("slow_rule", "unreadable")]
        failed += [f"{job.style.name(problem.names[0])} {problem.text}" for problem in unknown]
    total = sum((row for _, row in rows), Counter[str]())
    lines = [_row(job.style.name(name), row) for name, row in rows]
    text = table(
        HEADINGS, [*lines, _row("all", total)], right=range(1, len(HEADINGS)), width=job.style.width, drops=DROPS
    )
    try:
        waiting = trash_use(Disk(job.options.outputs_dir))
        text += f"trash: {human_size(waiting.size)}, {count_of(waiting.items, 'item')}\n"
    except OSError as error:
        failed.append(f"the trash cannot be read: {why_of(error)}")
    text += "".join(f"{note}\n" for note in stranger_notes(job.options.outputs_dir, job.style))
    if archive_dir:
        try:
            text += f"archives: {human_size(archives(archive_dir))} in {job.style.name(archive_dir)}\n"
        except OSError as error:
            failed.append(f"{job.style.name(archive_dir)} cannot be read: {why_of(error)}")
    measured = time.strftime("Measured %Y-%m-%d %H:%M.")
    text += f"'could go' is what 'doit migrate delete_old=1' would delete. Hard links count once. {measured}\n"
    text += "".join(f"Problem: {line}\n" for line in failed)
    lack = "" if total.total() > total["other"] else jobs.nothing_understood(session, job.options)
    around = jobs.uncovered(session, "usage", job.options)
    text += "".join(f"{line}\n" for line in (lack, around) if line)
    return Done(Output(text), failed=bool(failed or lack))


def archives(folder: str) -> int:
    """Return the bytes of the archives in a folder."""
    with os.scandir(folder) as entries:
        return sum(entry.stat().st_size for entry in entries if entry.name.endswith(ARCHIVES) and entry.is_file())


def sort(listing: Listing, plan: Plan, counted: set[tuple[int, int]]) -> Counter[str]:
    """Say how many bytes of a directory are of which of the `KINDS`; what goes takes what nothing before it does."""
    goes = plan.going
    stays = {name for action in plan.actions if action.kind == "rename" for name in action.names}
    shown = {name: row.reasons[0].text for row in plan.kept for name in row.names}
    found = Counter[str]()
    for entry in sorted(listing.entries, key=lambda entry: (entry.name in goes, entry.name)):
        kind = "other"
        if entry.name in goes:
            kind = "could go"
        elif shown.get(entry.name, "").startswith("protected"):
            kind = "protected"
        elif entry.name in stays or entry.name in shown:
            kind = "kept"
        found[kind] += taken(entry.size, entry.shared, counted)
    return found


def _row(name: str, row: Counter[str]) -> tuple[str, ...]:
    return (name, *(human_size(row[kind]) if row[kind] else "" for kind in KINDS), human_size(row.total()))
