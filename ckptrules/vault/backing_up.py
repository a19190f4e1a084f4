"""Makes a backup of ``outputs_dir``."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from ckptrules.engine.actions import Problem
from ckptrules.engine.entries import Item, lies_in
from ckptrules.engine.measures import visible
from ckptrules.engine.state_folder import MANIFEST
from ckptrules.storage import copying, looking, making, metadata, unfinished, writing
from ckptrules.storage.reading import SourceError, why_of
from ckptrules.vault import space
from ckptrules.vault.backups import TOO_LONG, belongs, hidden_path
from ckptrules.vault.copies import Answer, Copied, CopyRoute, OnLost, files_and_links, stage_copy
from ckptrules.vault.manifest import LONGEST, Manifest, to_json
from ckptrules.workers.pieces import Each, Lost

COPIES = f"{MANIFEST}.copies"  # the folder for copies until they are moved to their places
MANIFEST_ROW = 512  # bytes of a manifest for each name, a high estimate
CHANGED_HINT = "back it up again when nothing writes into it"
LOST_HINT = "back it up again, with executor=none if it happens again"


class Order(NamedTuple):
    """What is to be backed up, and where to.

    ``experiments`` are the paths of the experiments in it; ``whole`` adds the rest of ``outputs_dir``. ``path`` is the
    path of the backup; ``mode`` and ``created`` are those of `Manifest`, or the mode ``auto``.
    """

    outputs_dir: str
    path: str
    mode: str
    experiments: tuple[str, ...]
    whole: bool
    created: str


def collect(order: Order) -> tuple[list[Item], list[Problem]]:
    """List what is to be backed up, each directory before its contents; return a problem for all that is left out."""

    def is_meant(path: str) -> bool:
        return order.whole or belongs(path, order.experiments)

    items, unreadable = looking.read_tree(order.outputs_dir)
    problems = [
        _unreadable(path or order.outputs_dir, why_of(error))
        for path, error in sorted(unreadable.items())
        if is_meant(path)
    ]
    problems += [
        Problem("not_a_file", (item.path,), "is neither a file nor a directory nor a link: left out")
        for item in items
        if item.kind == "other" and is_meant(item.path)
    ]
    return [item for item in items if item.kind != "other" and is_meant(item.path)], problems


def make_backup(order: Order, each: Each, on_lost: OnLost = lambda *_: None) -> tuple[Manifest, list[Problem]]:
    """Make a backup: under a hidden name until it is whole. Return a problem for each file that was not copied.

    Args:
        order: what to back up.
        each: lets workers copy the files.
        on_lost: is called for each copy; lost metadata is in the manifest.

    Raises:
        OSError: it would not fit, or cannot be written. The part that was made is removed.
    """
    items, problems = collect(order)
    source = os.path.realpath(order.outputs_dir)
    manifest = Manifest(
        order.created, source, order.mode, complete=False, experiments=order.experiments, items=tuple(items)
    )
    hidden = hidden_path(order.path)
    making.make_private(hidden)
    with writing.undo_on_error(unfinished.remove_backup, hidden, hidden):
        unfinished.write_manifest(hidden, MANIFEST, _text(manifest))
        held, modes = _fill(hidden, order, items, problems, each, on_lost)
        manifest = manifest._replace(
            mode=" and ".join(sorted(modes)) or order.mode,
            complete=True,
            items=tuple(held),
            missing=tuple(name for problem in problems if problem.id != "changed" for name in problem.names),
        )
        unfinished.write_manifest(hidden, MANIFEST, _text(manifest))
        on_lost(order.outputs_dir, unfinished.finish_backup(hidden, order.path, order.outputs_dir))
    return manifest, problems


def _fill(
    hidden: str, order: Order, items: list[Item], problems: list[Problem], each: Each, on_lost: OnLost
) -> tuple[list[Item], set[str]]:
    """Copy everything into a backup that is being made; return what is in it, and how files were copied.

    Raises:
        OSError: it would not fit, or cannot be written.
    """
    how = _way(order, items, hidden)
    if how == "copy":
        check_space(items, order.path)
    held = _directories(order.outputs_dir, items, hidden, problems)
    work = partial(stage_copy, CopyRoute(order.outputs_dir, hidden, COPIES, how))
    with unfinished.temporary_folder(hidden, COPIES), each(work, files_and_links(items)) as answers:
        modes = _place_all(hidden, items, answers, held, problems, on_lost)
    held.sort()
    for item in reversed(held):
        if item.kind == "directory":
            on_lost(item.path, making.set_item_metadata(hidden, item))
    return held, modes


def leading_out(root: str, top: str, items: Iterable[Item]) -> list[str]:
    """List the links that lead out of a path below a root: a copy has the links, but not their targets."""
    real = os.path.realpath(os.path.join(root, top))
    links = [item.path for item in items if item.kind == "link"]
    return [path for path in links if not lies_in(os.path.realpath(os.path.join(root, path)), real)]


def check_space(items: Sequence[Item], path: str) -> None:
    """Raise ENOSPC if copies of all files, with a manifest, would not fit."""
    folder = os.path.dirname(os.path.abspath(path))
    space.refuse_more(MANIFEST_ROW * len(items) + space.needed(items, folder), space.free(folder), folder)


def _way(order: Order, items: Iterable[Item], hidden: str) -> str:
    """Decide how files are copied: try to clone the first file that can be read."""
    if order.mode != "auto":
        return order.mode
    for item in items:
        with contextlib.suppress(SourceError):
            if item.size:
                probe = f"{hidden}/{MANIFEST}.probe"
                return "clone" if copying.can_clone(order.outputs_dir, item.path, probe) else "copy"
    return "copy"


def _place_all(
    hidden: str,
    items: Iterable[Item],
    answers: Iterator[Answer],
    held: list[Item],
    problems: list[Problem],
    on_lost: OnLost,
) -> set[str]:
    """Move copies to their places as they come; return how they were made.

    Items in their places are added to ``held``, and a problem for each of the others to ``problems``.

    Raises:
        OSError: a copy cannot be written; the message names the file.
    """
    modes = set[str]()
    for item in files_and_links(items):
        try:
            copied = _copied(item, next(answers))
            if isinstance(copied, Problem):
                problems.append(copied)
                continue
            unfinished.place_copy(hidden, copied.path, item.path)
        except OSError as error:
            raise OSError(error.errno, f"{visible(item.path)}: {why_of(error)}") from None
        if copied.item.changed:
            problems.append(Problem("changed", (item.path,), "changed while it was copied", CHANGED_HINT))
        on_lost(item.path, copied.lost)
        held.append(copied.item)
        modes |= {copied.how} - {""}
    return modes


def _copied(item: Item, answer: Answer) -> Copied | Problem:
    """Return the copy, or why there is none; OSError if it cannot be written."""
    if isinstance(answer, Lost):
        return Problem("unreadable", (item.path,), f"was not copied: {answer.why}; left out", LOST_HINT)
    if isinstance(answer, SourceError):
        return _unreadable(item.path, why_of(answer))
    if isinstance(answer, OSError):
        raise answer
    return answer


def _directories(outputs_dir: str, items: Iterable[Item], hidden: str, problems: list[Problem]) -> list[Item]:
    """Make all directories, and return them with their metadata.

    One that cannot be read may have an access list, so only its owner keeps rights.
    """
    held = []
    for item in (item for item in items if item.kind == "directory"):
        making.make_directory(hidden, item.path)
        try:
            held.append(metadata.with_metadata_below(outputs_dir, item))
        except SourceError as error:
            if not any(item.path in problem.names for problem in problems):
                problems.append(_unreadable(item.path, why_of(error)))
            held.append(item._replace(mode=item.mode & ~0o077))
    return held


def _text(manifest: Manifest) -> str:
    """Return the text of a manifest; EFBIG if it is too long for `read_backup`."""
    text = to_json(manifest)
    if len(text) > LONGEST:
        raise OSError(errno.EFBIG, f"holds too many names for one backup: {TOO_LONG}; take fewer experiments=…")
    return text


def _unreadable(path: str, why: str) -> Problem:
    hint = "ls -ld tells its owner" * (why == os.strerror(errno.EACCES))
    return Problem("unreadable", (path,), f"cannot be read: {why}; left out", hint)
