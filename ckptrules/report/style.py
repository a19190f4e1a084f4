"""Formats text for a terminal: signs, colours, tables, numbers."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple
from unicodedata import combining, east_asian_width

from ckptrules.engine.measures import NS, visible, visible_lines

_SIGN_NAMES = ("rename", "trash", "relink", "restore", "arrow", "kept", "problem", "skip", "note")

SIGNS = dict(zip(_SIGN_NAMES, "✓⊗↷↶→·!?*", strict=True))

ASCII_SIGNS = dict(zip(_SIGN_NAMES, ("+", "x", "~", "<", "->", ".", "!", "?", "*"), strict=True))

COLOURS = {"green": "32", "red": "31", "yellow": "33", "dim": "2", "bold": "1"}

GAP = "  "  # between the columns of a table
INDENT = "  "
NARROW = 20  # columns; a text of several words gets at least so many

_COLOUR = re.compile(r"(\x1b\[(?:0|1|2|31|32|33)m)")


class Style(NamedTuple):
    """What the terminal can show, and how much the user wants to see.

    Attributes:
        encoding: decides between ✓ and +, and which letters are escaped.
        width: in columns; 0 in a pipe or a file, where there is no limit.
    """

    colour: bool = False
    encoding: str = "utf-8"
    verbose: bool = False
    preview: bool = False
    width: int = 0

    @property
    def signs(self) -> Mapping[str, str]:
        """The signs in front of lines, in ASCII if the terminal knows no others."""
        try:
            "".join(SIGNS.values()).encode(self.encoding)
        except (UnicodeEncodeError, LookupError):
            return ASCII_SIGNS
        return SIGNS

    def paint(self, text: str, colour: str) -> str:
        """Colour a text, if colours are wanted."""
        return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m" if self.colour else text

    def name(self, text: str) -> str:
        """Escape what is unsafe to show in a file name: control characters, bidi marks, bytes that are no text."""
        if text.isascii() and text.isprintable():
            return text
        shown = visible(text)
        try:
            shown.encode(self.encoding)
        except UnicodeEncodeError:
            return shown.encode(self.encoding, "backslashreplace").decode(self.encoding)
        return shown


def printed(text: str, *, colour: bool) -> str:
    """Escape what a terminal would obey, but for the ends of lines and, if wanted, colours."""
    if not colour or "\x1b" not in text:
        return visible_lines(text)
    parts = _COLOUR.split(text)
    return "".join(part if number % 2 else visible_lines(part) for number, part in enumerate(parts))


def numbers(rows: Sequence[tuple[str, int, str]], label_width: int = 12) -> list[str]:
    """Return the aligned lines of a summary: label, number, note."""
    width = max(len(str(count)) for _, count, _ in rows)
    return [f"  {label:<{label_width}}{count:>{width}}  {note}".rstrip() for label, count, note in rows]


def summary_of(
    rows: Sequence[tuple[str, int, str]], style: Style, notes: Iterable[str], nothing: str = "nothing was changed"
) -> str:
    """Return the last block of a command: its numbers, and notes below them; in a preview, with ``nothing``."""
    title = style.paint("Summary", "bold") + f" ({nothing})" * style.preview
    return "\n".join([title, *numbers(rows), *filter(None, notes), ""])


def few(texts: Sequence[str], most: int = 3) -> str:
    """Join the first of some texts; ``…`` stands for the rest."""
    return ", ".join(texts[:most]) + ", …" * (len(texts) > most)


def by_numbers(name: str) -> tuple[int | str, ...]:
    """Return a sort key for names: ``epoch_9`` before ``epoch_10``."""
    return tuple(int(part) if place % 2 else part for place, part in enumerate(re.split("([0-9]+)", name)))


def columns(text: str) -> int:
    """Count the columns of a text: a wide letter (Unicode, UAX #11) takes two, an accent none."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(letter) else 1 + (east_asian_width(letter) in "WF") for letter in text)


def wrapped(text: str, width: int) -> list[str]:
    """Break a text between its words."""
    return textwrap.wrap(text, max(width, NARROW), break_long_words=False, break_on_hyphens=False)


def table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Collection[int] = (),
    width: int = 0,
    drops: Sequence[str] = (),
    later: Sequence[str] = (),
) -> str:
    """Return rows in aligned columns, under headings if there are any.

    No cell is ever cut. If the table is wider than the terminal, columns are left out, and the last line names them. If
    that is not enough, the first column gets a line of its own, with the others below it; at last, each cell does.

    Args:
        headings: those of the columns, or none.
        rows: the cells.
        right: which columns are aligned to the right, by their numbers.
        width: columns of the terminal; 0 without a limit.
        drops: the headings of the columns that may be left out, in this order.
        later: those that may be left out after them, when the first column has a line of its own.
    """
    shown = [headings, *rows] if headings else rows
    if not shown:
        return ""
    widths = [max(map(columns, column)) for column in zip(*shown, strict=True)]
    padded = [[_padded(cell, widths[n], right=n in right) for n, cell in enumerate(row)] for row in shown]
    may_go, last_to_go = ([headings.index(one) for one in some if one in headings] for some in (drops, later))
    form, chosen = _fitting(widths, may_go, last_to_go, width)
    first, *others = chosen
    if form == "beside":
        lines = [GAP.join(row[n] for n in chosen) for row in padded]
    elif form == "below":
        lines = [line for row in padded for line in (row[first], INDENT + GAP.join(row[n] for n in others))]
    else:
        lines = [line for row in shown for line in (row[first], *(INDENT + row[n] for n in others))]
    lines = [line.rstrip() for line in lines]
    gone = [heading for number, heading in enumerate(headings) if number not in chosen]
    note = wrapped(f"Left out to fit the terminal: {', '.join(gone)}", width) if gone else []
    return "\n".join([*(lines if form == "beside" else filter(None, lines)), *note, ""])


