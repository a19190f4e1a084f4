"""The zone of this machine as a value: what day and hour it calls a time, with every change of DST."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, tzinfo


class Local(tzinfo):
    """The zone that `date` and `ls` show times in (``TZ``, or that of the machine)."""

    def fromutc(self, time: datetime) -> datetime:
        """Return the local time, in a zone of the offset and the name that hold then."""
        return time.replace(tzinfo=UTC).astimezone()

    def utcoffset(self, time: datetime | None) -> timedelta | None:
        """Return what the clock on the wall is ahead of UTC."""
        return time.replace(tzinfo=None).astimezone().utcoffset() if time else None

    def tzname(self, time: datetime | None) -> str | None:
        """Return what the zone is called then."""
        return time.replace(tzinfo=None).astimezone().tzname() if time else None

    def dst(self, _: datetime | None) -> timedelta | None:
        """Say nothing: the offset tells all."""
        return None


LOCAL = Local()


def zoned(seconds: float) -> str | None:
    """Write a time since 1970 as the clock on the wall shows it, with what that is ahead of UTC; None for no time."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return None
