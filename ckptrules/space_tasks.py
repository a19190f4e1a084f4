"""``doit trash`` and ``doit usage``: where the bytes are, and when they go."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import NamedTuple

from doit.exceptions import TaskFailed
from doit.task import Task

from ckptrules import jobs, scan, startup, tasks
from ckptrules.hints import quoted
from ckptrules.journal import JournalError
from ckptrules.measures import human_size
from ckptrules.model import Listing, Plan
from ckptrules.options import OptionError, Options
from ckptrules.recovery import read_runs
from ckptrules.report import Style, count_of, table
from ckptrules.reporter import Told
from ckptrules.scan import told

DAY = 86_400
ARCHIVES = (".tar.zst", ".tar.gz")
HEADINGS = ("experiment", "protected", "kept", "could go", "other", "total")


class Usage(NamedTuple):
    """The bytes of one experiment. ``other`` is what the rules do not know, or leave to a person."""

    protected: int = 0
    kept: int = 0
    could_go: int = 0
    other: int = 0

    def __add__(self, more: Usage) -> Usage:  # type: ignore[override]
        return Usage(*(one + two for one, two in zip(self, more, strict=True)))


def trash(options: Options) -> Iterator[startup.TaskDict]:
    """List what waits in the trash."""
    jobs.outputs_dir(options)
    days = jobs.load(options.rules_dir, options.outputs_dir).trash_days
    yield {"basename": "trash", "actions": [(show_trash, [options.outputs_dir, days, jobs.style(options)])]}


def usage(options: Options) -> Iterator[startup.TaskDict]:
    """Say how many bytes each experiment takes, by what the policy makes of them.

    Raises:
        RuleError, OptionError: nothing can be measured with these.
    """
    jobs.outputs_dir(options)
    if options.archive_dir and not os.path.isdir(options.archive_dir):
        raise OptionError(f"command line: archive_dir={options.archive_dir}: is no folder")
    job = jobs.prepare(options._replace(delete_old=True, dry_run=True), "usage")
    names = jobs.chosen_of("usage", options, jobs.names_of(options.outputs_dir, job.rules))
    yield from jobs.one_task("usage", [(show_usage, [job, names])], names)


def show_trash(outputs_dir: str, days: int, style: Style, task: Task) -> TaskFailed | None:
    """Tell what lies in the trash, oldest first, and on which day it goes."""
    try:
        items = scan.trash_items(outputs_dir)
    except OSError as error:
        task.meta = {"told": Told(f"The trash cannot be read: {told(error)}\n")}
        return TaskFailed("the trash cannot be read", report=False)
    if not items:
        task.meta = {"told": Told("The trash is empty.\n")}
        return None
    rows = [
        (
            item.run,
            style.name(item.directory),
            style.name(item.name),
            human_size(item.size),
            goes_on(outputs_dir, item.run, days),
        )
        for item in items
    ]
    size = sum(item.size for item in items)
    text = table(("run", "directory", "name", "size", "goes on"), rows, right=(3,))
    lost = unknown_to_undo(outputs_dir, items)
    end = f"{count_of(len(items), 'item')}, {human_size(size)}. "
    end += "'doit undo' brings back, 'doit purge' frees.\n" if len(lost) < len(items) else "'doit purge' frees.\n"
    task.meta = {"told": Told(text + end + by_hand(outputs_dir, lost, style))}
    return None


def unknown_to_undo(outputs_dir: str, items: Sequence[scan.TrashItem]) -> list[scan.TrashItem]:
    """List what `doit undo` cannot bring back: no journal tells where it came from, or none can be read."""
    try:
        runs = read_runs(outputs_dir, scan.own_state(outputs_dir))
    except (JournalError, OSError):
        return list(items)
    units = [unit for run in runs for _, unit in run.standing.values()]
    known = {f"{step.to_directory}/{step.to}" for unit in units for step in unit.steps}
    return [item for item in items if item.path not in known]


def by_hand(outputs_dir: str, items: Sequence[scan.TrashItem], style: Style) -> str:
    """Say what only a person can bring back, and how."""
    if not items:
        return ""
    first = items[0]
    source = os.path.join(outputs_dir, first.path)
    target = os.path.join(outputs_dir, first.directory, first.name)
    what = f"{count_of(len(items), 'item')} no journal in {style.name(os.path.join(outputs_dir, scan.JOURNALS))} knows"
    move = " ".join(["mv -n", quoted(source, style.encoding), quoted(target, style.encoding)])
    return f"{what}, so undo does not bring them back; by hand, each like the first:\n    {move}\n"


def goes_on(outputs_dir: str, run: str, days: int) -> str:
    """Return the day from which on `doit migrate` frees what a run left in the trash (local time)."""
    if not days:
        return "when purged"
    since = jobs.waits_since(outputs_dir, run)
    return datetime.fromtimestamp(since + days * DAY, timezone.utc).astimezone().strftime("%Y-%m-%d")


def show_usage(job: jobs.Job, names: Collection[str], task: Task) -> TaskFailed | None:
    """Measure everything and show it as a table."""
    seen: set[tuple[int, int]] = set()
    rows: list[tuple[str, Usage]] = []
    failed = []
    for own, found in jobs.own_jobs(job):
        if found.experiment not in names:
            continue
        plan, listing = tasks.plan_of(own, found)
        try:
            sizes = scan.sizes(job.options.outputs_dir, found.directory, seen, going_names(plan))
        except OSError as error:
            failed.append(f"{job.style.name(found.directory)}: {told(error)}")
            continue
        rows.append((found.experiment, sort(listing, plan, sizes)))
        unknown = [problem for problem in plan.problems if problem.id in ("slow_rule", "unreadable")]
        failed += [f"{job.style.name(problem.names[0])} {problem.text}" for problem in unknown]
    total = sum((row for _, row in rows), Usage())
    lines = [_row(job.style.name(name), row) for name, row in rows]
    text = table(HEADINGS, [*lines, _row("all", total)], right=range(1, len(HEADINGS)))
    try:
        waiting = scan.trash_use(job.options.outputs_dir)
        text += f"trash: {human_size(waiting.size)}, {count_of(waiting.items, 'item')}\n"
    except OSError as error:
        failed.append(f"the trash cannot be read: {told(error)}")
    if folder := job.options.archive_dir:
        text += f"archives: {human_size(archives(folder))} in {job.style.name(folder)}\n"
    text += f"'could go' is what 'doit migrate delete_old=1' would delete. Hard links count once. {_now()}\n"
    text += "".join(f"Problem: {line}\n" for line in failed)
    lack = "" if total.protected + total.kept + total.could_go else jobs.nothing_understood(job.options, job.rules)
    text += "".join(f"{line}\n" for line in (lack, jobs.uncovered("usage", job.options, job.rules, job.style)) if line)
    task.meta = {"told": Told(text)}
    return TaskFailed("problems left", report=False) if failed or lack else None


def archives(folder: str) -> int:
    """Return the bytes of the archives in a folder."""
    with os.scandir(folder) as entries:
        return sum(entry.stat().st_size for entry in entries if entry.name.endswith(ARCHIVES))


# --- pure ------------------------------------------------------------------------------------------------------------


def sort(listing: Listing, plan: Plan, sizes: Mapping[str, int]) -> Usage:
    """Say what of a directory is protected, kept, could go or is something else."""
    goes = going_names(plan)
    stays = {name for a in plan.actions if a.kind == "rename" for name in (a.name, *(old for old, _ in a.with_it))}
    shown = {row.name: row.reasons[0].text for row in plan.kept}
    parts = {"protected": 0, "kept": 0, "could_go": 0, "other": 0}
    for entry in listing.entries:
        kind = "other"
        if entry.name in goes:
            kind = "could_go"
        elif shown.get(entry.name, "").startswith("protected"):
            kind = "protected"
        elif entry.name in stays or entry.name in shown:
            kind = "kept"
        parts[kind] += sizes.get(entry.name, 0)
    return Usage(**parts)


def going_names(plan: Plan) -> set[str]:
    """Return what would go."""
    return {name for a in plan.actions if a.kind == "trash" for name in (a.name, *(old for old, _ in a.with_it))}


def _row(name: str, row: Usage) -> tuple[str, ...]:
    return (name, *(human_size(size) if size else "" for size in row), human_size(sum(row)))


def _now() -> str:
    return time.strftime("Measured %Y-%m-%d %H:%M.")
