"""Every look that a run takes can fail: nothing is lost, no link dangles, and all goes on from there."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.support.disturbing import Fault, Read
from tests.support.undisturbed import CASES, UNARCHIVE, Place

pytestmark = [
    pytest.mark.whole,
    pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="no /proc tells what a descriptor stands for"),
]

PASSED_OVER = {  # after an exchange of an old system nothing is looked at
    "migrate, old system",
    "migrate in training, old system",
    "undo, old system",
    "undo of drop_links",
}
OURS = (
    "rules/",
    "dodo.py",
    *(f"outputs/.ckptrules/{name}" for name in ("lock", "doit.db", "proved", "journal", "work")),
)


@pytest.fixture
def place(project: Project, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("XDG_STATE_HOME", str(project.folder / "state"))
    return Place(project, CASES[request.param], tmp_path / "kept")


def instants(reads: Sequence[Read]) -> list[int]:
    """Choose the reads that may end in a way of their own: of those between two changes, each of a kind once.

    Where a path is opened part by part, the last part is enough.
    """
    chosen: dict[Read, int] = {}
    for at, read in enumerate(reads, 1):
        below = (other for other in reads[at : at + 12] if other.after == read.after and other.call == "open")
        if not (read.call in ("open", "fstat") and any(other.path.startswith(f"{read.path}/") for other in below)):
            chosen.setdefault(read, at)
    return list(chosen.values())


def let_it_fail(place: Place, fault: Fault, seen: set[str]) -> None:
    """Let one look fail, and check all that is promised; what another fault has left before needs no second look."""
    place.begin()
    ended = place.run(*place.case.command, fault=fault)
    at = (fault.at, ended.reads[fault.at - 1 : fault.at], ended.code, ended.output)
    assert ended.code in (0, 1, 3), at
    assert "Traceback" not in ended.output, at
    assert place.must_stay <= place.contents(), at
    if "Not searched for links: " in ended.output:  # and that one of them may come to lead nowhere
        return
    assert not place.dangling(), (at, place.dangling())
    assert ended.code or place.tree() == place.final, at
    if place.case.command == UNARCHIVE:  # what it says of itself must be true
        assert ("Not brought back" in ended.output) == (place.tree() != place.final), at
    if (left := place.left(ended)) not in seen:
        seen.add(left)
        place.finish(at)


@pytest.mark.parametrize("place", [case for case in CASES if case not in PASSED_OVER], indirect=True)
def test_a_look_fails(place: Place) -> None:
    seen: set[str] = set()
    assert place.undisturbed.reads
    for at in instants(place.undisturbed.reads):
        let_it_fail(place, Fault(at, errno.EIO, "later reads"), seen)


@pytest.mark.parametrize("place", ["migrate", "migrate in training", "refs", "drop_links"], indirect=True)
def test_a_look_before_the_first_change_fails(place: Place) -> None:
    """What could not be looked at is not taken to be absent: a link, a pointer, a folder, a text."""
    seen: set[str] = set()
    place.begin()
    reads = place.run(*place.case.command, count="reads").reads
    before = reads[: len(reads) - len(place.undisturbed.reads)]
    for at in [at for at in instants(before) if not before[at - 1].path.startswith(OURS)]:
        let_it_fail(place, Fault(at, errno.EIO, "reads"), seen)


@pytest.mark.parametrize("place", ["migrate in training", "drop_links"], indirect=True)
def test_all_looks_at_one_path_fail(place: Place) -> None:
    """As when a server has forgotten it, or the table of open files is full."""
    seen: set[str] = set()
    for at in instants(place.undisturbed.reads)[::2]:
        let_it_fail(
            place, Fault(at, (errno.ESTALE, errno.EMFILE, errno.EACCES)[at % 3], "later reads", lasts=True), seen
        )
