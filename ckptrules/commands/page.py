"""`doit page`: draw a plan as one HTML file."""

from __future__ import annotations

import json
import os
import webbrowser
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ckptrules.commands import plan
from ckptrules.engine.entries import Directory
from ckptrules.report.page.drawing import PageError, draw, unpacked
from ckptrules.report.style import Style
from ckptrules.run.experiments import experiments, in_tally
from ckptrules.run.jobs import Job
from ckptrules.run.options import Common, Migrating, OptionError, a_page, flag, option, some_text
from ckptrules.run.outcome import Done, Prepared
from ckptrules.run.refusing import refuse_missing_outputs
from ckptrules.run.session import Session
from ckptrules.run.tasks import TaskDict, one_task
from ckptrules.storage.believing import read_plain
from ckptrules.storage.reading import why_of
from ckptrules.storage.writing import write_report


class Options(Migrating, takes="experiments json"):
    """The options of `doit page`: those of `doit plan`, and where the page goes."""

    finds_outputs = False
    shares = True
    delete_old: bool = flag("show what would go; with 0 only what would be renamed", default=True)
    out: str = option("checkpoints.html", a_page, "the file that the page is written to")
    open: bool = flag("show the page in a browser")
    plan: str | None = option(None, some_text, "draw this JSON, or page, of an earlier run; no checkpoint is looked at")


def tasks(session: Session, options: Options) -> Iterator[TaskDict]:
    """Make one task for each checkpoint directory, which only previews; with ``plan=FILE`` one that draws that file."""
    if options.plan is not None:
        yield from one_task(session, "page", prepare_again, options)
        return
    refuse_missing_outputs(options.outputs_dir)
    given = {name: getattr(options, name) for name in plan.Options.attributes}
    asked = plan.Options(**given).but(dry_run=True, html=None if options.dry_run else options.out)
    yield from experiments(session, "page", asked, work, in_tally, drawn=partial(drawn, options))


def work(job: Job, found: Directory) -> Done:
    """Plan one checkpoint directory, and print nothing, as the page shows the plan."""
    done = plan.work(job, found)
    return done._replace(text="")


def drawn(options: Options, shown: str, path: str) -> Iterator[str]:
    """Yield lines on the page that was drawn, and open it in a browser, if asked to."""
    yield f"Page: {shown}"
    if options.open and not webbrowser.open(Path(os.path.abspath(path)).as_uri()):
        yield "No browser was found here: copy the file, it needs no other."


def prepare_again(session: Session, options: Options) -> Prepared:
    """Draw the page from the data of an earlier run.

    Raises:
        OptionError: the file has no such data, or there are options that would change a plan.
    """
    style, path = session.style(options), str(options.plan)
    if useless := [
        *sorted(options.typed().keys() - {"plan", "out", "open", *Common.known()}),
        *session.selected("page"),
    ]:
        raise OptionError(f"page draws {path} as it is, whatever '{useless[0]}' says", "leave that out")
    try:
        page = draw(read_data(path))
    except PageError as error:
        hint = "'doit plan delete_old=1 json=plan.json' writes what a page is drawn from"
        raise OptionError(f"{style.name(path)}{error}", hint, place="") from None
    return Prepared(partial(write_again, options, page, style))


def write_again(options: Options, page: str, style: Style) -> Done:
    """Write the page, unless this is a dry run."""
    shown = style.name(options.out)
    try:
        if not options.dry_run:
            write_report(options.out, page)
    except OSError as error:
        return Done(f"ERROR: {shown} cannot be written: {why_of(error)}\n", failed=True)
    lines = [] if options.dry_run else drawn(options, shown, options.out)
    return Done("".join(f"{line}\n" for line in lines))


def read_data(path: str) -> Any:
    """Read the data in a JSON file, or in a page.

    Raises:
        PageError: the file cannot be read, or has no JSON; the message is the rest of a sentence after the path.
    """
    try:
        text = read_plain(path)
        return unpacked(text) if text.startswith("<!doctype") else json.loads(text)
    except json.JSONDecodeError as error:
        raise PageError(f":{error.lineno}:{error.colno}: {error.msg}") from error
    except PageError:
        raise
    except OSError as error:
        raise PageError(f": {why_of(error)}") from error
    except (ValueError, RecursionError) as error:
        raise PageError(": it is no JSON") from error
