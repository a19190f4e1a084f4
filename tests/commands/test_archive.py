"""`doit archive` and `unarchive`: identical bytes, times, modes and links, or nothing at all."""

from __future__ import annotations

import errno
import gzip
import io
import os
import re
import shutil
import signal
import stat
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ckptrules.storage import reading, streams
from ckptrules.vault import packing, tar, unpacking
from ckptrules.vault.manifest import Manifest
from ckptrules.vault.packing import Packing, Ready
from tests.conftest import Project
from tests.support import crash, nobody
from tests.support.dying import let_workers, vanish
from tests.support.killing import kills

EXPERIMENTS = ("old_1", "old_2", "new")


def make(project: Project) -> Path:
    project.make({f"{name}/checkpoints/epoch={n}-step={n}.ckpt": 5000 * n for name in EXPERIMENTS for n in (1, 2)})
    project.make(
        {
            "old_1/checkpoints/last.ckpt": "-> epoch=2-step=2.ckpt",
            "old_1/checkpoints/epoch=3-step=3.ckpt/0.pt": 10,
            "old_1/logs/größe (1).txt": 3,
            "old_1/gone": "-> /nowhere",
            "old_1/empty": 0,
        }
    )
    os.makedirs(project.outputs / "old_1" / "nothing")
    (project.outputs / "old_1" / "logs").chmod(0o750)
    (project.outputs / "old_1" / "empty").chmod(0o400)
    for folder, directories, files in os.walk(project.outputs, topdown=False):
        for number, name in enumerate(sorted([*files, *directories])):
            os.utime(os.path.join(folder, name), ns=(10**18 + number, 10**18 + number * 7), follow_symlinks=False)
    archive = project.folder / "archive"
    archive.mkdir()
    return archive


def everything(folder: Path) -> dict[str, tuple[object, ...]]:
    """Return type, mode, time and content of all below a folder, itself among it."""
    found: dict[str, tuple[object, ...]] = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        status = path.lstat()
        content: object = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(folder))] = (
            stat.S_IFMT(status.st_mode),
            stat.S_IMODE(status.st_mode),
            status.st_mtime_ns,
            content,
        )
    return found


@pytest.mark.parametrize("form", ["zst", "gz"])
def test_there_and_back_gives_identical_bytes_times_modes_and_links(project: Project, form: str) -> None:
    archive = make(project)
    before = everything(project.outputs / "old_1")
    out = project.doit("archive", "experiments=old_*", "archive_dir=archive", *(["format=gz"] if form == "gz" else []))
    assert f"✓ Archived: old_1 to archive/old_1.tar.{form} (7 files, 15 KB, packed " in out
    assert out.count("; the source is in the trash\n") == 2
    assert sorted(os.listdir(project.outputs)) == [".ckptrules", "new"]
    assert sorted(os.listdir(archive)) == [f"old_{n}.tar.{form}{end}" for n in (1, 2) for end in ("", ".manifest.json")]
    if form == "gz":
        with tarfile.open(archive / "old_1.tar.gz") as tar:
            assert "old_1/checkpoints/epoch=1-step=1.ckpt" in tar.getnames()
    assert "Would bring back: old_1 (7 files, 15 KB)" in project.doit(
        "unarchive", f"archive=archive/old_1.tar.{form}", "dry_run=1"
    )
    assert project.doit("unarchive", f"archive=archive/old_1.tar.{form}") == "Brought back: old_1 (7 files, 15 KB)\n"
    assert everything(project.outputs / "old_1") == before
    assert os.listdir(project.outputs / ".ckptrules" / "work") == []


def test_links_that_lead_out_are_named_as_what_they_lead_to_is_not_in_the_archive(project: Project) -> None:
    archive = make(project)
    (project.outputs / "old_1/data").symlink_to("../new")
    (project.outputs / "old_1/here").symlink_to(project.outputs / "old_1/logs")
    note = "\nNote: 2 links lead elsewhere; what they lead to is not in it: old_1/data, old_1/gone\n"
    for more in ("dry_run=1", "keep_source=1", "wait=0"):
        assert project.doit("archive", "experiments=old_1", "archive_dir=archive", more).endswith(note)
        for path in archive.iterdir():
            path.unlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run as nobody")
