"""Several archives are brought back at once, by threads or processes: the same trees, and each fails by itself."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
from collections.abc import Callable
from importlib.util import find_spec
from random import Random
from typing import Any, NoReturn

import pytest

from ckptrules.storage import unfinished
from ckptrules.vault import space, unpacking
from ckptrules.vault.unpacking import Unpacking
from tests.commands.test_archive import everything
from tests.conftest import Project
from tests.support import crash
from tests.support.dask_work import LOCAL
from tests.support.disturbing import Fault
from tests.support.dying import ENDS, let_workers
from tests.vault.test_packing_on_workers import NAMES
from tests.vault.test_packing_on_workers import make as make_outputs
from tests.vault.test_unpacking_hostile import bomb

pytestmark = pytest.mark.whole
EXECUTORS = ["none", "processes", *([LOCAL] if find_spec("distributed") else [])]
BIG = 24 << 20  # bytes, of each experiment, that cannot be compressed; for less in all no process is started
EVERY = ["one", "three", "three/inner", "two"]
COMMAND = ("unarchive", "archive=archive/*")


def make(project: Project) -> dict[str, tuple[object, ...]]:
    """Make archives of experiments, one of which lies in another one, and return what is in them."""
    make_outputs(project)
    for name in EVERY:
        (project.outputs / name / "noise").write_bytes(Random(name).randbytes(BIG))
    before = everything(project.outputs)
    project.doit("archive", "experiments=*", "archive_dir=archive")
    assert left(project) == []
    return before


def left(project: Project) -> list[str]:
    return sorted(name for name in os.listdir(project.outputs) if name != ".ckptrules")


def unlike(project: Project, before: dict[str, tuple[object, ...]]) -> list[str]:
    """List what is not as before; the time of a folder into which an inner experiment came is not."""
    after = everything(project.outputs)
    return [path for path in before if path not in (".", "three") and before[path] != after.get(path)]


def work_left(project: Project) -> list[str]:
    return os.listdir(project.outputs / ".ckptrules" / "work")


def test_workers_bring_back_the_same_as_one_process(project: Project) -> None:
    before, told = make(project), []
    for executor in EXECUTORS:
        out = [project.doit(*COMMAND, f"executor={executor}", "dry_run=1")]
        assert left(project) == []
        out.append(project.doit(*COMMAND, f"executor={executor}"))
        told.append(out)
        assert unlike(project, before) == []
        assert work_left(project) == []
        for name in NAMES:
            shutil.rmtree(project.outputs / name)
    assert [one == told[0] for one in told] == [True] * len(EXECUTORS)
    sizes = r" \(7 files, 37\.8 MB\)\n"
    expected = sizes.join(f"Brought back: {name}" for name in ("one", "three", "two", "three/inner")) + sizes
    assert re.fullmatch(expected, told[0][1]), told[0][1]
    assert re.match(expected.replace("Brought", "Would bring"), told[0][0]), told[0][0]


def test_what_was_brought_back_from_several_archives_can_be_put_away_again(project: Project) -> None:
    make(project)
    (project.folder / "archive/three%2Finner.tar.zst").unlink()
    project.doit(*COMMAND, "executor=processes")
    assert left(project) == ["one", "three", "two"]
    project.doit("undo")
    assert left(project) == []


@pytest.mark.parametrize(("act", "why"), ENDS.values(), ids=list(ENDS))
def test_an_archive_that_workers_die_of_is_told_and_the_others_are_brought_back(
    project: Project, act: Callable[..., Any], why: str
) -> None:
    before = make(project)
    let_workers(act, "two.tar.zst", project.folder / "dodo.py")
    out = project.doit(*COMMAND, "executor=processes", check=1)
    assert f"Problem: archive/two.tar.zst: was not unpacked: {why}\n" in out
    assert out.count("Brought back: ") == 3
    assert left(project) == ["one", "three"]
    assert [path for path in unlike(project, before) if not path.startswith("two")] == []
    assert work_left(project) == []


def test_a_damaged_archive_is_told_and_the_others_are_brought_back(project: Project) -> None:
    make(project)
    path = project.folder / "archive/one.tar.zst"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    for executor in EXECUTORS:
        out = project.doit(*COMMAND, f"executor={executor}", check=1)
        assert "Problem: archive/one.tar.zst: " in out.splitlines()[0]
        assert out.count("Brought back: ") == 3
        assert left(project) == ["three", "two"]
        assert work_left(project) == []
        shutil.rmtree(project.outputs / "two")
        shutil.rmtree(project.outputs / "three")


def test_each_at_once_has_its_share_of_the_room() -> None:
    several = [Unpacking("", "", size) for size in (1, 2, 3)]
    assert [one.room for one in unpacking.in_shares(several, "work", 61)] == [10, 20, 30]
    assert [one.room for one in unpacking.in_shares(several, "", 61)] == [61] * 3
    assert [one.room for one in unpacking.in_shares(several[:1], "work", 61)] == [61]


@pytest.mark.parametrize("more", [(), ("dry_run=1",)])
def test_what_needs_more_than_its_share_comes_alone(
    project: Project, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    """Zeros are packed into next to nothing, so nobody knows before how much they are."""
    (project.folder / "archive").mkdir()
    for name, size in (("one", 6), ("three", 30), ("two", 6)):
        bomb(project.folder / f"archive/{name}.tar.gz", size << 20, top=name)
    monkeypatch.setattr(space, "room", lambda _: 20 << 20)
    ended = crash.run(project.folder, *COMMAND, *more)
    assert (ended.code, "Problem: archive/three.tar.gz: holds more than 21 MB" in ended.output) == (1, True), ended
    assert ended.output.count("ring back: " if more else "Brought back: ") == 2
    assert left(project) == ([] if more else ["one", "two"])


def test_a_preview_adds_up_what_would_be_there(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    (project.folder / "archive").mkdir()
    for name in NAMES:
        bomb(project.folder / f"archive/{name}.tar.gz", 8 << 20, top=name)
    monkeypatch.setattr(space, "room", lambda _: 20 << 20)
    ended = crash.run(project.folder, *COMMAND, "dry_run=1")
    assert ended.code == 1
    assert ended.output.count("Would bring back: ") == 2
    assert "Problem: archive/two.tar.gz: needs 25.2 MB in outputs, but only 21 MB are free" in ended.output


def test_without_a_workplace_nothing_is_brought_back_and_that_is_told(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.folder / "archive").mkdir()
    for name in NAMES:
        bomb(project.folder / f"archive/{name}.tar.gz", 10, top=name)

    def staging(_: str) -> NoReturn:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(unfinished, "staging", staging)
    ended = crash.run(project.folder, *COMMAND)
    assert (ended.code, ended.output.splitlines()) == (
        1,
        [f"! Problem: archive/{name}.tar.gz: {os.strerror(errno.EDQUOT)}" for name in sorted(NAMES)],
    )


def test_ctrl_c_leaves_each_experiment_in_its_archive_or_brought_back(project: Project) -> None:
    before, stops = make(project), 0
    for at in (20, 60, 90, 120):

        def stop(change: int, at: int = at) -> None:
            if change == at:
                os.kill(os.getpid(), signal.SIGINT)

        ended = crash.run(project.folder, *COMMAND, "executor=processes", at_change=stop)
        assert (ended.code, "Traceback" in ended.output) == (130, False), ended
        stops += bool(re.search(r"^Stopped: archive/\S+ is not brought back\.$", ended.output, re.MULTILINE))
        assert work_left(project) == []
        there = left(project)
        assert [path for path in unlike(project, before) if path.split("/")[0] in there and "inner" not in path] == []
        for name in there:
            shutil.rmtree(project.outputs / name)
    assert stops


@pytest.mark.whole
@pytest.mark.parametrize("how", ["before", "after", errno.ENOSPC])
def test_whatever_fails_each_experiment_is_whole_or_not_there(project: Project, how: str | int) -> None:
    project.make({f"{name}/checkpoints/epoch=1-step=1.ckpt": 500 for name in ("one", "two")})
    project.make({"one/link": "-> checkpoints"})
    (project.folder / "archive").mkdir()
    before = everything(project.outputs)
    project.doit("archive", "experiments=*", "archive_dir=archive")
    kept = project.outputs.rename(project.folder / "kept")
    shutil.copytree(kept, project.outputs, symlinks=True)
    changes = crash.run_in_turn(project.folder, *COMMAND).changes
    for at in range(1, changes + 1):
        shutil.rmtree(project.outputs)
        shutil.copytree(kept, project.outputs, symlinks=True)
        ended = crash.run_in_turn(project.folder, *COMMAND, fault=Fault(at, how))
        assert ended.code == -signal.SIGKILL or isinstance(how, int), ended
        assert "Traceback" not in ended.output, ended
        there = everything(project.outputs)
        of_those = [path for path in before if path.split("/")[0] in left(project)]
        assert [path for path in of_those if before[path] != there.get(path)] == [], (at, ended)
        crash.run_in_turn(project.folder, *COMMAND)
        again = everything(project.outputs)
        assert [path for path in before if path != "." and before[path] != again.get(path)] == [], (at, ended)
        assert work_left(project) == []
