"""`doit catalog`: list all checkpoints, as `ckptrules.catalog` does, as a table, JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from math import isfinite

from ckptrules.discovery import Record, records_in
from ckptrules.engine.actions import Problem
from ckptrules.engine.measures import count_of, human_size, visible
from ckptrules.engine.names.metrics import mode_of
from ckptrules.engine.policy.lines.keep_best import six_digits
from ckptrules.report.style import Style, table
from ckptrules.report.text import files_of
from ckptrules.run import finding, jobs, pinning
from ckptrules.run.options import Common, OneOf, a_file, option
from ckptrules.run.outcome import FAULTS, Done, Prepared, untouched
from ckptrules.run.session import Session
from ckptrules.run.tasks import chosen_of
from ckptrules.storage import writing

HEADINGS = ("experiment", "name", "kind", "epoch", "step", "metric", "size", "verified")
RIGHT = [HEADINGS.index(heading) for heading in ("epoch", "step", "size")]
DROPS = ("kind", "run", "number", "step", "epoch", "verified", "pinned", "metric")
LATER = ("size",)

FORMS = ("table", "json", "csv")


class Options(Common, takes="experiments"):
    """The options of `doit catalog`."""

    format: str = option("table", OneOf(FORMS), f"how it is written: {', '.join(FORMS)}")
    out: str | None = option(None, a_file, "write it to this file")


def prepare(session: Session, options: Options) -> Prepared:
    """Choose the experiments."""
    names = chosen_of(session, "catalog", options, finding.names_of(session, options))
    pinning.pins_of(session, options)  # a damaged file of pins is refused before anything is listed
    return Prepared(partial(show_catalog, session, options, names), names)


def show_catalog(session: Session, options: Options, names: Collection[str]) -> Done:
    """Print the catalog, or write it to a file; a directory that cannot be read is a problem, on stderr."""
    style = session.style(options)
    records: list[Record] = []
    problems: list[Problem] = []
    pins = [pinned.pin._replace(path=pinned.path) for pinned in pinning.all_pinned(session, options)]
    for found in finding.find(session, options):
        if found.experiment not in names:
            continue
        try:
            rules = finding.rules_of(session, options, found.directory)
            records += records_in(options.outputs_dir, rules, found, pins)
        except FAULTS as fault:
            problems += untouched(found, fault).problems
    try:
        text = {"table": as_table, "json": as_json, "csv": as_csv}[options.format](records, style)
        if options.out:
            if not options.dry_run:
                writing.write_report(options.out, text)
            would = "would hold " * options.dry_run
            text = f"{style.name(options.out)}: {would}{count_of(len(records), 'checkpoint')}\n"
    except OSError as error:
        return Done(f"{style.name(str(error.filename))}: {os.strerror(error.errno or 0)}\n", failed=True)
    lack = "" if records or problems else jobs.nothing_understood(session, options)
    lines = [f"Problem: {style.name(problem.names[0])} {problem.text}" for problem in problems]
    for line in (*lines, lack, jobs.uncovered(session, "catalog", options)):
        if line:
            print(session.completed(line), file=sys.stderr)  # stdout, which may be a pipe, gets only the catalog
    return Done(text, as_it_is=True, failed=bool(problems or lack))


def as_table(records: Sequence[Record], style: Style) -> str:
    """Return the records as a table for people, with names escaped as in all reports."""
    rows: list[tuple[str, ...]] = [_row(record, style) for record in records]
    headings: tuple[str, ...] = HEADINGS
    for field in ("number", "run", "pinned"):  # columns that few trees need
        values = [getattr(record, field) for record in records]
        if any(value not in (None, "") for value in values):
            texts = ["" if value is None else style.name(str(value)) for value in values]
            rows = [(*row, text) for row, text in zip(rows, texts, strict=True)]
            headings = (*headings, field)
    return f"{table(headings, rows, RIGHT, style.width, DROPS, LATER)}{count_of(len(records), 'checkpoint')}\n"


def as_json(records: Sequence[Record], _: Style) -> str:
    """Return the records as a list of objects; a NaN or infinity is null, as JSON has none."""
    finite = (record if isfinite(record.value or 0) else record._replace(value=None) for record in records)
    return json.dumps([record._asdict() for record in finite], indent=1) + "\n"


def as_csv(records: Sequence[Record], _: Style) -> str:
    """Return the records as lines with a heading; control characters and bytes that are no text are escaped."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(Record._fields)
    writer.writerows([_cell(field) for field in record] for record in records)
    return file.getvalue()


def _cell(field: object) -> object:
    if isinstance(field, Mapping):
        field = " ".join(f"{key}={value}" for key, value in field.items())
    return visible(field) if isinstance(field, str) else field


def _metric(record: Record) -> str:
    """Return the metric in the name, or else a well-known one in files, one of a validation before others."""
    if record.metric is not None:
        return f"{record.metric} {six_digits(str(record.value))}"
    known = sorted(filter(mode_of, record.metrics), key=lambda key: "val" not in key.lower())
    return f"{known[0]} {six_digits(str(record.metrics[known[0]]))}" if known else ""


def _row(record: Record, style: Style) -> tuple[str, ...]:
    return (
        style.name(record.experiment),
        style.name(os.path.basename(record.path)) + files_of(record.files - 1),
        record.kind,
        "" if record.epoch is None else str(record.epoch),
        "" if record.step is None else str(record.step),
        style.name(_metric(record)),
        human_size(record.size),
        "yes" if record.verified else "",
    )
