"""One statement over all rows of a table, in one test: a test of its own for each row would take longer than the row."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

Row = TypeVar("Row")
AT_MOST = 10  # failures that are shown


def every(rows: Mapping[str, Row] | Sequence[Row]) -> Callable[[Callable[[Row], None]], Callable[[], None]]:
    """Make a test of what must hold for a row: it goes through all rows, and names those for which it does not hold."""
    named = list(rows.items()) if isinstance(rows, Mapping) else [(row, row) for row in rows]

    def over(holds: Callable[[Row], None]) -> Callable[[], None]:
        def test() -> None:
            _go_through((str(name), partial(holds, row)) for name, row in named)

        test.__name__, test.__doc__, test.__module__ = holds.__name__, holds.__doc__, holds.__module__
        return test

    return over


def every_in_a_folder(rows: Mapping[str, Row]) -> Callable[[Callable[[Path, Row], None]], Callable[[Path], None]]:
    """Do as `every`, with a new folder for each row."""

    def over(holds: Callable[[Path, Row], None]) -> Callable[[Path], None]:
        def test(tmp_path: Path) -> None:
            folders = [tmp_path / str(number) for number in range(len(rows))]
            for folder in folders:
                folder.mkdir()
            _go_through(
                (name, partial(holds, folder, row)) for folder, (name, row) in zip(folders, rows.items(), strict=True)
            )

        test.__name__, test.__doc__, test.__module__ = holds.__name__, holds.__doc__, holds.__module__
        return test

    return over


def every_row(
    names: str | Sequence[str], rows: Iterable[Any], ids: Iterable[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Do as `every` for rows of several values, written as for ``parametrize``; ``tmp_path`` is a new folder for each row."""
    listed, told = list(rows), list(ids)
    values = [{names: row} if isinstance(names, str) else dict(zip(names, row, strict=True)) for row in listed]

    def over(holds: Callable[..., None]) -> Callable[..., None]:
        def statements(folder: Path | None = None) -> Iterator[tuple[str, Callable[[], None]]]:
            for number, row in enumerate(values):
                place = {"tmp_path": folder / str(number)} if folder else {}
                for path in place.values():
                    path.mkdir()
                yield told[number] if told else str(listed[number]), partial(holds, **row, **place)

        def test() -> None:
            _go_through(statements())

        def test_in_folders(tmp_path: Path) -> None:
            _go_through(statements(tmp_path))

        made = test_in_folders if "tmp_path" in inspect.signature(holds).parameters else test
        made.__name__, made.__doc__, made.__module__ = holds.__name__, holds.__doc__, holds.__module__
        return made

    return over


def _go_through(statements: Iterable[tuple[str, Callable[[], None]]]) -> None:
    failures: list[Exception] = []
    count = 0
    for name, holds in statements:
        count += 1
        try:
            holds()
        except Exception as error:  # noqa: BLE001 - whatever it is, the other rows are tested
            error.add_note(f"for: {name}")
            failures.append(error)
    if failures:
        raise ExceptionGroup(f"for {len(failures)} of {count} rows", failures[:AT_MOST])
    assert count
