"""Find the last save beside which a file lies that no rule reads, and like which the newest save has none. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from heapq import nlargest

from ckptrules.engine.checkpoints import Checkpoint, number, numbers_told, order_of
from ckptrules.engine.entries import NO_CHECKPOINT_ENDINGS
from ckptrules.engine.names.words import MADE_OF_IT, ending_of
from ckptrules.engine.ruleset import Reason
from ckptrules.engine.whole.cut_short import WORD

SAVES = 5  # of each series that are compared: some in a row may have been cut short
NOTES = (".json", ".txt", ".yaml", ".yml")  # may say at which step a run goes on
_MADE = MADE_OF_IT.difference(["buffer", "stats"])  # what a training may need to go on


def missed(checkpoints: Iterable[Checkpoint], others: Iterable[str]) -> dict[str, Reason]:
    """Return why checkpoints stay: nothing like a file beside them was saved with the newest of their series.

    A training may write such a file last (``DONE_00005000``), or may need it to go on (``step_5000.yaml``), and the
    newest save may have been killed before. Two saves in a row must each have one, and none since. Both stay: without
    them, the next plan would not know.

    Args:
        checkpoints: the whole ones.
        others: the names that are no checkpoints. One belongs to a save if it has its number.
    """
    series: dict[tuple[str, str], dict[tuple[int, int], list[Checkpoint]]] = defaultdict(dict)
    for one in checkpoints:
        if one.series[1]:
            series[one.series].setdefault(one.order or order_of(one.fields), []).append(one)
    last = [[saves[order] for order in nlargest(SAVES, saves)] for saves in series.values()]
    told: dict[int, set[int]] = defaultdict(set)
    for save in (save for saves in last for save in saves):
        told[_count(save[0])].update(numbers_told(save[0].fields).values())
    roles = _roles(told, others) if any(len(saves) > 2 for saves in last) else {}  # noqa: PLR2004 - two before the newest
    found: dict[str, Reason] = {}
    for saves in last:
        each = [roles.get(_count(save[0]), {}) for save in saves]
        since = set[tuple[str, ...]]()
        for place, (after, before, earlier) in enumerate(zip(each, each[1:], each[2:], strict=False), start=1):
            since |= after.keys()
            if lost := before.keys() & earlier.keys() - since:
                why = Reason(f"nothing like {min(before[role] for role in lost)} was saved since")
                shows = Reason(f"it shows what {saves[0][0].entry.name} may lack")
                found |= {one.entry.name: why for one in saves[place]}
                found |= {one.entry.name: shows for one in saves[place + 1]}
                break
    return found


def _count(one: Checkpoint) -> int:
    """Return the number that tells a save apart: its step, or else its epoch or its number."""
    told = numbers_told(one.fields)
    return told.get("step", next(iter(told.values())))


def _roles(told: Mapping[int, set[int]], others: Iterable[str]) -> dict[int, dict[tuple[str, ...], str]]:
    """Map the number of each save to its other files: their names by their words, and by numbers that it does not tell.

    ``told`` are all numbers that each save tells.
    """
    found: dict[int, dict[tuple[str, ...], str]] = defaultdict(dict)
    for name in sorted(others):
        if name.endswith(NO_CHECKPOINT_ENDINGS) and not name.endswith(NOTES):
            continue
        ending = ending_of(name)
        words = [*WORD.findall(name.removesuffix(ending).casefold()), ending]
        for count in told.keys() & map(number, words) if _MADE.isdisjoint(words) else ():
            found[count][tuple(word for word in words if number(word) not in told[count])] = name
    return found
