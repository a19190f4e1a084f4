"""Plans and runs → console text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import zip_longest
from operator import add
from typing import TYPE_CHECKING, NamedTuple

from ckptrules.engine.actions import DELETES, Action, Plan, Problem, said_of
from ckptrules.engine.entries import Entry, HardLinks
from ckptrules.engine.measures import freed, human_size, still_there, taken
from ckptrules.engine.ruleset import Reason
from ckptrules.report.style import Style, count_of, summary_of, table, when

if TYPE_CHECKING:
    from ckptrules.engine.drafting import Unread

LARGEST = 10  # so many lines show the order of magnitude
OF_ONE = ("in_use", "broken")  # problems whose names are all of one checkpoint
STAYS = ("renamed", "restored")  # what the numbers of a summary count that is kept


class Tally(NamedTuple):
    """The numbers of a run, or of one experiment of it, and two sums of bytes."""

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
    ignored: int = 0  # among those that are skipped

    def __add__(self, other: Tally) -> Tally:  # type: ignore[override]
        return Tally._make(map(add, self, other))  # once for each experiment of a run that has nothing to do

    @property
    def changes(self) -> int:
        """The number of changes."""
        files = self.renamed + self.deleted + self.leftovers + self.restored
        return files + self.relinked + self.states + self.links + self.rewritten


class Several(NamedTuple):
    """The files with several names of one experiment: those of which names go, and those of which names stay."""

    gone: tuple[HardLinks, ...] = ()
    kept: tuple[HardLinks, ...] = ()


def several(plan: Plan, entries: Iterable[Entry]) -> Several:
    """Sort the files that have several names by what becomes of these."""
    shared = {entry.name: entry.shared for entry in entries if entry.shared}
    if not shared:
        return Several()
    fates = plan.going, plan.not_going
    return Several(*(tuple(link for name in shared if name in names for link in shared[name]) for names in fates))


def by_file(total: Tally, found: Sequence[Several]) -> Tally:
    """Correct the bytes of experiments, by their files with several names.

    Each counts once among the bytes that are kept, and among those that go with its last name.
    """
    gone, kept = ([link for row in found for link in row[which]] for which in (0, 1))
    return total._replace(bytes_deleted=freed(total.bytes_deleted, gone), bytes_kept=taken(total.bytes_kept, kept))


def tally(plan: Plan) -> Tally:
    """Count one experiment, all bytes by name. Renamed checkpoints are among the kept ones.

    Leftovers are counted apart, and their bytes are among those that are deleted.
    """
    from ckptrules.changes.kinds import ACTIONS  # not above: where nothing was done there is nothing to count

    count: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for action in plan.actions:
        count[ACTIONS[action.kind].counts_as] += 1
        size[ACTIONS[action.kind].counts_as] += action.size
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
    """Show what happened, or would happen, in one experiment; an empty text where there is nothing to say."""
    lines: list[str] = []
    for action in plan.actions:
        lines += _action_lines(action, style)
    if style.verbose:
        for row in plan.kept:
            label = f"{style.signs['kept']} {'Would keep' if style.preview else 'Kept'}: "
            lines.append(label + style.name(row.name) + files_of(len(row.with_it)))
            lines += _reason_lines(row.reasons, len(label), style)
    for skipped in plan.skipped:
        if style.verbose or skipped.kind == "unrecognised":
            sign = style.paint(style.signs["skip"], "yellow")
            lines.append(f"{sign} Skipped: {style.name(skipped.name)} ({_inline(skipped.reason, style)})")
    sizes = {entry.name: entry for entry in entries} if plan.problems else {}
    for problem in plan.problems:
        lines += problem_lines(problem, sizes, style)
    lines += [f"{style.signs['note']} Note: {_inline(note, style)}" for note in plan.notes]
    if plan.policy and style.verbose:
        lines.append(f"{style.signs['note']} By: {_inline(plan.policy, style)}")
    if not lines and not style.verbose:
        return ""
    title = style.paint(f"Processing experiment: {style.name(plan.experiment)}", "bold")
    return "\n".join([title, *(f"  {line}" for line in lines), ""])


def summary(total: Tally, style: Style, trash_days: int | None, notes: Iterable[str] = ()) -> str:
    """Show the numbers of the whole run, aligned, and the notes below them."""
    if not total.experiments and total.up_to_date:
        what = count_of(total.up_to_date, "experiment is", "experiments are")
        return "\n".join([f"Nothing to do: {what} up to date.", *notes, ""])
    verbs = ("to rename", "to delete") if style.preview else ("renamed", "deleted")
    deleted_where = "freed at once (trash_days: 0)" if trash_days == 0 else "to the trash"
    goes = total.deleted + total.leftovers
    untold = 0 if style.verbose else total.ignored
    ignored = f"{untold} of them " * (untold < total.skipped)
    beside = f"and {count_of(total.leftovers, 'leftover')}, " if total.leftovers else ""
    rows = [
        (
            "processed",
            total.experiments,
            "experiment" + "s" * (total.experiments != 1) + f", {total.up_to_date} up to date" * bool(total.up_to_date),
        ),
        (verbs[0], total.renamed, count_of(total.relinked, "link follows", "links follow") if total.relinked else ""),
        (verbs[1], total.deleted, f"{beside}{human_size(total.bytes_deleted)} {deleted_where}" if goes else ""),
        *[("to restore" if style.preview else "restored", total.restored, "from the trash")] * bool(total.restored),
        *[("states", total.states, "with other paths inside, and as much again in the trash")] * bool(total.states),
        *[("links", total.links, "under old names")] * bool(total.links),
        *[("rewritten", total.rewritten, "files with references")] * bool(total.rewritten),
        ("kept", total.kept, human_size(total.bytes_kept) if total.kept else ""),
        ("skipped", total.skipped, f"{ignored}no checkpoints (verbose=1 names them)" if untold else ""),
        ("problems", total.problems, "left untouched, see above" if total.problems else ""),
    ]
    return summary_of(rows, style, notes)


class Outlook(NamedTuple):
    """What an experiment would keep and lose, in a preview.

    ``held`` are how many checkpoints a problem holds, and their bytes: they count neither as kept nor as deleted.
    ``largest`` are the bytes that the largest that go free, and their paths. ``blind`` is a checkpoint that goes where
    nothing tells which one is the best. ``unread`` are names that no rule knows and that look like checkpoints.
    """

    experiment: str
    total: Tally
    held: tuple[int, int] = (0, 0)
    largest: tuple[tuple[int, str], ...] = ()
    blind: str = ""
    unread: tuple[Unread, ...] = ()


def outlook(plan: Plan, entries: Sequence[Entry], total: Tally, links: Several) -> Outlook:
    """Say what an experiment would keep and lose; ``total`` is its tally, ``links`` what `several` says of it.

    Links are not counted.
    """
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


def magnitude(every: Sequence[Outlook], style: Style) -> str:
    """Show per experiment what stays and what goes, and the largest that go; nothing where nothing goes."""
    losing = sorted((one for one in every if one.largest), key=lambda one: -one.total.bytes_deleted)
    if not losing:
        return ""
    cells = [(style.name(one.experiment), *_amounts([one])) for one in losing[:LARGEST]]
    if rest := losing[LARGEST:]:
        cells.append((count_of(len(rest), "other"), *_amounts(rest)))
    text = table(("experiment", "stays", "", "goes", ""), cells, right=(1, 2, 3, 4), width=style.width)
    largest = sorted((one for row in losing for one in row.largest), reverse=True)[:LARGEST]
    sizes = table((), [("", human_size(size), style.name(path)) for size, path in largest], right=(1,))
    return f"{text}{style.paint('The largest that go', 'bold')}\n{sizes}"


def _amounts(several: Sequence[Outlook]) -> tuple[str, str, str, str]:
    total = sum((one.total for one in several), Tally())
    kept, size = total.kept + sum(one.held[0] for one in several), sum(one.held[1] for one in several)
    gone = total.deleted + total.leftovers
    return str(kept), human_size(total.bytes_kept + size), str(gone), human_size(total.bytes_deleted)


def trash_sentence(items: int, size: int, days: int | None) -> str:
    """Tell what waits in the trash and how it goes; nothing where nothing waits.

    ``days`` are the ``trash_days`` of the rules; None where they are not known.
    """
    if not items:
        return ""
    ends = {None: "; else it is freed after trash_days", 0: " (trash_days: 0 frees nothing that waits already)"}
    end = ends.get(days, f"; else it is freed after {count_of(days or 0, 'day')} (trash_days)")
    return f"In the trash: {count_of(items, 'item')}, {human_size(size)}. Free the space with 'doit purge'{end}."


@lru_cache
def _opening(kind: str, style: Style) -> tuple[str, str, int]:
    """Return what the lines of an action begin with: the first, the one with the new name; and the indent of more."""
    from ckptrules.changes.kinds import ACTIONS

    action = ACTIONS[kind]
    label = action.would if style.preview else action.did
    sign = style.paint(style.signs[action.sign], "red" if kind in DELETES else "green")
    return f"{sign} {label}: ", f" {style.signs['arrow'].rjust(len(label) + 2)} ", len(label) + 4


def _action_lines(action: Action, style: Style) -> list[str]:
    opening, arrow, indent = _opening(action.kind, style)
    place = f"{action.directory}/{action.name}" if action.directory else action.name
    first = opening + style.name(place) + files_of(action.parts)
    along = _along_lines(action, indent, style) if action.with_it or action.leaves_link else ()
    if not action.to:
        reasons = "; ".join(_inline(reason, style) for reason in action.reasons)
        saves = " or ".join(f"{line.key}: {line.value}" for line in action.saves) if style.verbose else ""
        saving = [" " * (indent - 2) + style.paint(f"{saves} would save it", "dim")] if saves else []
        return [f"{first} ({reasons})" if reasons else first, *along, *saving]
    return [first, arrow + style.name(action.to), *along, *_reason_lines(action.reasons, indent, style)]


def files_of(others: int) -> str:
    """Say how many files a checkpoint is that has others beside the one that it goes by."""
    return f" ({others + 1} files)" if others else ""


def _along_lines(action: Action, indent: int, style: Style) -> list[str]:
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
    """Show a problem with its hint; where it has several names, ``entries`` must hold them."""
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
