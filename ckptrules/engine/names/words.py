"""Read names that no framework is known by, word by word: ``coco_epoch12-step=500-val_loss=0.02.ckpt``. Pure.

A name must have ``epoch`` or ``step`` (or a word for them) with a whole number after it. Metrics may follow. With
anything else after these, the name is not understood.
"""

from __future__ import annotations

import re

from ckptrules.engine.checkpoints import number
from ckptrules.engine.names.metrics import mode_of

READS = ("run", "epoch", "step", "version", "note")  # all fields except metrics
KEYS = {
    **dict.fromkeys(("epoch", "ep"), "epoch"),
    **dict.fromkeys(("step", "steps", "iter", "iters", "iteration", "itr", "it", "update", "updates"), "step"),
}
NOTES = frozenset("last best final ema ckpt checkpoint".split())
MODELS = frozenset("student teacher".split())  # models of one training; each is a run of its own
PIECES = frozenset(
    "rank shard part worker expert of fold seed task trial split cv".split()
)  # with a number after them, they name one of several files or trainings
PARTS = frozenset("rank shard part worker expert gpu node host device process proc cuda dp mp pp tp stage".split())
"""Words before the number of one of several files, or folders, of a checkpoint."""
COUNTED = frozenset(
    "b batch batches cnt count date dev episode episodes frames games gs idx images mb minibatch rew samples time "
    "timestep timesteps tokens total val valid".split()
)
"""Words before a whole number that differs between the names of one training."""
SETTINGS = frozenset("alpha beta cfg dropout gamma lambda lr momentum sigma tau temp wd".split())
"""Words before a number that is equal in all names of one training."""
BEGIN_ANEW = frozenset("stage phase cycle round level".split())  # epochs count from the start of each of these
SCALES = frozenset("e k m b kimg st nd rd th".split())  # right after a number: 1e5, 10k, 1st
ENDING = re.compile(
    r"\.(?:ckpt|pt|pth\.tar|pth|pyth|pkl|weights\.h5|h5|hdf5|keras|safetensors|bin|npz|th|tar|weights|model)\Z"
)
_WORD_AT_END = re.compile(r"\.[A-Za-z]+\Z")
NO_CHECKPOINTS = frozenset("copy tmp temp bak backup partial swp unfinished lock".split())
MADE_OF_IT = frozenset(
    "activations attention buffer confusion embedding embeddings events feature features figures generated"
    " gradients grads histograms history images indices labels latents logits logs losses masks matrix metrics"
    " outputs plots prediction predictions preds recon reconstructions results roc rollouts sample samples scores"
    " stats targets tokens trajectories trajectory video videos".split()
)
"""Words right before the key for what a training wrote at that epoch or step besides checkpoints."""
ITEMS = MADE_OF_IT.difference(["buffer"]).union(
    "activation cache case chunk data dataset datum doc document embedding eval example feature frame gradient graph"
    " gt id image img item label latent ligand mask mel mol molecule page patient pred prediction protein record"
    " result row sample scene segment sentence slice spec subject traj user wav".split()
)
"""Words right before the number of one item of a data set, or of what was made of it: ``data_17.pt``."""
_TOKEN = re.compile(
    r"(?P<number>\d+\.\d+(?:[eE][+-]?\d+)?|\d+(?:[eE][+-]\d+)?|\bnan\b|\binf\b)|[A-Za-z]+|[^A-Za-z0-9]+"
)
_HASH = re.compile(r"(?<![0-9A-Za-z])(?=[0-9]*[a-f])(?=[a-f]*[0-9])[0-9a-f]{8}\Z")
_VERSION = re.compile(r"-v(\d+)\Z")
GAP = frozenset("-_=:. ")
BETWEEN = GAP | set("/,@%+")
LONGEST_GAP = 3  # characters between a word and its number


def ending_of(name: str) -> str:
    """Return the ending of a name; empty without one."""
    found = ENDING.search(name) or _WORD_AT_END.search(name)
    return found[0] if found else ""


def read_words(name: str) -> dict[str, str] | None:
    """Return the fields that a name has in words; None where it has no epoch or step, or anything not understood."""
    stem = ENDING.sub("", name).replace("%3D", "=")  # of names that were downloaded from a URL
    fields: dict[str, str] = {}
    if version := name.endswith(".ckpt") and _VERSION.search(stem):  # Lightning's; elsewhere it may be of a model
        stem, fields["version"] = stem[: version.start()], version[1]
    if hashed := _HASH.search(stem):
        stem, fields["note"] = stem[: hashed.start()].rstrip("-_"), hashed[0]
    tokens = [found[0] for found in _TOKEN.finditer(stem)]
    start = next((n for n in range(len(tokens)) if _key_at(tokens, n)), None)
    if start is None or _is_piece(tokens) or _is_of_another_kind(tokens):
        return None
    first = _first_of(tokens, start)
    if next((token.lower() for token in reversed(tokens[:first]) if token.isalpha()), "") in MADE_OF_IT:
        return None
    fields["run"] = "".join(tokens[:first])
    return _read_from(tokens, start, fields)


