"""Pure: backups and restores → console text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ckptrules.backup import Held, RestoreStep
from ckptrules.manifest import Manifest
from ckptrules.measures import human_size
from ckptrules.model import Item, Problem
from ckptrules.report import Style, count_of, numbers, problem_lines, table

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


def backup_text(path: str, manifest: Manifest, problems: Iterable[Problem], style: Style) -> str:
    """Tell of a finished backup, or of what it would be."""
    verb = "Would back up to" if style.preview else "Backup made"
    lines = [f"{verb}: {style.name(path)} ({manifest.mode}): {contents(manifest)}", *_below(problems, style)]
    return "\n".join([*lines, *([LINK_WARNING] if manifest.mode == "link" else []), ""])


def failed_text(what: str, fact: str, hint: str = "") -> str:
    """Tell that a whole command could not be done."""
    return f"Problem: {what}: {fact}\n" + f"    hint: {hint}\n" * bool(hint)


def backups_table(held: Sequence[Held], folder: str, style: Style, *, verified: bool) -> str:
    """Show the backups of a folder as an aligned table, and below it what is damaged."""
    if not held:
        return f"No backup in '{style.name(folder)}'.\n"
    rows = [_row(backup, style, verified=verified) for backup in held]
    lines = [table(("name", "created", "mode", "files", "size", "state"), rows, right=(3, 4)).rstrip("\n")]
    for backup in held:
        if backup.damage and backup.manifest:
            lines.append(f"In {style.name(backup.name)}:")
        lines += _below(backup.damage, style)
    return "\n".join([*lines, ""])


def restore_text(steps: Sequence[RestoreStep], style: Style) -> str:
    """Tell what was restored, or would be, and count files and links; directories are only the way to them."""
    lines = [line for step in steps for line in _step_lines(step, style)]
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
    """Tell of a backup that was removed, or would be."""
    shared = next((text for mode, text in SHARED.items() if mode in manifest.mode), "")
    return f"{'Would drop' if style.preview else 'Dropped'}: {style.name(path)} ({contents(manifest)}){shared}\n"


def contents(manifest: Manifest) -> str:
    """Write how much a backup holds."""
    return f"{count_of(manifest.files, 'file')}, {human_size(manifest.size)}" if manifest.complete else "incomplete"


def _row(backup: Held, style: Style, *, verified: bool) -> tuple[str, ...]:
    if backup.manifest is None:
        return (style.name(backup.name), "?", "?", "?", "?", "damaged")
    manifest = backup.manifest
    state = "verified" if verified else "complete"
    if manifest.missing:
        state += f", {len(manifest.missing)} could not be read when it was made"
    if backup.damage:
        state = f"damaged: {count_of(len(backup.damage), 'file')}"
    if not manifest.complete or backup.name.startswith("."):
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