def test_an_experiment_that_nobody_may_write_to_comes_back() -> None:
    with nobody.project() as project:
        make(project)
        (project.outputs / "old_1").chmod(0o555)
        before = everything(project.outputs / "old_1")
        nobody.give(project.folder)
        command = ("archive", "experiments=old_1", "archive_dir=archive", "keep_source=1")
        assert nobody.run(project.folder, *command).code == 0
        shutil.rmtree(project.outputs / "old_1")
        ended = nobody.run(project.folder, "unarchive", "archive=archive/old_1.tar.zst")
        assert (ended.code, ended.output) == (0, "Brought back: old_1 (7 files, 15 KB)\n")
        assert everything(project.outputs / "old_1") == before


def test_an_undo_brings_the_source_back(project: Project) -> None:
    make(project)
    before = {name: everything(project.outputs / name) for name in EXPERIMENTS}
    project.doit("archive", "experiments=old_*", "archive_dir=archive")
    assert "archive experiments='old_*' archive_dir=archive" in project.doit("history")
    assert "old_1" in project.doit("trash")
    project.doit("undo")
    assert {name: everything(project.outputs / name) for name in EXPERIMENTS} == before


def test_where_there_is_no_memory_to_compress_it_is_told(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, zstd = make(project), tar.zstd_library()

    def fails(*_: object) -> None:
        raise zstd.ZstdError("Unable to compress Zstandard data: Allocation error : not enough memory")

    monkeypatch.setattr(zstd.ZstdFile, "write", fails)
    ended = crash.run(project.folder, "archive", "experiments=old_1", "archive_dir=archive")
    fact = "! Problem: old_1: cannot be packed: Unable to compress Zstandard data: Allocation error : not enough memory"
    assert (ended.code, ended.output.splitlines()[0]) == (1, fact), ended.output
    assert (project.outputs / "old_1/empty").exists()
    assert not [name for name in os.listdir(archive) if name.endswith(".zst")]


def test_what_is_archived_and_unchanged_is_not_archived_again(project: Project) -> None:
    archive = make(project)
    command = ("archive", "experiments=old_*", "archive_dir=archive", "keep_source=1")
    assert "Would archive: old_1" in project.doit(*command, "dry_run=1")
    assert os.listdir(archive) == []
    project.doit(*command)
    times = {path.name: path.stat().st_mtime_ns for path in archive.iterdir()}
    assert project.doit(*command) == (
        "Up to date: old_1 is in archive/old_1.tar.zst.\nUp to date: old_2 is in archive/old_2.tar.zst.\n"
    )
    assert {path.name: path.stat().st_mtime_ns for path in archive.iterdir()} == times
    project.make({"old_1/checkpoints/more.txt": 1})
    out = project.doit(*command, check=1)
    assert (
        "Problem: old_1: archive/old_1.tar.zst is there already, and holds something else; it is not overwritten" in out
    )
    out = project.doit("archive", "experiments=old_2", "archive_dir=archive")
    assert "Archived: old_2" in out
    assert not (project.outputs / "old_2").exists()
    assert {path.name: path.stat().st_mtime_ns for path in archive.iterdir()} == times


TAKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "a foreign file": (lambda path: path.write_text("notes"), ", and is no .tar.zst file; "),
    "an archive that is cut off": (lambda path: path.write_bytes(b"\x28\xb5\x2f\xfd"), ", and is damaged or cut off: "),
    "a link to a foreign file": (lambda path: path.symlink_to("../dodo.py"), ", as a link, and is no .tar.zst file; "),
    "a link that leads nowhere": (
        lambda path: path.symlink_to("gone"), ", as a link, and cannot be read: No such file or directory; ",
    ),
    "a folder": (lambda path: path.mkdir(), ", and is a folder, not a plain file; "),
}  # fmt: skip


