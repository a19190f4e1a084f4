"""Find a save that was killed between two of its files: it has fewer files than the saves around it. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, KeysView, Mapping, Sequence
from functools import lru_cache
from itertools import chain, islice

from ckptrules.engine.checkpoints import Checkpoint, number, numbers_told, order_of
from ckptrules.engine.names.words import ENDING, PARTS, ending_of
from ckptrules.engine.ruleset import Reason, is_told_all
from ckptrules.engine.whole.counted import of_kinds
from ckptrules.engine.whole.together import SAVES, Order, Run, Saves, joined

LAST = 3  # saves that are compared
NEAR = 2  # saves before, and after, with which an earlier one is compared
LOOKED = 4  # saves on either side among which these are looked for
ROLES = frozenset(
    "model net nets weights params state optimizer optim optims opt ema gda scheduler sched scaler g d e f netg netd "
    "nete gen dis disc generator discriminator enc dec encoder decoder actor critic policy value q qf vf target "
    "normalizer vecnormalize replay buffer student teacher".split()
)
"""Words in a name that say what a file holds (weights, optimizer state …), and not which training it belongs to."""
# Of critic1 and critic2, the number is a part; behind these, it may be of a run (model2, f1, d64):
COUNTED = ROLES.difference("model net nets weights params state".split(), "gdef")
OF_ANY = frozenset("checkpoint ckpt snapshot".split())
"""Words in a name that say neither."""
PLACES = ROLES | OF_ANY.union(
    "agent backbone cam client coarse code dataloader embedding fine gnn head latent lora lr metadata momentum nerf "
    "network obs parameter pose prior rng sampler saved server text tokenizer trainer training unet vae vqvae weight "
    "world".split()
)
"""Words in the name of a folder that say what the files in it hold."""
SIDES = frozenset("a b ab ba vae lr".split())  # of several generators and discriminators, behind these: G_AB, D_A
Role = tuple[str, ...]  # what a file of a save is, apart from its numbers
Files = dict[Role, str]  # the paths of a save
WORD = re.compile(r"[^\W\d_]+|\d+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")  # LRScheduler
_LAST_WORD = re.compile(r"[-_.]([A-Za-z]+)\Z")


def cut_short(
    checkpoints: Collection[Checkpoint], unwhole: Collection[str]
) -> tuple[dict[str, Reason], dict[str, Reason]]:
    """Return why saves of a training are not whole, and why the saves before them stay that show it.

    The newest save is cut short if it lacks a file (``netD_epoch_5.pth``) and the two saves before it each have one
    like it. Those saves stay, since without them the newest would count as whole. A training that saves less on
    purpose is recognised as soon as it saves again. But nobody knows whether it is on purpose: the last save that has
    all its files and more stays in any case.

    So is then the one before it, if that lacks a file in the same way. An earlier save is cut short if it lacks what
    the two whole saves before it, and the two after it, all have. Whatever shows this stays, and the last saves that
    show which runs are saved together: a second run must delete nothing more.

    The files of one save may be parts of one checkpoint, runs of their own (``netG_``, ``netD_``), have different
    endings, or lie in a folder. ``unwhole`` are the names of checkpoints that are not whole for another reason. They
    still show which files are saved together: if one of the newest save is among them, and an earlier save had all
    these files whole, the rest of the newest save does not count either.
    """
    orders = _orders(checkpoints)
    if len(set(orders)) == len(orders) and not any(one.parts or one.entry.files for one in checkpoints):
        return {}, {}  # every save is one file
    trainings: dict[Run, dict[Order, list[Checkpoint]]] = defaultdict(dict)
    are_steps = any(step >= 0 for _, step, _ in orders)
    for one, order in zip(checkpoints, orders, strict=True):
        run, kind = one.series
        unit = "epoch" if kind == "epoch" or not are_steps else "step"
        trainings[_training(run), unit].setdefault(order, []).append(one)
    short: dict[str, Reason] = {}
    showing: dict[str, Reason] = {}
    for saves, as_one in joined(trainings):
        files = {order: _files(saves[order]) for order in sorted(saves)}
        newest, shows = _of_newest(saves, files, unwhole)
        for _ in range(LAST if newest else 0):  # what is then the newest may be cut short, too
            more, before = _of_newest(saves, files, {*unwhole, *newest})
            newest, shows = newest | more, before | shows
        others, around = _of_others(saves, files, {*unwhole, *newest} if newest else unwhole)
        short |= newest | others
        shows |= around
        showing |= (_names(saves, as_one, "it shows which files are saved together") if shows else {}) | shows
    return short, showing


def _orders(checkpoints: Iterable[Checkpoint]) -> list[Order]:
    """Return the order of each checkpoint; an epoch without a step is at the step that others of that epoch have.

    A number of unknown unit is an epoch where no name tells a step, and several tell such an epoch.
    """
    told = [(one.order or order_of(one.fields), one) for one in checkpoints]
    orders = [(*order, -1 if max(order) >= 0 else one.time or -1) for order, one in told]
    lacking = {epoch for epoch, step, _ in orders if step < 0 <= epoch}
    alike = lacking.intersection(step for epoch, step, _ in orders if epoch < 0)
    if len(alike) >= SAVES and not any("step" in numbers_told(one.fields) for one in checkpoints):
        return [(max(epoch, step), -1, time) for epoch, step, time in orders]
    steps: dict[int, set[int]] = defaultdict(set)
    for epoch, step, _ in orders if lacking else ():
        steps[epoch].add(step)
    one_step = {epoch: max(steps[epoch]) for epoch in lacking if len(steps[epoch] - {-1}) == 1}
    return [(epoch, one_step.get(epoch, step), time) for epoch, step, time in orders]


def names_roles(folder: str) -> bool:
    """Return whether the name of a folder says what its files hold: ``optimizers``, ``LatentCodes``, ``rank_0``."""
    words = [word.casefold() for word in WORD.findall(_CAMEL.sub("_", folder))]
    singular = [word.removesuffix("ies") + "y" * word.endswith("ies") for word in words]
    says = [
        not PLACES.isdisjoint((word, one, one.removesuffix("s"))) for word, one in zip(words, singular, strict=True)
    ]
    counts = [word.isdigit() and before in COUNTED | PARTS for before, word in zip(["", *words], words, strict=False)]
    is_place = any(says) or any(counts)
    return is_place and all(map(any, zip(says, counts, (word in SIDES | PARTS for word in words), strict=True)))


def _of_newest(
    saves: Saves, every: Mapping[Order, Files], unwhole: Collection[str]
) -> tuple[dict[str, Reason], dict[str, Reason]]:
    """Return `cut_short` for the newest save of a training; ``every`` are the files of each save, in order."""
    whole = {order: [one for one in saves[order] if one.entry.name not in unwhole] for order in every}
    newest = next((order for order in reversed(whole) if whole[order]), None)
    if newest is None:
        return {}, {}
    files = {order: every[order] for order in every if order < newest}
    all_whole = [order for order in reversed(files) if len(whole[order]) == len(saves[order])]
    has, own = _files(whole[newest]), every[newest]
    like_own = [order for order in reversed(files) if files[order].keys() >= own.keys()]
    by_itself = has.keys() < own.keys() and not set(like_own).isdisjoint(all_whole)
    if by_itself:
        lost = dict.fromkeys(own.keys() - has.keys(), like_own[: LAST - 1])
    else:
        lost = _lost(has.keys(), files, all_whole)
    runs = {_training(one.series[0]) for save in saves.values() for one in save}
    count = SAVES if len(runs) > 1 else 1  # one alone would not show that these runs are saved together
    if not lost:
        more = [order for order in all_whole if files[order].keys() > has.keys()][:count]
        only = min((path for order in more for role, path in files[order].items() if role not in has), default="")
        return {}, _names(saves, more, f"nothing like {only} was saved since")
    path, last = min((own.get(role) or files[last[0]][role], last) for role, last in lost.items())
    before = f"the {len(last)} saves" if last[1:] else "the save"
    like = f"nothing like {path} was saved with it, as in {before} before it"
    why = f"{path}, saved with it, is not" if by_itself else like
    short = {one.entry.name: Reason(f"is not whole: {why}", one.named_by.place) for one in whole[newest]}
    needed = lost.keys() | (has.keys() & {role for roles in files.values() for role in roles})
    full = [order for order in all_whole if files[order].keys() >= needed][:count]
    return short, _names(saves, {*full, *chain(*lost.values())}, f"it shows what {min(short)} lacks")


def _of_others(
    saves: Saves, files: dict[Order, Files], unwhole: Collection[str]
) -> tuple[dict[str, Reason], dict[str, Reason]]:
    """Return `cut_short` for the saves of a training that have some before and after them."""
    short, showing = dict[str, Reason](), dict[str, Reason]()
    whole = {order: [one for one in saves[order] if one.entry.name not in unwhole] for order in files}
    before = list[Order]()
    after = [order for order in reversed(files) if len(whole[order]) == len(saves[order])]
    for order, here in whole.items():
        if is_whole := after[-1:] == [order]:
            after.pop()
        has = files[order] if is_whole else _files(here)
        near = _near(before, files, has.keys()), _near(after, files, has.keys())
        around = [*chain(*near)] if all(near) else []
        common = {role for role in files[around[0]] if all(role in files[one] for one in around)} if around else set()
        lost = common.difference(has)
        if lost and lost != common:
            path = min(files[around[0]][role] for role in lost)
            why = f"nothing like {path} was saved with it, as in the saves before and after it"
            short |= {one.entry.name: Reason(f"is not whole: {why}", one.named_by.place) for one in here}
            showing |= _names(saves, around, f"it shows what {here[0].entry.name} lacks")
        elif is_whole:
            before.append(order)
    return short, showing


def _near(orders: Sequence[Order], files: Mapping[Order, Files], has: KeysView[Role]) -> list[Order]:
    """Return the last saves, the nearest first, that show what one with these roles lacks, or that it may lack it.

    One that has nothing in common with it, or less than it, shows neither: it may be cut short itself.
    """
    nearest = ((order, files[order].keys()) for order in reversed(orders[-LOOKED:]))
    return [*islice((order for order, roles in nearest if roles >= has or (roles & has and roles - has)), NEAR)]


def _lost(has: KeysView[Role], files: dict[Order, Files], all_whole: Collection[Order]) -> dict[Role, list[Order]]:
    """Return the roles of files that the newest save lacks, each with the last saves before it, which all have one.

    Where a save that is not all whole lacks such a file, it proves nothing. Nor does one that shares no role with the
    newest, but where it has such a file: that is saved without the others, too.
    """
    lost = {}
    alike = {order for order in all_whole if files[order].keys() & has}
    for role in {role for roles in files.values() for role in roles}.difference(has):
        last = [*islice((order for order in reversed(files) if role in files[order] or order in alike), LAST - 1)]
        if all(role in files[order] and files[order].keys() & has for order in last):
            lost[role] = last
    return lost


def _names(saves: Saves, orders: Iterable[Order], why: str) -> dict[str, Reason]:
    return {one.entry.name: Reason(why) for order in orders for one in saves[order]}


def _files(save: Iterable[Checkpoint]) -> Files:
    """Map the role of each file of one save (its words, and its ending or its kind in a folder) to its path."""
    found: Files = {}
    for one in save:
        if one.rule and is_told_all(one.rule):
            found[one.rule.id,] = one.entry.name
            continue
        for entry in (one.entry, *(part.entry for part in one.parts)):
            name, ending = entry.name, ending_of(entry.name)
            words = _without(WORD.findall(name.removesuffix(ending).casefold()), numbers_told(one.fields).values())
            pieces = *_training(one.series[0]), *_split(words)[0]
            found[*pieces, ending + "/" * (entry.kind == "directory")] = name
            kinds = of_kinds(entry.files).items()
            found |= {
                (*pieces, kind, str(n)): f"{name}/{path}" for kind, paths in kinds for n, path in enumerate(paths)
            }
    return found


@lru_cache(maxsize=1024)
def _training(run: str) -> tuple[str, ...]:
    """Return the words of a run's name that say which training it is: all except `ROLES` and `OF_ANY`."""
    return tuple(word for word in _split(WORD.findall(run.casefold()))[1] if word not in OF_ANY)


