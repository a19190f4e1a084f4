"""Finishes what an interrupted run began, before another one begins. Reads the journals for history and undo."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ckptrules.changes import journal, journals
from ckptrules.changes.history import Run, in_trash_of, read_history
from ckptrules.changes.transaction import finish
from ckptrules.storage import reading, state
from ckptrules.storage.folders import Folders


class Recovered(NamedTuple):
    """What became of interrupted runs; ``unread`` tells of those whose journal is damaged."""

    told: list[str]
    unread: list[str]


def recover(outputs_dir: str, own_state: str = "") -> Recovered:
    """Finish or take back what interrupted runs began. The caller holds the lock.

    Args:
        outputs_dir: the folder of the experiments. What its journals tell has power below it, and nowhere else.
        own_state: the user's own state, whose journals have power over texts; nothing where there is none.
    """
    result = Recovered([], [])
    for root in filter(None, (outputs_dir, own_state)):
        for name, text in journals.read_journals(root, journals.unfinished_journals(root)).items():
            try:
                record = journal.read(name, text, own=root == own_state)
            except journal.JournalError as error:
                place = f"{root}/" if root == own_state else ""
                fact = f"Not recovered: {place}{journals.JOURNALS}/{error}"
                result.unread.append(f"{fact}. Move the file away when you have looked at it.")
                continue
            _finish(root, name, text, record, result.told)
    return result


def _finish(root: str, name: str, text: str, record: journal.Record | None, sentences: list[str]) -> None:
    open_intents = [intent for intent in record.intents if intent.failed is None] if record else []
    intent = open_intents[-1] if open_intents else None
    failed: Mapping[int, str] = {}
    if record and intent:
        intent = intent._replace(units=tuple(in_trash_of(record.run, unit) for unit in intent.units))
        with Folders(root, texts=record.own) as folders:
            failed = finish(folders, intent)
        counts = f"{len(intent.units) - len(failed)} of its changes done, {len(failed)} not begun"
        sentences.append(f"Recovered: a run was interrupted in {intent.directory}: {counts}.")
    state.Appender(root, f"journal/{name}")(journal.closing(text, intent, failed), True)  # noqa: FBT003


def interrupted(*roots: str) -> bool:
    """Say whether a run was interrupted, or is at work right now, by the journals in some folders."""
    try:
        return any(journals.unfinished_journals(root) for root in roots if root)
    except OSError:  # what cannot be read is told by the run that has to read it
        return False


def fault_of(outputs_dir: str, error: journal.JournalError | OSError) -> str:
    """Say why the journals cannot be read."""
    place = f"{outputs_dir}/{journals.JOURNALS}"
    return f"{place}: cannot be read: {reading.told(error)}" if isinstance(error, OSError) else f"{place}/{error}"


def read_runs(outputs_dir: str, own_state: str = "") -> list[Run]:
    """Read all journals, oldest run first.

    Args:
        outputs_dir: the folder of the experiments.
        own_state: the user's own state, or nothing.

    Raises:
        JournalError: one of them is damaged.
        OSError: one of them cannot be read.
    """
    return read_history(
        record
        for root in filter(None, (outputs_dir, own_state))
        for name, text in journals.read_journals(root).items()
        if (record := journal.read(name, text, own=root == own_state))
    )
