"""Find the sidecars of checkpoints, and their new names: a checkpoint and its sidecars change together. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from ckptrules.engine.actions import Action, Problem
from ckptrules.engine.checkpoints import Checkpoint
from ckptrules.engine.entries import Listing
from ckptrules.engine.names.naming import stem_of
from ckptrules.engine.shapes import in_line
from ckptrules.engine.state_folder import LONGEST_NAME

Owned = Mapping[str, Sequence["Sidecar"]]  # by the name of the checkpoint
Pairs = Mapping[str, Sequence[tuple[str, str]]]  # by the name of the checkpoint: old and new name of each sidecar


class Sidecar(NamedTuple):
    """A file that belongs to a checkpoint.

    ``suffix`` is the ending of its name, ``shared`` whether it belongs to other checkpoints as well, and ``owner`` the
    name of the checkpoint or part that it belongs to.
    """

    name: str
    suffix: str
    shared: bool
    owner: str = ""


def by_name_only(owners: Iterable[str], names: Collection[str]) -> dict[str, tuple[str, str]]:
    """Map names that look like sidecars, though no suffix fits, to their owner and the suffix that the rules lack.

    Such a name is that of a checkpoint with another ending, or with one more: ``x.yaml`` or ``x.ckpt.json``.
    """
    by_start = {start: owner for owner in (owners if names else ()) for start in (stem_of(owner), owner)}
    owned = {}
    for name in names:
        dots = [place for place, letter in enumerate(name) if letter == "." and name[:place] in by_start]
        if dots:
            owner = by_start[name[: dots[-1]]]
            owned[name] = owner, name[len(stem_of(owner)) :]
    return owned


def line_for(suffixes: Iterable[str]) -> str:
    """Return the line of a rule file that makes names with these suffixes sidecars."""
    return f"sidecars: [{', '.join(sorted(set(map(in_line, suffixes))))}]"


def suffix_of(name: str, suffixes: Sequence[str]) -> str:
    """Return the longest of the suffixes that a name ends in; empty without one."""
    return max((suffix for suffix in suffixes if name.endswith(suffix)), key=len, default="")


def new_names(checkpoints: Sequence[Checkpoint], sidecars: Owned) -> dict[str, list[tuple[str, str]]]:
    """Return the `Pairs` of other parts and then sidecars by head; those of a protected checkpoint keep their names."""
    pairs = {owner: [(own.name, own.name) for own in owned] for owner, owned in sidecars.items()}
    for checkpoint in checkpoints:
        head, target, parts = checkpoint.entry.name, checkpoint.target, checkpoint.parts
        if head in pairs and head != target:
            becomes = {part.entry.name: part.target for part in parts}
            pairs[head] = [(own.name, stem_of(becomes.get(own.owner, target)) + own.suffix) for own in sidecars[head]]
        if parts:
            pairs[head] = [*((part.entry.name, part.target) for part in parts[1:]), *pairs.get(head, ())]
    return pairs


def too_long(pairs: Pairs) -> dict[str, Problem]:
    """Return a problem for each checkpoint with a sidecar whose new name would be too long for a file system."""
    text = f"has a sidecar that would be longer than {LONGEST_NAME} bytes"
    return {
        name: Problem("bad_target", (name,), text, "shorten the suffix, or the template")
        for name, own in pairs.items()
        if any(len(new.encode("utf-8", "surrogateescape")) > LONGEST_NAME for _, new in own)
    }


def take_along(
    action: Action, pairs: Sequence[tuple[str, str]], sidecars: Sequence[Sidecar], listing: Listing
) -> Action:
    """Return the action on a checkpoint with its other parts and sidecars.

    A sidecar that others share stays when this checkpoint is deleted.
    """
    if not pairs:
        return action
    shared = {sidecar.name for sidecar in sidecars if sidecar.shared}
    trashed = action.kind == "trash"
    with_it = tuple((old, "" if trashed else new) for old, new in pairs if not (trashed and old in shared))
    parts = len(pairs) - len(sidecars)
    beside = {old for old, _ in with_it[parts:]}
    size = sum(entry.size for entry in listing.entries if entry.name in beside) if beside else 0
    return action._replace(with_it=with_it, parts=parts, size=action.size + size)
