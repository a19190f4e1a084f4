"""Finishes what an interrupted run began, before another one begins. Reads the journals for history and undo."""

from __future__ import annotations

from typing import NamedTuple

from ckptrules import journal, scan, store
from ckptrules.apply import finish
from ckptrules.history import Run, read_history


class Recovered(NamedTuple):
    """What became of interrupted runs; ``unread`` tells of those whose journal is damaged."""

    told: list[str]
    unread: list[str]


def recover(outputs_dir: str) -> Recovered:
    """Finish or take back what interrupted runs began. The caller holds the lock."""
    told, unread = [], []
    for name, text in scan.read_journals(outputs_dir, scan.unfinished_journals(outputs_dir)).items():
        try:
            record = journal.read(name, text)
        except journal.JournalError as error:
            unread.append(f"Not recovered: {scan.JOURNALS}/{error}. Move the file away when you have looked at it.")
            continue
        open_intents = [intent for intent in record.intents if intent.failed is None] if record else []
        intent = open_intents[-1] if open_intents else None
        failed = {}
        if intent:
            with store.Folders(outputs_dir) as folders:
                failed = finish(folders, intent)
            counts = f"{len(intent.units) - len(failed)} of its changes done, {len(failed)} not begun"
            told.append(f"Recovered: a run was interrupted in {intent.directory}: {counts}.")
        store.Appender(outputs_dir, f"journal/{name}")(journal.closing(text, intent, failed), True)  # noqa: FBT003
    return Recovered(told, unread)


def interrupted(outputs_dir: str) -> bool:
    """Say whether a run was interrupted, or is at work right now."""
    try:
        return bool(scan.unfinished_journals(outputs_dir))
    except OSError:  # what cannot be read is told by the run that has to read it
        return False


def fault_of(outputs_dir: str, error: journal.JournalError | OSError) -> str:
    """Say why the journals cannot be read."""
    place = f"{outputs_dir}/{scan.JOURNALS}"
    return f"{place}: cannot be read: {scan.told(error)}" if isinstance(error, OSError) else f"{place}/{error}"


def read_runs(outputs_dir: str) -> list[Run]:
    """Read all journals, oldest run first.

    Raises:
        JournalError: one of them is damaged.
        OSError: one of them cannot be read.
    """
    texts = scan.read_journals(outputs_dir)
    return read_history(record for name, text in texts.items() if (record := journal.read(name, text)))