def test_what_a_failing_disk_does_not_give_is_named(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """It said 'old_1: Input/output error', and in which of the files nobody knew."""
    place = Packing(str(project.outputs), "old_1", str(make(project)), "gz")
    ready = Ready(place, packing.listing(place), "2026-11-28T00:00:00+00:00")
    path = next(item.path for item in ready.items if item.kind == "file" and item.size)

    def failing(*_: object) -> Iterator[bytes]:
        raise reading.SourceError(errno.EIO, "Input/output error")

    for fails in (True, False, True):  # while it is packed; while it is compared with what was packed
        with monkeypatch.context() as patch:
            if fails:
                patch.setattr(streams, "chunks", failing)
            why = packing.pack_in_worker(1, ready, lambda _: None)
        assert why == f"{path} cannot be read: Input/output error" * fails


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("something comes", "has changed while it was packed"),
        ("a file is cut off", "old_1/checkpoints/epoch=1-step=1.ckpt has changed while it was packed"),
        ("it is read back otherwise", "what was read back is not what was packed"),
    ],
)
def test_what_is_not_as_it_was_packed_has_no_archive(
    project: Project, monkeypatch: pytest.MonkeyPatch, change: str, told: str
) -> None:
    place = Packing(str(project.outputs), "old_1", str(make(project)), "gz")
    ready = Ready(place, packing.listing(place), "2026-11-28T00:00:00+00:00")
    file, check = project.outputs / "old_1/checkpoints/epoch=1-step=1.ckpt", unpacking.check

    def meanwhile(*given: object) -> Manifest:
        if change == "something comes":
            (file.parent / "new.ckpt").touch()
        manifest = check(*given)  # type: ignore[arg-type]
        return manifest._replace(created="") if change == "it is read back otherwise" else manifest

    monkeypatch.setattr(packing, "check", meanwhile)
    if change == "a file is cut off":
        os.truncate(file, 1)
    assert packing.pack_in_worker(1, ready, lambda _: None) == told
    assert os.listdir(place.folder) == []


