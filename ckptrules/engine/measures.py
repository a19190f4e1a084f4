"""Read times and sizes, write them and numbers of things for people, and add up bytes: each file counts once. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from ckptrules.engine.entries import HardLinks

NS = 1_000_000_000  # a second in nanoseconds
SECONDS = {"y": 31_536_000, "mo": 2_592_000, "w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
ROUNDS_UP = 999.5  # three digits would show this as 1000
UNITS = ("B", "KB", "MB", "GB", "TB", "PB")
BYTES = {unit: 1000**power for power, unit in enumerate(UNITS)} | {
    unit: 1024**power for power, unit in enumerate(("KiB", "MiB", "GiB", "TiB", "PiB"), start=1)
}
_TIME = re.compile(r"([0-9]{1,9})(y|mo|[wdhms])")
_LIMIT = re.compile(r"[1-9][0-9]{0,8}|(?:[1-9][0-9]?|100)%")
_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,6})?) ?([KMGTP]i?B|B)")


def seconds(text: str) -> int:
    """Read a time such as ``7d``. A month (``mo``) has 30 days, a year (``y``) 365; ``m`` are minutes.

    Raises:
        ValueError: the text is no time, or 0; the message says what is wanted.
    """
    match = _TIME.fullmatch(text)
    if match is None or int(match[1]) == 0:
        raise ValueError("a time such as 7d (with y, mo, w, d, h, m or s)")
    return int(match[1]) * SECONDS[match[2]]


def size(text: str) -> int:
    """Read a size such as ``200GB``.

    Raises:
        ValueError: the text is no size, or less than a byte; the message says what is wanted.
    """
    match = _SIZE.fullmatch(text)
    read = int(float(match[1]) * BYTES[match[2]]) if match else 0
    if read < 1:
        raise ValueError("a size such as 200GB (with KB, MB, GB, TB, or KiB, MiB, GiB, TiB)")
    return read


def rate(text: str) -> int:
    """Read a rate such as ``2GB/s``, in bytes a second.

    Raises:
        ValueError: the text is no rate; the message says what is wanted.
    """
    amount, _, unit = text.rpartition("/")
    try:
        return size(amount if unit == "s" else "")
    except ValueError:
        raise ValueError("a rate such as 2GB/s or 500MB/s (with KB, MB, GB, TB, or KiB, MiB, GiB, TiB)") from None


def max_delete(text: str) -> str:
    """Read a limit for deletions: ``25`` or ``20%``.

    Raises:
        ValueError: the text is neither; the message says what is wanted.
    """
    if _LIMIT.fullmatch(text) is None:
        raise ValueError("a number of checkpoints, 1 or more, or a percentage such as 20%")
    return text


def taken(sizes: int, links: Collection[HardLinks], counted: set[tuple[int, int]] | None = None) -> int:
    """Return the bytes that names take, given the sum of their sizes: a file with several names counts once.

    Files in ``counted`` (device and inode) were counted before and add nothing. The files of ``links`` are added to it.
    """
    counted = set() if counted is None else counted
    once = {link[:3] for link in links if link[:2] not in counted}
    counted.update(link[:2] for link in once)
    return sizes - sum(link.size * link.here for link in links) + sum(size for _, _, size in once)


def freed(sizes: int, links: Iterable[HardLinks]) -> int:
    """Return the bytes that become free when names are removed: a file with other names elsewhere frees nothing."""
    found = list(links)
    return taken(sizes, found, still_there(found))


def still_there(links: Collection[HardLinks]) -> set[tuple[int, int]]:
    """Return the files (device and inode) that still have other names when these are removed."""
    gone = Counter[tuple[int, int]]()
    for link in links:
        gone[link[:2]] += link.here
    return {link[:2] for link in links if gone[link[:2]] < link.names}


def human_time(time: int, *, up: bool = False) -> str:
    """Write seconds in the largest of d, h, m and s that fits: ``9d``; ``up`` rounds up instead of down."""
    unit = next((unit for unit in "dhm" if time >= SECONDS[unit]), "s")
    whole, rest = divmod(max(time, 0), SECONDS[unit])
    return f"{whole + bool(up and rest)}{unit}"


def visible(text: str) -> str:
    """Return one line of text with control characters, bidi marks and undecodable bytes escaped."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def visible_lines(text: str) -> str:
    """Return a text of several lines, each as `visible`."""
    return "\n".join(map(visible, text.split("\n")))


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def written(limit: int) -> str:
    """Write a size for a rule file, so that it reads back as at least as many bytes: ``31.4GB``, or the exact bytes."""
    text = human_size(limit).replace(" ", "")
    return text if size(text) >= limit else f"{limit}B"


def human_size(size: int) -> str:
    """Write bytes for people, in steps of 1000: ``31.4 GB``."""
    value, power = float(size), 0
    while value >= ROUNDS_UP and UNITS[power + 1 :]:
        value, power = value / 1000, power + 1
    return f"{value:.3g} {UNITS[power]}" if power else f"{size} B"


def noun_of(number: int, one: str, many: str = "") -> str:
    """Return the singular or the plural of a noun: ``checkpoint`` for 1, ``checkpoints`` for 2."""
    return one if number == 1 else many or one + "s"


def count_of(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun: ``1 checkpoint``, ``2 checkpoints``."""
    return f"{number} {noun_of(number, one, many)}"


def and_more(names: Sequence[str], most: int = 1) -> str:
    """Return the first ``most`` of several names, and how many there are beside: ``a, b and 3 more``."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
