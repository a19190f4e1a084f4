"""What history says became of a run."""

from __future__ import annotations

import pytest

from ckptrules.changes.history import read_history
from ckptrules.changes.record import RunRecord
from ckptrules.run.past import state_of


@pytest.mark.parametrize("how", ["stopped", "interrupted"])
def test_a_purge_that_ended_before_its_time_is_called_so(how: str) -> None:
    """It has no changes to be counted, and read "0 done"; after Ctrl-C it read "done"."""
    record = RunRecord("20260101T000000Z-1", {"command": "purge"}, (), ())
    (run,) = read_history([record])
    assert state_of(run) == "done"
    assert state_of(run._replace(stopped=how == "stopped", interrupted=how == "interrupted")) == how