def test_what_has_taken_the_name_meanwhile_keeps_its_manifest(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs of two trees packed one archive at once; the manifest of the later lay beside the archive of the other."""
    place = Packing(str(project.outputs), "old_1", str(make(project)), "gz")
    ready, check = Ready(place, packing.listing(place), "2026-11-28T00:00:00+00:00"), unpacking.check

    def meanwhile(*given: object) -> Manifest:
        Path(place.path).write_bytes(b"of another tree")
        Path(packing.manifest_path(place.path)).write_bytes(b"its manifest")
        return check(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(packing, "check", meanwhile)
    assert packing.pack_in_worker(1, ready, lambda _: None) == packing.already_there(place)
    assert Path(place.path).read_bytes() == b"of another tree"
    assert Path(packing.manifest_path(place.path)).read_bytes() == b"its manifest"
    assert len(os.listdir(place.folder)) == 2


def test_where_the_manifest_beside_cannot_be_read_the_archive_is(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Packing(str(project.outputs), "old_1", str(make(project)), "gz")
    items = packing.listing(place)
    assert packing.pack_in_worker(1, Ready(place, items, "2026-11-28T00:00:00+00:00"), lambda _: None) == ""

    def failing(*_: object) -> Manifest:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(packing, "from_json", failing)
    assert packing.packed_before(place, items, lambda _: None)


@pytest.mark.parametrize("name", TAKEN)
def test_what_has_the_name_of_an_archive_is_called_what_it_is(project: Project, name: str) -> None:
    archive = make(project)
    take, told = TAKEN[name]
    take(archive / "old_1.tar.zst")
    for more in ((), ("dry_run=1",)):
        out = project.doit("archive", "experiments=old_1", "archive_dir=archive", *more, check=1)
        assert f"Problem: old_1: archive/old_1.tar.zst is there already{told}" in out
        assert out.endswith("; it is not overwritten\n")
    assert (project.outputs / "old_1").exists()


def test_what_was_archived_before_goes_only_where_its_content_is_in_the_archive(project: Project) -> None:
    archive = make(project)
    command = ("archive", "experiments=old_1", "archive_dir=archive")
    project.doit(*command, "keep_source=1")
    file = next(path for path in (project.outputs / "old_1").rglob("*.ckpt") if path.is_file())
    content, times = file.read_bytes(), os.stat(file)
    file.write_bytes(b"!" * len(content))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    out = project.doit(*command, check=1)
    assert "old_1.tar.zst is there already, and holds something else; it is not overwritten: old_1/checkpoints/" in out
    assert file.exists()
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    project.make({"old_1/checkpoints/more.txt": 1})  # and a manifest beside that tells of it, but no such archive
    other = project.folder / "other"
    other.mkdir()
    project.doit("archive", "experiments=old_1", "archive_dir=other", "keep_source=1")
    (other / "old_1.tar.zst.manifest.json").replace(archive / "old_1.tar.zst.manifest.json")
    assert "holds something else" in project.doit(*command, check=1)
    assert file.exists()


def test_what_was_archived_and_freed_is_told_as_experiments(project: Project) -> None:
    make(project)
    project.doit("archive", "experiments=old_*", "archive_dir=archive", "format=gz")
    project.doit("purge")
    assert "Gone for good: 2 experiments of run " in project.doit("undo")


def test_an_archive_that_was_written_to_since_is_read_and_is_not_up_to_date(project: Project) -> None:
    """What was cut off after it was proved was told as up to date."""
    archive = make(project)
    command = ("archive", "experiments=old_1", "archive_dir=archive", "keep_source=1")
    project.doit(*command)
    os.truncate(archive / "old_1.tar.zst", 1000)
    assert "old_1.tar.zst is there already, and is damaged or cut off: " in project.doit(*command, check=1)


def test_an_archive_without_its_manifest_beside_is_believed_after_reading_it(project: Project) -> None:
    archive = make(project)
    command = ("archive", "experiments=old_1", "archive_dir=archive", "keep_source=1")
    project.doit(*command)
    (archive / "old_1.tar.zst.manifest.json").unlink()
    assert "Up to date" in project.doit(*command)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["archive_dir=archive"], "command line: archive needs experiments=…"),
        (["experiments=old_*"], "command line: archive needs archive_dir=…"),
        (["experiments=x*", "archive_dir=archive"], "no experiment 'x*'"),
        (["experiments=old_*", "archive_dir=nowhere"], "archive_dir=nowhere: is no folder"),
        (["experiments=old_*", "archive_dir=outputs/new"], "archive_dir 'outputs/new' is inside outputs_dir"),
        (["experiments=old_*", "archive_dir=archive", "format=csv"], "format=csv: must be one of zst, gz"),
    ],
)
def test_what_cannot_be_archived_is_refused(project: Project, arguments: list[str], told: str) -> None:
    make(project)
    before = project.tree()
    assert told in project.doit("archive", *arguments, check=3)
    assert project.tree() == before


def test_an_experiment_that_holds_another_one_is_not_put_away_with_it(project: Project) -> None:
    make(project)
    rules = project.folder / "rules" / "naming.yaml"
    rules.write_text(rules.read_text().replace("['*/checkpoints']", "['*/checkpoints', '*/*/checkpoints']"))
    project.make({"old_1/inner/checkpoints/epoch=1-step=1.ckpt": 3})
    out = project.doit("archive", "experiments=old_1", "archive_dir=archive", check=3)
    assert "command line: 'old_1' holds another experiment, 'old_1/inner'\n    hint: archive that one too, or" in out
    project.doit("archive", "experiments=old_1", "archive_dir=archive", "keep_source=1")
    (project.folder / "archive" / "old_1.tar.zst").unlink()
    (project.folder / "archive" / "old_1.tar.zst.manifest.json").unlink()
    out = project.doit("archive", "experiments=old_1*", "archive_dir=archive")
    assert [line.split()[2] for line in out.splitlines() if "Archived" in line] == ["old_1/inner", "old_1"]


def test_experiments_in_one_another_are_taken_back_in_order(project: Project) -> None:
    """With ``-n 4`` the inner one had no place yet; a preview, and an undo of what was brought back, said no to both."""
    rules = project.folder / "rules" / "naming.yaml"
    rules.write_text(rules.read_text().replace("['*/checkpoints']", "['**/checkpoints']"))
    names = ("a", "a/b", "a/b/c")
    project.make({f"{name}/checkpoints/epoch=1-step=1.ckpt": 3 for name in names})
    (project.folder / "saved").mkdir()
    there = project.tree()
    foreseen = "  to restore  3  from the trash\n"
    project.doit("archive", "experiments=*", "archive_dir=saved", "format=gz")
    away = project.tree()
    assert foreseen in project.doit("undo", "dry_run=1")
    project.doit("-n", "4", "undo")
    assert project.tree() == there
    undone = project.doit("history").splitlines()[1].split()[0]
    project.doit("undo", f"run={undone}")
    assert project.tree() == away
    project.doit("unarchive", "archive=saved/*.gz")
    assert "  to delete   3  " in project.doit("undo", "dry_run=1")
    project.doit("undo")
    assert project.tree() == away
    project.doit("unarchive", "archive=saved/*.gz")
    out = project.doit("undo", "experiments=a/b/*")
    assert out.splitlines()[:2] == ["Processing experiment: a/b/c", "  \u2297 Deleted: c"]
    assert out.splitlines()[-2].startswith("Taken back in part: run ")


def test_what_holds_an_experiment_that_could_not_be_archived_stays(project: Project) -> None:
    archive = make(project)
    rules = project.folder / "rules" / "naming.yaml"
    rules.write_text(rules.read_text().replace("['*/checkpoints']", "['*/checkpoints', '*/*/checkpoints', '*']"))
    project.make({"old_1/inner/checkpoints/epoch=1-step=1.ckpt": 3})
    (archive / "old_1").mkdir()
    project.doit("archive", "experiments=old_1/inner", "archive_dir=archive", "keep_source=1")
    project.make({"old_1/inner/checkpoints/more.txt": 3})
    out = project.doit("archive", "experiments=old_1*", "archive_dir=archive", check=1)
    assert "Problem: old_1: holds old_1/inner, which could not be archived\n" in out
    assert (project.outputs / "old_1/checkpoints").exists()


@pytest.mark.whole
@pytest.mark.skipif(sys.version_info >= (3, 14), reason="zstd is a part of Python")
def test_without_the_library_the_extra_is_named(project: Project) -> None:
    make(project)
    (project.folder / "none/backports").mkdir(parents=True)
    (project.folder / "none/backports/__init__.py").write_text("")
    env = {"PYTHONPATH": f"{project.folder}/none{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    out = project.doit("archive", "experiments=old_*", "archive_dir=archive", check=3, env=env)
    assert "format=zst: needs zstd: pip install 'ckptrules[archive]', or take format=gz" in out
    project.doit("archive", "experiments=old_*", "archive_dir=archive", "format=gz", env=env)


@pytest.mark.skipif(sys.platform != "linux", reason="leases are known on Linux")
def test_an_experiment_that_is_being_written_stays(project: Project) -> None:
    make(project)
    with open(project.outputs / "old_1" / "checkpoints" / "epoch=1-step=1.ckpt", "ab"):
        words = ("archive", "experiments=old_*", "archive_dir=archive")
        preview, out = (project.doit(*words, more, check=1) for more in ("dry_run=1", "dry_run=0"))
    for told, did in ((preview, "Would archive"), (out, "Archived")):
        assert "Problem: old_1: is in use: a file in it is open for writing" in told
        assert f"{did}: old_2" in told
    assert (project.outputs / "old_1").exists()


def damage(content: bytes, how: str) -> bytes:
    if how == "cut off":
        return content[: len(content) // 2]
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("how", ["cut off", "a bit flipped"])
@pytest.mark.parametrize("form", ["zst", "gz"])
def test_a_damaged_archive_is_refused_and_the_source_stays(project: Project, form: str, how: str) -> None:
    archive = make(project)
    (project.outputs / "old_2" / "noise").write_bytes(os.urandom(20_000))
    project.doit("archive", "experiments=old_2", "archive_dir=archive", f"format={form}", "keep_source=1")
    path = archive / f"old_2.tar.{form}"
    path.write_bytes(damage(path.read_bytes(), how))
    out = project.doit("archive", "experiments=old_2", "archive_dir=archive", f"format={form}", check=1)
    assert "Problem: old_2: " in out
    assert (project.outputs / "old_2").exists()
    shutil.rmtree(project.outputs / "old_2")
    assert f"Problem: archive/old_2.tar.{form}: " in project.doit(
        "unarchive", f"archive=archive/old_2.tar.{form}", check=1
    )
    assert not (project.outputs / "old_2").exists()


def test_nothing_is_overwritten_on_the_way_back(project: Project) -> None:
    make(project)
    project.doit("archive", "experiments=old_1", "archive_dir=archive", "keep_source=1")
    before = project.tree()
    assert project.doit("unarchive", "archive=archive/old_1.tar.zst").startswith("There already, with the same content")
    assert project.tree() == before
    next(path for path in (project.outputs / "old_1").rglob("*") if path.is_file()).write_bytes(b"other")
    before = project.tree()
    out = project.doit("unarchive", "archive=archive/old_1.tar.zst", check=1)
    assert "'old_1' is in outputs already: move it away first; nothing is overwritten" in out
    assert project.tree() == before


def test_an_experiment_below_a_folder_that_is_there_already_is_known(project: Project) -> None:
    """As Lightning's lightning_logs/version_0; what a stopped run has brought back is no problem of the next."""
    rules = project.folder / "rules/naming.yaml"
    rules.write_text(rules.read_text().replace("layout: ['*/checkpoints']", "layout: ['*/*/checkpoints']"))
    project.make({"logs/version_0/checkpoints/epoch=1-step=1.ckpt": 5000})
    (project.folder / "archive").mkdir()
    project.doit("archive", "experiments=logs/version_0", "archive_dir=archive", "keep_source=1")
    told = "There already, with the same content: logs/version_0 (1 file, 5 KB)\n"
    assert project.doit("unarchive", "archive=archive/*") == told
    (project.outputs / "logs/version_0/checkpoints/epoch=1-step=1.ckpt").write_bytes(b"other")
    assert "'logs/version_0' is in outputs already" in project.doit("unarchive", "archive=archive/*", check=1)


def test_what_is_archived_comes_back_into_a_folder_that_is_not_there(project: Project) -> None:
    """Who had lost ``outputs_dir`` was refused, and had to make it by hand."""
    make(project)
    there = project.tree()
    project.doit("archive", "experiments=old_1", "archive_dir=archive", "keep_source=1", "format=gz")
    shutil.rmtree(project.outputs)
    assert "Would bring back: old_1 " in project.doit("unarchive", "archive=archive/old_1.tar.gz", "dry_run=1")
    assert not project.outputs.exists()
    for how in ([], ["dry_run=1"]):  # which told that it "would bring back", or that there is no such archive
        out = project.doit("unarchive", "archive=archive/old_1.tar.gz", "outputs_dir=gone/outputs", *how, check=3)
        assert out == "ERROR: outputs_dir 'gone/outputs' cannot be made: No such file or directory\n"
        out = project.doit("unarchive", "archive=archive/old_1.tar.gz", "outputs_dir=dodo.py", *how, check=3)
        assert out.startswith("ERROR: outputs_dir 'dodo.py': Not a directory\n")
    project.doit("unarchive", "archive=archive/old_1.tar.gz")
    assert project.tree() == {path: what for path, what in there.items() if path.startswith("old_1")}


def test_of_several_archives_each_fails_by_itself(project: Project) -> None:
    archive = make(project)
    project.doit("archive", "experiments=new", "archive_dir=archive", "format=gz", "keep_source=1")
    with next((project.outputs / "new").rglob("*.ckpt")).open("r+b") as file:
        file.write(b"\0")
    before = project.tree()
    project.doit("archive", "experiments=old_*", "archive_dir=archive")
    shutil.copy(archive / "old_1.tar.zst", archive / "older.tar.zst")
    (archive / "folder.tar.gz").mkdir()
    (archive / "hollow.tar.gz").touch()
    told = """\
! Problem: archive/folder.tar.gz: is no file
! Problem: archive/hollow.tar.gz: is damaged or cut off: empty file
! Problem: archive/new.tar.gz: 'new' is in outputs already: move it away first; nothing is overwritten
Brought back: old_1 (7 files, 15 KB)
Brought back: old_2 (2 files, 15 KB)
! Problem: archive/older.tar.zst: holds 'old_1', as archive/old_1.tar.zst does, which comes first
"""
    preview = project.doit("unarchive", "archive=archive/*", "dry_run=1", check=1)
    assert preview.startswith(told.replace("Brought back", "Would bring back"))
    assert project.doit("unarchive", "archive=archive/*", check=1) == told
    assert project.tree() == before


def test_where_no_worker_is_left_what_was_done_and_what_was_not_is_told(project: Project) -> None:
    make(project)
    dodo = (project.folder / "dodo.py").read_text()
    project.doit("archive", "experiments=old_2", "archive_dir=archive", "keep_source=1")
    let_workers(vanish, "", project.folder / "dodo.py")
    ends = "ERROR: executor=dask:x: the scheduler is gone\n    hint: start it\n"
    out = project.doit("archive", "experiments=*", "archive_dir=archive", check=2)
    assert re.sub("packed [0-9.]+ B", "packed", out) == (
        "\u2713 Archived: new to archive/new.tar.zst (2 files, 15 KB, packed); the source is in the trash\n"
        f"Stopped: old_1 is not archived.\nStopped: old_2 is where it was, and archive/old_2.tar.zst is there.\n{ends}"
    )
    (project.folder / "dodo.py").write_text(dodo)
    project.doit("archive", "experiments=*", "archive_dir=archive")
    let_workers(vanish, "", project.folder / "dodo.py")
    assert project.doit("unarchive", "archive=archive/*", check=2) == (
        "Brought back: new (2 files, 15 KB)\nStopped: archive/old_1.tar.zst is not brought back.\n"
        f"Stopped: archive/old_2.tar.zst is not brought back.\n{ends}"
    )
    (project.folder / "dodo.py").write_text(dodo)
    assert project.doit("unarchive", "archive=archive/*") == (
        "There already, with the same content: new (2 files, 15 KB)\n"
        "Brought back: old_1 (7 files, 15 KB)\nBrought back: old_2 (2 files, 15 KB)\n"
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        *[
            (
                word,
                f"no archive is named 'archive/{word}'\n    hint: there are: archive/old_1.tar.zst, archive/old_[1].tar.zst",
            )
            for word in ("nowhere_*", "old_2.tar.zst")
        ],
        ("[x]/*", "no archive is named 'archive/[x]/*'\n"),
        ("old_1.*", ""),
        ("old_[1].tar.zst", ""),
    ],
)
def test_a_pattern_finds_archives_and_a_name_means_that_very_one(project: Project, words: str, told: str) -> None:
    archive = make(project)
    project.doit("archive", "experiments=old_1", "archive_dir=archive")
    shutil.copy(archive / "old_1.tar.zst", archive / "old_[1].tar.zst")
    out = project.doit("unarchive", f"archive=archive/{words}", check=3 if told else 0)
    assert told in out
    assert ("hint" in told) == ("hint" in out)
    assert (out == "Brought back: old_1 (7 files, 15 KB)\n") == (not told)


