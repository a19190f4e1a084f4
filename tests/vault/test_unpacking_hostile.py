"""An archive or a backup costs what it weighs: in memory, on the disk, and a stop is heard while it is read."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from isal import igzip

from ckptrules.engine.entries import Item
from ckptrules.stopping import StoppedError
from ckptrules.storage import making, unfinished
from ckptrules.storage.base import FULL
from ckptrules.vault import backups, packing, space, tar, unpacking
from ckptrules.vault.manifest import Manifest, ManifestError, count_values, from_json, longest, to_json
from ckptrules.vault.packing import Packing
from ckptrules.vault.tar import ArchiveError
from tests.commands.test_archive import make
from tests.conftest import ROOT, Project
from tests.support import crash

pytestmark = pytest.mark.whole

MEMORY = 700 << 20  # bytes of address space; Python, doit and the libraries take some 150 MB of it
BLOCK = 512


class Repeated(io.RawIOBase):
    """A file that holds one text over and over."""

    def __init__(self, text: bytes, size: int) -> None:
        self._text, self._left = text * (1 + (1 << 20) // len(text)), size

    def read(self, count: int = -1) -> bytes:
        chunk = self._text[: min(count, self._left)]
        self._left -= len(chunk)
        return chunk


def header(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def compressed(path: Path, *parts: bytes | tuple[bytes, int]) -> None:
    """Write parts one behind the other, each a text, or a text that is repeated up to a size; all padded to blocks."""
    with igzip.open(path, "wb", compresslevel=1) as file:  # type: ignore[no-untyped-call]
        for part in parts:
            text, size = part if isinstance(part, tuple) else (part, len(part))
            left = Repeated(text, size)
            while chunk := left.read(1 << 20):
                file.write(chunk)
            file.write(bytes(-size % BLOCK))
        file.write(bytes(2 * BLOCK))


LARGE = 600 << 20
HOSTILE: dict[str, Callable[[Path], None]] = {
    "a manifest of empty lists": lambda path: compressed(
        path, header("x"), header(unpacking.MANIFEST, LARGE), (b"[],", LARGE)
    ),
    "a manifest of numbers": lambda path: compressed(path, header(unpacking.MANIFEST, LARGE), (b"1,", LARGE)),
    "a manifest of one long text": lambda path: compressed(path, header(unpacking.MANIFEST, LARGE), (b"'", LARGE)),
    "a header of extended attributes": lambda path: compressed(
        path, header("x", LARGE, tarfile.XHDTYPE), (b"30 comment=aaaaaaaaaaaaaaaaaa\n", LARGE)
    ),
    "a header for all members": lambda path: compressed(
        path, header("x", LARGE, tarfile.XGLTYPE), (b"30 comment=aaaaaaaaaaaaaaaaaa\n", LARGE)
    ),
    "a long name": lambda path: compressed(path, header("x", LARGE, tarfile.GNUTYPE_LONGNAME), (b"a", LARGE)),
    "a long link": lambda path: compressed(path, header("x", LARGE, tarfile.GNUTYPE_LONGLINK), (b"a", LARGE)),
    "a sparse map": lambda path: compressed(
        path,
        header("x", BLOCK, tarfile.XHDTYPE),
        (b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n" + b"\0" * 468, BLOCK),
        header("y", LARGE),
        b"99999999\n" + b"0\n" * 251 + b"0",
        (b"0\n", LARGE),
    ),
}


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


@pytest.mark.skipif(sys.platform != "linux", reason="macOS does not limit the address space")
@pytest.mark.parametrize("write", HOSTILE.values(), ids=list(HOSTILE))
def test_a_hostile_archive_takes_no_memory(project: Project, write: Callable[[Path], None]) -> None:
    write(project.folder / "evil.tar.gz")
    ended = subprocess.run(
        [sys.executable, "-m", "doit", "unarchive", "archive=evil.tar.gz"],
        cwd=project.folder,
        env={**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH", str(ROOT)), "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=limited,
        text=True,
        capture_output=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (1, "")
    assert ended.stdout.startswith("! Problem: evil.tar.gz: "), ended.stdout
    assert ended.stdout.count("\n") == 1
    assert [name for name in os.listdir(project.outputs) if name != ".ckptrules"] == []


@pytest.mark.parametrize("name", ["{}", "{}" + "n" * 90, "{}" + "/n" * 40])
def test_there_are_no_more_members_than_an_archive_of_its_size_can_hold(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar, "MEMBERS", 1 << 20)
    monkeypatch.setattr(tar, "MEMBERS_RATIO", 1)
    compressed(tmp_path / "many.tar.gz", *(header(name.format(number)) for number in range(2000)))
    members = tar.members(str(tmp_path / "many.tar.gz"), "gz", lambda _: None)
    for _ in range(500):
        next(members)
    with pytest.raises(ArchiveError, match="more names than an archive of its size can hold"):
        list(members)


def test_a_name_that_comes_twice_is_refused_at_once(tmp_path: Path) -> None:
    compressed(tmp_path / "many.tar.gz", (header("x"), 2000 * BLOCK))
    calls, progress = stopping_after(10**9)
    with pytest.raises(ArchiveError, match="x is in it twice"):
        unpacking.check(str(tmp_path / "many.tar.gz"), "gz", progress)
    assert len(calls) < 5


DENSE = {
    "empty lists": "[" + "[]," * 5000 + "[]]",
    "numbers": "[" + "1," * 5000 + "1]",
    "empty objects in the rows": json.dumps({"schema_version": 1, "items": [{}] * 5000}),
    "lists in lists": "[" + ("[" * 50 + "]" * 50 + ",") * 500 + "1]",
    "texts of nothing": "[" + '"",' * 5000 + '""]',
    "an open text": '{"a": "' + "[]," * 5,
}


@pytest.mark.parametrize("text", DENSE.values(), ids=list(DENSE))
@pytest.mark.parametrize("rows", [None, 3])
def test_a_manifest_is_counted_before_it_is_parsed(
    text: str, rows: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if text != DENSE["an open text"]:
        monkeypatch.setattr(json, "loads", lambda _: pytest.fail("it was parsed"))
    with pytest.raises(ManifestError):
        from_json(text, rows)


NAMES = ("a", "a,b", "[],[],[],", '"],"' * 20, "\\" * 30, '\\",\\"[]', "größe", "\udcff,")


def test_what_is_written_is_read_whatever_the_names() -> None:
    items = [Item("e", "directory", 1, 1, 0o755)._replace(size=0)]
    items += [Item(f"e/{name}", "file", 0, 0, 0, checksum="blake3:" + "0" * 64) for name in NAMES]
    manifest = Manifest("2026", "/s", "zst", complete=True, experiments=("e",), items=tuple(items))
    text = to_json(manifest)
    assert from_json(text) == from_json(text, len(items)) == manifest
    assert len(text) <= longest(items)
    assert count_values(text) < 9 * len(items)


def test_a_backup_with_a_manifest_of_lists_is_told_and_the_others_are_listed(project: Project) -> None:
    project.make({"a/checkpoints/epoch=1-step=1.ckpt": 10})
    project.doit("backup")
    bad = project.folder / "outputs_backup_20200101_000000" / ".ckptrules"
    bad.mkdir(parents=True)
    (bad / "manifest.json").write_text("[" + "[]," * 100_000 + "[]]")
    out = project.doit("backups", check=1)
    assert "its .ckptrules/manifest.json: holds more values than a manifest has" in out
    assert "  complete\n" in out


def test_a_backup_with_a_longer_manifest_than_any_is_not_read(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = project.folder / "held" / ".ckptrules"
    bad.mkdir(parents=True)
    with open(bad / "manifest.json", "wb") as file:
        file.truncate(1 << 40)
    monkeypatch.setattr(backups, "from_json", lambda *_: pytest.fail("it was read"))
    with pytest.raises(backups.NoBackupError, match="is longer than"):
        backups.read_backup(str(project.folder / "held"))


# --- the disk --------------------------------------------------------------------------------------------------------


def bomb(path: Path, size: int, checksum: str = "", top: str = "e") -> None:
    """Write an archive of one file of zeros that says of itself what is true, but for the checksum, if one is given."""
    items = (
        Item(top, "directory", 0, 0, 0o755),
        Item(f"{top}/zeros", "file", size, 0, 0o644, checksum=checksum or _checksum_of_zeros(size)),
    )
    text = to_json(Manifest("2026", "/s", "gz", complete=True, experiments=(top,), items=items)).encode()
    compressed(
        path,
        header(top, kind=tarfile.DIRTYPE),
        header(f"{top}/zeros", size),
        (b"\0", size),
        header(unpacking.MANIFEST, len(text)),
        text,
    )


def _checksum_of_zeros(size: int) -> str:
    return f"sha256:{hashlib.sha256(bytes(size)).hexdigest()}"


@pytest.mark.parametrize("checksum", ["sha256:" + "0" * 64, "blake3:" + "0" * 64])
def test_a_checksum_is_compared_by_the_algorithm_that_it_names(tmp_path: Path, checksum: str) -> None:
    bomb(tmp_path / "sound.tar.gz", 5000)
    assert unpacking.check(str(tmp_path / "sound.tar.gz"), "gz", lambda _: None).items[
        1
    ].checksum == _checksum_of_zeros(5000)
    bomb(tmp_path / "other.tar.gz", 5000, checksum)
    with pytest.raises(ArchiveError, match="is not what its manifest says"):
        unpacking.check(str(tmp_path / "other.tar.gz"), "gz", lambda _: None)


@pytest.mark.parametrize(
    ("free", "told"), [(1 << 20, "holds more than 3.15 MB"), (5 << 20, "needs 21 MB in outputs"), (1 << 30, "")]
)
@pytest.mark.parametrize("more", [(), ("dry_run=1",)])
def test_an_archive_that_would_fill_the_disk_is_refused(
    project: Project, monkeypatch: pytest.MonkeyPatch, free: int, told: str, more: tuple[str, ...]
) -> None:
    size = 10 << 20 if free == 1 << 20 else 1 << 20
    bomb(project.folder / "zeros.tar.gz", size)
    block = 4096 if free == 1 << 20 else 10 << 20  # where files take more than they hold
    disk = os.statvfs_result(
        (block, block, 1 << 30, 0, (free + (3 << 20)) // block + (free == 5 << 20), 0, 0, 0, 0, 255)
    )
    monkeypatch.setattr(os, "statvfs", lambda _: disk)
    ended = crash.run(project.folder, "unarchive", "archive=zeros.tar.gz", *more)
    assert ended.code == bool(told), ended.output
    assert told in ended.output
    assert (project.outputs / "e").exists() == (not told and not more)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_what_found_no_room_beside_others_is_tried_alone(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def unpack(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(unpacking, "unpack", unpack)
    answer = unpacking.unpack_in_worker(unpacking.Unpacking("e.tar.gz", "outputs", 1), lambda _: None)
    assert isinstance(answer, OSError)
    assert answer.errno == number
    assert number in FULL


def stopping_after(count: int) -> tuple[list[int], Callable[[int], None]]:
    calls: list[int] = []

    def progress(size: int) -> None:
        calls.append(size)
        if len(calls) > count:
            raise StoppedError

    return calls, progress


def test_what_an_archive_unpacks_to_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    bomb(tmp_path / "zeros.tar.gz", 64 << 20)
    calls, progress = stopping_after(10**9)
    with pytest.raises(OSError, match="holds more than 1 MB"):
        unpacking.check(str(tmp_path / "zeros.tar.gz"), "gz", progress, 10**6)
    assert sum(calls) == 0


def unpack(path: str, outputs_dir: str, progress: Callable[[int], object]) -> None:
    """Bring an archive back, but without a record of it."""
    with unfinished.staging(outputs_dir) as folder:
        one = unpacking.unpacking_of(path, outputs_dir)._replace(folder=folder, room=space.room(outputs_dir))
        manifest, staged = unpacking.unpack(one, progress)
        unpacking.finish(outputs_dir, staged, manifest, progress, lambda *_: None)
        os.rename(f"{outputs_dir}/{staged}/{manifest.items[0].path}", f"{outputs_dir}/{manifest.items[0].path}")


def written(path: Path, *members: tuple[tarfile.TarInfo, bytes], says: Iterable[Item], after: bytes = b"") -> None:
    """Write an archive of members, and a manifest of other items maybe."""
    text = to_json(Manifest("2026", "/s", "gz", complete=True, experiments=("e",), items=tuple(says))).encode()
    parts = [part for info, content in members for part in (info.tobuf(tarfile.GNU_FORMAT), content)]
    compressed(path, *filter(None, [*parts, header(unpacking.MANIFEST, len(text)), text, after]))


def entry(
    name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(content), kind, link
    return info, content


def file_item(path: str, content: bytes, *, real: bytes | None = None) -> Item:
    digest = hashlib.sha256(content if real is None else real).hexdigest()
    return Item(path, "file", len(content), 0, 0o644, checksum=f"sha256:{digest}")


TOP, FOLDER = entry("e", kind=tarfile.DIRTYPE), Item("e", "directory", 0, 0, 0o755)
SOUND, SOUND_ITEM = entry("e/sound", b"sound"), file_item("e/sound", b"sound")
LINK, LINK_ITEM = entry("e/link", kind=tarfile.SYMTYPE, link="/tmp"), Item("e/link", "link", 0, 0, 0, link="/tmp")
LIES: dict[str, tuple[list[tuple[tarfile.TarInfo, bytes]], list[Item], bytes, str]] = {
    "a file is longer than the manifest says": (
        [TOP, SOUND, entry("e/x", b"12345")], [FOLDER, SOUND_ITEM, file_item("e/x", b"1234")], b"",
        "e/x is not what its manifest says",
    ),
    "a file is shorter than the manifest says": (
        [TOP, SOUND, entry("e/x", b"123")], [FOLDER, SOUND_ITEM, file_item("e/x", b"1234")], b"",
        "e/x is not what its manifest says",
    ),
    "a file holds something else": (
        [TOP, SOUND, entry("e/x", b"abcd")], [FOLDER, SOUND_ITEM, file_item("e/x", b"1234")], b"",
        "e/x is not what its manifest says",
    ),
    "a file that the manifest has not": (
        [TOP, SOUND, entry("e/x", b"abcd")], [FOLDER, SOUND_ITEM], b"", "e/x is in it, but not in its manifest",
    ),
    "many more than the manifest has": (
        [TOP, SOUND, *(entry(f"e/{number}") for number in range(200))], [FOLDER, SOUND_ITEM], b"",
        "e/0 is in it, but not in its manifest",
    ),
    "a file is missing": (
        [TOP, SOUND], [FOLDER, SOUND_ITEM, file_item("e/x", b"1234")], b"", "e/x is missing in it",
    ),
    "a file comes twice": ([TOP, SOUND, SOUND], [FOLDER, SOUND_ITEM], b"", "e/sound is in it twice"),
    "a file that is a link in the manifest": (
        [TOP, SOUND, entry("e/link")], [FOLDER, SOUND_ITEM, LINK_ITEM], b"", "e/link is not what its manifest says",
    ),
    "another link than in the manifest": (
        [TOP, LINK], [FOLDER, LINK_ITEM._replace(link="/etc")], b"", "e/link is not what its manifest says",
    ),
    "a file below a link": (
        [TOP, LINK, entry("e/link/x", b"1234")], [FOLDER, LINK_ITEM], b"",
        "e/link/x comes before the directory that it lies in",
    ),
    "a file before its directory": (
        [SOUND, TOP], [FOLDER, SOUND_ITEM], b"", "e/sound comes before the directory that it lies in",
    ),
    "a hard link": (
        [TOP, SOUND, entry("e/x", kind=tarfile.LNKTYPE, link="/etc/passwd")], [FOLDER, SOUND_ITEM], b"",
        "holds 'e/x', which is neither a file",
    ),
    "a path upwards": (
        [TOP, SOUND, entry("e/../../x", b"1")], [FOLDER, SOUND_ITEM], b"", "holds 'e/../../x', which leads outside",
    ),
    "something behind the manifest": (
        [TOP, SOUND], [FOLDER, SOUND_ITEM], header("e/x"), "e/x comes behind its manifest",
    ),
    "a name that no disk takes": (
        [TOP, SOUND, entry("e/" + 300 * "n", b"1")], [FOLDER, SOUND_ITEM], b"", "cannot be unpacked: ",
    ),
    "an experiment that leads outside": (
        [TOP, SOUND], [FOLDER, SOUND_ITEM._replace(path="../x")], b"", "its manifest: path '../x' leads outside",
    ),
}  # fmt: skip


def nothing_is_left(project: Project) -> bool:
    left = [os.path.join(folder, name) for folder, _, names in os.walk(project.folder) for name in names]
    return (
        os.listdir(project.outputs) == [".ckptrules"]
        and os.listdir(project.outputs / ".ckptrules" / "work") == []
        and not [path for path in left if "journal" in path]
    )


@pytest.mark.parametrize(("members", "says", "after", "told"), LIES.values(), ids=list(LIES))
def test_what_does_not_agree_with_its_manifest_leaves_no_trace(
    project: Project,
    members: list[tuple[tarfile.TarInfo, bytes]],
    says: list[Item],
    after: bytes,
    told: str,
) -> None:
    """Most of it is unpacked before that is known."""
    written(project.folder / "e.tar.gz", *members, says=says, after=after)
    ended = crash.run(project.folder, "unarchive", "archive=e.tar.gz")
    assert (ended.code, told in ended.output) == (1, True), ended.output
    assert ended.output.startswith("! Problem: e.tar.gz: ")
    assert nothing_is_left(project)


def test_an_archive_is_of_one_experiment_below_the_outputs(tmp_path: Path) -> None:
    rows: list[tuple[tuple[str, ...], list[Item], str]] = [
        (("e", "f"), [FOLDER], "is not that of one experiment"),
        ((), [FOLDER], "is not that of one experiment"),
        (("e",), [], "is not that of one experiment"),
        (("../e",), [FOLDER], "the experiment leads outside"),
        (("/e",), [FOLDER], "the experiment is absolute"),
    ]
    for experiments, items, told in rows:
        manifest = Manifest("2026", "/s", "gz", complete=True, experiments=experiments, items=tuple(items))
        text = to_json(manifest).encode()
        head = [TOP[0].tobuf(tarfile.GNU_FORMAT)] * len(items)
        compressed(tmp_path / "e.tar.gz", *head, header(unpacking.MANIFEST, len(text)), text)
        with pytest.raises(ArchiveError, match=told):
            unpacking.check(str(tmp_path / "e.tar.gz"), "gz", lambda _: None)


TAILS: dict[str, Callable[[bytes], bytes]] = {
    "the last byte of the checksum flipped": lambda packed: packed[:-5] + bytes([packed[-5] ^ 1]) + packed[-4:],
    "cut off in the manifest": lambda packed: packed[:-200],
    "cut off by a byte": lambda packed: packed[:-1],
}


@pytest.mark.parametrize("form", ["zst", "gz"])
@pytest.mark.parametrize("spoil", TAILS.values(), ids=list(TAILS))
def test_a_damaged_tail_leaves_no_trace(project: Project, form: str, spoil: Callable[[bytes], bytes]) -> None:
    archives = make(project)
    project.doit("archive", "experiments=old_1", "archive_dir=archive", f"format={form}")
    path, before = archives / f"old_1.tar.{form}", project.tree(state=True)
    path.write_bytes(spoil(path.read_bytes()))
    assert f"Problem: archive/old_1.tar.{form}: is damaged" in project.doit(
        "unarchive", f"archive=archive/old_1.tar.{form}", check=1
    )
    same = {name: text for name, text in project.tree(state=True).items() if "lock" not in name}
    assert same == {name: text for name, text in before.items() if "lock" not in name}


def test_what_is_refused_for_the_room_was_never_written_beyond_it(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes a block, whatever it holds; what is not written any more is counted."""
    names = [f"e/{number:03d}" for number in range(100)]
    says = [FOLDER, *(file_item(name, b"1") for name in names)]
    written(project.folder / "e.tar.gz", TOP, *(entry(name, b"1") for name in names), says=says)
    made: list[str] = []
    really = making.write_member

    def write(root: str, path: str, *more: Any) -> str:
        made.append(path)
        return really(root, path, *more)

    monkeypatch.setattr(making, "write_member", write)
    monkeypatch.setattr(space, "room", lambda _: 50 * 4096)
    monkeypatch.setattr(space, "block", lambda _: 4096)
    with pytest.raises(OSError, match=r"needs 414 KB in .*, but only 205 KB are free"):
        unpack(str(project.folder / "e.tar.gz"), str(project.outputs), lambda _: None)
    assert made == names[:49]
    assert os.listdir(project.outputs / ".ckptrules" / "work") == []
    assert os.listdir(project.outputs) == [".ckptrules"]


