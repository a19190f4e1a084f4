"""How long a command will take, for its preview: by ``max_rate``, or by the last run here that moved much."""

from __future__ import annotations

import contextlib
import json

from ckptrules.engine.measures import human_size, human_time, rate
from ckptrules.run.options import Common
from ckptrules.run.progress import MUCH
from ckptrules.run.session import Session
from ckptrules.storage.notes import read_note, write_note
from ckptrules.storage.posix import Disk

RATES = "rates"  # the note in the state folder: bytes a second, by command
UNKNOWN = "not known yet, as no such run here has moved a GB"


def expected_time(command: str, options: Common, size: int) -> list[str]:
    """Say in a line how long so many bytes take; nothing where there are none, or few of which nobody knows."""
    text = told(size, options.max_rate, rates(options.outputs_dir).get(command)) if size else ""
    return [f"Expected time: {text}"] if text else []


def told(size: int, max_rate: str | None, last: int | None) -> str:
    """Say how long so many bytes take by the rate that is allowed, or that of the last run, in bytes a second."""
    if max_rate and not (last and last < rate(max_rate)):
        return f"{_time(size, rate(max_rate))}, at max_rate={max_rate}"
    if last:
        return f"{_time(size, last)}, at {human_size(last)}/s as in the last such run here"
    return UNKNOWN if size >= MUCH else ""


def _time(size: int, rate: int) -> str:
    return f"about {human_time(-(-size // rate), up=True)}"


def note_rate(session: Session) -> None:
    """Note how fast a run was that moved much; one that was held back tells nothing of the disk."""
    asked = [(command, options) for command, options in session.line.asked().items() if "max_rate" in options.known()]
    if len(asked) != 1:
        return
    command, options = asked[0]
    if options.max_rate or options.dry_run:
        return
    found = {**rates(options.outputs_dir), command: int(session.bar.passed / session.bar.seconds)}
    with contextlib.suppress(OSError):  # then the next preview knows less
        write_note(Disk(options.outputs_dir), RATES, f"{json.dumps(found, sort_keys=True)}\n")


def rates(outputs_dir: str) -> dict[str, int]:
    """Return what is noted of earlier runs, in bytes a second; what is damaged is not known."""
    with contextlib.suppress(ValueError, RecursionError, AttributeError):
        noted = json.loads(read_note(Disk(outputs_dir), RATES))
        return {command: rate for command, rate in noted.items() if type(rate) is int and rate > 0}
    return {}
