"""Find a save that was killed between two of its files: the newest one has fewer files than those before it. Pure."""

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
    "model net nets weights params state optimizer optim optims opt ema scheduler sched scaler g d netg netd gen dis "
    "disc generator discriminator enc dec encoder decoder actor critic student teacher".split()
)
"""Words in a name that say what a file holds (weights, optimizer state …), and not which training it belongs to."""
SIDES = frozenset("a b ab ba vae lr".split())  # of several generators and discriminators, behind these: G_AB, D_A
_WORD = re.compile(r"[^\W\d_]+|\d+")


def cut_short(
    checkpoints: Collection[Checkpoint], unwhole: Collection[str]
) -> tuple[dict[str, Reason], dict[str, Reason]]:
    """Return why the newest save of a training is not whole, and why the saves before it stay that show it.

    The newest save is cut short if it lacks a file (``netD_epoch_5.pth``) and the two saves before it each have one
    like it. Those saves stay, since without them the newest would count as whole. Where only one earlier save has
    more files than all others, nobody knows which are cut short: it stays until the next save. A training that saves
    less on purpose is recognised as soon as it saves again.

    The files of one save may be parts of one checkpoint, runs of their own (``netG_``, ``netD_``), have different
    endings, or lie in a folder, one for each part of the model. ``unwhole`` are the names of checkpoints that are not
    whole for another reason. They still show which files are saved together: if one of the newest save is among them,
    and an earlier save had all these files whole, the rest of the newest save does not count either.
    """
    orders = [order_of(one.fields) for one in checkpoints]
    if len(set(orders)) == len(orders) and not any(one.parts or one.entry.model_parts for one in checkpoints):
        return {}, {}  # every save is one file
    trainings: dict[tuple[object, ...], dict[tuple[int, int], list[Checkpoint]]] = defaultdict(dict)
    for one, order in zip(checkpoints, orders, strict=True):
        run, kind = one.series
        trainings[_training(run), kind].setdefault(order, []).append(one)
    short: dict[str, Reason] = {}
    showing: dict[str, Reason] = {}
    for saves in trainings.values():
        of_newest, of_earlier = _of_newest(saves, unwhole)
        short |= of_newest
        showing |= of_earlier
    return short, showing


def _of_newest(
    saves: Mapping[tuple[int, int], Sequence[Checkpoint]], unwhole: Collection[str]
) -> tuple[dict[str, Reason], dict[str, Reason]]:
    """Return `cut_short` for the saves of one training."""
    whole = {order: [one for one in saves[order] if one.entry.name not in unwhole] for order in sorted(saves)}
    newest = next((order for order in reversed(whole) if whole[order]), None)
    if newest is None:
        return {}, {}

    def keys(order: tuple[int, int]) -> KeysView[tuple[str, ...]]:
        return _files(saves[order]).keys()

    before = [order for order in reversed(whole) if order < newest]
    all_whole = [order for order in before if len(whole[order]) == len(saves[order])]
    has, own = _files(whole[newest]), _files(saves[newest])
    by_itself = has.keys() < own.keys() and any(keys(order) == own.keys() for order in all_whole)
    expected = own if by_itself else _files(saves[(all_whole or before)[0]]) if before else {}
    if not has.keys() < expected.keys():
        return {}, {}
    lacks = min(expected[role] for role in expected.keys() - has.keys())
    # An earlier save that is not all whole counts where it has every file; where it lacks one, it proves nothing.
    telling = (order for order in before if keys(order) == expected.keys() or (order in all_whole and not by_itself))
    last = [*islice(telling, LAST - 1)]
    if any(keys(order) != expected.keys() for order in last):  # not every save has these files
        once = all(keys(order) <= has.keys() for order in before if order != all_whole[0])
        return {}, _names(saves, all_whole[:1] * once, f"nothing like {lacks} was saved before it, nor since")
    why = f"{lacks}, saved with it, is not" if by_itself else f"nothing like {lacks} was saved with it"
    short = {one.entry.name: Reason(f"is not whole: {why}", one.named_by.place) for one in whole[newest]}
    last += islice((order for order in all_whole if keys(order) == expected.keys()), 1)
    return short, _names(saves, last, f"it shows what {min(short)} lacks")


def _names(
    saves: Mapping[tuple[int, int], Sequence[Checkpoint]], orders: Iterable[tuple[int, int]], why: str
) -> dict[str, Reason]:
    return {one.entry.name: Reason(why) for order in orders for one in saves[order]}


def _files(save: Iterable[Checkpoint]) -> dict[tuple[str, ...], str]:
    """Map the role of each file of one save (its `ROLES`, and its ending or its path in a folder) to its path."""
    found: dict[tuple[str, ...], str] = {}
    for entry in (entry for one in save for entry in (one.entry, *(part.entry for part in one.parts))):
        name, ending = entry.name, ENDING.search(entry.name)
        pieces = _roles(_WORD.findall(name.casefold()))
        found[*pieces, ending[0] if ending else ""] = name
        found |= {(*pieces, path): f"{name}/{path}" for path in entry.model_parts}
    return found


@lru_cache(maxsize=1024)
def _training(run: str) -> tuple[str, ...]:
    """Return the words of a run's name that say which training it is: all except those of `_roles`."""
    words = _WORD.findall(run.casefold())
    roles = _roles(words)
    return tuple(word for word in words if word not in roles)


def _roles(words: Sequence[str]) -> list[str]:
    """Return the words of a name that say what a file holds."""
    return [
        word
        for before, word in zip(["", *words], words, strict=False)
        if word in ROLES or (word in SIDES and before in ("g", "d"))
    ]
