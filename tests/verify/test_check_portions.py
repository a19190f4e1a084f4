"""A large folder is read side by side, file by file, and what is told of it is what one worker would tell."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
from functools import partial
from pathlib import Path

import pytest

from ckptrules.engine.entries import Entry
from ckptrules.formats.content import Progress
from ckptrules.stopping import StoppedError
from ckptrules.verify import portion
from ckptrules.verify.portion import Answer, Context, Depth, Portion, of_portions, portions_of, read_one, read_portion
from ckptrules.workers.pieces import Lost, cut
from ckptrules.workers.workers import Workers
from tests.conftest import Project
from tests.formats.test_folders import BROKEN, SHARDED, WHOLE, Files, index, rows, said
from tests.support.torch_files import torch_zip, write_large

FIRST, SECOND, THIRD = (f"pytorch_model-0000{n}-of-00003.bin" for n in (1, 2, 3))
BINS = {
    FIRST: torch_zip({}), SECOND: torch_zip({}), THIRD: torch_zip({}),
    "pytorch_model.bin.index.json": index(FIRST, SECOND, THIRD),
}  # fmt: skip
CUT = torch_zip({})[:-9]
MIXED: dict[str, tuple[Files, Files, str]] = {
    "one damaged": (BINS, {SECOND: CUT}, "truncated"),
    "two damaged": (BINS, {THIRD: CUT, FIRST: bytes(50)}, "damaged"),
    "one damaged, one missing": (BINS, {SECOND: CUT, THIRD: None}, "incomplete"),
    "one damaged, and an index that lacks another": (
        BINS, {SECOND: CUT, "pytorch_model.bin.index.json": index("other.bin")}, "truncated"
    ),
    "an index that lacks another": (BINS, {"pytorch_model.bin.index.json": index("other.bin")}, "incomplete"),
    "code": (BINS, {SECOND: torch_zip(os.system)}, "runs_code"),
}  # fmt: skip
CASES = {**{name: (files, {}, "") for name, files in WHOLE.items()}, **BROKEN, **MIXED}


def made(folder: Path, files: Files) -> tuple[Context, Entry]:
    """Make a checkpoint ``c`` of these files, and the context at which it is read."""
    said(folder / "run", files)
    return context_for(folder)


def context_for(folder: Path) -> tuple[Context, Entry]:
    status = (folder / "run/c").stat()
    size = sum(path.lstat().st_size for path in (folder / "run/c").rglob("*") if path.is_file())
    return Context(str(folder), "run", Depth(), {}, status.st_mtime_ns + 10**11), Entry("c", "directory", size, 0)


def tell(_: int) -> None: ...


def answered(context: Context, portions: list[Portion]) -> list[tuple[Portion, Answer]]:
    """Have each portion read as by another process."""
    return [(one, pickle.loads(pickle.dumps(read_portion(context, one, tell)))) for one in portions]


@pytest.fixture
def every_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take all folders to be large."""
    monkeypatch.setattr(portion, "SHARED", 0)


@pytest.mark.usefixtures("every_folder")
@pytest.mark.parametrize("name", rows(CASES))
def test_a_folder_that_is_shared_is_told_of_in_the_same_words(tmp_path: Path, name: str) -> None:
    files, change, expected = CASES[name]
    (tmp_path / "run").mkdir()
    context, entry = made(tmp_path, {**files, **change})
    alone = read_one(context, entry, tell)
    assert (alone.problem.id if alone.problem else "") == expected.partition(":")[0]
    assert of_portions(context, answered(context, [*portions_of(context, entry)]), tell) == alone


@pytest.mark.usefixtures("every_folder")
def test_each_file_with_checksums_of_its_own_is_a_portion(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    context, entry = made(tmp_path, BINS)
    assert [one.file and one.file.path for one in portions_of(context, entry)] == [FIRST, SECOND, THIRD]


@pytest.mark.parametrize("ending", [".bin", ".safetensors"])
def test_a_folder_of_large_files_makes_many_pieces_where_much_is_read(tmp_path: Path, ending: str) -> None:
    (tmp_path / "run/c").mkdir(parents=True)
    for number in range(1, 11):
        (tmp_path / f"run/c/model-{number:05}-of-00010{ending}").touch()
        os.truncate(tmp_path / f"run/c/model-{number:05}-of-00010{ending}", 10 << 30)
    portions = portions_of(*context_for(tmp_path))
    assert len([*cut(portions, 2)]) == (10 if ending == ".bin" else 1)
    assert sum(one.size for one in portions) == 100 << 30


@pytest.mark.usefixtures("every_folder")
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({SECOND: CUT}, f"its part '{SECOND}' is cut off"),
        ({SECOND: None}, f"lacks '{SECOND}'"),
        ({"more.bin": CUT}, "its part 'more.bin' is cut off"),
    ],
)
def test_what_has_changed_since_is_read_again(tmp_path: Path, change: Files, expected: str) -> None:
    (tmp_path / "run").mkdir()
    context, entry = made(tmp_path, BINS)
    answers = answered(context, [*portions_of(context, entry)])
    for path, content in change.items():
        (tmp_path / "run/c" / path).unlink(missing_ok=True)
        if isinstance(content, bytes):
            (tmp_path / "run/c" / path).write_bytes(content)
    read = of_portions(context, answers, tell)
    assert read.problem
    assert read.problem.text.startswith(expected)


