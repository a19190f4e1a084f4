"""Every kind of change keeps the same promises, and a new one is a class and a row."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ckptrules.changes.doing import do_step, do_units, is_done
from ckptrules.changes.history import inverted, standing
from ckptrules.changes.journal import Journal
from ckptrules.changes.kinds import ACTIONS, KINDS
from ckptrules.changes.kinds.kind import ActionKind, Ahead, Kind
from ckptrules.changes.recovery import finish, recover
from ckptrules.changes.transaction import JournalledTree, transact
from ckptrules.changes.undoing import foresee, read_runs
from ckptrules.changes.units import NO_RECORD, NOT_BEGUN, NOT_RECORDED, Transacted, after, head_of, inverse_of, refused
from ckptrules.commands.undo import as_plan
from ckptrules.engine.actions import Action, Plan, Step, Unit
from ckptrules.engine.entries import Identity
from ckptrules.engine.state_folder import TRASH
from ckptrules.report.style import Style
from ckptrules.report.text import Tally, experiment_block, tally
from ckptrules.storage import exchanging, looking, metadata, moving, texts
from ckptrules.storage import trash as trash_room
from ckptrules.storage.base import CHANGED, Changed
from ckptrules.storage.moving import LINK_CHANGED
from ckptrules.storage.posix import Disk
from ckptrules.storage.state import Folders
from ckptrules.storage.texts import keep_content
from tests.support.disturbing import refuse_flags
from tests.support.tables import every

RUN = "20260101T000000Z-1"
BIN = f"{TRASH}/run/exp"
LATER = Ahead((), ())


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    (tmp_path / "outputs/exp").mkdir(parents=True)
    return tmp_path / "outputs"


@pytest.fixture(params=["a new system", "an old system"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Know renames with flags, or not: so it is on NFS."""
    if request.param == "an old system":
        monkeypatch.setattr(moving, "_rename_with", refuse_flags)


def tree(outputs: Path) -> dict[str, str]:
    """Return what people have: path → text or link."""
    files = (path for path in outputs.rglob("*") if ".ckptrules" not in path.parts and not path.is_dir())
    return {
        str(path.relative_to(outputs)): f"-> {path.readlink()}" if path.is_symlink() else path.read_text()
        for path in files
    }


# --- one step of each kind -------------------------------------------------------------------------------------------


def move(outputs: Path) -> Step:
    file = outputs / "exp/a"
    file.write_text("weights")
    return Step("move", "exp", "a", "exp", "b", "", Identity("file", 7, file.stat().st_mtime_ns))


def move_a_folder(outputs: Path) -> Step:
    (outputs / "exp/a").mkdir()
    (outputs / "exp/a/inner").write_text("weights")
    time_ns = (outputs / "exp/a/inner").stat().st_mtime_ns
    return Step("move", "exp", "a", "exp", "b", "", Identity("directory", 7, time_ns))


def trash(outputs: Path) -> Step:
    return move(outputs)._replace(to_directory=BIN, to="a.trashed")


def relink(outputs: Path) -> Step:
    (outputs / "exp/last").symlink_to("a")
    return Step("relink", "exp", "last", "exp", "b", "a")


def link(_: Path) -> Step:
    return Step("link", "exp", "a", "exp", "b")


def unlink(outputs: Path) -> Step:
    (outputs / "exp/a").symlink_to("b")
    return Step("unlink", "exp", "a", "exp", "b")


def repoint(outputs: Path) -> Step:
    (outputs / "exp/latest").write_text("epoch=1.ckpt\n")
    return Step("repoint", "exp", "latest", BIN, "epoch-01.ckpt", "epoch=1.ckpt")


def exchange(outputs: Path) -> Step:
    (outputs / "exp/a").write_text("old paths")
    step = Step("exchange", "exp", "a", BIN, "a.state.trashed")
    with Folders(str(outputs)) as folders:
        folders.descriptor(BIN, create=True)
        (outputs / BIN / step.to).write_text("new paths")
        return step._replace(was=f"{exchanging.mark(folders, step.here)} {exchanging.mark(folders, step.there)}")


def rewrite(outputs: Path) -> Step:
    (outputs / "exp/run.sh").write_text("old")
    was, to = (keep_content(str(outputs), content) for content in (b"old", b"new"))
    return Step("rewrite", str(outputs / "exp"), "run.sh", "", to, was)


