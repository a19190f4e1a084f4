"""What was verified → console text and JSON. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ckptrules.engine.actions import said_of
from ckptrules.engine.measures import human_size
from ckptrules.formats.content import FileContent
from ckptrules.report.style import Style, count_of, summary_of, table
from ckptrules.report.text import files_of
from ckptrules.verify.check import Report, sound
from ckptrules.verify.memory import CheckResult
from ckptrules.verify.portion import Checked

SIGN_WIDTH = 4  # columns of a sign, with what stands before and behind it


class VerifyTally(NamedTuple):
    """The numbers of a run, or of one experiment of it. ``failed`` counts problems; sizes are in bytes.

    ``bytes_expected`` are those of ``bytes_to_read`` that are really read: of some formats a header is enough.
    """

    experiments: int = 0
    checkpoints: int = 0
    verified: int = 0
    read: int = 0
    failed: int = 0
    bytes_verified: int = 0
    bytes_read: int = 0
    to_read: int = 0
    bytes_to_read: int = 0
    bytes_expected: int = 0

    def __add__(self, other: VerifyTally) -> VerifyTally:  # type: ignore[override]
        return VerifyTally(*(one + two for one, two in zip(self, other, strict=True)))


def tally(report: Report) -> VerifyTally:
    """Count one experiment."""
    whole, read = sound(report).values(), [row for row in report.rows if row.read]
    return VerifyTally(
        experiments=1,
        checkpoints=len(report.rows),
        verified=len(whole),
        read=len(read),
        failed=len(report.problems),
        bytes_verified=sum(row.size for row in whole),
        bytes_read=sum(row.size for row in read),
        to_read=sum(row.unread for row in report.rows),
        bytes_to_read=report.to_read,
        bytes_expected=report.expected,
    )


def block(report: Report, style: Style) -> str:
    """Show the list and the count of one experiment, and what fails."""
    whole = sound(report)
    cells = [
        (style.name(row.name) + files_of(len(row.with_it)), human_size(row.size), _told(row, style))
        for row in report.rows
    ]
    signs = [" " if row.unread else _sign(style, whole=row.name in whole) for row in report.rows]
    lines = _behind(signs, table((), cells, (1,), style.width and max(style.width - SIGN_WIDTH, 1)).splitlines())
    for number, problem in enumerate(report.problems, 1):
        name = style.name(problem.names[0]) + files_of(len(problem.names) - 1)
        lines.append(f"{_sign(style, whole=False)} Problem: {said_of(name, style.name(problem.text))}")
        if problem.hint and problem.hint not in [following.hint for following in report.problems[number : number + 1]]:
            lines.append(f"    hint: {style.name(problem.hint)}")
    count = count_of(len(report.rows), "checkpoint")
    lines.append(count if len(whole) == len(report.rows) else f"{count}, {len(whole)} of them verified")
    title = style.paint(f"Verifying experiment: {style.name(report.experiment)}", "bold")
    return "\n".join([title, *(f"  {line}" for line in lines), ""])


def _behind(signs: Sequence[str], lines: Sequence[str]) -> list[str]:
    """Write each sign before the first line of its row; a narrow terminal has several lines to a row."""
    each = len(lines) // len(signs) if signs else 1
    return [f"{' ' if number % each else signs[number // each]} {line}" for number, line in enumerate(lines)]


def summary(total: VerifyTally, style: Style, notes: Iterable[str] = ()) -> str:
    """Show the numbers of the whole run, aligned, and the notes below them."""
    to_come = style.preview or total.to_read > 0  # what is left after Ctrl-C
    rows = [
        ("processed", total.experiments, "experiment" + "s" * (total.experiments != 1)),
        ("checkpoints", total.checkpoints, ""),
        ("verified", total.verified, human_size(total.bytes_verified) if total.verified else ""),
        *[("read now", total.read, human_size(total.bytes_read) if total.read else "")] * (not style.preview),
        *[("to read", total.to_read, human_size(total.bytes_to_read) if total.to_read else "")] * to_come,
        ("problems", total.failed, "see above" if total.failed else ""),
    ]
    return summary_of(rows, style, notes, "nothing was read")


def report_as_data(report: Report) -> dict[str, Any]:
    """Turn one report into the JSON form that docs/verify.md describes."""
    whole = sound(report)
    return {
        "experiment": report.experiment,
        "directory": report.directory,
        "state": "problems" if report.problems else "planned" if report.to_read else "verified",
        "checkpoints": [_row_as_data(row, whole=row.name in whole) for row in report.rows],
        "problems": [
            {"id": problem.id, "names": list(problem.names), "text": problem.text, "hint": problem.hint or None}
            for problem in report.problems
        ],
    }


def _told(row: Checked, style: Style) -> str:
    not_sound = "to be read" if row.unread else "not sound" if row.whole else "not whole"
    return "; ".join(_said(row, row.known, style)) if row.known else not_sound


def _said(row: Checked, known: CheckResult, style: Style) -> Iterable[str]:
    """Yield what is known of a sound file."""
    facts, done = known.facts, known.done
    inside = (("epoch", facts.epoch), ("step", facts.step))
    yield ", ".join([facts.kind, *(f"{what} {number}" for what, number in inside if number is not None)])
    if "unsafe load" in done:
        yield f"loaded by RUNNING the code it names ({style.name(', '.join(facts.names[:3]))})"
    elif "load" in done:
        yield "loads"
    if style.verbose:
        yield "checksums compared" if facts.checksums else "no checksums compared"
        yield "read now" if row.read else "known from an earlier run"


def _row_as_data(row: Checked, *, whole: bool) -> dict[str, Any]:
    facts = row.known.facts if row.known else FileContent("")
    return {
        "name": row.name,
        "with_it": list(row.with_it),
        "bytes": row.size,
        "verified": whole,
        "read_now": row.read,
        "format": facts.kind or None,
        "epoch": facts.epoch,
        "step": facts.step,
        "checksums": facts.checksums,
        "loaded": bool(row.known and row.known.done & {"load", "unsafe load"}),
        "imports": list(facts.names),
    }


def _sign(style: Style, *, whole: bool) -> str:
    return style.paint(style.signs["rename" if whole else "problem"], "green" if whole else "red")
