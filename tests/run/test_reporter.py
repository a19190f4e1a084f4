"""What is told, and with which code a run ends, where doit gives up."""

from __future__ import annotations

import io

import pytest

from ckptrules.run.command_line import command_line
from ckptrules.run.reporter import Reporter
from ckptrules.run.session import Session


def test_a_run_that_doit_gives_up_tells_why_and_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    """It ends the report in any case; that nothing was understood, say, would not be true."""
    reporter = Reporter(Session(command_line(["plan"]), {}), io.StringIO(), {})

    def give_up() -> None:
        try:
            raise RuntimeError("can't start new thread")
        finally:
            reporter.complete_run()

    with pytest.raises(SystemExit) as end:
        give_up()
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith(
        "ERROR: not all was done: RuntimeError: can't start new thread\n"
        "    hint: run again, with fewer processes (-n 0 in front of the command); "
    )