def _read_from(tokens: list[str], place: int, fields: dict[str, str]) -> dict[str, str] | None:
    words: list[str] = []
    separates = tokens[place + 1] == "-"
    while place < len(tokens):
        token = tokens[place]
        if key := _key_at(tokens, place):
            place = _number_behind(tokens, place)
            if not _is_doubled(words) or fields.setdefault(key, tokens[place]) != tokens[place]:
                return None
            words = []
        elif token[0].isalpha() and not _is_number(token):
            words.append(token)
        elif _is_number(token):
            gap = tokens[place - 1]
            if not words or "_".join(words) in READS or (words[-1].lower() in BEGIN_ANEW and token.isdigit()):
                return None
            if gap.endswith(".") and token.isdigit():  # .5
                return None
            if _tells_a_run(words, gap, token):
                fields["run"] += f"_{'_'.join(words)}{token}"
            elif (sign := _sign(gap, separates=separates)) is not None:
                fields["_".join(_once(words))] = sign + token
            words = []
        elif len(token) > LONGEST_GAP or not set(token) <= BETWEEN:
            return None
        place += 1
    rest = "_".join(words).lower()
    if rest in MODELS:
        return {**fields, "run": f"{fields['run']}_{rest}"}
    if rest and rest not in NOTES:
        return None
    return {**fields, "note": words[0]} if rest else fields


def _tells_a_run(words: list[str], gap: str, token: str) -> bool:
    """Return whether a number after the epoch is of the run: ``epoch_5_resnet50``, ``epoch_5_lr0.1``.

    A metric has a fraction, a ``=`` or ``:`` before the number, or a known name.
    """
    lower = {word.lower() for word in words}
    is_metric = "=" in gap or ":" in gap or mode_of("_".join(words)) or lower & COUNTED
    return bool(lower & SETTINGS) or (token.isdigit() and not is_metric)


def _sign(gap: str, *, separates: bool) -> str | None:
    """Return the sign of a number after a gap; None where a dash may be one or not: ``epoch3_reward-12.5``.

    A dash is no sign where dashes separate words and numbers, as in ``epoch-3-loss-0.5``.
    """
    if gap[-2:] in ("=-", ":-", "_-") or (separates and gap == "--"):
        return "-"
    return None if gap.endswith("-") and not (separates and gap == "-") else ""


def _key_at(tokens: list[str], place: int) -> str:
    """Return the field of the word at a place, if a whole number follows it; else an empty text."""
    word, behind = tokens[place].lower(), _number_behind(tokens, place)
    key = KEYS.get(word, "")
    if word == "e" and behind == place + 1 and (place == 0 or not tokens[place - 1][-1].isalnum()):
        key = "epoch"  # e31, but not the e of 1e5
    is_whole = number(tokens[behind]) is not None
    return key if is_whole and not (tokens[behind + 1 :] and tokens[behind + 1].lower() in SCALES) else ""


def _number_behind(tokens: list[str], place: int) -> int:
    """Return the place of the token after a word and its gap; the place of the word itself if there is none."""
    gap = place + 1 < len(tokens) and len(tokens[place + 1]) <= LONGEST_GAP and set(tokens[place + 1]) <= GAP
    behind = place + 1 + gap
    return behind if behind < len(tokens) else place


def _first_of(tokens: list[str], place: int) -> int:
    """Return the place where a key begins that is doubled or has ``global`` before it: ``epoch_epoch=3``."""
    while place >= 2 and (tokens[place - 2].lower() in KEYS or tokens[place - 2].lower() == "global"):  # noqa: PLR2004 - a word and a separator
        place -= 2
    return place


def _is_piece(tokens: list[str]) -> bool:
    """Return whether a word says that the name is one of several files, an average, or a copy."""
    if not NO_CHECKPOINTS.isdisjoint(token.lower() for token in tokens):
        return True
    pairs = [(token.lower(), tokens[_number_behind(tokens, place)]) for place, token in enumerate(tokens)]
    return any((word in PIECES and _is_number(after)) or (word == "avg" and after.isdigit()) for word, after in pairs)


def _is_of_another_kind(tokens: list[str]) -> bool:
    """Return whether the name has the ending of another kind of file, with a number in it: ``.mp4``, ``.h264``."""
    *_, before, word, number = ["", "", *tokens]
    return before.endswith(".") and word.isalpha() and number.isdigit() and word.lower() not in (*KEYS, "e")


def _is_doubled(words: list[str]) -> bool:
    """Return whether the words before a key are only words for the key itself: ``step_step=4``."""
    return all(word.lower() in KEYS or word.lower() == "global" for word in words)


def _once(words: list[str]) -> list[str]:
    """Return the words of a doubled name once: ``val_loss=val_loss=0.5``."""
    half = len(words) // 2
    return words[:half] if half and words[:half] == words[half:] else words


def _is_number(token: str) -> bool:
    return token[-1].isdigit() or token in ("nan", "inf")
