"""What is to be taken back may be shared by processes only where no directory has to do with another."""

from __future__ import annotations

import pytest

from ckptrules.changes.history import TakeBack, are_independent
from ckptrules.engine.actions import Step, Unit
from ckptrules.engine.state_folder import TRASH

RUN = "20260101T000000Z-1"


def back(directory: str, *steps: Step, own: bool = False) -> TakeBack:
    return TakeBack(directory, directory, (Unit("rename", 1, steps),), (), own)


def rename(directory: str) -> Step:
    return Step("move", directory, "epoch=1.ckpt", directory, "epoch-01.ckpt")


def deletion(directory: str, trash: str) -> Step:
    return Step("move", directory, "epoch=1.ckpt", trash, "epoch=1.ckpt.trashed")


A, B = back("a/checkpoints", rename("a/checkpoints")), back("b/checkpoints", rename("b/checkpoints"))
CASES: dict[str, tuple[bool, list[TakeBack]]] = {
    "nothing": (True, []),
    "renames in two": (True, [A, B]),
    "one begins like the other": (True, [back("a", rename("a")), back("a-2", rename("a-2")), back("aa", rename("aa"))]),
    "folders of parts": (True, [back("a", rename("a/mp_rank_00")), B]),
    "deletions": (True, [back("a", deletion("a", f"{TRASH}/{RUN}/a")), back("b", deletion("b/x", f"{TRASH}/{RUN}/b/x"))]),
    "a link in its own directory": (True, [back("a", rename("a"), Step("link", "a", "last.ckpt", "a", "new", "old")), B]),
    "a link in another directory": (False, [back("a", rename("a"), Step("link", "c", "last.ckpt", "c", "new", "old")), B]),
    "a link in the folder above": (False, [back("a/b", rename("a/b"), Step("link", "a", "best.ckpt", "a", "new", "old"))]),
    "one in another": (False, [back("a", rename("a")), back("a/b", rename("a/b"))]),
    "one in another, others between": (
        False, [back("a", rename("a")), back("a-2", rename("a-2")), back("a/b", rename("a/b"))],
    ),
    "one twice": (False, [A, A]),
    "texts elsewhere": (False, [A, back("references", Step("text", "/x", "y.py", "", "1", "2"), own=True)]),
    "an experiment that was archived": (False, [back("a", deletion("", f"{TRASH}/{RUN}"))]),
    "the outputs themselves": (True, [back("", rename(""))]),
    "the outputs themselves, and what is in them": (False, [back("", rename("")), B]),
    "what lies in the trash of another directory": (False, [back("a", deletion("a", f"{TRASH}/{RUN}/b")), B]),
    "the trash as such": (False, [back("a", deletion("a", TRASH)), B]),
}  # fmt: skip


@pytest.mark.parametrize(("independent", "backs"), CASES.values(), ids=list(CASES))
def test_what_has_nothing_to_do_with_another_is_independent(independent: bool, backs: list[TakeBack]) -> None:  # noqa: FBT001 - a column of the table
    assert are_independent(backs) == independent
    assert are_independent(backs[::-1]) == independent