@pytest.mark.usefixtures("every_folder")
def test_what_is_repaired_meanwhile_is_not_called_broken(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    context, entry = made(tmp_path, {**BINS, SECOND: CUT})
    answers = answered(context, [*portions_of(context, entry)])
    (tmp_path / "run/c" / SECOND).write_bytes(BINS[SECOND])
    assert of_portions(context, answers, tell) == read_one(context, entry, tell)


@pytest.mark.usefixtures("every_folder")
@pytest.mark.parametrize(
    ("answer", "text", "broken"),
    [
        (Lost("3 workers died of it"), f"its part '{SECOND}' was not read: 3 workers died of it", ""),
        (PermissionError(13, "Permission denied"), "cannot be read: Permission denied", ""),
        (OSError(5, "a bad sector"), "cannot be read: a bad sector", "cannot be read: a bad sector"),
    ],
)
def test_a_file_that_nobody_could_read_is_held_against_its_checkpoint(
    tmp_path: Path, answer: Answer, text: str, broken: str
) -> None:
    (tmp_path / "run").mkdir()
    context, entry = made(tmp_path, BINS)
    first, (second, _), third = answered(context, [*portions_of(context, entry)])
    read = of_portions(context, [first, (second, answer), third], tell)
    assert (read.result.broken if read.result else "") == broken
    assert read.identity
    assert read.problem
    assert (read.problem.id, read.problem.names, read.problem.text) == ("unreadable", ("c",), text)


@pytest.mark.usefixtures("every_folder")
def test_a_wish_to_stop_ends_the_reading_of_the_rest(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    context, entry = made(tmp_path, SHARDED)

    def stop(_: int) -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        of_portions(context, answered(context, [*portions_of(context, entry)]), stop)


# --- whole runs, and workers that die --------------------------------------------------------------------------------

LARGE = 100 << 20


def large(project: Project) -> Project:
    """Make folders of 300 MB, all of it holes: one is whole, of one a file is damaged, of one a file is missing."""
    for epoch, change in enumerate((None, "damage", "remove")):
        folder = project.outputs / f"exp/checkpoints/epoch-0{epoch}_step-00000{epoch}.ckpt"
        for path in (FIRST, SECOND, THIRD):
            write_large(folder / path, {"epoch": epoch, "global_step": epoch}, LARGE)
        (folder / "pytorch_model.bin.index.json").write_bytes(BINS["pytorch_model.bin.index.json"])
        if change == "damage":
            with (folder / SECOND).open("r+b") as second:
                second.seek(LARGE // 2)
                second.write(b"flipped")
        elif change == "remove":
            (folder / THIRD).unlink()
        for file in folder.iterdir():
            os.utime(file, (1e9, 1e9))  # else it is too young to be remembered
    return project


def die(path: str, context: Context, portion: Portion, progress: Progress) -> Answer:
    """Read a portion, but die of one."""
    if portion.file and portion.file.path == path:
        os.kill(os.getpid(), signal.SIGKILL)
    return read_portion(context, portion, progress)


@pytest.mark.whole
def test_a_worker_that_dies_of_a_file_costs_its_checkpoint_and_no_other(tmp_path: Path) -> None:
    for path in (FIRST, SECOND, THIRD):
        write_large(tmp_path / "run/c" / path, {}, LARGE)
    context, entry = context_for(tmp_path)
    portions = portions_of(context, entry)
    workers = Workers({}, asked=2)
    workers.executor = "processes"
    try:
        answers = [*workers.each(partial(die, SECOND, context), portions, tell)]
        others = [*workers.each(partial(die, "none", context), portions, tell)]
    finally:
        workers.end(killed=False)
    read = of_portions(context, [*zip(portions, answers, strict=True)], tell)
    assert read.problem
    assert read.problem.text.startswith(f"its part '{SECOND}' was not read: 3 workers died of it")
    assert of_portions(context, [*zip(portions, others, strict=True)], tell) == read_one(context, entry, tell)


EXPECTED = f"""\
Verifying experiment: exp
  ✓ epoch-00_step-000000.ckpt  315 MB  directory, epoch 0, step 0
  ! epoch-01_step-000001.ckpt  315 MB  not sound
  ! epoch-02_step-000002.ckpt  210 MB  not sound
  ! Problem: epoch-01_step-000001.ckpt: its part '{SECOND}' is damaged in 'archive/data/0'
      hint: its bytes have changed since it was written: take it from a copy
  ! Problem: epoch-02_step-000002.ckpt lacks '{THIRD}'
  3 checkpoints, 1 of them verified
"""


@pytest.mark.whole
def test_many_workers_tell_and_remember_the_same(project: Project) -> None:
    large(project)
    for how in ("executor=none", "executor=processes", "-n 2"):
        first = project.doit(*how.split(), "verify", check=1)
        again = project.doit("verify", check=1)
        for out, read in ((first, 3), (again, 2)):  # what is broken is read by each run
            assert EXPECTED in out, how
            assert f"read now    {read}" in out, how
        shutil.rmtree(project.outputs / ".ckptrules")
