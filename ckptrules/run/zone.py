"""The zone of this machine as a value: what day and hour it calls a time, with every change of DST."""

from __future__ import annotations

import time
from datetime import UTC, datetime, tzinfo


class Local(tzinfo):
    """The zone that `date` and `ls` show times in (``TZ``, or that of the machine), for `datetime.fromtimestamp`."""

    def fromutc(self, time: datetime) -> datetime:
        """Return the local time, in a zone of the offset and the name that hold then."""
        return time.replace(tzinfo=UTC).astimezone()


LOCAL = Local()  # type: ignore[abstract] # no time keeps this zone, so nobody asks it for more


def zoned(seconds: float) -> str | None:
    """Write a time since 1970 as the clock on the wall shows it, with what that is ahead of UTC; None for no time."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return None
