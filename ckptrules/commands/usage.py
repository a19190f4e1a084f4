"""`doit usage`: count the bytes that are protected, that are kept, that could go, and in the trash."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Container, Iterator
from functools import partial
from pathlib import PurePath

from ckptrules.commands.trash import stranger_notes
from ckptrules.engine.actions import Plan
from ckptrules.engine.entries import Entry, Listing
from ckptrules.engine.measures import count_of, human_size, taken
from ckptrules.engine.names.sorting import sort_entries
from ckptrules.engine.ruleset import RuleSet
from ckptrules.report.style import table
from ckptrules.run import deciding, jobs, whole_tree
from ckptrules.run.options import ARCHIVE_DIR, OptionError, Planning
from ckptrules.run.outcome import Done, Prepared
from ckptrules.run.session import Session
from ckptrules.storage.posix import Disk
from ckptrules.storage.reading import why_of
from ckptrules.storage.trash import trash_use

KINDS = ("protected", "kept", "could go", "other")  # other: not known to the rules, or left to a person
HEADINGS = ("experiment", *KINDS, "total")
DROPS = ("other", "protected", "kept", "total")


class Options(Planning, takes="experiments policy keep_min_epoch keep_last"):
    """The options of `doit usage`."""

    archive_dir: str | None = ARCHIVE_DIR


def prepare(session: Session, options: Options) -> Prepared:
    """Choose the experiments, and the job for each."""
    if options.archive_dir and not os.path.isdir(options.archive_dir):
        raise OptionError(f"archive_dir={options.archive_dir}: is no folder")
    job, pairs = jobs.jobs_of(session, "usage", options.but(delete_old=True, dry_run=True))
    return Prepared(
        partial(show_usage, session, job, pairs, options.archive_dir), [found.experiment for _, found in pairs]
    )


def show_usage(session: Session, job: jobs.Job, pairs: jobs.OwnJobs, archive_dir: str | None) -> Done:
    """Measure everything and show it as a table."""
    rows, failed = measure(session, job, pairs)
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
    return Done(text, failed=bool(failed or lack))


def measure(session: Session, job: jobs.Job, pairs: jobs.OwnJobs) -> tuple[list[tuple[str, Counter[str]]], list[str]]:
    """Count the bytes of each of the `KINDS`, by directory; the second value are texts on what could not be measured.

    A file with several names counts once: in the first directory in which it stays, or else in the first that has it.
    What lies in a directory in another one counts there alone.
    """
    rows: list[tuple[str, Counter[str]]] = []
    by_directory: dict[str, Counter[str]] = {}
    linked: list[tuple[bool, int, int, Entry]] = []
    failed = []
    for own, found in whole_tree.with_tree(session, job, pairs)[0]:
        plan, listing = deciding.decided_of(own, found)[:2]
        row = Counter[str]()
        for kind, entry in sort(own.rules, listing, plan):
            row[kind] += entry.size - _shared_bytes(entry)
            if entry.shared:
                linked.append((kind == "could go", KINDS.index(kind), len(rows), entry))
        rows.append((found.experiment, row))
        by_directory[found.directory] = row
        unknown = [problem for problem in plan.problems if problem.id in ("slow_rule", "unreadable")]
        failed += [f"{job.style.name(problem.names[0])} {problem.text}" for problem in unknown]
    for above, size in [(_enclosing(one, by_directory), row.total()) for one, row in by_directory.items()]:
        by_directory.get(above, Counter())["other"] -= size
    counted: set[tuple[int, int]] = set()
    for _, kind_at, at, entry in sorted(linked):
        rows[at][1][KINDS[kind_at]] += taken(_shared_bytes(entry), entry.shared, counted)
    return rows, failed


def _shared_bytes(entry: Entry) -> int:
    """Return the bytes under the names of an entry that lead to files with several names."""
    return sum(link.size * link.here for link in entry.shared)


def _enclosing(directory: str, others: Container[str]) -> str:
    """Return the nearest of some directories that a directory lies in; an empty text where it lies in none."""
    return next((str(above) for above in PurePath(directory).parents if str(above) in others), "")


def archives(folder: str) -> int:
    """Return the bytes of the archives in a folder."""
    from ckptrules.vault.tar import ENDINGS

    with os.scandir(folder) as entries:
        return sum(entry.stat().st_size for entry in entries if entry.name.endswith(ENDINGS) and entry.is_file())


def sort(rules: RuleSet, listing: Listing, plan: Plan) -> Iterator[tuple[str, Entry]]:
    """Yield the entries of a directory, each with its kind of `KINDS`."""
    kinds = dict.fromkeys(plan.not_going, "kept")
    if plan.kept:
        found = sort_entries(rules, listing)
        heads, shields = found.heads, {checkpoint.entry.name for checkpoint in found.protected}
        kinds |= {name: "protected" for name in kinds if heads.get(name, name) in shields}
    kinds |= dict.fromkeys(plan.going, "could go")
    yield from ((kinds.get(entry.name, "other"), entry) for entry in listing.entries)


def _row(name: str, row: Counter[str]) -> tuple[str, ...]:
    return (name, *(human_size(row[kind]) if row[kind] else "" for kind in KINDS), human_size(row.total()))