STEPS: list[Callable[[Path], Step]] = [move, move_a_folder, trash, relink, link, unlink, repoint, exchange, rewrite]


@pytest.mark.usefixtures("system")
@pytest.mark.parametrize("make", STEPS)
def test_a_step_is_foreseen_made_seen_and_taken_back(outputs: Path, make: Callable[[Path], Step]) -> None:
    step, before = make(outputs), tree(outputs)
    kind = KINDS[step.kind]
    back = kind.inverse(step)
    assert KINDS[back.kind].inverse(back) == step
    with Folders(str(outputs), texts=True) as folders:
        assert (kind.check(folders, step, LATER), is_done(folders, step), tree(outputs)) == ("", False, before)
        do_step(folders, step)
        assert tree(outputs) != before
        assert (is_done(folders, step), KINDS[back.kind].check(folders, back, LATER)) == (True, "")
        do_step(folders, back)
        assert (is_done(folders, step), tree(outputs)) == (False, before)


@pytest.mark.parametrize("make", STEPS)
def test_what_would_not_be_done_is_not_foreseen(outputs: Path, make: Callable[[Path], Step]) -> None:
    """What was made once cannot be made again: the preview says so, in the words of the run."""
    step = make(outputs)
    with Folders(str(outputs), texts=True) as folders:
        do_step(folders, step)
        unit = Unit("rename", 0, (step,))
        done = tree(outputs)
        foreseen = foresee(folders, (unit,))
        assert foreseen == do_units(folders, [unit]) != {}
        assert tree(outputs) == done


@pytest.mark.usefixtures("system")
@pytest.mark.parametrize("make", STEPS)
def test_what_somebody_else_put_there_is_left_as_it_is(outputs: Path, make: Callable[[Path], Step]) -> None:
    step = make(outputs)
    place = Path(outputs, step.directory, step.name)
    shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
    place.write_text("somebody else's")
    with Folders(str(outputs), texts=True) as folders:
        unit = Unit("rename", 0, (step,))
        foreseen = foresee(folders, (unit,))
        assert foreseen == do_units(folders, [unit]) != {}
    assert place.read_text() == "somebody else's"


def test_what_is_no_name_leads_nowhere(tmp_path: Path) -> None:
    """A planted journal may hold any."""
    for make in STEPS:
        outputs = tmp_path / make.__name__
        (outputs / "exp").mkdir(parents=True)
        step = make(outputs)
        planted = [step._replace(name=f"../exp/{step.name}")]
        if step.kind in ("move", "exchange", "link"):
            planted.append(step._replace(to=f"../{os.path.basename(step.to_directory)}/{step.to}"))
        with Folders(str(outputs), texts=True) as folders:
            before = tree(outputs)
            for one in planted:
                with pytest.raises(OSError, match="is no name in a directory"):
                    do_step(folders, one)
            assert tree(outputs) == before
            do_step(folders, step)
            assert [is_done(folders, one) for one in (step, *planted)] == [True] + [False] * len(planted)


def test_files_that_were_to_be_exchanged_are_known_in_a_copy_of_the_tree(outputs: Path) -> None:
    """Earlier journals tell nothing of the content, and so not which of two files of one size and time is which."""
    step, kind = exchange(outputs), KINDS["exchange"]
    files = [outputs / spot.path for spot in (step.here, step.there)]
    for file in files:
        os.utime(file, ns=(7, 7))
    with Folders(str(outputs)) as folders:
        step = step._replace(was=" ".join(exchanging.mark(folders, spot) for spot in (step.here, step.there)))
        early = step._replace(was=" ".join(text.rpartition(".")[0] for text in step.was.split(" ")))
        assert (kind.begins(folders, step), kind.begins(folders, early)) == (True, True)
        os.utime(files[0], ns=(9, 9))
        assert not kind.begins(folders, step)
        os.utime(files[0], ns=(7, 7))
        for file in files:
            shutil.copy2(file, f"{file}.new")
            os.replace(f"{file}.new", file)
        assert (kind.begins(folders, step), kind.begins(folders, early)) == (True, False)
        files[1].write_text("NEW paths")
        os.utime(files[1], ns=(7, 7))
        assert not kind.begins(folders, step)
        os.utime(files[1], ns=(8, 8))
        later = early._replace(was=early.was.removesuffix("7") + "8")
        assert kind.begins(folders, later)


