"""Writes the results of `doit verify` as text and as JSON. Decides nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from ckptrules.engine.actions import Problem, said_of
from ckptrules.engine.measures import count_of, human_size, noun_of
from ckptrules.formats.content import FileContent
from ckptrules.report.style import Style, by_numbers, summary_of, table
from ckptrules.report.text import files_of
from ckptrules.verify.check import Report, sound
from ckptrules.verify.faults import OLD_NAME
from ckptrules.verify.memory import CheckResult
from ckptrules.verify.portion import ReportRow

NOT_UNDERSTOOD = ("unknown_format", "not_read")  # ids of problems that do not say that anything is broken
SIGN_WIDTH = 4  # columns of a sign and the blanks around it


class VerifyTally(NamedTuple):
    """The numbers of a run, or of one of its experiments. ``failed`` counts problems.

    ``bytes_expected`` is how many of ``bytes_to_read`` a check reads: of some formats, only the header.
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
    """Return the text on one experiment: a line for each checkpoint, the problems, and the count."""
    whole, rows = sound(report), sorted(report.rows, key=lambda row: by_numbers(row.name))
    unknown = {name for one in report.problems if one.id in NOT_UNDERSTOOD for name in one.names}
    cells = [
        (style.name(row.name) + files_of(len(row.other_names)), human_size(row.size), _state_of(row, unknown, style))
        for row in rows
    ]
    signs = [" " if row.unread else _sign(style, whole=row.name in whole) for row in rows]
    lines = _with_signs(signs, table((), cells, (1,), style.width and max(style.width - SIGN_WIDTH, 1)).splitlines())
    problems = in_short(report.problems)
    for number, problem in enumerate(problems, 1):
        name = style.name(problem.names[0]) + files_of(len(problem.names) - 1)
        lines.append(f"{_sign(style, whole=False)} Problem: {said_of(name, style.name(problem.text))}")
        if problem.hint and problem.hint not in [following.hint for following in problems[number : number + 1]]:
            lines.append(f"    hint: {style.name(problem.hint)}")
    count = count_of(len(report.rows), "checkpoint")
    lines.append(count if len(whole) == len(report.rows) else f"{count}, {len(whole)} of them verified")
    title = style.paint(f"Verifying experiment: {style.name(report.experiment)}", "bold")
    return "\n".join([title, *(f"  {line}" for line in lines), ""])


def in_short(problems: Sequence[Problem]) -> list[Problem]:
    """Return the problems, those of several old names as one: each name stands in the list above them."""
    old = [problem for problem in problems if problem.id == OLD_NAME]
    if not old[1:]:
        return [*problems]
    hint = "'doit migrate' renames them; 'doit plan' shows the new names"
    one = Problem(OLD_NAME, old[0].names, f"and {len(old) - 1} more have old names", hint)
    return [*(problem for problem in problems if problem.id != OLD_NAME), one]


def _with_signs(signs: Sequence[str], lines: Sequence[str]) -> list[str]:
    """Put each sign before the first line of its row; on a narrow terminal, a row has several lines."""
    each = len(lines) // len(signs) if signs else 1
    return [f"{' ' if number % each else signs[number // each]} {line}" for number, line in enumerate(lines)]


def summary(total: VerifyTally, style: Style, notes: Iterable[str] = ()) -> str:
    """Return the text on the whole run: aligned numbers, and the notes below them."""
    to_come = style.preview or total.to_read > 0  # after Ctrl-C, some are left
    rows = [
        ("processed", total.experiments, noun_of(total.experiments, "experiment")),
        ("checkpoints", total.checkpoints, ""),
        ("verified", total.verified, human_size(total.bytes_verified) if total.verified else ""),
        *[("read now", total.read, human_size(total.bytes_read) if total.read else "")] * (not style.preview),
        *[("to read", total.to_read, human_size(total.bytes_to_read) if total.to_read else "")] * to_come,
        ("problems", total.failed, "see above" if total.failed else ""),
    ]
    return summary_of(rows, style, notes, "nothing was read")


def report_as_data(report: Report) -> dict[str, Any]:
    """Return one report in the JSON form that docs/json.md describes."""
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


def _state_of(row: ReportRow, unknown: Collection[str], style: Style) -> str:
    if row.result:
        return "; ".join(_details(row, row.result, style))
    if row.unread:
        return "to be read"
    return "not understood" if row.name in unknown else "not sound" if row.whole else "not whole"


def _details(row: ReportRow, result: CheckResult, style: Style) -> Iterable[str]:
    """Yield what is known of a sound checkpoint."""
    content, done = result.content, result.done
    inside = (("epoch", content.epoch), ("step", content.step))
    yield ", ".join([content.kind, *(f"{what} {number}" for what, number in inside if number is not None)])
    if "unsafe load" in done:
        yield f"loaded by RUNNING the code it names ({style.name(', '.join(content.names[:3]))})"
    elif "load" in done:
        yield "loads"
    if style.verbose:
        yield "checksums compared" if content.checksums else "no checksums compared"
        yield "read now" if row.read else "known from an earlier run"


def _row_as_data(row: ReportRow, *, whole: bool) -> dict[str, Any]:
    content = row.result.content if row.result else FileContent("")
    return {
        "name": row.name,
        "with_it": list(row.other_names),
        "bytes": row.size,
        "verified": whole,
        "read_now": row.read,
        "format": content.kind or None,
        "epoch": content.epoch,
        "step": content.step,
        "checksums": content.checksums,
        "loaded": bool(row.result and row.result.done & {"load", "unsafe load"}),
        "imports": list(content.names),
    }


def _sign(style: Style, *, whole: bool) -> str:
    return style.paint(style.signs["rename" if whole else "problem"], "green" if whole else "red")
