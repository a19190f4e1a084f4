"""What is to be taken back is divided so that no part has to do with another: processes share it, in any order."""

from __future__ import annotations

from ckptrules.changes.history import read_history, standing
from ckptrules.changes.journal import UnitRef
from ckptrules.changes.record import Intent, RunRecord
from ckptrules.engine.actions import Step, Unit
from ckptrules.engine.entries import Identity
from ckptrules.engine.state_folder import TRASH
from tests.support.tables import every_row

RUN = "20260101T000000Z-1"
WHOLE = Identity("directory", 0, 0)


def rename(directory: str) -> tuple[str, Step]:
    return directory, Step("move", directory, "epoch=1.ckpt", directory, "epoch-01.ckpt", "", Identity("file", 1, 1))


def rename_folder(directory: str) -> tuple[str, Step]:
    return directory, Step("move", directory, "old", directory, "new", "", WHOLE)


def archive(path: str) -> tuple[str, Step]:
    folder, _, name = path.rpartition("/")
    trash = f"{TRASH}/{RUN}/{folder}".rstrip("/")
    return path, Step("move", folder, name, trash, f"{name}.trashed", "", WHOLE)


def unarchive(path: str) -> tuple[str, Step]:
    folder, _, name = path.rpartition("/")
    return path, Step("move", ".ckptrules/work/x", name, folder, name, "", WHOLE)


def relink(directory: str, elsewhere: str) -> tuple[str, Step]:
    return directory, Step("relink", elsewhere, "last.ckpt", elsewhere, "new", "old")


def text(path: str) -> tuple[str, Step]:
    return "references", Step("rewrite", path, "y.py", "", "1", "2")


CASES: dict[str, tuple[list[tuple[str, Step]], dict[str, list[str]]]] = {
    "nothing": ([], {}),
    "renames in two": ([rename("a/x"), rename("b/x")], {"a/x": ["a/x"], "b/x": ["b/x"]}),
    "one begins like the other": ([rename("a"), rename("a-2")], {"a": ["a"], "a-2": ["a-2"]}),
    "one in another": ([rename("a"), rename("a/b")], {"a": ["a"], "a/b": ["a/b"]}),
    "a link in another directory": ([relink("a", "b"), rename("b")], {"a": ["b"], "b": ["b"]}),
    "the outputs themselves": ([rename(""), rename("a")], {"": [""], "a": ["a"]}),
    "archived": ([archive("a"), archive("b"), archive("a-2")], {"a": [""], "a-2": [""], "b": [""]}),
    "archived, one in another": (
        [archive("a/b/c"), archive("a/d"), archive("a"), archive("b")],
        {"a": ["", "a", "a/b"], "b": [""]},
    ),
    "brought back, one in another": (
        [unarchive("a"), unarchive("b"), unarchive("a/b/c")],
        {"a": [".ckptrules/work/x", ".ckptrules/work/x"], "b": [".ckptrules/work/x"]},
    ),
    "one in a folder of another that was renamed": (
        [rename_folder("a"), rename("a/new/x"), rename("a/other")],
        {"a": ["a/new/x", "a"], "a/other": ["a/other"]},
    ),
}


@every_row(("intents", "expected"), CASES.values(), ids=list(CASES))
def test_what_lies_in_a_folder_that_was_moved_is_taken_back_with_it(
    intents: list[tuple[str, Step]], expected: dict[str, list[str]]
) -> None:
    rows = [
        Intent(UnitRef(RUN, "1", n, 0), where, where, (Unit("rename", 1, (step,)),), failed={})
        for n, (where, step) in enumerate(intents)
    ]
    runs = read_history([RunRecord(RUN, {}, tuple(rows), ())] if rows else [])
    found = {
        back.directory: [step.directory for unit in back.units for step in unit.steps]
        for run in runs
        for back in standing(run)
    }
    assert found == expected
    assert list(found) == sorted(found)


def test_texts_stand_apart() -> None:
    """Only the user's own state has power over them."""
    records = [
        RunRecord(RUN, {}, (Intent(first, where, where, (Unit("rename", 1, (step,)),), failed={}),), (), first.own)
        for first, (where, step) in (
            (UnitRef(RUN, "1", 1, 0), rename("references")),
            (UnitRef(RUN, "1", 1, 0, own=True), text("/x")),
        )
    ]
    (run,) = read_history(records)
    assert [(back.directory, back.own) for back in standing(run)] == [("references", False), ("references", True)]