def test_a_file_was_moved_where_it_is_there_and_no_longer_here(outputs: Path) -> None:
    step = move(outputs)
    here, there = outputs / "exp/a", outputs / "exp/b"
    with Folders(str(outputs)) as folders:
        shutil.copy2(here, there)
        assert not is_done(folders, step)
        here.unlink()
        assert is_done(folders, step)
        there.write_text("another")
        assert not is_done(folders, step)


def test_a_folder_into_which_something_came_is_foreseen_to_stay(outputs: Path) -> None:
    step = Step("move", "exp", "a", "exp", "b", "", Identity("directory", 0, looking.NO_FILE))
    (outputs / "exp/a").mkdir()
    unit = Unit("rename", 0, (step,))
    with Folders(str(outputs)) as folders:
        assert foresee(folders, (unit,)) == {}
        (outputs / "exp/a/since").touch()
        assert foresee(folders, (unit,)) == do_units(folders, [unit]) == {0: CHANGED}


def test_what_is_deleted_again_waits_under_the_same_path() -> None:
    step = Step("move", "exp/deep", "a", f"{TRASH}/{RUN}/exp/deep", "a.trashed")
    assert KINDS["move"].in_trash_of(step, "later").to_directory == f"{TRASH}/later/exp/deep"


def let_fail(patch: pytest.MonkeyPatch, number: int, how: str, old_system: bool) -> list[object]:  # noqa: FBT001
    """Let one of the calls that give or take names tell of an error; it is added to the list. A removal fails for good."""
    calls, failed = itertools.count(1), list[object]()

    def failing(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **more: Any) -> Any:
            if next(calls) == number:
                failed.append((name, args))
                if how == "made":
                    call(*args, **more)
            elif how == "made" or name != "unlink" or (name, args) not in failed:
                return call(*args, **more)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        return called

    for name in ("link", "mkdir", "rename", "replace", "rmdir", "symlink", "unlink"):
        patch.setattr(os, name, failing(name, getattr(os, name)))
    flagged = refuse_flags if old_system else failing("rename with a flag", moving._rename_with)  # noqa: SLF001
    patch.setattr(moving, "_rename_with", flagged)
    return failed