@pytest.mark.skipif(sys.platform != "linux", reason="a descriptor tells its path on Linux")
@pytest.mark.parametrize("at", ["0.ckpt", "19.ckpt", "9.ckpt"])
def test_an_error_of_the_disk_in_a_thread_is_heard_of(
    project: Project, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """Large files are seen on the disk while others are written."""
    monkeypatch.setattr(making, "PIECE", 10)
    project.make({f"e/checkpoints/{number}.ckpt": 100 for number in range(20)})
    (project.folder / "archive").mkdir()
    project.doit("archive", "experiments=e", "archive_dir=archive", "format=gz")
    really, main = os.fsync, threading.get_ident()

    def fsync(file: int) -> None:
        if threading.get_ident() != main and f"/{at}" in os.readlink(f"/proc/self/fd/{file}"):
            raise OSError(errno.EIO, "no disk")
        really(file)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises((ArchiveError, OSError), match="no disk"):
        unpack(str(project.folder / "archive/e.tar.gz"), str(project.outputs), lambda _: None)
    assert os.listdir(project.outputs / ".ckptrules" / "work") == []
    assert not (project.outputs / "e").exists()


# --- what is ours still works ----------------------------------------------------------------------------------------


def test_many_empty_files_of_one_time_are_packed_and_brought_back(project: Project) -> None:
    """They weigh least of all in an archive, and the number of members is bounded by its weight."""
    folder = project.outputs / "old" / "checkpoints"
    folder.mkdir(parents=True)
    for number in range(3000):
        (folder / f"{number}").touch()
        os.utime(folder / f"{number}", ns=(10**18, 10**18))
    (project.folder / "archive").mkdir()
    project.doit("archive", "experiments=old", "archive_dir=archive")
    assert not (project.outputs / "old").exists()
    project.doit("unarchive", "archive=archive/old.tar.zst")
    assert len(list(folder.iterdir())) == 3000


def test_a_path_as_long_as_the_system_takes_is_packed_and_brought_back(project: Project) -> None:
    path = "/".join(["ü" * 120] * 15 + ["ö" * 120])
    project.make({"old/checkpoints/a.ckpt": 5})
    os.makedirs(project.outputs / "old" / path)
    (project.outputs / "old" / path / "link").symlink_to("ä" * 2000)
    (project.folder / "archive").mkdir()
    project.doit("archive", "experiments=old", "archive_dir=archive", "format=gz")
    project.doit("unarchive", "archive=archive/old.tar.gz")
    assert os.readlink(project.outputs / "old" / path / "link") == "ä" * 2000


def long(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


BESIDE: dict[str, Callable[[Path], Any]] = {
    "a link": lambda path: path.symlink_to("/dev/zero"),
    "a pipe": os.mkfifo,
    "a long one": long,
    "lists": lambda path: path.write_text("[" + "[]," * 10_000 + "[]]"),
    "nothing": os.fspath,
}


@pytest.mark.parametrize("change", BESIDE.values(), ids=list(BESIDE))
def test_a_hostile_manifest_beside_is_passed_over(project: Project, change: Callable[[Path], Any]) -> None:
    archives = make(project)
    command = ("archive", "experiments=old_2", "archive_dir=archive", "keep_source=1")
    project.doit(*command)
    beside = archives / "old_2.tar.zst.manifest.json"
    beside.unlink()
    change(beside)
    assert "Up to date: old_2" in project.doit(*command)


@pytest.mark.parametrize("name", ["pipe.tar.gz", "folder.tar.gz"])
def test_what_is_no_file_is_no_archive(project: Project, name: str) -> None:
    path = project.folder / name
    (os.mkfifo if name.startswith("pipe") else os.mkdir)(path)
    assert "is no file" in project.doit("unarchive", f"archive={name}", check=1)


# --- stopping --------------------------------------------------------------------------------------------------------


def reading(project: Project) -> Iterator[Callable[[Callable[[int], None]], object]]:
    path = str(project.folder / "archive" / "old_1.tar.gz")
    place = Packing(str(project.outputs), "old_1", str(project.folder / "archive"), "gz")
    items = packing.listing(place)
    yield lambda progress: unpacking.check(path, "gz", progress)
    yield lambda progress: packing.prove(place, items, progress)
    (project.outputs / "other").mkdir()
    yield lambda progress: unpack(path, str(project.outputs / "other"), progress)


def test_whatever_reads_an_archive_can_be_stopped_at_any_step(project: Project) -> None:
    make(project)
    project.doit("archive", "experiments=old_1", "archive_dir=archive", "format=gz", "keep_source=1")
    before = project.tree(state=True)
    for work in reading(project):
        calls, progress = stopping_after(10**9)
        work(progress)
        assert len(calls) > 5
        for at in range(len(calls)):
            calls, progress = stopping_after(at)
            shutil.rmtree(project.outputs / "other" / "old_1", ignore_errors=True)
            with pytest.raises(StoppedError):
                work(progress)
            assert not (project.outputs / "other" / "old_1").exists()
    work_left = project.outputs / "other" / ".ckptrules" / "work"
    assert os.listdir(work_left) == []
    assert {path: text for path, text in project.tree(state=True).items() if not path.startswith("other/")} == before


def changed_somewhere(tar: bytes, random: Random) -> bytes:
    """Change some bytes and blocks of a tar file; the checksums of its headers hold."""
    content = bytearray(tar)
    for _ in range(random.choice((1, 1, 2, 4))):
        at, blocks = random.randrange(len(content) // BLOCK) * BLOCK, random.randrange(1, 4)
        change = random.randrange(8)
        if change == 0:
            del content[at : at + blocks * BLOCK]
        elif change == 1:
            content[at:at] = content[: blocks * BLOCK]
        elif change == 2 and len(content) > 4 * BLOCK:
            del content[random.randrange(2 * BLOCK, len(content)) :]
        else:
            content[random.randrange(len(content))] = random.choice([*b"\0 01257xLKS", 255])
    for at in range(0, len(content), BLOCK):
        if content[at + 257 : at + 262] == b"ustar":
            content[at + 148 : at + 156] = b" " * 8
            content[at + 148 : at + 156] = b"%06o\0 " % sum(content[at : at + BLOCK])
    return bytes(content)


def test_a_changed_archive_is_whole_or_refused_in_plain_words(tmp_path: Path) -> None:
    random, refused = Random(5), 0
    (tmp_path / "outputs/e").mkdir(parents=True)
    (tmp_path / "archive").mkdir()
    for number, name in enumerate(("one", "two", "n" * 150)):
        (tmp_path / "outputs/e" / name).write_bytes(b"weights" * 100 * number)
    place = Packing(str(tmp_path / "outputs"), "e", str(tmp_path / "archive"), "gz")
    packing.pack(packing.Ready(place, packing.listing(place), "2026"), 1, lambda _: None)
    tar = gzip.decompress(Path(place.path).read_bytes())
    for _ in range(500):
        Path(place.path).write_bytes(gzip.compress(changed_somewhere(tar, random), 1))
        try:
            unpacking.check(place.path, "gz", lambda _: None)
        except ArchiveError:
            refused += 1
    assert refused > 300
