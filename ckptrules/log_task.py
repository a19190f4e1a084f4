"""``doit log``: the entry of a run for the experiment log, through a template that people may edit."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from doit.exceptions import TaskFailed
from doit.task import Task

from ckptrules import jobs, startup, store
from ckptrules.history import Run
from ckptrules.measures import human_size
from ckptrules.options import Options
from ckptrules.reporter import Told
from ckptrules.scan import told
from ckptrules.shipped import log_template
from ckptrules.undo import chosen_run, command_of


def log(options: Options) -> Iterator[startup.TaskDict]:
    """Write the entry of a run.

    Raises:
        OptionError: there is no such run, or the journals cannot be read.
    """
    jobs.outputs_dir(options)
    yield {"basename": "log", "actions": [(write_entry, [options, chosen_run(options)])]}


def write_entry(options: Options, run: Run | None, task: Task) -> TaskFailed | None:
    """Print the entry, or append it to a file that does not have it yet."""
    if run is None:
        task.meta = {"told": Told("There is no run to tell of; 'doit history' lists them.\n")}
        return TaskFailed("no run", report=False)
    try:
        entry = render(log_template(options.rules_dir), run)
    except (OSError, ValueError) as error:
        task.meta = {"told": Told(f"{error}\n")}
        return TaskFailed("the template cannot be used", report=False)
    if options.out is None:
        task.meta = {"told": Told(entry)}
        return None
    try:
        text = append(options.out, entry, run.id)
    except (OSError, UnicodeError) as error:
        why = told(error) if isinstance(error, OSError) else "is no UTF-8 text"
        task.meta = {"told": Told(f"{options.out}: cannot be written: {why}\n")}
        return TaskFailed("the log cannot be written", report=False)
    task.meta = {"told": Told(text)}
    return None


def append(path: str, entry: str, run: str) -> str:
    """Add an entry to the end of a log, once; say what was done.

    Raises:
        OSError: it cannot be read or written.
        UnicodeError: it is no UTF-8 text.
    """
    before = ""
    if os.path.exists(path):
        with open(path, encoding="utf-8", newline="") as file:
            before = file.read()
    if run in before:
        return f"{path}: run {run} stands in it already\n"
    gap = "" if not before else "\n" if before.endswith("\n") else "\n\n"
    store.write_whole(path, before + gap + entry)
    return f"{path}: run {run} added\n"


# --- pure ------------------------------------------------------------------------------------------------------------


def render(template: str, run: Run) -> str:
    """Render the template with what a run did.

    Raises:
        ValueError: the template cannot be used.
    """
    import jinja2
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    try:
        return environment.from_string(template).render(entry_of(run)).strip("\n") + "\n"
    except (jinja2.TemplateError, TypeError) as error:
        raise ValueError(f"the template of the log cannot be used: {error}") from None


def entry_of(run: Run) -> dict[str, Any]:
    """Return what the template may use."""
    deleted = [unit for unit in run.units if unit.kind == "trash"]
    kept = {intent.directory: intent.kept for _, intent in run.intents}
    return {
        "date": str(run.header.get("when", ""))[:10],
        "when": str(run.header.get("when", "")),
        "run": run.id,
        "who": f"{run.header.get('who', '?')}@{run.header.get('host', '?')}",
        "command": command_of(run),
        "renamed": sum(unit.kind == "rename" for unit in run.units),
        "deleted": len(deleted),
        "deleted_size": human_size(sum(unit.size for unit in deleted)),
        "kept": sum(kept.values()),
        "threshold": threshold(run.header),
        "experiments": sorted({intent.experiment for _, intent in run.intents}),
    }


def threshold(header: Mapping[str, Any]) -> str:
    """Say in words by what a run deleted: ``< epoch 10``, or the policy."""
    policy = header.get("policy") or {}
    lines = dict(policy.get("lines", {}))
    if set(lines) == {"min_epoch"}:
        return f"< epoch {lines['min_epoch']}"
    words = ", ".join(f"{key}: {value}" for key, value in lines.items())
    return f"policy {policy['name']}: {words}" if policy else "by hand"
