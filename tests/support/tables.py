"""One statement over all rows of a table, in one test: a test of its own for each row would take longer than the row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

Row = TypeVar("Row")
AT_MOST = 10  # failures that are shown


def every(rows: Mapping[str, Row] | Sequence[Row]) -> Callable[[Callable[[Row], None]], Callable[[], None]]:
    """Make a test of what must hold for a row: it goes through all rows, and names those for which it does not hold."""
    named = list(rows.items()) if isinstance(rows, Mapping) else [(row, row) for row in rows]

    def over(holds: Callable[[Row], None]) -> Callable[[], None]:
        def test() -> None:
            failures: list[Exception] = []
            for name, row in named:
                try:
                    holds(row)
                except Exception as error:  # noqa: BLE001 - whatever it is, the other rows are tested
                    error.add_note(f"for: {name}")
                    failures.append(error)
            if failures:
                raise ExceptionGroup(f"for {len(failures)} of {len(named)} rows", failures[:AT_MOST])
            assert named

        test.__name__, test.__doc__, test.__module__ = holds.__name__, holds.__doc__, holds.__module__
        return test

    return over
