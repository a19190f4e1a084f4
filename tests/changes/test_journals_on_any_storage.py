"""Journal, history, trash, notes and lock on every storage: what was begun is known, taken back, and freed."""

from __future__ import annotations

import pytest

from ckptrules.changes import journals
from ckptrules.changes.history import Run, inverted, read_history, standing
from ckptrules.changes.journal import Journal
from ckptrules.changes.record import closing, read
from ckptrules.changes.units import inverse_of
from ckptrules.engine.actions import Step, Unit
from ckptrules.engine.entries import Identity
from ckptrules.engine.state_folder import JOURNALS, STATE
from ckptrules.storage.base import Changed, LockedError, Storage, identity_of_stat
from ckptrules.storage.notes import drop_note, read_note, write_note
from ckptrules.storage.trash import TrashUse, empty_trash, free_at_once, trash_items, trash_runs, trash_use

FIRST, SECOND = "20260101T000000Z-1", "20260102T000000Z-2"
IN_TRASH = f"{STATE}/trash/{{}}/exp"
NAMES = ("a.ckpt", "inner")  # a file, and a folder with a file in it


def fill(storage: Storage) -> None:
    storage.create("exp/a.ckpt", [b"12345"], 7)
    storage.create("exp/inner/b.pt", [b"123"], 9)


def deletion(storage: Storage, name: str) -> Unit:
    stat = storage.stat(f"exp/{name}")
    step = Step("move", "exp", name, IN_TRASH.format(FIRST), f"{name}.trashed", "", identity_of_stat(stat))
    return Unit("trash", stat.size, (step,))


def do(storage: Storage, run: str, header: dict[str, object], *units: Unit, **of_intent: object) -> Journal:
    """Journal what is to happen, move it, and journal that it happened."""
    journal = Journal(storage, run, 1, header)
    number = journal.intend("exp", "exp", units, **of_intent)  # type: ignore[arg-type]
    for step in (step for unit in units for step in unit.steps):
        stat = storage.stat(f"{step.directory}/{step.name}")
        storage.move(f"{step.directory}/{step.name}", f"{step.to_directory}/{step.to}", stat.version)
    journal.conclude(number, {})
    return journal


def runs(storage: Storage) -> list[Run]:
    return read_history(
        record for name, text in journals.read_journals(storage).items() if (record := read(name, text))
    )


def test_what_was_deleted_waits_and_is_taken_back(storage: Storage) -> None:
    fill(storage)
    before = {name: storage.stat(f"exp/{name}") for name in NAMES}
    do(storage, FIRST, {"number": 1}, *(deletion(storage, name) for name in NAMES))
    assert journals.unfinished_journals(storage) == []
    assert trash_use(storage) == TrashUse(2, 8)
    assert [(item.run, item.directory, item.name, item.size) for item in trash_items(storage)] == [
        (FIRST, "exp", "a.ckpt", 5), (FIRST, "exp", "inner", 3)
    ]  # fmt: skip
    (run,) = runs(storage)
    (stands,) = standing(run)
    back = inverted(stands, SECOND)
    do(storage, SECOND, {"number": 2, "takes_back": FIRST}, *back.units, takes_back=back.undoes)
    assert {name: storage.stat(f"exp/{name}") for name in NAMES} == before
    assert [len(run.standing) for run in runs(storage)] == [0, 2]
    assert trash_use(storage) == TrashUse(0, 0)


def test_what_was_deleted_is_freed_and_undo_knows_it(storage: Storage) -> None:
    fill(storage)
    journal = do(storage, FIRST, {"number": 1}, *(deletion(storage, name) for name in NAMES))
    answers = iter([False, False, True])
    stopped = empty_trash(storage, [FIRST], lambda: next(answers))
    assert (stopped.freed.items, len(stopped.left)) == (1, 1)
    emptied = empty_trash(storage, [FIRST])
    assert (emptied.freed.items, dict(emptied.left)) == (1, {})
    assert trash_runs(storage) == []
    journal.purged([FIRST])
    assert (len(runs(storage)[0].gone), runs(storage)[0].standing) == (2, {})


def test_what_was_not_finished_is_known_until_it_is(storage: Storage) -> None:
    fill(storage)
    Journal(storage, FIRST, 1, {}).intend("exp", "exp", [deletion(storage, "a.ckpt")])
    (name,) = journals.unfinished_journals(storage)
    (text,) = journals.read_journals(storage, [name]).values()
    record = read(name, text)
    assert record
    storage.append(f"{JOURNALS}/{name}", closing(text, record.intents[0], {0: "not begun"}).encode())
    assert journals.unfinished_journals(storage) == []
    assert [(run.done, run.stopped) for run in runs(storage)] == [({}, True)]
    assert [header["journal"] for header in journals.journal_headers(storage)] == [2]


def test_what_is_freed_at_once_is_what_was_moved(storage: Storage) -> None:
    fill(storage)
    unit = deletion(storage, "inner")
    do(storage, FIRST, {}, unit)
    path = f"{IN_TRASH.format(FIRST)}/inner.trashed"
    with pytest.raises(Changed):
        free_at_once(storage, unit.steps[0]._replace(identity=Identity("directory", 4, 9)))
    with pytest.raises(OSError, match="is not in the trash"):
        free_at_once(storage, inverse_of(unit).steps[0])
    assert storage.stat(path).size == 3
    free_at_once(storage, unit.steps[0])
    with pytest.raises(FileNotFoundError):
        storage.stat(path)


def test_a_note_is_the_last_that_was_written_or_nothing(storage: Storage) -> None:
    assert read_note(storage, "proved") == ""
    for text in ("one", "two", ""):
        write_note(storage, "proved", text)
        assert read_note(storage, "proved") == text
    for _ in range(2):
        drop_note(storage, "proved")
    assert read_note(storage, "proved") == ""


def test_the_clock_of_the_files_is_read_under_the_lock(storage: Storage) -> None:
    with storage.lock("this run"), pytest.raises(LockedError), storage.lock("another"):
        pass
    assert abs(journals.clocks(storage).files_ns - journals.clocks(storage).wall_ns) < 60_000_000_000