def tar_of(*members: tarfile.TarInfo) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return gzip.compress(file.getvalue())


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


HOSTILE = {
    "no archive": (b"hello", "is no .tar.gz file"),
    "nothing": (b"", "is damaged or cut off"),
    "no manifest": (tar_of(member("x")), "holds no manifest of ckptrules"),
    "a path upwards": (tar_of(member("../evil")), "holds '../evil', which leads outside"),
    "an absolute path": (tar_of(member("/tmp/evil")), "holds '/tmp/evil', which is absolute"),
    "our state": (tar_of(member(".ckptrules/lock")), "holds '.ckptrules/lock', which leads into .ckptrules"),
    "a device": (tar_of(member("x", tarfile.CHRTYPE)), "holds 'x', which is neither a file"),
    "a hard link": (tar_of(member("x", tarfile.LNKTYPE, "/etc/passwd")), "holds 'x', which is neither a file"),
}


@pytest.mark.parametrize(("content", "told"), HOSTILE.values(), ids=list(HOSTILE))
def test_a_hostile_archive_is_refused_before_anything_is_written(project: Project, content: bytes, told: str) -> None:
    (project.folder / "evil.tar.gz").write_bytes(content)
    assert told in project.doit("unarchive", "archive=evil.tar.gz", check=1)
    assert [name for name in os.listdir(project.outputs) if name != ".ckptrules"] == []


