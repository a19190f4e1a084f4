"""Pure: a save that ended between two files: the newest of a training has less than those before it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, KeysView, Mapping, Sequence
from functools import lru_cache
from itertools import islice

from ckptrules.engine.checkpoints import Checkpoint, order_of
from ckptrules.engine.ruleset import Reason
from ckptrules.engine.words import ENDING

LAST = 3  # saves that are compared
ROLES = frozenset(
    "model net weights params state optimizer optim opt ema scheduler sched scaler g d netg netd gen dis disc "
    "generator discriminator enc dec encoder decoder actor critic student teacher".split()
)
"""Words in a name that say what of a training a file holds, and not which training it is of."""
_WORD = re.compile(r"[^\W\d_]+|\d+")


def cut_short(
    checkpoints: Collection[Checkpoint], unwhole: Collection[str]
) -> tuple[dict[str, Reason], dict[str, Reason]]:
    """Find the newest of each training that lack a file of which the two before have the like: ``netD_epoch_5.pth``.

    Returns why these are not whole, and why those stay that show it: without them, these would count as whole. Where
    one save alone has more than all others, nobody knows which are cut short: it stays until the next.

    The files of one save may be parts of one checkpoint, runs of their own (``netG_``, ``netD_``), differ in their
    endings, or lie in a folder, one for each part of the model. Who was killed in between had not saved the rest; where
    a training has saved less on purpose, that is known as soon as it saves again. What is ``unwhole`` still tells what
    is saved together: nothing else of the newest save counts beside it, where all of it was whole once.
    """
    orders = [order_of(one.fields) for one in checkpoints]
    if len(set(orders)) == len(orders) and not any(one.parts or one.entry.model_parts for one in checkpoints):
        return {}, {}  # each save is one file
    trainings: dict[tuple[object, ...], dict[tuple[int, int], list[Checkpoint]]] = defaultdict(dict)
    for one, order in zip(checkpoints, orders, strict=True):
        run, kind = one.series
        trainings[_training(run), kind].setdefault(order, []).append(one)
    short: dict[str, Reason] = {}
    showing: dict[str, Reason] = {}
    for saves in trainings.values():
        lacking, earlier = _of_newest(saves, unwhole)
        short |= lacking
        showing |= earlier
    return short, showing


def _of_newest(
    saves: Mapping[tuple[int, int], Sequence[Checkpoint]], unwhole: Collection[str]
) -> tuple[dict[str, Reason], dict[str, Reason]]:
    """Return what is cut short of the newest save and why, and what stays because of that."""
    whole = {order: [one for one in saves[order] if one.entry.name not in unwhole] for order in sorted(saves)}
    newest = next((order for order in reversed(whole) if whole[order]), None)
    if newest is None:
        return {}, {}

    def keys(order: tuple[int, int]) -> KeysView[tuple[str, ...]]:
        return _files(saves[order]).keys()

    before = [order for order in reversed(whole) if order < newest]
    sound = [order for order in before if len(whole[order]) == len(saves[order])]
    has, own = _files(whole[newest]), _files(saves[newest])
    by_itself = has.keys() < own.keys() and any(keys(order) == own.keys() for order in sound)
    had = own if by_itself else _files(saves[(sound or before)[0]]) if before else {}
    if not has.keys() < had.keys():
        return {}, {}
    lacks = min(had[like] for like in had.keys() - has.keys())
    # Where not all of a save is whole, it tells by what it has, and not by what it lacks.
    telling = (order for order in before if keys(order) == had.keys() or (order in sound and not by_itself))
    last = [*islice(telling, LAST - 1)]
    if any(keys(order) != had.keys() for order in last):  # they are not saved together each time
        once = all(keys(order) <= has.keys() for order in before if order != sound[0])
        return {}, _names(saves, sound[:1] * once, f"nothing like {lacks} was saved before it, nor since")
    why = f"{lacks}, saved with it, is not" if by_itself else f"nothing like {lacks} was saved with it"
    short = {one.entry.name: Reason(f"is not whole: {why}", one.named_by.place) for one in whole[newest]}
    last += islice((order for order in sound if keys(order) == had.keys()), 1)
    return short, _names(saves, last, f"it shows what {min(short)} lacks")


def _names(
    saves: Mapping[tuple[int, int], Sequence[Checkpoint]], orders: Iterable[tuple[int, int]], why: str
) -> dict[str, Reason]:
    return {one.entry.name: Reason(why) for order in orders for one in saves[order]}


def _files(save: Iterable[Checkpoint]) -> dict[tuple[str, ...], str]:
    """Map what tells the files of one save apart to their paths."""
    found: dict[tuple[str, ...], str] = {}
    for entry in (entry for one in save for entry in (one.entry, *(part.entry for part in one.parts))):
        name, ending = entry.name, ENDING.search(entry.name)
        pieces = [word for word in _WORD.findall(name.casefold()) if word in ROLES]
        found[*pieces, ending[0] if ending else ""] = name
        found |= {(*pieces, path): f"{name}/{path}" for path in entry.model_parts}
    return found


@lru_cache(maxsize=1024)
def _training(run: str) -> tuple[str, ...]:
    """Return what the name of a run tells of the training: all but `ROLES`."""
    return tuple(word for word in _WORD.findall(run.casefold()) if word not in ROLES)
