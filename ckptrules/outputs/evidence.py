"""Look up the evidence of a plan on the disk: identical contents, links of other directories, files in use."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property

from ckptrules.engine.actions import Plan, Problem
from ckptrules.engine.checkpoints import Evidence, Mention
from ckptrules.engine.entries import Entry, Listing
from ckptrules.engine.facts import Names
from ckptrules.engine.names.companions import Sidecar
from ckptrules.engine.names.naming import reader
from ckptrules.engine.names.sorting import Sorted, name_of, sort_entries
from ckptrules.engine.ruleset import Reason, RuleSet, needed_inside
from ckptrules.engine.whole.wholeness import fitted
from ckptrules.outputs import facts
from ckptrules.outputs.glancing import Glances
from ckptrules.outputs.in_use import in_use
from ckptrules.outputs.links import Links
from ckptrules.outputs.listing import into_part_folders
from ckptrules.outputs.pointers import read_pointers
from ckptrules.stopping import heed
from ckptrules.storage.believing import owner_of_other
from ckptrules.storage.looking import holds_something, refuses_changes
from ckptrules.storage.reading import open_below, open_file_in
from ckptrules.storage.streams import CHUNK, chunks

JOURNAL_BYTES = 2000  # the most that one action takes in the journal
CONFLICTS = ("same_target", "target_exists")


def to_look_at(plan: Plan) -> set[str]:
    """Return the names that a plan changes, that are in conflict, or that must be whole for others to be deleted."""
    touched = {action.name for action in plan.actions if not action.follows}
    return touched.union(plan.rests_on, *_disputed(plan))


def _disputed(plan: Plan) -> list[tuple[str, ...]]:
    return [problem.names for problem in plan.problems if problem.id in CONFLICTS]


class Looks:
    """The evidence of one open directory: everything is looked up once for all plans of it."""

    def __init__(self, directory: int, listing: Listing, rules: RuleSet, links: Links, now_ns: int) -> None:
        self.directory, self.listing, self.rules, self.links, self.now_ns = directory, listing, rules, links, now_ns
        self._facts: dict[tuple[object, ...], tuple[Evidence, tuple[Reason, ...]]] = {}
        self.glances = Glances(directory)
        self._used: dict[str, str] = {}

    @property
    def outputs_dir(self) -> str:
        """The folder of all outputs."""
        return self.links.outputs_dir

    @cached_property
    def entries(self) -> Mapping[str, Entry]:
        """The entries of the listing by name."""
        return {entry.name: entry for entry in self.listing.entries}

    @cached_property
    def found(self) -> Sorted:
        """The entries sorted by the rules."""
        return sort_entries(self.rules, self.listing)

    @cached_property
    def names(self) -> Names:
        """The fields of each checkpoint by name."""
        return facts.names_of(self.listing, self.rules)

    @cached_property
    def inside(self) -> Mapping[str, frozenset[str]]:
        """The files that formats need inside folders, as `look_inside`."""
        return look_inside(self.directory, self.listing, self.rules)

    @cached_property
    def metrics(self) -> Mapping[str, Mapping[str, str]]:
        """The metrics of sidecars, as `read_metrics`."""
        return read_metrics(self.outputs_dir, self.listing, self.found.sidecars)

    @cached_property
    def pointers(self) -> tuple[Mapping[str, tuple[Mention, ...]], tuple[Reason, ...]]:
        """The names in pointer files, and notes on them, as `read_pointers`."""
        return read_pointers(self.directory, self.listing, self.rules, self.links.above(self.listing.directory))

    @cached_property
    def foreign(self) -> Mapping[str, str]:
        """The owners of the pointer files that we cannot replace, by the name of the file."""
        following = [name for name, mentions in self.pointers[0].items() if any(one.text for one in mentions)]
        return {name: owner for name in following if (owner := _other_owner(self.directory, name))}

    def facts_of(
        self,
        sources: facts.Sources,
        *,
        metrics: bool,
        out: frozenset[str] = frozenset(),
        per: tuple[str, ...] = (),
    ) -> tuple[Evidence, tuple[Reason, ...]]:
        """Read the files of `facts`, and the newest checkpoints where they name the best; return evidence and notes.

        The arguments are those of `read_facts`. A second call with the same ones reads nothing.
        """
        key = sources, metrics, out, per
        if key not in self._facts:
            path, listing, names = self.outputs_dir, self.listing, self.names
            found, notes = facts.read_facts(path, listing, sources, names, metrics=metrics, out=out, per=per)
            if sources.inside:
                from ckptrules.outputs.inside import best_inside

                best, more = best_inside(path, listing, sources.inside, self.rules, names, out)
                found, notes = found._replace(best_inside=best), (*notes, *more)
            self._facts[key] = found, notes
        return self._facts[key]

    def why_in_use(self, name: str) -> str:
        """Return why a name may still be written to; empty where nothing says so."""
        if name not in self._used:
            self._used[name] = in_use(self.directory, self.entries[name], self.rules.settle, self.now_ns)
        return self._used[name]


def look(looks: Looks, plan: Plan, known: Evidence) -> Evidence:
    """Return the known evidence with all that may change a plan.

    ``plan`` was made from the known evidence alone; only what it changes or rests on is looked up.
    """
    listing = looks.listing
    same = {
        name: number
        for group in _disputed(plan)
        for name, number in same_content(looks.directory, group, looks.entries).items()
    }
    used = {name: why for name in to_look_at(plan) if (why := looks.why_in_use(name))}
    used |= _by_sidecars(looks, plan)
    resting, going = [name for name in plan.rests_on if name not in used], plan.going
    broken = looks.glances.broken(
        (looks.entries[name] for name in resting), (one for one in listing.entries if one.name in going)
    )
    pointers, notes = looks.pointers
    protecting = {name: mentions for name, mentions in pointers.items() if any(one.protects for one in mentions)}
    return known._replace(
        same={**known.same, **same},
        links=into_part_folders(looks.links.into(listing.directory), listing),
        in_use={**known.in_use, **used},
        broken={**known.broken, **broken},
        pointers={**pointers, **known.pointers, **protecting},  # known pointers are facts that name the best
        notes=notes,
        foreign=looks.foreign,
    )


def _by_sidecars(looks: Looks, plan: Plan) -> dict[str, str]:
    """Return why checkpoints are in use because one of their sidecars or parts is."""
    owners = {name: action.name for action in plan.actions for name, _ in action.with_it}
    return {owner: f"{name} {why}" for name, owner in owners.items() if (why := looks.why_in_use(name))}


def _other_owner(directory: int, name: str) -> str:
    with contextlib.suppress(FileNotFoundError):
        return owner_of_other(os.lstat(name, dir_fd=directory))
    return ""


def read_metrics(
    outputs_dir: str, listing: Listing, sidecars: Mapping[str, Sequence[Sidecar]]
) -> dict[str, dict[str, str]]:
    """Return the metrics of checkpoints: the numbers in their JSON sidecars, at the top or below ``metrics``.

    A sidecar that is longer than a mebibyte, or no JSON, is passed over.
    """
    from ckptrules.engine.facts import numbers
    from ckptrules.formats.limits import NotReadError
    from ckptrules.formats.plainjson import parse

    found = {}
    with open_below(outputs_dir, listing.directory) as directory:
        for owner, names in metric_files(sidecars).items():
            metrics: dict[str, str] = {}
            for name in names:
                with contextlib.suppress(OSError, NotReadError, ValueError), open_file_in(directory, name) as file:
                    metrics |= numbers(parse(b"".join(chunks(file, CHUNK))))
            if metrics:
                found[owner] = metrics
    return found


def metric_files(sidecars: Mapping[str, Sequence[Sidecar]]) -> dict[str, list[str]]:
    """Return the names of the sidecars that may have metrics, by their checkpoint."""
    json_of = {owner: [one.name for one in owned if one.suffix.endswith(".json")] for owner, owned in sidecars.items()}
    return {owner: names for owner, names in json_of.items() if names}


def look_inside(directory: int, listing: Listing, rules: RuleSet) -> dict[str, frozenset[str]]:
    """Return, for each folder whose format has ``complete``, the patterns of it that a file in the folder fits."""
    if not any(rule.complete for rule in (*rules.legacy, *rules.formats)):
        return {}
    read = reader(rules, len(listing.entries))
    folders = [entry for entry in listing.entries if entry.kind == "directory" and not entry.hollow]
    needed = {entry.name: needed_inside(name_of(entry, read).claim.rule) for entry in folders}
    return {
        name: fitted(
            patterns, (path for path in _paths(directory, name) if holds_something(directory, f"{name}/{path}"))
        )
        for name, patterns in needed.items()
        if patterns
    }


def inside_of(outputs_dir: str, listing: Listing, rules: RuleSet) -> dict[str, frozenset[str]]:
    """Return `look_inside` for a directory that is not open."""
    with open_below(outputs_dir, listing.directory) as directory:
        return look_inside(directory, listing, rules)


def _paths(directory: int, name: str) -> Iterator[str]:
    """Yield the paths inside a folder, the upper ones first."""
    for folder, folders, names, _ in os.fwalk(name, dir_fd=directory):
        inner = folder[len(name) + 1 :]
        yield from (os.path.join(inner, one) for one in (*names, *folders))


def same_content(directory: int, names: Collection[str], entries: Mapping[str, Entry]) -> dict[str, int]:
    """Return a number for each file that has the same bytes as another one: equal exactly for identical files.

    Only files of equal size are read.
    """
    by_size: dict[int, list[list[str]]] = defaultdict(list)
    for name in sorted(names):
        groups = by_size[entries[name].size]
        for group in groups:
            if _is_identical(directory, group[0], name):
                group.append(name)
                break
        else:
            groups.append([name])
    identical = [group for groups in by_size.values() for group in groups if len(group) > 1]
    return {name: number for number, group in enumerate(identical) for name in group}


def obstacle(directory: int, plan: Plan) -> Problem | None:
    """Return the problem that would stop the changes in an open directory; None if there is none."""
    disk, refused = os.fstatvfs(directory), refuses_changes(directory)
    if refused == errno.EROFS:
        return _obstacle(plan, "lies on a file system that is read-only", "see dmesg: a failing disk is mounted so")
    if refused:
        return _obstacle(plan, "cannot be written", "look at the owner and the mode: ls -la")
    if disk.f_blocks and disk.f_bavail * disk.f_frsize < (needed := JOURNAL_BYTES * len(plan.actions)):
        hint = (
            f"make space (df -h), and run again: the record of the changes takes {needed // 1000} KB before any space"
        )
        hint += " is freed. 'doit purge' empties the trash; where that holds nothing, remove some file by hand"
        return _obstacle(plan, "lies on a file system that is full", hint)
    status = os.fstat(directory)
    if status.st_mode & stat.S_ISVTX and os.geteuid() not in (0, status.st_uid):
        for action in plan.actions:
            if not action.directory and os.lstat(action.name, dir_fd=directory).st_uid != os.geteuid():
                text = f"is sticky (mode +t), and {action.name} belongs to somebody else"
                return _obstacle(plan, text, "let its owner run this: ls -la")
    return None


def _obstacle(plan: Plan, text: str, hint: str) -> Problem:
    return Problem("preflight", (plan.directory,), text, hint)


def _is_identical(directory: int, one: str, other: str) -> bool:
    with (
        contextlib.suppress(OSError),
        open_file_in(directory, one) as first,
        open_file_in(directory, other) as second,
    ):
        while (chunk := os.read(first, CHUNK)) == os.read(second, CHUNK):
            heed()
            if not chunk:
                return True
    return False
