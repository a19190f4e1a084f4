"""`doit history`: list the runs of the past, and the state of each."""

from __future__ import annotations

from functools import partial

from ckptrules.changes.history import Run
from ckptrules.changes.journals import fault_of
from ckptrules.engine.measures import human_size
from ckptrules.report.style import Style, table
from ckptrules.run import past, records
from ckptrules.run.options import Common, a_file, option
from ckptrules.run.outcome import Done, Prepared
from ckptrules.run.session import Session

HEADINGS = ("run", "when", "who", "command", "renamed", "deleted", "size", "state")
DROPS = ("who", "when", "size", "renamed", "deleted")


class Options(Common, takes="html"):
    """The options of `doit history`."""

    reads_journals = True
    json: str | None = option(None, a_file, "write the runs to this file")


def prepare(session: Session, options: Options) -> Prepared:
    """Return the work: `show_history`."""
    return Prepared(partial(show_history, session, options))


def history_text(runs: list[Run], style: Style) -> str:
    """Return the runs as a table, the newest first."""
    if not runs:
        return "No run has changed anything yet.\n"
    rows = []
    for run in reversed(runs):
        did = past.did(run)
        rows.append(
            (
                run.id,
                str(run.header.get("when", "")),
                f"{run.header.get('who', '?')}@{run.header.get('host', '?')}",
                past.command_of(run),
                str(did["renamed"]),
                str(did["deleted"]),
                human_size(did["bytes_deleted"]) if did["deleted"] or did["bytes_deleted"] else "",
                past.state_of(run),
            )
        )
    cells = [tuple(style.name(cell) for cell in row) for row in rows]
    return table(HEADINGS, cells, right=(4, 5, 6), width=style.width, drops=DROPS)


def show_history(session: Session, options: Options) -> Done:
    """Show the runs, and write them as data where that is asked for."""
    style = session.style(options)
    try:
        runs = past.runs_of(options.outputs_dir)
    except OSError as error:
        return Done(f"{style.name(fault_of(options.outputs_dir, error))}\n", failed=True)
    text = history_text(runs, style)
    if not options.tells_data:
        return Done(text)
    from ckptrules.run.json_file import head_of, write_data  # not above: only a JSON file needs it

    rules = past.rules_or_none(session, options)
    rows = list(past.as_data(session, options.outputs_dir, runs, rules and rules.trash_days))
    data = {**head_of(records.run_header(session, "history", options)), "runs": rows}
    faults = write_data(options, data, style)
    return Done("".join([text, *faults.values()]), failed=bool(faults))
