"""Writes what was told as data: JSON and pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ckptrules.run.options import Common
from ckptrules.storage import writing


def targets(options: Common) -> Iterator[tuple[str, Callable[[str, Mapping[str, Any]], None]]]:
    """Yield where the data are wanted, and what writes them there."""
    if options.json:
        yield options.json, writing.write_json
    if options.html:
        yield options.html, _write_page_of


def _write_page_of(path: str, data: Mapping[str, Any]) -> None:
    """Write a page: what is drawn looks at all experiments at once."""
    write_page(path, {key: list(value) if key == "experiments" else value for key, value in data.items()})


def write_page(path: str, data: Mapping[str, Any]) -> None:
    """Draw the page of some data and write it as a whole file.

    Raises:
        OSError: it cannot be written.
        PageError: the data are not those of a run.
    """
    from ckptrules.report.page.drawing import draw

    writing.write_whole(path, draw(data))
