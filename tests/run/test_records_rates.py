"""How long a run will take is told by the rate that is allowed, or by the last such run here, or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ckptrules.formats.files import HEADER
from ckptrules.run.command_line import command_line
from ckptrules.run.options import Common
from ckptrules.run.progress import Bar
from ckptrules.run.records import UNKNOWN, expected_time, note_rate, rates, time_text
from ckptrules.run.session import Session
from tests.conftest import Project
from tests.support.tables import every_row

GB = 10**9


@every_row(
    ("size", "max_rate", "last", "expected"),
    [
        (31 * GB, "2GB/s", None, "about 16s, at max_rate=2GB/s"),
        (31 * GB, "2GB/s", 4 * GB, "about 16s, at max_rate=2GB/s"),
        (31 * GB, "2GB/s", GB, "about 31s, at 1 GB/s as in the last such run here"),
        (31 * GB, None, 2_100_000_000, "about 15s, at 2.1 GB/s as in the last such run here"),
        (5000 * GB, None, GB, "about 2h, at 1 GB/s as in the last such run here"),
        (1, None, GB, "about 1s, at 1 GB/s as in the last such run here"),
        (31 * GB, None, None, UNKNOWN),
        (GB - 1, None, None, ""),
    ],
)  # fmt: skip
def test_the_time_is_told_with_what_it_goes_by(
    size: int, max_rate: str | None, last: int | None, expected: str
) -> None:
    assert time_text(size, max_rate, last) == expected


def test_nothing_takes_no_time(tmp_path: Path) -> None:
    assert expected_time("verify", Common(outputs_dir=str(tmp_path)), 0) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"verify": 5, "backup": 7}', {"verify": 5, "backup": 7}),
        ('{"verify": 0, "backup": -1, "restore": "5", "archive": true, "unarchive": 1.5}', {}),
        ("[5]", {}),
        ('"x"', {}),
        ("[" * 100_000, {}),
        ("{", {}),
        ("", {}),
    ],
)  # fmt: skip
def test_a_damaged_note_tells_nothing(tmp_path: Path, text: str, expected: dict[str, int]) -> None:
    state = tmp_path / ".ckptrules"
    state.mkdir(0o700)
    (state / "rates").write_text(text)
    assert rates(str(tmp_path)) == expected


@every_row(
    ("words", "moved", "seconds", "expected"),
    [
        ("verify", 4 * GB, 2, {"archive": 3, "verify": 2 * GB}),
        ("backup", 4 * GB, 2, {"archive": 3, "backup": 2 * GB}),
        ("archive", 4 * GB, 2, {"archive": 2 * GB}),
        ("backup migrate", 4 * GB, 2, {"archive": 3, "backup": 2 * GB}),
        ("backup verify", 4 * GB, 2, None),
        ("verify dry_run=1", 4 * GB, 2, None),
        ("verify max_rate=2GB/s", 4 * GB, 2, None),
        ("verify", GB - 1, 2, None),
        ("verify", 4 * GB, 0.9, None),
    ],
)  # fmt: skip
def test_a_run_that_moved_much_is_noted(
    tmp_path: Path, words: str, moved: int, seconds: float, expected: dict[str, int] | None
) -> None:
    (tmp_path / ".ckptrules").mkdir(0o700)
    (tmp_path / ".ckptrules/rates").write_text('{"archive": 3}')
    session = Session(command_line([*words.split(), f"outputs_dir={tmp_path}"]), {})
    now = 100.0
    session.bar = Bar(clock=lambda: now)
    with session.bar.work(moved) as work:
        now += seconds
        work(moved)
    if session.bar.moved_much:
        note_rate(session)
    assert rates(str(tmp_path)) == (expected or {"archive": 3})


def test_a_preview_goes_by_the_last_run(project: Project) -> None:
    project.make({"a/checkpoints/epoch-12_step-000200.ckpt": 5000})
    assert "Expected time" not in project.doit("verify", "dry_run=1")
    os.truncate(project.outputs / "a/checkpoints/epoch-12_step-000200.ckpt", GB)
    assert f"Expected time: {UNKNOWN}" in project.doit("verify", "dry_run=1")
    os.truncate(project.outputs / "a/checkpoints/epoch-12_step-000200.ckpt", 5000)
    (project.outputs / ".ckptrules").mkdir(0o700)
    (project.outputs / ".ckptrules/rates").write_text('{"verify": 1000}')
    assert "Expected time: about 5s, at 1 KB/s as in the last such run here" in project.doit("verify", "dry_run=1")
    assert os.listdir(project.outputs / ".ckptrules") == ["rates"]


def test_a_preview_of_verify_counts_what_is_read(project: Project) -> None:
    """Of some formats that is the header, whatever they weigh."""
    folder = "a/checkpoints/epoch-13_step-000300.ckpt"
    small = {f"{folder}/{name}": 5000 for name in ("optimizer.bin", "config.json")}
    large = [f"{folder}/{name}" for name in ("a.safetensors", "b.h5", "__0_0.distcp")]
    project.make({"a/checkpoints/epoch-12_step-000200.ckpt": 5000, **small, **dict.fromkeys(large, 1)})
    for path in large:
        os.truncate(project.outputs / path, 10 * GB)
    out = project.doit("verify", "dry_run=1", "max_rate=1KB/s", f"json={project.folder / 'v.json'}")
    assert "to read     2  30 GB" in out
    read = 3 * 5000 + 3 * HEADER
    assert json.loads((project.folder / "v.json").read_text())["summary"]["bytes_expected"] == read
    assert f"Expected time: about {time_text(read, '1KB/s', None).split()[1].rstrip(',')}, at max_rate=1KB/s" in out


def test_previews_of_copies_tell_the_time_too(project: Project) -> None:
    project.make({"a/checkpoints/epoch-12_step-000200.ckpt": 1000})
    (project.folder / "kept").mkdir()
    packing = ("archive", "experiments=a", "archive_dir=kept", "format=gz")
    for words, seconds in (("backup", "to=kept"), 1), (packing, 2):
        out = project.doit(*words, "dry_run=1", "max_rate=1KB/s")
        assert f"Expected time: about {seconds}s, at max_rate=1KB/s" in out
        assert "Expected time" not in project.doit(*words)
    (backup,) = (name for name in os.listdir(project.folder / "kept") if "backup" in name)
    for words in (("restore", f"backup=kept/{backup}"), ("unarchive", "archive=kept/a.tar.gz")):
        assert "Expected time: about 1s, at max_rate=1KB/s" in project.doit(*words, "dry_run=1", "max_rate=1KB/s")
    assert "Expected time" not in project.doit("restore", f"backup=kept/{backup}")
    assert "Expected time" not in project.doit("restore", f"backup=kept/{backup}", "dry_run=1", "max_rate=1KB/s")