@pytest.mark.parametrize("make", STEPS)
def test_a_step_of_which_the_answer_was_lost_is_made_or_not(
    tmp_path: Path, make: Callable[[Path], Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On NFS that is mounted softly the server may have done what it was asked for, and the client tells of an error."""
    for how, old_system in itertools.product(("made", "refused"), (False, True)):
        for number in itertools.count(1):
            outputs = tmp_path / f"{how} {old_system} {number}"
            (outputs / "exp").mkdir(parents=True)
            step = make(outputs)
            unit, before = Unit("rename", 0, (step,)), tree(outputs)
            with Folders(str(outputs), texts=True) as folders:
                with monkeypatch.context() as patch:
                    lost = let_fail(patch, number, how, old_system)
                    failed = do_units(folders, [unit])
                if not lost:
                    break
                assert (not failed) == is_done(folders, step), (lost, failed)
                assert failed or do_units(folders, [inverse_of(unit)]) == {}, lost
                assert tree(outputs) == before, lost
        assert number > 1


def test_what_is_half_done_is_finished_before_anything_else(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename, place = moving.rename, JournalledTree(str(outputs), Journal(Disk(str(outputs)), RUN, 1, {}))

    def fails(directory: int, name: str, to: str, target: int | None = None) -> None:
        if name in ("b", "a2"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(directory, name, to, target)

    steps = []
    for name in "abc":
        (outputs / "exp" / name).write_text(name)
        time_ns = (outputs / "exp" / name).stat().st_mtime_ns
        steps.append(Step("move", "exp", name, "exp", f"{name}2", "", Identity("file", 1, time_ns)))
    units = [Unit("rename", 2, tuple(steps[:2]), 1), Unit("rename", 1, (steps[2],))]
    with monkeypatch.context() as patch:
        patch.setattr(moving, "rename", fails)
        done = transact(place, "exp", "exp", units)
    why = "b: Input/output error; a2 could not be taken back: Input/output error, so it is half done"
    assert done == Transacted({0: why, 1: NOT_BEGUN})
    assert "is half done, and comes first" in transact(place, "exp", "exp", units[1:]).unrecorded
    assert tree(outputs) == {"exp/a2": "a", "exp/b": "b", "exp/c": "c"}
    told = "Recovered: a run was interrupted in exp: 1 of its changes done, 1 not begun."
    assert recover(str(outputs)) == ([told], [])
    assert tree(outputs) == {"exp/a2": "a", "exp/b2": "b", "exp/c": "c"}


def written(path: Path, text: str) -> Identity:
    path.write_text(text)
    return Identity("file", len(text), path.stat().st_mtime_ns)


def test_what_changed_before_it_was_moved_was_not_moved(outputs: Path) -> None:
    """An undo was killed between two links under old names, or a rename found its new name taken; then it was saved."""
    a, b, c = (written(outputs / "exp" / name, name * 2) for name in "abc")
    (outputs / "exp/old a").symlink_to("a")
    (outputs / "exp/old b").symlink_to("b")
    unlinks = [Step("unlink", "exp", f"old {name}", "exp", name) for name in "ab"]
    moves = [Step("move", "exp", name, "exp", f"old {name}", "", known) for name, known in (("a", a), ("b", b))]
    taken = Unit("rename", 2, (Step("move", "exp", "c", "exp", "d", "", c),))
    written(outputs / "exp/d", "somebody's")
    (outputs / "exp/old a").unlink()
    before = tree(outputs)
    for name in "ac":
        written(outputs / "exp" / name, "saved anew")
    with Folders(str(outputs)) as folders:
        failed = finish(folders, [taken, Unit("rename", 4, (*unlinks, *moves), 1)])
    assert failed == {0: "not done when the run was interrupted", 1: f"a: {CHANGED}"}
    assert tree(outputs) == {**before, "exp/a": "saved anew", "exp/c": "saved anew", "exp/old a": "-> a"}


def test_an_exchange_that_stands_in_the_middle_is_on_record(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a system without exchange: the old content was left under a name that no record told of."""
    unit, place = (
        Unit("fix", 3, (exchange(outputs),)),
        JournalledTree(str(outputs), Journal(Disk(str(outputs)), RUN, 1, {})),
    )
    rename = os.rename

    def fails(name: str, to: str, **more: int) -> None:
        if name.endswith(exchanging.SPARE):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(name, to, **more)

    monkeypatch.setattr(moving, "_rename_with", refuse_flags)
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", fails)
        done = transact(place, "exp", "exp", [unit])
        assert done == Transacted({0: "Input/output error, so it is half done"})
        assert recover(str(outputs)).left == ["Not recovered: a run was interrupted in exp: Input/output error"]
    assert recover(str(outputs)).done == [
        "Recovered: a run was interrupted in exp: 1 of its changes done, 0 not begun."
    ]
    assert tree(outputs) == {"exp/a": "new paths"}
    assert (outputs / BIN / "a.state.trashed").read_text() == "old paths"
    assert not list(outputs.rglob(f"*{exchanging.SPARE}"))


def test_what_was_not_freed_at_once_can_be_taken_back(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free, steps = trash_room.free_at_once, [trash(outputs)._replace(to_directory=f"{TRASH}/{RUN}/exp")]
    for name in "bc":
        os.link(outputs / "exp/a", outputs / "exp" / name)
        steps.append(steps[0]._replace(name=name, to=f"{name}.trashed"))
    (outputs / "exp/a").unlink()
    (outputs / "exp/a").write_text("of the same name")

    def busy(storage: Disk, step: Step) -> None:
        if step.name == "c":
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        free(storage, step)

    monkeypatch.setattr(trash_room, "free_at_once", busy)
    place = JournalledTree(str(outputs), Journal(Disk(str(outputs)), RUN, 1, {}))
    units = [Unit("trash", 7, (step,)) for step in steps]
    done = transact(place, "exp", "exp", units, frees=[0, 1, 2])
    assert done == Transacted({0: CHANGED}, {2: os.strerror(errno.EBUSY)})
    (run,) = read_runs(str(outputs))
    assert [unit for _, unit in run.standing.values()] == units[2:]
    assert (len(run.gone), [item.name for item in trash_room.trash_items(Disk(str(outputs)))]) == (1, ["c"])


def test_after_a_crash_a_name_that_a_file_of_the_same_size_and_time_took_is_no_obstacle(outputs: Path) -> None:
    first = move(outputs)
    second = first._replace(name="c", to="a")
    shutil.copy2(outputs / "exp/a", outputs / "exp/c")
    units = [Unit("rename", 7, (step,)) for step in (first, second)]
    Journal(Disk(str(outputs)), RUN, 1, {}).intend("exp", "exp", units)
    with Folders(str(outputs)) as folders:
        assert do_units(folders, units) == {}
    told = "Recovered: a run was interrupted in exp: 2 of its changes done, 0 not begun."
    assert recover(str(outputs)) == ([told], [])


@pytest.mark.parametrize("cut_off", ["the outcome", "the next intent"])
def test_a_journal_that_was_cut_off_is_finished_and_read(outputs: Path, cut_off: str) -> None:
    journal, step = Journal(Disk(str(outputs)), RUN, 1, {}), move(outputs)
    units = [Unit("rename", 7, (step,)), Unit("rename", 7, (step._replace(name="none", to="gone"),))]
    number = journal.intend("exp", "exp", units)
    with Folders(str(outputs)) as folders:
        failed = do_units(folders, units)
    if cut_off == "the next intent":
        journal.conclude(number, failed)
        (outputs / "exp/b").unlink()
    (path,) = (outputs / ".ckptrules/journal").iterdir()
    with path.open("ab") as file:
        file.write(b'{"units": [["re')
    told = ["Recovered: a run was interrupted in exp: 1 of its changes done, 1 not begun."]
    assert recover(str(outputs)) == (told if cut_off == "the outcome" else [], [])
    assert recover(str(outputs)) == ([], [])
    (run,) = read_runs(str(outputs))
    assert (len(run.done), run.interrupted) == (1, False)


@pytest.mark.parametrize("since", ["changed", "gone"])
def test_links_follow_a_crash_also_where_the_file_is_another_one_by_now(outputs: Path, since: str) -> None:
    head = move(outputs)
    links = []
    for name in ("last", "best"):
        (outputs / "exp" / name).symlink_to("a")
        links.append(Step("relink", "exp", name, "exp", "b", "a"))
    Journal(Disk(str(outputs)), RUN, 1, {}).intend("exp", "exp", [Unit("rename", 7, (head, *links))])
    with Folders(str(outputs)) as folders:
        for step in (head, links[0]):
            do_step(folders, step)
    (outputs / "exp/b").write_text("trained on")
    if since == "gone":
        (outputs / "exp/b").unlink()
    recover(str(outputs))
    assert {name: os.readlink(outputs / "exp" / name) for name in ("last", "best")} == {"last": "b", "best": "b"}


@pytest.mark.parametrize("make", [relink, unlink, repoint, exchange])
def test_what_comes_between_the_look_and_the_change_stays(
    outputs: Path, make: Callable[[Path], Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    step, rename, came = make(outputs), moving._rename_with, list[int]()  # noqa: SLF001
    place = outputs / step.here.path

    def come_first(flag: int, *more: int | str) -> None:
        if not came:
            is_link = place.is_symlink()
            place.unlink()
            place.symlink_to("elsewhere") if is_link else place.write_text("saved just now")
        came.append(flag)
        rename(flag, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(moving, "_rename_with", come_first)
    with Folders(str(outputs)) as folders, pytest.raises(Changed):
        do_step(folders, step)
    assert tree(outputs)[step.here.path] in ("-> elsewhere", "saved just now")
    assert (len(came), list((outputs / ".ckptrules").glob("work/*"))) == (2, [])


def test_what_cannot_be_taken_back_holds_nothing_else_back(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No record tells of what a unit that was not done has left: none of its files may stay elsewhere without need."""
    rename = moving.rename

    def refused_at_last(directory: int, name: str, to: str, target: int | None = None) -> None:
        if name == "c":
            (outputs / "exp/b").write_text("saved meanwhile")
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        rename(directory, name, to, target)

    monkeypatch.setattr(moving, "rename", refused_at_last)
    files = {name: outputs / "exp" / name for name in "abc"}
    for name, file in files.items():
        file.write_text(name)
    times = {name: file.stat().st_mtime_ns for name, file in files.items()}
    steps = tuple(Step("move", "exp", n, "exp", f"{n}2", "", Identity("file", 1, times[n])) for n in files)
    with Folders(str(outputs)) as folders:
        failed = do_units(folders, [Unit("rename", 3, steps, 2)])
    assert failed == {0: "c: Permission denied; b2 could not be taken back: File exists"}
    assert tree(outputs) == {"exp/a": "a", "exp/b": "saved meanwhile", "exp/b2": "b", "exp/c": "c"}


def test_a_text_that_is_saved_while_it_is_rewritten_stays(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step, copy_metadata = rewrite(outputs), metadata.copy_metadata_or_refuse

    def save_first(copy: int, like: int, name: str) -> None:
        (outputs / "exp/run.sh").write_text("saved by an editor")
        copy_metadata(copy, like, name)

    monkeypatch.setattr(texts, "copy_metadata_or_refuse", save_first)
    with Folders(str(outputs), texts=True) as folders, pytest.raises(Changed):
        do_step(folders, step)
    assert tree(outputs) == {"exp/run.sh": "saved by an editor"}


def test_what_a_pointer_came_to_hold_is_kept_where_it_cannot_go_back(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, rename, exchanges = repoint(outputs), moving._rename_with, list[int]()  # noqa: SLF001

    def fails_when_going_back(flag: int, *more: int | str) -> None:
        exchanges.append(flag)
        if len(exchanges) > 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        (outputs / "exp/latest").write_text("epoch=2.ckpt\n")
        rename(flag, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(moving, "_rename_with", fails_when_going_back)
    with Folders(str(outputs)) as folders, pytest.raises(Changed, match="cannot go back: Input/output"):
        do_step(folders, step)
    assert exchanges == [moving.EXCHANGE] * 2
    assert "epoch=2.ckpt\n" in [path.read_text() for path in outputs.rglob("*") if path.is_file()]


def test_a_pointer_that_an_earlier_unit_changes_is_no_obstacle(outputs: Path) -> None:
    """As where one checkpoint takes the name that another had."""
    (outputs / "exp/latest").write_text("a\nb\n")
    units = [Unit("rename", 0, (Step("repoint", "exp", "latest", BIN, to, was),)) for was, to in ("ac", "ba")]
    with Folders(str(outputs)) as folders:
        assert foresee(folders, tuple(units)) == do_units(folders, units) == {}
    assert (outputs / "exp/latest").read_text() == "c\na\n"


def test_twice_as_many_folders_are_foreseen_with_twice_the_work(outputs: Path) -> None:
    """A restored experiment of 1,500 folders was foreseen in 14 seconds: each looked through all that leave."""

    def work(number: int) -> int:
        units: list[Unit] = []
        for path in [f"{number}-{n}" for n in range(number)]:
            (outputs / "exp" / path).mkdir()
            (outputs / "exp" / path / "a").write_text("weights")
            file = looking.identity_of_status(os.lstat(outputs / "exp" / path / "a"))
            steps = [
                Step("move", f"exp/{path}", "a", BIN, f"{path}-a", "", file),
                Step("move", "exp", path, BIN, path, "", Identity("directory", 0, -1)),
            ]
            units += [Unit("trash", 0, (step,)) for step in steps]
        lines = [0]

        def count(*_: object) -> Any:
            lines[0] += 1
            return count

        before = sys.gettrace()
        with Folders(str(outputs)) as folders:
            sys.settrace(count)
            try:
                foreseen = foresee(folders, tuple(units))
            finally:
                sys.settrace(before)
        assert foreseen == {}
        return lines[0]

    work(1)
    assert work(100) <= 2.1 * work(50)


def test_what_is_in_the_way_of_a_head_is_named(outputs: Path) -> None:
    (outputs / "exp/old").symlink_to("elsewhere")
    unit = Unit("rename", 0, (Step("unlink", "exp", "old", "exp", "a"), move(outputs)._replace(to="old")))
    with Folders(str(outputs)) as folders:
        assert foresee(folders, (unit,)) == do_units(folders, [unit]) == {0: f"old: {LINK_CHANGED}"}


def test_a_link_in_a_folder_that_an_earlier_unit_moves_is_looked_at_where_it_lies(outputs: Path) -> None:
    """As where undo gives a folder its old name back, and then the link in it its old text."""
    (outputs / "exp/new").mkdir()
    (outputs / "exp/new/link").symlink_to("../b")
    there = Step("move", "exp", "new", "exp", "old", "", Identity("directory", 1, -1))
    relinks = [Step("relink", "exp/old", "link", "exp/old", "../a", was) for was in ("../b", "../c")]
    units = [Unit("rename", 0, (there,)), *(Unit("rename", 0, (relink,)) for relink in relinks)]
    with Folders(str(outputs)) as folders:
        assert foresee(folders, (units[0], units[2])) == {1: LINK_CHANGED}
        assert foresee(folders, tuple(units[:2])) == {}
        assert do_units(folders, units[:2]) == {}
    assert os.readlink(outputs / "exp/old/link") == "../a"


def test_a_text_has_power_only_from_the_users_own_state(outputs: Path) -> None:
    unit, place = (
        Unit("rewrite", 0, (rewrite(outputs),)),
        JournalledTree(str(outputs), Journal(Disk(str(outputs)), RUN, 1, {})),
    )
    with Folders(str(outputs)) as folders:
        assert foresee(folders, (unit,)) == do_units(folders, [unit]) == transact(place, "", "", [unit]).failed != {}
    assert (outputs / "exp/run.sh").read_text() == "old"


@pytest.mark.parametrize("lies", ["in the tree", "in the user's own state"])
def test_after_a_crash_a_text_is_rewritten_by_the_users_own_state_alone(outputs: Path, lies: str) -> None:
    """In the tree others could have planted a journal, whose first step seems to be done."""
    own = outputs.parent / "own"
    root = str(outputs if lies == "in the tree" else own)
    os.makedirs(os.path.join(root, "exp"), exist_ok=True)
    begun, text = move(Path(root)), rewrite(outputs)
    keep_content(root, b"new")
    Journal(Disk(root), RUN, 1, {}).intend("exp", "exp", [Unit("rename", 0, (begun, text))])
    os.rename(Path(root, "exp/a"), Path(root, "exp/b"))
    recover(str(outputs), str(own))
    assert (outputs / "exp/run.sh").read_text() == ("old" if lies == "in the tree" else "new")


# --- units -----------------------------------------------------------------------------------------------------------


def test_what_was_not_done_is_told_with_what_follows_it_and_nothing_else() -> None:
    renames = [Action("rename", name, f"{name}2", 0, ()) for name in "ab"]
    links = [Action("relink", f"last {name}", f"{name}2", 0, (), follows=name, was=name) for name in "ab"]
    plan = Plan("exp", "exp", (*renames, *links))
    assert after(plan, Transacted({})) == plan
    came = after(plan, Transacted({1: CHANGED}))
    assert (came.actions, [one.names for one in came.problems]) == ((renames[0], links[0]), [("b",)])


def test_why_the_only_unit_was_not_done_or_is_not_on_record() -> None:
    assert Transacted({}).why == ""
    assert Transacted({0: CHANGED}).why == CHANGED
    assert Transacted({0: NOT_RECORDED}, unrecorded="disk full").why == "disk full"
    assert Transacted({}, unrecorded="disk full").why == f"{NO_RECORD}disk full"


@every([*ACTIONS])
def test_a_unit_that_is_taken_back_twice_is_the_same(action: str) -> None:
    moves = [Step("move", "exp", name, "exp", f"new {name}") for name in ("a", "a.json", "a.yaml")]
    steps = (*moves, Step("relink", "exp", "last", "exp", "new a", "a"), Step("link", "exp", "a", "exp", "new a"))
    unit = Unit(action, 9, steps)
    back = inverse_of(unit)
    assert inverse_of(back) == unit
    assert head_of(unit) == moves[0]
    assert ACTIONS[action].in_sequence or head_of(back).to == "a"
    assert back.steps[0].kind == "unlink"


def test_what_the_report_says_of_actions_it_can_show() -> None:
    for name, action in ACTIONS.items():
        plan = Plan("exp", "exp", (Action(name, "a", "b", 1, ()),))
        assert f"{action.did}: a" in experiment_block(plan, (), Style())
        assert f"{action.would}: a" in experiment_block(plan, (), Style(preview=True))
        assert tally(plan).changes == 1
        assert action.counts_as in Tally._fields
        assert ACTIONS.get(action.inverse or name)


# --- a new kind ------------------------------------------------------------------------------------------------------


class Retime(Kind):
    """Gives a file another time, in nanoseconds: a kind that exists nowhere but here."""

    name = "retime"
    actions = (ActionKind("retime", "Retimed", "Would retime", "get another time", "rename", "states"),)

    def begins(self, folders: Folders, step: Step) -> bool:
        return self._time(folders, step) == step.was

    def do(self, folders: Folders, step: Step) -> None:
        if not self.begins(folders, step):
            raise OSError(errno.ESTALE, self.changed, step.name)
        os.utime(step.name, ns=(int(step.to), int(step.to)), dir_fd=folders.descriptor(step.directory))

    def is_done(self, folders: Folders, step: Step, *, taken_again: bool) -> bool:  # noqa: ARG002 - a file stays
        return self._time(folders, step) == step.to

    def _time(self, folders: Folders, step: Step) -> str:
        return str(os.stat(step.name, dir_fd=folders.descriptor(step.directory)).st_mtime_ns)


@pytest.fixture
def retime(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> Unit:
    monkeypatch.setitem(KINDS, "retime", Retime())  # its name in the table
    monkeypatch.setitem(ACTIONS, "retime", Retime.actions[0])
    (outputs / "exp/a").touch()
    os.utime(outputs / "exp/a", ns=(5, 5))
    return Unit("retime", 0, (Step("retime", "exp", "a", "exp", "7", "5"),))


def times(outputs: Path) -> int:
    return (outputs / "exp/a").stat().st_mtime_ns


def test_a_new_kind_is_recorded_and_taken_back(outputs: Path, retime: Unit) -> None:
    journal = Journal(Disk(str(outputs)), RUN, 1, {"command": "retime"})
    place = JournalledTree(str(outputs), journal)
    assert transact(place, "exp", "exp", [retime]) == Transacted({})
    assert times(outputs) == 7
    (run,) = read_runs(str(outputs))
    (stands,) = standing(run)
    back = inverted(stands, RUN)
    done = experiment_block(as_plan(back), (), Style())
    assert done == "Processing experiment: exp\n  ✓ Retimed: a\n"
    assert transact(place, "exp", "exp", back.units, takes_back=back.undoes) == Transacted({})
    assert times(outputs) == 5


@pytest.mark.parametrize("crashed", ["before", "after"])
def test_a_new_kind_that_a_crash_interrupted_is_recovered(outputs: Path, retime: Unit, crashed: str) -> None:
    journal = Journal(Disk(str(outputs)), RUN, 1, {"command": "retime"})
    journal.intend("exp", "exp", [retime])
    if crashed == "after":
        os.utime(outputs / "exp/a", ns=(7, 7))
    (before,) = read_runs(str(outputs))
    recover(str(outputs))
    (run,) = read_runs(str(outputs))
    assert (before.done, before.standing, before.interrupted) == (run.done, run.standing, not run.interrupted)
    assert (len(run.done), times(outputs)) == ((0, 5) if crashed == "before" else (1, 7))


def test_why_a_new_kind_was_not_done_is_told_in_its_words(outputs: Path, retime: Unit) -> None:
    os.utime(outputs / "exp/a", ns=(6, 6))
    with Folders(str(outputs)) as folders:
        (why,) = do_units(folders, [retime]).values()
    problem = refused(Action("retime", "a", "", 0, ()), why)
    assert problem.text == "cannot get another time: has changed since it was looked at"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_quota_that_is_used_up_has_a_hint_as_a_full_disk_has(number: int) -> None:
    problem = refused(Action("rename", "a", "b", 0, ()), os.strerror(number))
    assert problem.hint == "make space (df -h, quota -s), and run again"


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES, errno.EMFILE])
def test_what_cannot_be_seen_after_a_crash_is_left_to_a_run_that_can(
    outputs: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(Disk(str(outputs)), RUN, 1, {"command": "migrate"})
    units = [Unit("rename", 7, (move(outputs),))]
    journal.intend("exp", "exp", units)
    with Folders(str(outputs)) as folders:
        assert not do_units(folders, units)

    really = os.lstat

    def fails(path: str, **of: Any) -> os.stat_result:
        if path.endswith(".jsonl"):
            return really(path, **of)
        raise OSError(number, os.strerror(number), path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "lstat", fails)
        recovered = recover(str(outputs))
    assert recovered == ([], [f"Not recovered: a run was interrupted in exp: {os.strerror(number)}"])
    assert recover(str(outputs)).done == [
        "Recovered: a run was interrupted in exp: 1 of its changes done, 0 not begun."
    ]
    (run,) = read_runs(str(outputs))
    assert len(run.standing) == 1