def with_texts(
    headings: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int], width: int, indent: str = ""
) -> str:
    """Return a table whose last column has texts; where a terminal is too narrow for it, they stand below the rows."""
    shown, room = table(headings, rows, right), width and max(width - len(indent), 1)
    if room and max(map(columns, shown.splitlines()), default=0) > room:
        every = [(*headings[:-1], ""), *rows] if headings else rows
        lines = table((), [row[:-1] for row in every], right).splitlines()
        if max(map(columns, lines)) > room:
            lines = [table((), [row[:-1]], width=room).rstrip() for row in every]
        texts = [[INDENT + text for text in wrapped(row[-1], room - len(INDENT))] for row in every]
        blocks = ([line, *below] for line, below in zip(lines, texts, strict=True))
        shown = "".join(f"{line}\n" for block in blocks for line in block if line)
    return textwrap.indent(shown, indent)


def _fitting(
    widths: Sequence[int], may_go: Sequence[int], last_to_go: Sequence[int], width: int
) -> tuple[str, list[int]]:
    """Return which columns stay, and where: ``beside`` each other, ``below`` the first, or ``each`` in a line."""
    for some in _fewer(len(widths), may_go):
        if not width or _breadth(widths, some) <= width:
            return "beside", some
    choices = list(_fewer(len(widths), [*may_go, *last_to_go]))
    fits = (some for some in choices if _breadth(widths, some[1:]) + len(INDENT) <= width)
    below = next(fits, None)
    return ("below", below) if below else ("each", choices[-1])


def _fewer(count: int, drops: Sequence[int]) -> Iterator[list[int]]:
    """Yield which columns stay: all, then one less each time, in the order of ``drops``."""
    for number in range(len(drops) + 1):
        yield [column for column in range(count) if column not in drops[:number]]


def _breadth(widths: Sequence[int], some: Sequence[int]) -> int:
    return sum(widths[column] for column in some) + len(GAP) * (len(some) - 1)


def _padded(cell: str, width: int, *, right: bool) -> str:
    gap = " " * (width - columns(cell))
    return gap + cell if right else cell + gap


def when(mtime_ns: int) -> str:
    """Format a time in nanoseconds since 1970 as date and time in UTC."""
    seconds = mtime_ns // NS
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):  # before the year 1 or after 9999
        return f"{seconds} s since 1970"
