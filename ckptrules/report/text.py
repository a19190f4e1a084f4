"""Writes plans and runs as text for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import zip_longest
from operator import add
from typing import TYPE_CHECKING, NamedTuple

from ckptrules.engine.actions import DELETES, Action, Plan, Problem, Skipped, said_of
from ckptrules.engine.entries import Entry, HardLinks
from ckptrules.engine.measures import count_of, freed, human_size, noun_of, still_there, taken
from ckptrules.engine.ruleset import Reason
from ckptrules.report.style import Style, summary_of, table, when

if TYPE_CHECKING:
    from ckptrules.engine.names.drafting import Unread

LARGEST = 10  # lines of the list that shows the order of magnitude
SKIPPED = 20  # names of one directory that are shown though no rule fits them
OF_ONE = ("in_use", "broken")  # problems whose names are all of one checkpoint
STAYS = ("renamed", "restored")  # actions whose checkpoints count as kept


class Tally(NamedTuple):
    """The numbers of a run, or of one of its experiments."""

    experiments: int = 0
    up_to_date: int = 0
    renamed: int = 0
    deleted: int = 0
    relinked: int = 0
    restored: int = 0
    kept: int = 0
    skipped: int = 0
    problems: int = 0
    bytes_deleted: int = 0
    bytes_kept: int = 0
    states: int = 0
    links: int = 0
    rewritten: int = 0
    leftovers: int = 0
    ignored: int = 0  # counted in ``skipped``, too

    def __add__(self, other: Tally) -> Tally:  # type: ignore[override]
        return Tally._make(map(add, self, other))  # fast, as a run with nothing to do adds up all experiments

    @property
    def changes(self) -> int:
        """The number of changes."""
        files = self.renamed + self.deleted + self.leftovers + self.restored
        return files + self.relinked + self.states + self.links + self.rewritten


class SharedFiles(NamedTuple):
    """The files with several names (hard links) in an experiment: those with a name that goes, or one that stays."""

    gone: tuple[HardLinks, ...] = ()
    kept: tuple[HardLinks, ...] = ()


def shared_files(plan: Plan, entries: Iterable[Entry]) -> SharedFiles:
    """Return the files with several names, by whether the names go or stay."""
    shared = {entry.name: entry.shared for entry in entries if entry.shared}
    if not shared:
        return SharedFiles()
    fates = plan.going, plan.not_going
    return SharedFiles(*(tuple(link for name in shared if name in names for link in shared[name]) for names in fates))


def by_file(total: Tally, found: Sequence[SharedFiles]) -> Tally:
    """Correct sums of bytes over experiments, in which a file with several names counts with each name.

    Now it counts once among the kept bytes, or among those that go if all its names go.
    """
    gone, kept = ([link for row in found for link in row[which]] for which in (0, 1))
    return total._replace(bytes_deleted=freed(total.bytes_deleted, gone), bytes_kept=taken(total.bytes_kept, kept))


def tally(plan: Plan) -> Tally:
    """Count one experiment; a file with several names counts with each of them. Renamed checkpoints count as kept.

    Leftovers have a count of their own; their bytes count as deleted.
    """
    from ckptrules.changes.kinds import ACTIONS  # here, as runs with nothing to do count nothing

    count: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for action in plan.actions:
        number = ACTIONS[action.kind].counts_as
        count[number] += 1
        size[number] += action.size
    return Tally(
        **count,
        experiments=1,
        kept=sum(row.is_checkpoint for row in plan.kept) + sum(count[number] for number in STAYS),
        skipped=len(plan.skipped),
        ignored=sum(row.kind == "ignored" for row in plan.skipped),
        problems=len(plan.problems),
        bytes_deleted=size["deleted"] + size["leftovers"],
        bytes_kept=sum(size[number] for number in STAYS) + sum(row.size for row in plan.kept),
    )


def experiment_block(plan: Plan, entries: Iterable[Entry], style: Style) -> str:
    """Return the text on what happened, or would happen, in one experiment; empty if there is nothing to say."""
    lines: list[str] = []
    for action in plan.actions:
        lines += _action_lines(action, style)
    if style.verbose:
        for row in plan.kept:
            label = f"{style.signs['kept']} {'Would keep' if style.preview else 'Kept'}: "
            lines.append(label + style.name(row.name) + files_of(len(row.with_it)))
            lines += _reason_lines(row.reasons, len(label), style)
    lines += _skipped_lines(plan.skipped, style)
    sizes = {entry.name: entry for entry in entries} if plan.problems else {}
    for problem in plan.problems:
        lines += problem_lines(problem, sizes, style)
    lines += [f"{style.signs['note']} Note: {_inline(note, style)}" for note in plan.notes]
    if plan.policy and style.verbose:
        lines.append(f"{style.signs['note']} By: {_inline(plan.policy, style)}")
    if not lines and not style.verbose:
        return ""
    title = style.paint(f"Processing experiment: {style.name(plan.experiment)}", "bold")
    return "\n  ".join([title, *lines]) + "\n"


def _skipped_lines(every: Sequence[Skipped], style: Style) -> Iterator[str]:
    """Yield a line for each name that is skipped; of many with one reason, only the first without ``verbose``."""
    by_reason: dict[str, list[str]] = {}
    for one in every:
        if style.verbose or one.kind == "unrecognised":
            by_reason.setdefault(_inline(one.reason, style), []).append(style.name(one.name))
    label = f"{style.paint(style.signs['skip'], 'yellow')} Skipped: "
    for reason, names in by_reason.items():
        shown = names if style.verbose or len(names) <= SKIPPED else names[: SKIPPED - 2]
        yield from (f"{label}{name} ({reason})" for name in shown)
        if rest := len(names) - len(shown):
            yield f"{label}{rest} more (verbose=1 names them)"


def summary(total: Tally, style: Style, trash_days: int | None, notes: Iterable[str] = ()) -> str:
    """Return the numbers of the whole run, aligned, and the notes below them."""
    if not total.experiments and total.up_to_date:
        what = count_of(total.up_to_date, "experiment is", "experiments are")
        return "\n".join([f"Nothing to do: {what} up to date.", *notes, ""])
    up_to_date = f", {total.up_to_date} up to date" * bool(total.up_to_date)
    verbs = ("to rename", "to delete") if style.preview else ("renamed", "deleted")
    deleted_where = "freed at once (trash_days: 0)" if trash_days == 0 else "to the trash"
    goes = total.deleted + total.leftovers
    unnamed = 0 if style.verbose else total.ignored
    ignored = f"{unnamed} of them " * (unnamed < total.skipped)
    beside = f"and {count_of(total.leftovers, 'leftover')}, " if total.leftovers else ""
    rows = [
        ("processed", total.experiments, noun_of(total.experiments, "experiment") + up_to_date),
        (verbs[0], total.renamed, count_of(total.relinked, "link follows", "links follow") if total.relinked else ""),
        (verbs[1], total.deleted, f"{beside}{human_size(total.bytes_deleted)} {deleted_where}" if goes else ""),
        *[("to restore" if style.preview else "restored", total.restored, "from the trash")] * bool(total.restored),
        *[("states", total.states, "with other paths inside, and as much again in the trash")] * bool(total.states),
        *[("links", total.links, "under old names")] * bool(total.links),
        *[("rewritten", total.rewritten, "files with references")] * bool(total.rewritten),
        ("kept", total.kept, human_size(total.bytes_kept) if total.kept else ""),
        ("skipped", total.skipped, f"{ignored}no checkpoints (verbose=1 names them)" if unnamed else ""),
        ("problems", total.problems, "left untouched, see above" if total.problems else ""),
    ]
    return summary_of(rows, style, notes)


class Outlook(NamedTuple):
    """What an experiment would keep and lose, in a preview.

    Attributes:
        held: the number and the bytes of checkpoints that a problem holds; they count neither as kept nor as deleted.
        largest: the bytes that are freed, and the path, of the largest checkpoints that go.
        blind: a checkpoint that goes although nothing shows which one is the best; else empty.
        unread: names that no rule knows and that look like checkpoints.
    """

    experiment: str
    total: Tally
    held: tuple[int, int] = (0, 0)
    largest: tuple[tuple[int, str], ...] = ()
    blind: str = ""
    unread: tuple[Unread, ...] = ()


def outlook(plan: Plan, entries: Sequence[Entry], total: Tally, links: SharedFiles) -> Outlook:
    """Return what an experiment would keep and lose, by its `tally` and its `shared_files`. Links do not count."""
    shared, counted = {entry.name: entry.shared for entry in entries if links.gone}, still_there(links.gone)
    frees = [
        (taken(action.size, [link for name in action.names for link in shared.get(name, ())], counted), action.name)
        for action in plan.actions
        if action.kind in DELETES
    ]
    goes = sorted(((size, f"{plan.directory}/{name}") for size, name in frees), reverse=True)
    trashed = [f"{plan.directory}/{action.name}" for action in plan.actions if action.kind == "trash"]
    settled = {row.name for row in plan.kept} | {action.name for action in plan.actions}
    names = {name for problem in plan.problems for name in problem.names} - settled
    left = {entry.name: entry.size for entry in entries if entry.name in names and entry.kind != "link"}
    others = {name for problem in plan.problems if problem.id in OF_ONE for name in problem.names[1:]}
    held = len(left.keys() - others), sum(left.values())
    blind = trashed[0] if trashed and plan.blind else ""
    return Outlook(plan.experiment, by_file(total, [links]), held, tuple(goes[:LARGEST]), blind)


def magnitude(every: Sequence[Outlook], style: Style, *, named: bool) -> str:
    """Return a table of what stays and goes in each experiment, and the largest that go; empty if nothing goes.

    If the text above names all that go (``named``), and these are few, it does not name the largest of them again.
    """
    losing = sorted((one for one in every if one.largest), key=lambda one: -one.total.bytes_deleted)
    if not losing:
        return ""
    cells = [(style.name(one.experiment), *_amounts([one])) for one in losing[:LARGEST]]
    if rest := losing[LARGEST:]:
        cells.append((count_of(len(rest), "other"), *_amounts(rest)))
    text = table(("experiment", "stays", "", "goes", ""), cells, right=(1, 2, 3, 4), width=style.width)
    if named and sum(one.total.deleted + one.total.leftovers for one in losing) <= LARGEST:
        return text
    largest = sorted((one for row in losing for one in row.largest), reverse=True)[:LARGEST]
    sizes = table((), [("", human_size(size), style.name(path)) for size, path in largest], right=(1,))
    return f"{text}{style.paint('The largest that go', 'bold')}\n{sizes}"


def _amounts(several: Sequence[Outlook]) -> tuple[str, str, str, str]:
    total = sum((one.total for one in several), Tally())
    kept, size = total.kept + sum(one.held[0] for one in several), sum(one.held[1] for one in several)
    gone = total.deleted + total.leftovers
    return str(kept), human_size(total.bytes_kept + size), str(gone), human_size(total.bytes_deleted)


def trash_sentence(items: int, size: int, days: int | None) -> str:
    """Return a sentence on what waits in the trash, and when it is freed; empty if nothing waits.

    ``days`` are the ``trash_days`` of the rules; None if they are unknown.
    """
    if not items:
        return ""
    ends = {None: "; else it is freed after trash_days", 0: " (trash_days: 0 frees nothing that waits already)"}
    end = ends.get(days, f"; else it is freed after {count_of(days or 0, 'day')} (trash_days)")
    return f"In the trash: {count_of(items, 'item')}, {human_size(size)}. Free the space with 'doit purge'{end}."


@lru_cache
def _opening(kind: str, style: Style) -> tuple[str, str, int]:
    """Return how the first line of an action and that with the new name begin, and the indent of further lines."""
    from ckptrules.changes.kinds import ACTIONS

    action = ACTIONS[kind]
    label = action.would if style.preview else action.did
    sign = style.paint(style.signs[action.sign], "red" if kind in DELETES else "green")
    return f"{sign} {label}: ", f" {style.signs['arrow'].rjust(len(label) + 2)} ", len(label) + 4


def _action_lines(action: Action, style: Style) -> list[str]:
    opening, arrow, indent = _opening(action.kind, style)
    place = f"{action.directory}/{action.name}" if action.directory else action.name
    first = opening + style.name(place) + files_of(action.parts)
    along = _with_it_lines(action, indent, style) if action.with_it or action.leaves_link else ()
    if not action.to:
        reasons = "; ".join(_inline(reason, style) for reason in action.reasons)
        saves = " or ".join(f"{line.key}: {line.value}" for line in action.saves) if style.verbose else ""
        saving = [" " * (indent - 2) + style.paint(f"{saves} would save it", "dim")] if saves else []
        return [f"{first} ({reasons})" if reasons else first, *along, *saving]
    return [first, arrow + style.name(action.to), *along, *_reason_lines(action.reasons, indent, style)]


def files_of(others: int) -> str:
    """Return the number of files of a checkpoint in brackets; empty if it has one."""
    return f" ({others + 1} files)" if others else ""


def _with_it_lines(action: Action, indent: int, style: Style) -> list[str]:
    along = [
        " " * (indent - 2) + f"+ {style.name(name)}" + (f" {style.signs['arrow']} {style.name(to)}" if to else "")
        for name, to in (action.with_it if style.verbose else action.with_it[action.parts :])
        if name != to
    ]
    if action.leaves_link:
        what = (
            f"links stay under the {action.parts + 1} old names" if action.parts else "a link stays under the old name"
        )
        along.append(" " * (indent - 2) + f"+ {what}: {style.name(action.name)}" + ", …" * bool(action.parts))
    return along


def problem_lines(problem: Problem, entries: Mapping[str, Entry], style: Style) -> list[str]:
    """Return the lines of a problem and its hint; ``entries`` must hold its names if it has several."""
    sign = style.paint(style.signs["problem"], "red")
    if len(problem.names) == 1:
        lines = [f"{sign} Problem: {said_of(style.name(problem.names[0]), style.name(problem.text))}"]
    else:
        lines = [f"{sign} Problem: {style.name(problem.text)}"]
        width = max((len(style.name(name)) for name in problem.names), default=0)
        for name, remark in zip_longest(problem.names, problem.remarks, fillvalue=""):
            entry = entries[name]
            line = f"    {style.name(name):<{width}}  {human_size(entry.size):>8}  {when(entry.mtime_ns)}"
            lines.append(f"{line}  {style.name(remark)}".rstrip())
    return [*lines, *([f"    hint: {style.name(problem.hint)}"] if problem.hint else [])]


def _reason_lines(reasons: Iterable[Reason], indent: int, style: Style) -> list[str]:
    if not style.verbose:
        return []
    return [
        " " * indent + style.paint(style.name(reason.text) + place, "dim")
        for reason in reasons
        for place in [f"  {reason.place.file_line}" if reason.place else ""]
    ]


def _inline(reason: Reason, style: Style) -> str:
    text = style.name(reason.text)
    return f"{text}, {reason.place.file_line}" if style.verbose and reason.place else text
