"""`doit log`: write the entry of a run for the experiment log, by a template that users may edit."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ckptrules.changes.history import Run
from ckptrules.engine.measures import human_size, visible
from ckptrules.report.log_template import LogTemplateError, render
from ckptrules.rules.shipped import LOG_TEMPLATE, RULES_DIR, log_template
from ckptrules.run.command_line import program
from ckptrules.run.hints import quoted
from ckptrules.run.options import RUN, Common, OptionError, a_file, option
from ckptrules.run.outcome import Done, Prepared
from ckptrules.run.past import chosen_run, command_of, freed_by, runs_with
from ckptrules.run.session import Session
from ckptrules.storage import writing
from ckptrules.storage.reading import why_of

# Characters with a meaning in Markdown (CommonMark 0.31, GitHub's) or HTML: anywhere, in an address, at the beginning.
_MARKS = re.compile(r"[\\`*\[\]<>|#&~]|(?<=www)\.|:(?=//)|^[=+_-]")
_ENDS_CODE = re.compile(r"[`<>|]|\](?=\()")


class Options(Common):
    """The options of `doit log`."""

    reads_journals = True
    run: str | None = RUN
    out: str | None = option(None, a_file, "add the entry to this file")


def prepare(_: Session, options: Options) -> Prepared:
    """Find the run, and make its entry."""
    run = chosen_run(runs_with(options.outputs_dir, options.run), options.run, newest_migration)
    return Prepared(partial(write_entry, options, run, run and entry(options, run)))


def entry(options: Options, run: Run) -> str:
    """Return the entry of a run.

    Raises:
        OptionError: the template cannot be used.
    """
    path = visible(os.path.join(options.rules_dir or RULES_DIR, LOG_TEMPLATE))
    try:
        return render(log_template(options.rules_dir), entry_of(run))
    except LogTemplateError as error:
        fact = f"{path}:{error.line}: the template of the log cannot be used: {visible(str(error))}"
        raise OptionError(fact, error.hint, place="") from None
    except (OSError, UnicodeError) as error:
        why = f"cannot be read: {why_of(error)}" if isinstance(error, OSError) else "is no UTF-8 text"
        raise OptionError(f"{path}: {why}", place="") from None


def newest_migration(runs: Sequence[Run]) -> Run | None:
    """Return the newest run of `migrate` that was not taken back; its trash may have been freed since."""
    migrations = (run for run in reversed(runs) if run.header.get("command") == "migrate")
    return next((run for run in migrations if run.standing or run.gone), None)


def write_entry(options: Options, run: Run | None, entry: str | None) -> Done:
    """Print the entry, or append it to a file that does not have it yet."""
    if run is None or entry is None:
        return Done("There is no run to tell of; 'doit history' lists them.\n", failed=True)
    if options.out is None:
        return Done(entry, as_it_is=True)
    try:
        with writing.folder_lock(os.path.realpath(options.out)):  # runs of other trees may write to the same log
            return Done(append(options.out, entry, run.id, writes=not options.dry_run))
    except (OSError, UnicodeError) as error:
        why = why_of(error) if isinstance(error, OSError) else "is no UTF-8 text"
        return Done(f"{visible(options.out)}: cannot be written: {why}\n", failed=True)


def append(path: str, entry: str, run: str, *, writes: bool) -> str:
    """Append an entry to a log that does not have it yet, if ``writes``; return a line on what was done, or would be.

    Raises:
        OSError: the log cannot be read or written.
        UnicodeError: the log is no UTF-8 text.
    """
    before = ""
    if os.path.exists(path):
        with open(path, encoding="utf-8", newline="") as file:
            before = file.read()
    if run in before:
        return f"{visible(path)}: run {run} stands in it already\n"
    if not writes:
        return f"{visible(path)}: run {run} would be added\n"
    gap = "" if not before else "\n" if before.endswith("\n") else "\n\n"
    writing.write_report(path, before + gap + entry)
    return f"{visible(path)}: run {run} added\n"


# --- pure ------------------------------------------------------------------------------------------------------------


def entry_of(run: Run) -> dict[str, Any]:
    """Return the variables of the template; Markdown in names, and in texts of a journal, is escaped.

    Changes that were taken back are left out, unless all were.
    """
    counted = {*run.standing, *run.gone, *run.barred} or run.done.keys()
    units = [unit for ref, unit in run.done.items() if ref in counted]
    intents = [intent for intent in run.intents if not counted.isdisjoint(intent.refs)]
    deleted = [unit for unit in units if unit.kind == "trash"]
    kept = {intent.directory: intent.kept for intent in intents}
    return {
        "date": plain(str(run.header.get("when", ""))[:10]),
        "when": plain(str(run.header.get("when", ""))),
        "run": plain(run.id),
        "who": plain(f"{run.header.get('who', '?')}@{run.header.get('host', '?')}"),
        "program": code(" ".join(map(quoted, program()))),
        "command": code(command_of(run)),
        "renamed": sum(unit.kind == "rename" for unit in units),
        "deleted": len(deleted),
        "deleted_size": human_size(freed_by(deleted)),
        "kept": sum(kept.values()),
        "threshold": threshold(run.header),
        "experiments": [plain(name) for name in sorted({intent.experiment for intent in intents})],
    }


def threshold(header: Mapping[str, Any]) -> str:
    """Return the rule by which a run deleted, as text: ``< epoch 10``, or the policy; and those that rules assign."""
    policy = header.get("policy")
    if not isinstance(policy, Mapping):
        return "by hand"
    lines = policy.get("lines")
    rows = {str(key): plain(str(value)) for key, value in lines.items()} if isinstance(lines, Mapping) else {}
    others = policy.get("others")
    names = " or ".join(plain(str(name)) for name in others) if isinstance(others, list) else ""
    assigned = f"; where the rules assign it, policy {names}" * bool(names)
    if set(rows) == {"min_epoch"}:
        return f"< epoch {rows['min_epoch']}{assigned}"
    words = ", ".join(f"{plain(key)}: {value}" for key, value in rows.items())
    return f"policy {plain(str(policy.get('name')))}: {words}{assigned}"


def plain(text: str) -> str:
    """Escape a text for Markdown, so that no link, heading or comment begins or ends in it."""
    return visible(_MARKS.sub(r"\\\g<0>", text))


def code(text: str) -> str:
    r"""Escape a text for between backticks, where Markdown has no escapes: what could end them shows as ``\x60``."""
    return _ENDS_CODE.sub(lambda match: f"\\x{ord(match[0]):02x}", visible(text))
