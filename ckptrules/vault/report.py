"""Pure: backups and restores → console text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ckptrules.engine.actions import Problem
from ckptrules.engine.entries import Item
from ckptrules.engine.measures import count_of, human_size
from ckptrules.report.style import Style, few, numbers, table
from ckptrules.report.text import problem_lines
from ckptrules.storage.attributes import OWNER, UNKNOWN
from ckptrules.vault.backups import FoundBackup, is_hidden
from ckptrules.vault.manifest import Manifest
from ckptrules.vault.restoring import RestoreStep

HEADINGS = ("name", "created", "mode", "files", "size", "state")
DROPS = ("mode", "created", "files")
LATER = ("size",)
NotKept = Mapping[str, Sequence[str]]  # the metadata that copies lost, by their paths
LINK_WARNING = (
    "Hard links protect from deletion only: a program that writes into a file in place changes the backup too."
)
SHARED = {
    "link": "; hard links free nothing while the originals are there",
    "clone": "; clones free only what they do not share with the originals",
}
VERBS = {
    "bring": ("Brought back", "Would bring back", "rename", "green"),
    "replace": ("Replaced", "Would replace", "trash", "red"),
    "identical": ("Identical", "Identical", "kept", "dim"),
}


def backup_text(path: str, manifest: Manifest, problems: Iterable[Problem], style: Style, lost: NotKept) -> str:
    """Report a backup that was made, or would be."""
    verb = "Would back up to" if style.preview else "Backup made"
    lines = [f"{verb}: {style.name(path)} ({manifest.mode}): {contents(manifest)}", *_below(problems, style)]
    lines += lost_lines(lost, style, "; the manifest keeps it, so a restore can bring it back")
    return "\n".join([*lines, *([LINK_WARNING] if manifest.mode == "link" else []), ""])


def outside_lines(links: Sequence[str], style: Style) -> list[str]:
    """Report the links whose targets were not copied with them."""
    one, many = "link leads elsewhere; what it leads to is not", "links lead elsewhere; what they lead to is not"
    return [f"Note: {count_of(len(links), one, many)} in it: {few([*map(style.name, links)])}"] if links else []


def failed_text(what: str, fact: str, hint: str = "") -> str:
    """Report that a whole command failed."""
    return f"Problem: {what}: {fact}\n" + f"    hint: {hint}\n" * bool(hint)


def backups_table(held: Sequence[FoundBackup], folder: str, style: Style) -> str:
    """Show the backups of a folder as a table, and below it the damage."""
    if not held:
        return f"No backup in '{style.name(folder)}'.\n"
    rows = [_row(backup, style) for backup in held]
    lines = [table(HEADINGS, rows, right=(3, 4), width=style.width, drops=DROPS, later=LATER).rstrip("\n")]
    for backup in held:
        if backup.damage and backup.manifest:
            lines.append(f"In {style.name(backup.name)}:")
        lines += _below(backup.damage, style)
    return "\n".join([*lines, ""])


def restore_text(steps: Sequence[RestoreStep], style: Style, notes: Iterable[str] = ()) -> str:
    """Report what was restored, or would be; only files and links are counted."""
    lines = [*(line for step in steps for line in _step_lines(step, style)), *notes]
    lines.append(style.paint("Summary", "bold") + " (nothing was changed)" * style.preview)
    files = [step for step in steps if step.item.kind != "directory"]
    brought, replaced = ([step.item for step in files if step.verdict == verdict] for verdict in ("bring", "replace"))
    problems = sum(step.problem is not None for step in steps)
    rows = [
        ("to bring back" if style.preview else "brought back", len(brought), _size(brought)),
        ("to replace" if style.preview else "replaced", len(replaced), _size(replaced)),
        ("identical", sum(step.verdict == "identical" for step in files), ""),
        ("problems", problems, "left untouched, see above" if problems else ""),
    ]
    lines += numbers(rows, 14)
    return "\n".join([*lines, ""])


def dropped_text(path: str, manifest: Manifest, style: Style) -> str:
    """Report a backup that was removed, or would be."""
    shared = next((text for mode, text in SHARED.items() if mode in manifest.mode), "")
    return f"{'Would drop' if style.preview else 'Dropped'}: {style.name(path)} ({contents(manifest)}){shared}\n"


def lost_lines(lost: NotKept, style: Style, more: str = "") -> list[str]:
    """Report the metadata that copies lost: a line for each kind."""
    names: dict[str, list[str]] = {}
    for path, words in sorted(lost.items()):
        for word in [OWNER] if OWNER in words else words:
            names.setdefault(word, []).append(style.name(path))
    lines = []
    for word, paths in names.items():
        copies = count_of(len(paths), "copy", "copies")
        fact = "not of its owner, but yours" if word == OWNER else f"without the {style.name(word)} of the original"
        lines.append(f"Note: {copies} {fact}{more}: {few(paths, len(paths) if style.verbose else 3)}")
    return lines


def doubt_lines(stated: Manifest, believed: Manifest, what: str, uid: int) -> list[str]:
    """Report that owners and access lists of an untrusted manifest are not used. ``uid`` is the user of this run."""
    pairs = [(one, other) for one, other in zip(stated.items, believed.items, strict=True) if one != other]
    if not any(one.uid not in (UNKNOWN, uid) or one.attributes != other.attributes for one, other in pairs):
        return []
    hint = "    hint: it and its folder must belong to you or to root, and not be open to everybody"
    return [f"Note: owners and access lists are not taken from {what}: others could have written it", hint]


def contents(manifest: Manifest) -> str:
    """Return how much a backup holds, in words."""
    return f"{count_of(manifest.files, 'file')}, {human_size(manifest.size)}" if manifest.complete else "incomplete"


def _row(backup: FoundBackup, style: Style) -> tuple[str, ...]:
    if backup.manifest is None:
        return (style.name(backup.name), "?", "?", "?", "?", "damaged")
    manifest = backup.manifest
    state = "verified" if backup.checked else "complete"
    if manifest.missing:
        state += f", {len(manifest.missing)} left out when it was made"
    if backup.damage:
        state = f"damaged: {count_of(len(backup.damage), 'file')}"
    if not manifest.complete or is_hidden(backup.name):
        state = "incomplete: interrupted, or still at work"
    created = manifest.created[:19].replace("T", " ")
    texts = [style.name(text) for text in (backup.name, created, manifest.mode)]
    amounts = (str(manifest.files), human_size(manifest.size)) if manifest.complete else ("?", "?")
    return (*texts, *amounts, state)


def _step_lines(step: RestoreStep, style: Style) -> list[str]:
    if step.problem:
        return _below([step.problem], style)
    if step.verdict == "identical" and not style.verbose:
        return []
    did, would, sign, colour = VERBS[step.verdict]
    name = style.name(step.item.path) + "/" * (step.item.kind == "directory")
    notes = ["what was here is in the trash"] * (step.verdict == "replace" and not style.preview)
    notes += ["it changed while it was backed up"] * step.item.changed
    note = f" ({'; '.join(notes)})" if notes else ""
    return [f"  {style.paint(style.signs[sign], colour)} {would if style.preview else did}: {name}{note}"]


def _below(problems: Iterable[Problem], style: Style) -> list[str]:
    return [f"  {line}" for problem in problems for line in problem_lines(problem, {}, style)]


def _size(items: Sequence[Item]) -> str:
    return human_size(sum(item.size for item in items)) if items else ""
