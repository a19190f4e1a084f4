"""Updates the paths that Lightning stores inside each checkpoint: those of the best and the last one.

Only torch files are changed. A copy with new paths is written, read back as `doit verify` does, and replaces the
original in one step; the original goes to the trash.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

from ckptrules.changes.transaction import JournalledTree, transact
from ckptrules.changes.units import refused
from ckptrules.engine.actions import Action, Plan, Problem, Recipe, Skipped, Step, Unit
from ckptrules.engine.entries import Entry, Listing
from ckptrules.engine.names.naming import named
from ckptrules.engine.ruleset import Reason, RuleSet
from ckptrules.engine.state_folder import LONGEST_NAME, WORK, trash_folder, trash_name
from ckptrules.engine.whole.wholeness import markers_in, why_unfinished
from ckptrules.formats.content import UnsoundError
from ckptrules.formats.files import check_file, open_file
from ckptrules.formats.torchstate import NotRewritableError, rewrite
from ckptrules.outputs.in_use import in_use
from ckptrules.stopping import StoppedError, heed
from ckptrules.storage import believing, exchanging, metadata, reading, streams, unfinished
from ckptrules.storage.base import CHANGED
from ckptrules.storage.posix import Disk
from ckptrules.storage.reading import Bar, Progress, why_of
from ckptrules.storage.state import Folders, open_directory
from ckptrules.storage.writing import undo_on_error

OLD_STATE = ".state"  # added to the name in the trash, so that it never meets a deleted checkpoint of that name
SPARE_BYTES = 1 << 20


class FixContext(NamedTuple):
    """A directory as it is now, and what decides which of its checkpoints may be changed.

    ``rules`` say what an old name has become. ``now_ns`` is in nanoseconds since 1970. ``pinned`` maps names that must
    keep their content to the reason.
    """

    outputs_dir: str
    rules: RuleSet
    listing: Listing
    now_ns: int
    pinned: Mapping[str, str] = {}

    def open(self) -> contextlib.AbstractContextManager[int]:
        """Open the directory, and give its descriptor."""
        return reading.open_below(self.outputs_dir, self.listing.directory)

    def path_updater(self, names: Collection[str]) -> Callable[[str], str | None]:
        """Return a function from a text inside a checkpoint to its new path, or None (`new_path`).

        ``names`` are those that the directory has, or will have.
        """
        directory = self.listing.directory
        home = os.path.realpath(os.path.join(self.outputs_dir, directory))
        return lambda text: new_path(text, home, directory, names, self.rules)

    def why_in_use(self, directory: int, entry: Entry) -> str:
        """Return why a checkpoint counts as in use, or an empty text."""
        used = in_use(directory, entry, self.rules.settle, self.now_ns)
        return used and f"it {used}"


class OldPaths(NamedTuple):
    """The checkpoints of a directory with old paths inside, and those that cannot be changed."""

    recipes: tuple[tuple[Entry, Recipe], ...]
    skipped: tuple[Skipped, ...]
    problems: tuple[Problem, ...]


def fix(context: FixContext, tree: JournalledTree, bar: Bar, kept: int) -> Plan:
    """Update the paths in every checkpoint of a directory, and return what was done.

    Args:
        context: the directory as it is now.
        tree: the tree, and the journal of the run.
        bar: shows the progress in bytes.
        kept: how many checkpoints stay, for the journal.
    """
    listing, found = context.listing, find_old_paths(context, _real_names(context.listing))
    actions, problems = [], list(found.problems)
    with context.open() as directory, bar(sum(2 * recipe.size for _, recipe in found.recipes)) as progress:
        try:
            for entry, recipe in found.recipes:
                heed()
                if why := _fix_one(context, directory, tree, entry, recipe, progress, kept):
                    problems.append(refused(_action(entry, recipe), why))
                else:
                    actions.append(_action(entry, recipe))
        except StoppedError:
            problems.append(Problem("stopped", (listing.directory,), "was not finished", "run again to go on"))
    return Plan(listing.experiment, listing.directory, tuple(actions), (), found.skipped, tuple(problems))


def foresee(context: FixContext, plan: Plan) -> Plan:
    """Return what `fix` would do after a plan is carried out (or now, if the plan has no actions)."""
    listing = context.listing
    gone, new = _gone_and_new(plan)
    stays = listing._replace(entries=tuple(entry for entry in listing.entries if entry.name not in gone))
    found = find_old_paths(context._replace(listing=stays), _names_after(listing, plan))
    actions = sorted(_action(entry._replace(name=new.get(entry.name, entry.name)), r) for entry, r in found.recipes)
    return Plan(listing.experiment, listing.directory, tuple(actions), (), found.skipped, found.problems)


def stale_name(context: FixContext, directory: int, plan: Plan) -> str:
    """Return an old name to which the newest file that a plan renames has a path inside; else an empty text.

    A file that cannot be read counts as having none: its rename will show the error.
    """
    _, new = _gone_and_new(plan)
    files = [entry for entry in context.listing.entries if entry.name in new and entry.kind == "file"]
    newest = max(files, key=lambda entry: (entry.mtime_ns, entry.name), default=None)
    if newest is None:
        return ""
    with contextlib.suppress(NotRewritableError, OSError), open_file(directory, newest.name) as file:
        recipe = rewrite(file, context.path_updater(_names_after(context.listing, plan)))
        return next(map(os.path.basename, recipe.changes), "")
    return ""


def _gone_and_new(plan: Plan) -> tuple[set[str], dict[str, str]]:
    """Return what a plan deletes, and the new names of what it renames."""
    gone = {action.name for action in plan.actions if action.kind == "trash"}
    return gone, {action.name: action.to for action in plan.actions if action.kind == "rename"}


def _names_after(listing: Listing, plan: Plan) -> set[str]:
    gone, new = _gone_and_new(plan)
    return {new.get(name, name) for name in _real_names(listing) - gone}


def find_old_paths(context: FixContext, names: Collection[str]) -> OldPaths:
    """Find the checkpoints with old paths inside; ``names`` are those that the directory has, or will have.

    Raises:
        StoppedError: Ctrl-C or SIGTERM came.
    """
    recipes, skipped, problems = [], [], []
    rules, change = context.rules, context.path_updater(names)
    markers = markers_in(context.listing, rules)
    with context.open() as directory:
        for entry in _checkpoints(context.listing, rules):
            heed()
            if marked := why_unfinished((entry.name, named(entry.name, rules).target), markers):
                skipped.append(_left_alone(entry.name, marked.text))
                continue
            if entry.kind == "directory":
                skipped.append(_left_alone(entry.name, "is a directory"))
                continue
            try:
                with open_file(directory, entry.name) as file:
                    recipe, owner = rewrite(file, change), believing.owner_of_other(os.fstat(file.fileno()))
            except NotRewritableError as error:
                if named(entry.name, rules, folder=False).claim.kind != "format":  # else no file of Lightning
                    skipped.append(_left_alone(entry.name, str(error)))
            except OSError as error:
                problems.append(Problem("unreadable", (entry.name,), f"cannot be read: {why_of(error)}"))
            else:
                if recipe.changes and entry.name in context.pinned:
                    skipped.append(_left_alone(entry.name, context.pinned[entry.name]))
                elif owner and recipe.changes:
                    problems.append(refused(_action(entry, recipe), f"belongs to {owner}; {metadata.NOT_OURS}"))
                elif recipe.changes and (used := context.why_in_use(directory, entry)):
                    problems.append(refused(_action(entry, recipe), used))
                elif recipe.changes:
                    recipes.append((entry, recipe))
    return OldPaths(tuple(recipes), tuple(skipped), tuple(problems))


def new_path(text: str, home: str, directory: str, names: Collection[str], rules: RuleSet) -> str | None:
    """Return the new path of a checkpoint; None if the text is no path to one of the directory, or is still right.

    Args:
        text: any text.
        home: the real path of the directory.
        directory: its path below ``outputs_dir``: the tree may have been elsewhere when the text was written.
        names: the names in the directory.
        rules: say what an old name has become.
    """
    folder, slash, name = text.rpartition("/")
    if not slash or name in names or len(name) > LONGEST_NAME or not name.isprintable():
        return None
    if folder != home and (not _ends_alike(folder, directory) or os.path.lexists(text)):
        return None
    said = named(name, rules)
    return f"{folder}/{said.target}" if said.claim.kind == "legacy" and said.target in names else None


def _ends_alike(folder: str, directory: str) -> bool:
    return f"/{folder}".endswith(f"/{directory}") or f"/{directory}".endswith(f"/{folder}")


def _checkpoints(listing: Listing, rules: RuleSet) -> Iterator[Entry]:
    for entry in sorted(listing.entries):
        if not (entry.kind in ("file", "directory") and entry.size):
            continue
        kind = named(entry.name, rules, folder=entry.kind == "directory").claim.kind
        if kind in ("protected", "target", "legacy") or (kind == "format" and entry.kind == "file"):
            yield entry


def _real_names(listing: Listing) -> set[str]:
    return {entry.name for entry in listing.entries if entry.kind in ("file", "directory")}


def _left_alone(name: str, why: str) -> Skipped:
    return Skipped(name, "unrecognised", Reason(f"{why}: the paths inside stay as they are"))


def _action(entry: Entry, recipe: Recipe) -> Action:
    changes = "; ".join(f"{os.path.basename(old)} → {os.path.basename(new)}" for old, new in recipe.changes.items())
    return Action("fix", entry.name, "", entry.size, (Reason(changes),))


def _no_space(outputs_dir: str, directory: int, entry: Entry) -> str:
    size, free = entry.size - streams.holes_of(os.lstat(entry.name, dir_fd=directory)), Disk(outputs_dir).free()
    return "" if free is None or free >= size + SPARE_BYTES else "No space left on device for a copy of it"


def _fix_one(
    context: FixContext,
    directory: int,
    tree: JournalledTree,
    entry: Entry,
    recipe: Recipe,
    progress: Progress,
    kept: int,
) -> str:
    """Replace one checkpoint by a copy with other paths; return why that failed, or an empty text."""
    listing = context.listing
    folder = trash_folder(tree.journal.run, listing.directory)
    step = Step("exchange", listing.directory, entry.name, folder, trash_name(entry.name + OLD_STATE))
    try:
        if why := _no_space(tree.outputs_dir, directory, entry):
            return why
        with Folders(tree.outputs_dir) as folders:
            before = exchanging.mark(folders, step.here)
        if before.split(".")[1:3] != [str(entry.size), str(entry.mtime_ns)]:
            return CHANGED
        staged = unfinished.stage_rewrite(tree.outputs_dir, f"{listing.directory}/{entry.name}", recipe, progress)
        with undo_on_error(unfinished.drop_staged, tree.outputs_dir, staged):
            why = _unsound(tree.outputs_dir, staged, recipe.size, progress) or context.why_in_use(directory, entry)
        if why:
            unfinished.drop_staged(tree.outputs_dir, staged)
            return why
        unfinished.lay_in_trash(tree.outputs_dir, staged, folder, step.to)
        with Folders(tree.outputs_dir) as folders:
            step = step._replace(was=f"{before} {exchanging.mark(folders, step.there)}")
    except OSError as error:
        return why_of(error)
    unit = Unit("fix", entry.size, (step,))
    return transact(tree, listing.experiment, listing.directory, [unit], kept=kept).why


def _unsound(outputs_dir: str, staged: str, size: int, progress: Progress) -> str:
    with open_directory(outputs_dir, WORK) as work, open_file(work, staged) as file:
        try:
            check_file(file, size, progress, quick=False)
        except UnsoundError as error:
            return f"its copy {error}"
    return ""
