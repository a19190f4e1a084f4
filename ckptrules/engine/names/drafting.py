"""Draft a format for names that no rule knows, for a person to confirm. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import pairwise
from typing import NamedTuple

from ckptrules.engine.checkpoints import number
from ckptrules.engine.entries import in_part_folder
from ckptrules.engine.measures import count_of
from ckptrules.engine.names.lookalikes import looks_like
from ckptrules.engine.names.metrics import mode_of
from ckptrules.engine.names.words import BEGIN_ANEW, ENDING, ITEMS, KEYS, PARTS, PIECES, SETTINGS
from ckptrules.engine.shapes import in_yaml

SOME = 20  # names of one kind that a draft is made from
COLUMN = 32  # where comments begin
MOST = 7  # digits without leading zeros of a number that no word explains; a longer one is a day or a time
_PARTS = PARTS.difference(BEGIN_ANEW)
_APART = frozenset(
    "bin bits block bootstrap bs channel chr chromosome client cluster consolidated day days degree depth dim "
    "dims domain exp experiment fidelity freq group head hidden horizon hour hours kfold layer layers lead "
    "leadtime member month noise octave percentile precision quantile rate ratio region rep repeat replica "
    "replicate res resolution run scale scales season size snr station subject threshold tile v variant ver "
    "version week width zone".split()
).union(_PARTS, PIECES, SETTINGS, BEGIN_ANEW.difference(["round"]))
"""Words before a number that counts no progress: checkpoints that differ in it must not replace each other."""
_MODELS = frozenset("densenet dinov efficientnet gpt resnet resnext rn sd vgg vit wf yolov f h l p r x".split())
"""Words right before the number of a model, or of what a letter stands for: ``resnet18``, fold ``f0``, scale ``x4``."""
_SEVERAL = frozenset(
    "adapter actor agent asset attempt bag band branch bucket building camera cat category center chain choice city "
    "class classifier codebook component config corpus critic decoder discriminator encoder endpoint ensemble env "
    "estimator expert factor forest game gene head hospital house individual island joint lang language learner level "
    "lora machine map member mixture mlp mode obj object opponent option order param participant partition plane "
    "player policy pop product prompt property q qf quantizer residue robot room route scenario sensor setting singer "
    "site skill speaker species stock store stream student submodel subnet subset target teacher team tower tree try "
    "turbine value vf view voice".split()
)
"""Words before a number of one digit that counts networks, things or attempts; a longer one may count steps."""
_YEARS = range(1980, 2036)
_MOMENT = re.compile(
    r"(?<!\d)(?:(?:19|20)\d\d([-_.])\d\d\1\d\d|\d\d([-_.:])\d\d\2\d\d|(?:19|20)\d{6}[-_T]?(?:[01]\d|2[0-3])[0-5]\d(?:[0-5]\d)?)(?!\d)"
    r"|(?<![A-Za-z])(?:\d\d?[-_.]?)?(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*[-_.]?(?:\d\d?[-_.])?(?:19|20)\d\d(?!\d)",
    re.IGNORECASE,
)
"""A day, a time of day, or both: ``2024-01-15``, ``09-30-00``, ``20240115-0930``, ``Jan-15-2024``, ``15Jan2024``."""
_OF = re.compile(r"[-_. ]?of[-_. ]?", re.IGNORECASE)  # 1of2, 00001-of-00003
_PIECE = re.compile(r"\d+\.\d+|\d+|\D+", re.ASCII)  # as in rules, other digits (², ٣) count as letters
_ORDINAL_OR_UNIT = re.compile(r"(?:st|nd|rd|th|[kKmMbB])(?![A-Za-z])")  # 1st_, 1M: no number of epochs or steps
_METRIC = re.compile(r"([A-Za-z]+(?:_[A-Za-z]+)*)(?:-|[^A-Za-z0-9]*(?<!-))\Z")  # ``loss-0.5``; ``=-0.5`` is negative
_LAST_WORD = re.compile(r"([A-Za-z]+)[^A-Za-z0-9]*\Z")
_KEY = re.compile(r"[^A-Za-z0-9]*[A-Za-z]+[^A-Za-z0-9]*\Z")  # the word that explains a number


def draft(name: str, others: Iterable[str], *, folder: bool = False) -> list[str]:
    """Return the lines of a format that fits a name and all that differ from it only in numbers; empty without a draft.

    The number after a word for epoch or step orders the checkpoints, or else the only number that differs. Other
    numbers that differ are metrics, the part of one checkpoint (``rank0``), or of the run if they stand in front:
    checkpoints of two runs must never replace each other. There is no draft with others behind it, where only folds,
    ranks, settings or times differ, or for items of a data set. Numbers that do not differ stay as text.

    Args:
        name: the name that the format must fit.
        others: names that no rule knows. If some look like checkpoints and differ in more than numbers, the text before
            the number, or before its word, is the run (``encoder_5.pt``, ``decoder_7.pt``), and none may follow it.
        folder: whether the name is of a folder.
    """
    if not name.isprintable():
        return []  # copied from a terminal, the name would be another one
    ending = ENDING.search(name)
    stem = name[: ending.start()] if ending else name
    pieces = _PIECE.findall(stem)
    every = {other: _PIECE.findall(ENDING.sub("", other)) for other in others} | {name: pieces}
    rows = [row for row in every.values() if _is_alike(row, pieces)]
    beside = any(looks_like(other) and not _is_alike(row, pieces) for other, row in every.items())
    varying = {n for n, piece in enumerate(pieces) if _is_number(piece) and len({row[n] for row in rows}) > 1}
    fields = _fields(pieces, rows, varying)
    parts = {n: "part" for n in varying if _is_part(pieces, n)}
    groups = fields | parts | {n: metric for n in varying if n not in fields and (metric := _metric(pieces, n))}
    if not fields or len(set(groups.values())) < len(groups) or _is_item(pieces, fields):
        return []
    first, of_run = min(groups), varying - groups.keys()
    if any(n > first for n in of_run) or (beside and (first not in fields | parts or max(groups) < len(pieces) - 1)):
        return []
    pattern = [_pattern(piece, groups.get(n, ""), n in varying) for n, piece in enumerate(pieces)]
    if first and (beside or of_run):
        text = pieces[first - 1]
        key = _KEY.search(text) if fields.get(first, "number") != "number" else None
        end = key.start() if key else len(text)
        run = "".join([*pattern[: first - 1], _escaped(text[:end])])
        pattern[:first] = [f"(?P<run>{run})" if run else "", _escaped(text[end:])]
    match = "".join(pattern) + _escaped(ending[0] if ending else "")
    read = ", ".join(f"{field}: {int(pieces[n])}" for n, field in fields.items())
    word = re.search(r"[A-Za-z]+", stem)
    return [
        "formats:",
        f"  - id: {word[0].lower() if word else 'mine'}",
        f"    match: {in_yaml(match)}",
        *["    folder: true"] * folder,
        f"    examples: {{{in_yaml(name)}: {{{read}}}}}",
    ]


class Unread(NamedTuple):
    """Names that no rule knows, look like checkpoints and differ only in numbers.

    ``kind`` is the name with 0 for each number, ``number`` how many names there are, and ``names`` are some of them.
    """

    kind: str
    folder: bool
    number: int
    names: tuple[str, ...]


def drafts(names: Iterable[tuple[str, bool]]) -> dict[str, list[str]]:
    """Return the lines of a format for each name that looks like a checkpoint; names of one kind share them.

    ``names`` are those that no rule knows, each with whether it is a folder.
    """
    alike = [*_alike(names)]
    formats = drafted([one for _, one in alike])
    return {name: lines for (members, _), lines in zip(alike, formats, strict=True) if lines for name in members}


def drafted(kinds: Sequence[Unread]) -> list[list[str]]:
    """Return the lines of a format for each of several kinds of names in one directory."""
    firsts = [one.names[0] for one in kinds]
    return [draft(one.names[0], [*one.names[:SOME], *firsts], folder=one.folder) for one in kinds]


def unread(names: Iterable[tuple[str, bool]]) -> tuple[Unread, ...]:
    """Return the kinds of names, which are as in `drafts`, with some names of each."""
    return tuple(one._replace(names=one.names[:SOME]) for _, one in _alike(names))


def joined(unread: Iterable[Unread]) -> list[tuple[Unread, list[str]]]:
    """Join the kinds of several directories; return each with the lines of its draft, most names first."""
    kinds: dict[tuple[str, bool], Unread] = {}
    for one in unread:
        old = kinds.get(one[:2], one._replace(number=0, names=()))
        kinds[one[:2]] = one._replace(number=old.number + one.number, names=(*sorted({*old.names, *one.names})[:SOME],))
    every = [*kinds.values()]
    return sorted(zip(every, drafted(every), strict=True), key=lambda pair: (-pair[0].number, pair[0][:2]))


def why_none(kind: Unread) -> str:
    """Return why names with a number have no draft; empty for names without one."""
    stem = ENDING.sub("", kind.names[0])
    pieces = _PIECE.findall(stem)
    if _MOMENT.search(stem):
        return "a format of yours can read a date as datetime"
    if any(_is_number(piece) and _ORDINAL_OR_UNIT.match(behind) for piece, behind in pairwise(pieces)):
        return "a number with a unit, as 10k, is not compared with one without"
    return "it is unclear which number, if any, counts the saves of one run" if any(map(_is_number, pieces)) else ""


def numbers_of(kind: Unread) -> set[tuple[str, ...]]:
    """Return the numbers in each name of a kind: names with the same ones may be of one save."""
    return {tuple(filter(_is_number, _PIECE.findall(ENDING.sub("", name)))) for name in kind.names}


def format_lines(kinds: Iterable[tuple[Unread, Sequence[str]]]) -> list[str]:
    """Return the formats of several kinds of names below one key ``formats``, each with its own id."""
    lines, ids = ["formats:"], set[str]()
    for one, (_, head, *rest) in kinds:
        id_ = head + f"_{len(ids) + 1}" * (head in ids)
        ids.add(id_)
        lines += [f"{id_.ljust(COLUMN)} # {count_of(one.number, 'name')}", *rest]
    return lines


def _alike(names: Iterable[tuple[str, bool]]) -> Iterator[tuple[list[str], Unread]]:
    """Yield the names of each kind, and the kind, whose names have no part folder."""
    alike: dict[tuple[str, bool], list[str]] = defaultdict(list)
    for name, folder in names:
        if looks_like(in_part_folder(name)[1]):
            kind = _PIECE.sub(lambda piece: "0" if _is_number(piece[0]) else piece[0], name)
            alike[kind, folder].append(name)
    for (kind, folder), members in alike.items():
        yield members, Unread(kind, folder, len(members), tuple(in_part_folder(name)[1] for name in members))


def _is_number(piece: str) -> bool:
    return piece[0].isascii() and piece[0].isdigit()


def _may_count(pieces: Sequence[str], place: int) -> bool:
    """Return whether a number may count epochs or steps: whole, no ordinal, without a unit, not of a fold or part."""
    behind = pieces[place + 1] if place + 1 < len(pieces) else ""
    word = _word(pieces, place)
    is_apart = _OF.fullmatch(behind) or word in _APART or (word in _MODELS and pieces[place - 1][-1].isalpha())
    return number(pieces[place]) is not None and not is_apart and not _ORDINAL_OR_UNIT.match(behind)


def _is_item(pieces: Sequence[str], fields: Mapping[int, str]) -> bool:
    """Return whether the last word before the numbers, and before the word that explains them, is one of `ITEMS`."""
    words = re.findall("[a-z]+", "".join(pieces[: min(fields)]).lower())
    return next((word for word in reversed(words) if word not in KEYS), "") in ITEMS


def _word(pieces: Sequence[str], place: int) -> str:
    """Return the word before a number in lower case; empty without one."""
    word = _LAST_WORD.search(pieces[place - 1]) if place else None
    return word[1].lower() if word else ""


def _is_part(pieces: Sequence[str], place: int) -> bool:
    """Return whether a number says which of several files of one checkpoint this is."""
    return _word(pieces, place) in _PARTS or any(map(_OF.fullmatch, pieces[place + 1 : place + 2]))


def _is_alike(row: Sequence[str], pieces: Sequence[str]) -> bool:
    """Return whether two names differ only in numbers."""
    return len(row) == len(pieces) and all(
        one == other or (_is_number(one) and _is_number(other)) for one, other in zip(row, pieces, strict=True)
    )


def _fields(pieces: Sequence[str], rows: Sequence[Sequence[str]], varying: AbstractSet[int]) -> dict[int, str]:
    """Return the places of epoch and step by the words before them; else the place of the one number that may count."""
    if fields := {n: field for n in range(len(pieces)) if (field := _field(pieces, n))}:
        return fields
    counting = [
        n
        for n in sorted(varying) or range(len(pieces))
        if _may_count(pieces, n)
        and (varying or not "".join(pieces[:n]).endswith("--"))  # -1, of what is always the newest
        and len(pieces[n].lstrip("0")) <= MOST
        and not _tells_apart(_word(pieces, n), {int(row[n]) for row in rows})
        and not all(_is_of_moment(row, n) for row in rows)
    ]
    others = {n for n in varying if not _is_part(pieces, n)}
    return {counting[-1]: "number"} if counting and others <= {counting[-1]} else {}


def _tells_apart(word: str, numbers: set[int]) -> bool:
    """Return whether numbers are those of networks, or years, or sizes: ``critic2``, ``era5_2020``, ``unet_256``."""
    are_sizes = len(numbers) > 1 and all(number >= 16 and number.bit_count() == 1 for number in numbers)  # noqa: PLR2004 - else counted from 1
    return are_sizes or numbers.issubset(_YEARS) or (word in _SEVERAL and max(numbers) < 10)  # noqa: PLR2004 - one digit


def _field(pieces: Sequence[str], place: int) -> str:
    """Return ``epoch`` or ``step`` by the word before a number; empty for another word."""
    return KEYS.get(_word(pieces, place), "") if _may_count(pieces, place) else ""


def _metric(pieces: Sequence[str], place: int) -> str:
    """Return the metric whose name stands before a number; empty without one, and for ``1.2e-05`` or ``40k``."""
    goes_on = pieces[place + 1 : place + 2] and pieces[place + 1][0].isalpha()
    word = None if goes_on or not place else _METRIC.search(pieces[place - 1])
    return word[1] if word and mode_of(word[1]) else ""


def _is_of_moment(row: Sequence[str], place: int) -> bool:
    """Return whether a number is part of a day or a time of day, together with the text around it."""
    start = len("".join(row[:place]))
    return any(found.start() <= start < found.end() for found in _MOMENT.finditer("".join(row)))


def _pattern(piece: str, field: str, varies: bool) -> str:  # noqa: FBT001 - a place has all three
    number = r"\d+\.\d+" if "." in piece else r"\d+"
    if field:
        return f"(?P<{field}>{number})"
    return number if varies else _escaped(piece)


def _escaped(text: str) -> str:
    return "".join(letter if letter in "- =" else re.escape(letter) for letter in text)