def apart(name: str) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return the words and numbers of a name that tell its save, and those that say what the file holds.

    A word that says that may stand behind the ending: ``model_1.pth.optim``.
    """
    last = _LAST_WORD.search(name)
    behind = last[0] if last and last[1].casefold() in ROLES and not ENDING.search(name) else ""
    words = WORD.findall((ENDING.sub("", name.removesuffix(behind)) + behind).casefold())
    number_at = max((place for place, word in enumerate(words) if word.isdigit()), default=0)
    counts = {n for n, word in enumerate(words[:number_at]) if n and word.isdigit() and words[n - 1] in COUNTED}
    told = tuple(word for n, word in enumerate(words) if word not in ROLES and n not in counts)
    return told, ROLES.intersection(words)


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split words into those that say what a file holds, with their numbers (``critic2``), and all others."""
    roles, rest = list[str](), list[str]()
    for before, word in zip(["", *words], words, strict=False):
        if word in ROLES or (word in SIDES and before in ("g", "d")):
            roles.append(word)
        elif before in COUNTED and word.isdigit():
            roles[-1] += word
        else:
            rest.append(word)
    return roles, rest


def _without(words: Sequence[str], numbers: Iterable[int]) -> list[str]:
    """Return words without the last of them that is each of the numbers."""
    left = list(words)
    for told in numbers:
        at = max((place for place, word in enumerate(left) if number(word) == told), default=len(left))
        del left[at : at + 1]
    return left