def test_an_archive_that_would_not_fit_is_not_begun(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = make(project)
    little = os.statvfs_result((4096, 4096, 10, 4, 4, 10, 10, 10, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: little)
    for more in ("dry_run=1", "dry_run=0"):
        ended = crash.run(project.folder, "archive", "experiments=old_1", "archive_dir=archive", more)
        assert ended.code == 1
        assert "Problem: old_1: needs up to 1.06 MB in archive, but only 16.4 KB are free" in ended.output
    assert os.listdir(archive) == []
    assert (project.outputs / "old_1").exists()


def test_a_file_system_that_sets_no_limit_has_room(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = make(project)
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((4096, 4096, 0, 0, 0, 10, 10, 10, 0, 255)))
    ended = crash.run(project.folder, "archive", "experiments=old_1", "archive_dir=archive")
    assert ended.code == 0, ended.output
    assert os.listdir(archive)


@pytest.mark.whole
def test_killed_at_any_change_nothing_is_lost_and_the_next_run_finishes(project: Project, tmp_path: Path) -> None:
    archive = make(project)
    for name in ("old_2", "new"):
        shutil.rmtree(project.outputs / name)
    before = everything(project.outputs / "old_1")
    kept = tmp_path / "kept"
    shutil.copytree(project.outputs, kept, symlinks=True)
    command = ("archive", "experiments=old_1", "archive_dir=archive")
    for at in kills(project, command, archive):
        shutil.rmtree(project.outputs)
        shutil.rmtree(archive)
        shutil.copytree(kept, project.outputs, symlinks=True)
        archive.mkdir()
        assert crash.run_in_turn(project.folder, *command, fault=at).code == -signal.SIGKILL
        source = project.outputs / "old_1"
        assert not source.exists() or everything(source).keys() == before.keys(), at
        visible = [name for name in os.listdir(archive) if not name.startswith(".") and name.endswith(".zst")]
        if source.exists():
            again = crash.run_in_turn(project.folder, *command)
            assert again.code == 0, (at, again.output)
        else:
            assert visible, at
        assert not source.exists()
        back = crash.run_in_turn(project.folder, "unarchive", "archive=archive/old_1.tar.zst")
        assert back.code == 0, (at, back.output)
        assert everything(source) == before, at
