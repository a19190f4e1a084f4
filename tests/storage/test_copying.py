"""What a copy keeps of what a person set: owner, mode, access lists, attributes, holes; else it is told.

Access lists are made by hand, as the kernel takes them (linux/posix_acl_xattr.h); no tool is needed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import stat
import struct
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ckptrules.changes import doing
from ckptrules.changes.fixing import FixContext, find_old_paths
from ckptrules.changes.references import Reference
from ckptrules.commands.refs import TextFile, obstacle
from ckptrules.engine.actions import Plan, Problem, Recipe, Step
from ckptrules.engine.checkpoints import Evidence
from ckptrules.engine.entries import Item
from ckptrules.engine.plan import make_plan
from ckptrules.engine.state_folder import STATE
from ckptrules.outputs import find
from ckptrules.outputs.evidence import Looks, look
from ckptrules.outputs.links import Links
from ckptrules.outputs.listing import scan
from ckptrules.report.style import Style
from ckptrules.rules.load import load_rules
from ckptrules.rules.shipped import rule_texts
from ckptrules.storage import copying, looking, making, moving, streams, unfinished
from ckptrules.storage.attributes import ACCESS, DEFAULT, as_text, for_another_group, without_list
from ckptrules.storage.reading import open_below
from ckptrules.storage.state import Folders
from ckptrules.storage.texts import keep_content
from ckptrules.vault.backing_up import Order, make_backup
from ckptrules.vault.manifest import Manifest, ManifestError, from_json, to_json
from ckptrules.vault.packing import Packing, Ready, listing, pack_in_worker, refuse_other
from ckptrules.vault.report import lost_lines
from ckptrules.vault.space import needed
from ckptrules.vault.unpacking import believed
from tests.commands.test_backup import here
from tests.conftest import ROOT, Project
from tests.support.tables import every

pytestmark = pytest.mark.skipif(not hasattr(os, "setxattr"), reason="no extended attributes of Linux here")
root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
NOBODY = 0xFFFFFFFF
OWNER, USER, GROUP, NAMED_GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32
ALICE, TEAM = 12_345, 23_456
OLD, NEW = "epoch=3-step=40.ckpt", "epoch-03_step-000040.ckpt"
MIB = 1 << 20


def acl(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


SHARED = acl((OWNER, 6, NOBODY), (USER, 6, ALICE), (GROUP, 0, NOBODY), (MASK, 6, NOBODY), (OTHER, 0, NOBODY))
DENYING = acl(
    (OWNER, 6, NOBODY), (USER, 0, ALICE), (GROUP, 4, NOBODY), (NAMED_GROUP, 0, TEAM), (MASK, 7, NOBODY), (OTHER, 4, NOBODY)
)  # fmt: skip
INHERITED = acl((OWNER, 7, NOBODY), (USER, 7, ALICE), (GROUP, 5, NOBODY), (MASK, 7, NOBODY), (OTHER, 0, NOBODY))


@pytest.fixture(autouse=True)
def _lists_are_known_here(tmp_path: Path) -> None:
    probe = tmp_path / "probe"
    probe.touch()
    try:
        os.setxattr(probe, ACCESS, SHARED)
        os.setxattr(probe, "user.note", b"x")
    except OSError as error:
        pytest.skip(f"no access lists on this file system: {error.strerror}")
    probe.unlink()


@pytest.fixture
def shared() -> Iterator[Path]:
    """Give a folder that everybody can reach and write to; those of pytest are closed."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def looks(path: Path) -> tuple[Any, ...]:
    """Return what a person can have set: mode, owner, group, attributes."""
    status = path.lstat()
    noted = {name: os.getxattr(path, name) for name in os.listxattr(path, follow_symlinks=False)}
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, noted


def all_looks(folder: Path) -> dict[str, tuple[Any, ...]]:
    return {str(path.relative_to(folder)): looks(path) for path in [folder, *sorted(folder.rglob("*"))]}


def own(path: Path) -> None:
    if os.geteuid() == 0:
        os.chown(path, ALICE, TEAM)


def chmod(mode: int) -> Callable[[Path], None]:
    return lambda path: path.chmod(mode)


def attribute(name: str, value: bytes) -> Callable[[Path], None]:
    return lambda path: os.setxattr(path, name, value)


def with_all(path: Path) -> None:
    own(path)
    for set_it in (attribute(ACCESS, DENYING), attribute("user.note", b"keep\0me"), attribute("user.\xfc\n", b"")):
        set_it(path)


METADATA: dict[str, Callable[[Path], None]] = {
    "access list": attribute(ACCESS, SHARED),
    "list that denies": attribute(ACCESS, DENYING),
    "attribute": attribute("user.note", b"used in the paper \xff\0"),
    "empty attribute": attribute("user.empty", b""),
    "narrow mode": chmod(0o400),
    "owner": own,
    "all of them": with_all,
}


# --- each way to a copy ----------------------------------------------------------------------------------------------


def set_each(files: list[Path]) -> dict[str, Path]:
    """Give each file one kind of metadata."""
    assert len(files) >= len(METADATA)
    changed = dict(zip(METADATA, files, strict=False))
    for name, path in changed.items():
        METADATA[name](path)
    return changed


def test_the_states_that_are_fixed_keep_it_and_the_undo_too(project: Project) -> None:
    shutil.copytree(ROOT / "tests/real/outputs/lightning_default", project.outputs / "lightning_default", symlinks=True)
    project.doit("migrate")
    files = sorted(
        path for path in (project.outputs / "lightning_default/checkpoints").iterdir() if not path.is_symlink()
    )
    changed = set_each(files)
    before = {name: (looks(path), path.stat().st_ino) for name, path in changed.items()}
    assert re.search(rf"fixed +{len(files)}\n", project.doit("fix_state"))
    assert {name: looks(path) for name, path in changed.items()} == {name: seen for name, (seen, _) in before.items()}
    assert not {path.stat().st_ino for path in changed.values()} & {inode for _, inode in before.values()}
    project.doit("undo")
    assert {name: (looks(path), path.stat().st_ino) for name, path in changed.items()} == before


def test_pointers_that_follow_keep_it_and_the_undo_too(project: Project) -> None:
    project.make({f"{name}/checkpoints/{OLD}": 50 for name in map(str, range(len(METADATA)))})
    pointers = [project.outputs / str(number) / "checkpoints/latest" for number in range(len(METADATA))]
    for pointer in pointers:
        pointer.write_text(OLD)
    before = {name: looks(path) for name, path in set_each(pointers).items()}
    project.doit("migrate")
    assert {path.read_text() for path in pointers} == {NEW}
    assert {name: looks(path) for name, path in zip(METADATA, pointers, strict=True)} == before
    project.doit("undo")
    assert {path.read_text() for path in pointers} == {OLD}
    assert {name: looks(path) for name, path in zip(METADATA, pointers, strict=True)} == before


def test_texts_that_are_rewritten_keep_it_and_the_undo_too(project: Project) -> None:
    project.make({f"one/checkpoints/{OLD}": 50})
    project.doit("migrate")
    texts = [project.folder / "scripts" / f"{number}.py" for number in range(len(METADATA))]
    texts[0].parent.mkdir()
    for path in texts:
        path.write_text(f"load('outputs/one/checkpoints/{OLD}')")
    before = {name: looks(path) for name, path in set_each(texts).items()}
    project.doit("refs", "apply=1")
    assert {path.read_text() for path in texts} == {f"load('outputs/one/checkpoints/{NEW}')"}
    assert {name: looks(path) for name, path in zip(METADATA, texts, strict=True)} == before
    project.doit("undo")
    assert {path.read_text() for path in texts} == {f"load('outputs/one/checkpoints/{OLD}')"}
    assert {name: looks(path) for name, path in zip(METADATA, texts, strict=True)} == before


def make_tree(project: Project) -> dict[str, tuple[Any, ...]]:
    """Make an experiment with all kinds of metadata, on files, directories and a link, and with a hole; say how it looks."""
    names = [f"exp/checkpoints/epoch-{number:02}_step-000001.ckpt" for number in range(len(METADATA))]
    project.make({**dict.fromkeys(names, 5000), "exp/checkpoints/last.ckpt": "-> epoch-00_step-000001.ckpt"})
    set_each([project.outputs / name for name in names])
    for name in ("setgid", "inherits", "narrow"):
        (project.outputs / "exp" / name).mkdir()
    if os.geteuid() == 0:
        os.chown(project.outputs / "exp/checkpoints/last.ckpt", ALICE, TEAM, follow_symlinks=False)
        os.chown(project.outputs / "exp/setgid", 0, TEAM)
    (project.outputs / "exp/setgid").chmod(0o2770)
    os.setxattr(project.outputs / "exp/inherits", DEFAULT, INHERITED)
    os.setxattr(project.outputs / "exp/inherits", "user.note", b"of a directory")
    os.setxattr(project.outputs / "exp/narrow", ACCESS, INHERITED)
    sparse = project.outputs / "exp/checkpoints/epoch-99_step-000001.ckpt"
    with sparse.open("wb") as file:
        file.seek(2 * MIB)
        file.write(b"data")
        file.truncate(5 * MIB + 5)
    os.setxattr(project.outputs, ACCESS, INHERITED)
    return all_looks(project.outputs / "exp")


def is_sparse(folder: Path) -> bool:
    return (folder / "exp/checkpoints/epoch-99_step-000001.ckpt").stat().st_blocks * 512 < MIB


def test_a_backup_keeps_it_and_the_restore_too(project: Project, tmp_path: Path) -> None:
    before, tree, top = make_tree(project), project.tree(), looks(project.outputs)
    if not is_sparse(project.outputs):
        pytest.skip("a file system without holes")
    out = project.doit("backup", "mode=copy", f"to={tmp_path}")
    assert "Note" not in out
    (made,) = tmp_path.glob("outputs_backup_*")
    assert all_looks(made / "exp") == before
    assert looks(made) == top
    assert is_sparse(made)
    assert "verified" in project.doit("backups", "verify=1", f"to={tmp_path}")
    shutil.rmtree(project.outputs / "exp")
    os.setxattr(project.outputs, DEFAULT, INHERITED)  # what is brought back is as it was, whatever would be inherited
    project.doit("restore", f"backup={made}")
    assert all_looks(project.outputs / "exp") == before
    assert project.tree() == tree
    assert is_sparse(project.outputs)


@pytest.mark.parametrize("form", ["gz", "zst"])
def test_an_archive_keeps_it_and_gives_it_back(project: Project, form: str, tmp_path: Path) -> None:
    before, tree = make_tree(project), project.tree()
    project.doit("archive", "experiments=exp", f"archive_dir={tmp_path}", f"format={form}")
    assert not (project.outputs / "exp").exists()
    os.setxattr(project.outputs, DEFAULT, INHERITED)
    out = project.doit("unarchive", f"archive={tmp_path}/exp.tar.{form}")
    assert "Note" not in out
    assert all_looks(project.outputs / "exp") == before
    assert project.tree() == tree
    assert is_sparse(project.outputs)
    if form == "gz":
        with tarfile.open(tmp_path / "exp.tar.gz") as tar:
            owners = {
                (member.uid, member.gid) for member in tar if member.name.endswith(NEW[:6] + "05_step-000001.ckpt")
            }
        assert owners == {before["checkpoints/epoch-05_step-000001.ckpt"][1:3]}


def test_an_undo_of_an_archive_brings_back_the_very_same(project: Project, tmp_path: Path) -> None:
    before = make_tree(project)
    project.doit("archive", "experiments=exp", f"archive_dir={tmp_path}", "format=gz")
    project.doit("undo")
    assert all_looks(project.outputs / "exp") == before


@pytest.mark.parametrize("name", ["access list", "attribute", pytest.param("owner", marks=root)])
def test_an_archive_of_before_is_no_reason_to_put_away_what_was_set_since(
    project: Project, name: str, tmp_path: Path
) -> None:
    project.make({"exp/checkpoints/x.ckpt": 5000})
    (project.outputs / "exp/checkpoints/x.ckpt").chmod(0o660)
    command = ("archive", "experiments=exp", f"archive_dir={tmp_path}", "format=gz")
    project.doit(*command, "keep_source=1")
    assert "Up to date" in project.doit(*command, "keep_source=1")
    METADATA[name](project.outputs / "exp/checkpoints/x.ckpt")
    assert "holds something else" in project.doit(*command, check=1)
    assert (project.outputs / "exp/checkpoints/x.ckpt").exists()


# --- never more than before ------------------------------------------------------------------------------------------

SUBJECTS = {  # uid, gid, other groups
    "alice": (ALICE, ALICE, []),
    "one of the team": (33_333, 33_333, [TEAM]),
    "one of the group": (33_333, 33_333, [44_444]),
    "of both groups": (33_333, 33_333, [44_444, TEAM]),
    "alice of the group": (ALICE, ALICE, [44_444]),
    "anybody": (33_333, 33_333, []),
}


def rights(path: Path) -> dict[str, str]:
    """Ask the kernel what each of some people may do with a file."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        for uid, gid, groups in SUBJECTS.values():
            os.setgroups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, 0)
            modes = ("r", os.R_OK), ("w", os.W_OK), ("x", os.X_OK)
            os.write(writing, "".join(letter for letter, mode in modes if os.access(path, mode)).encode() + b"\n")
            os.setresuid(0, 0, 0)
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with open(reading) as pipe:
        return dict(zip(SUBJECTS, pipe.read().splitlines(), strict=True))


def is_within(narrow: dict[str, str], wide: dict[str, str]) -> bool:
    return all(set(narrow[name]) <= set(wide[name]) for name in SUBJECTS)


LISTS = {
    "none": None,
    "the one of the issue": SHARED,
    "one that denies": DENYING,
    "a mask that closes": acl(
        (OWNER, 7, NOBODY), (USER, 7, ALICE), (GROUP, 7, NOBODY), (NAMED_GROUP, 6, TEAM), (MASK, 1, NOBODY), (OTHER, 0, NOBODY)
    ),
    "a group that may less than others": acl(
        (OWNER, 6, NOBODY), (GROUP, 0, NOBODY), (NAMED_GROUP, 2, TEAM), (MASK, 7, NOBODY), (OTHER, 7, NOBODY)
    ),
}  # fmt: skip


@pytest.mark.whole
@root
@pytest.mark.parametrize("loses", ["nothing", "the list", "the group"])
@pytest.mark.parametrize(
    ("access", "mode"), [*(("none", mode) for mode in (0o600, 0o640, 0o606, 0o777)), *((name, 0o600) for name in LISTS)]
)
def test_at_no_moment_may_anybody_do_more_with_the_copy(
    shared: Path, monkeypatch: pytest.MonkeyPatch, access: str, mode: int, loses: str
) -> None:
    """The folder gives to what is made in it: so a plain chmod would give to others, too."""
    os.setxattr(shared, DEFAULT, INHERITED)
    original, copy = shared / "original", shared / "copy"
    original.touch()
    os.removexattr(original, ACCESS)
    os.chown(original, 55_555, 44_444)
    original.chmod(mode)
    if (value := LISTS[access]) is not None:
        os.setxattr(original, ACCESS, value)
    allowed = rights(original)

    def watched(function: Callable[..., Any], *, fails: Callable[..., bool]) -> Callable[..., Any]:
        def call(*arguments: Any) -> None:
            try:
                if fails(*arguments):
                    raise OSError(errno.EPERM, "Operation not permitted")
                function(*arguments)
            finally:
                assert is_within(rights(copy), allowed), (function.__name__, arguments)

        return call

    monkeypatch.setattr(os, "fchmod", watched(os.fchmod, fails=lambda *_: False))
    monkeypatch.setattr(
        os, "setxattr", watched(os.setxattr, fails=lambda _, name, *__: loses == "the list" and name == ACCESS)
    )
    monkeypatch.setattr(os, "fchown", watched(os.fchown, fails=lambda *_: loses == "the group"))
    item = looking.look(str(shared), "original")
    assert item
    _, _, lost = copying.copy_file(str(shared), item, str(shared), "copy", "copy", lambda _: None)
    assert is_within(rights(copy), allowed)
    if loses == "nothing":
        assert (lost, looks(copy)) == ((), looks(original))
    elif loses == "the list":
        assert lost == (() if value is None else ("access list",))
    else:
        assert lost[:2] == ("owner", "group")


def test_what_is_made_of_a_list_that_cannot_be_kept() -> None:
    """The group bits beside a list are its mask, which is no right of the group."""
    assert oct(without_list(0o660, SHARED)) == "0o600"
    assert oct(without_list(0o2674, DENYING)) == "0o2600"
    assert oct(without_list(0o775, acl((OWNER, 7, 0), (GROUP, 7, 0), (MASK, 5, 0), (OTHER, 5, 0)))) == "0o755"
    assert oct(without_list(0o777, b"what is no list")) == "0o700"
    assert [oct(for_another_group(mode)) for mode in (0o644, 0o664, 0o660, 0o604, 0o3775)] == [
        "0o644", "0o644", "0o600", "0o600", "0o3755"
    ]  # fmt: skip


# --- where it cannot be kept -----------------------------------------------------------------------------------------


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Path]:
    """Give a file system that knows no attributes."""
    folder = tmp_path / "bare"
    folder.mkdir()
    command = ["mount", "-t", "ramfs", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("cannot mount here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_backup_on_a_disk_without_attributes_tells_it_and_the_manifest_keeps_it(project: Project, bare: Path) -> None:
    before = make_tree(project)
    out = project.doit("backup", f"to={bare}")
    more = "of the original; the manifest keeps it, so a restore can bring it back: "
    assert f"Note: 5 copies without the access list {more}" in out
    assert f"Note: 1 copy without the default access list {more}exp/inherits\n" in out
    assert (
        f"Note: 3 copies without the attribute user.note {more}exp/checkpoints/epoch-02_step-000001.ckpt, exp/" in out
    )
    (made,) = bare.glob("outputs_backup_*")
    assert looks(made / "exp/checkpoints/epoch-00_step-000001.ckpt")[0] == 0o600
    assert looks(made / "exp/checkpoints/epoch-01_step-000001.ckpt")[0] == 0o600
    assert looks(made / "exp/narrow")[0] == 0o750
    shutil.rmtree(project.outputs / "exp")
    assert "Note" not in project.doit("restore", f"backup={made}")
    assert all_looks(project.outputs / "exp") == before


@pytest.mark.parametrize("way", ["restore", "unarchive"])
def test_a_tree_on_a_disk_without_attributes_tells_what_did_not_come_back(
    project: Project, bare: Path, tmp_path: Path, way: str
) -> None:
    make_tree(project)
    project.doit("backup", f"to={tmp_path}")
    project.doit("archive", "experiments=exp", f"archive_dir={tmp_path}", "format=gz")
    (made,) = tmp_path.glob("outputs_backup_*")
    here = bare / "outputs"
    here.mkdir()
    source = f"backup={made}" if way == "restore" else f"archive={tmp_path}/exp.tar.gz"
    out = project.doit(way, source, f"outputs_dir={here}")
    shown = (
        "exp/checkpoints/epoch-00_step-000001.ckpt, exp/checkpoints/epoch-01_step-000001.ckpt, exp/checkpoints/epoch-"
    )
    assert f"Note: 4 copies without the access list of the original: {shown}" in out
    assert "Note: 1 copy without the attribute user.empty of the original: " in out
    assert looks(here / "exp/checkpoints/epoch-00_step-000001.ckpt")[:1] == (0o600,)
    assert looks(here / "exp/narrow")[:1] == (0o750,)


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP])
def test_a_disk_that_keeps_no_modes_tells_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """FAT refuses a mode that it cannot hold."""
    (tmp_path / "x").touch()
    item = looking.look(str(tmp_path), "x")
    assert item

    def refused(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fchmod", refused)
    assert copying.copy_file(str(tmp_path), item, str(tmp_path), "y", "copy", lambda _: None)[-1] == ("mode",)


@pytest.mark.parametrize("fault", ["an attribute that cannot be read", "more than a manifest holds"])
def test_attributes_that_cannot_be_read_are_no_attributes_that_are_not_there(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: str
) -> None:
    project.make({"exp/checkpoints/x.ckpt": 5, "exp/checkpoints/y.ckpt": 5})
    os.setxattr(project.outputs / "exp/checkpoints/x.ckpt", "user.note", b"x")

    def getxattr(*_: object) -> bytes:
        if fault == "more than a manifest holds":
            return bytes(2 * MIB)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "getxattr", getxattr)
    order = Order(str(project.outputs), str(tmp_path / "made"), "copy", (), whole=True, created="now")
    manifest, (problem,) = make_backup(order, here)
    assert problem.names == manifest.missing == ("exp/checkpoints/x.ckpt",)
    assert "its attributes" in problem.text
    place = Packing(str(project.outputs), "exp", str(tmp_path), "gz")
    why = pack_in_worker(1, Ready(place, listing(place), "now"), lambda _: None)
    assert why.startswith("exp/checkpoints/x.ckpt cannot be read: its attributes")
    assert not (tmp_path / "exp.tar.gz").exists()


def test_all_names_are_told_where_that_is_asked_for() -> None:
    lost = {f"{number}\n": ("access list",) for number in range(5)}
    assert lost_lines(lost, Style()) == [r"Note: 5 copies without the access list of the original: 0\n, 1\n, 2\n, …"]
    assert lost_lines(lost, Style(verbose=True))[0].endswith(r"2\n, 3\n, 4\n")
    assert lost_lines({"a": ("owner", "group", "access list")}, Style()) == [
        "Note: 1 copy not of its owner, but yours: a"
    ]
    assert lost_lines({}, Style()) == []


@contextlib.contextmanager
def somebody(uid: int = 33_333) -> Iterator[None]:
    os.setegid(uid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@root
def test_a_backup_of_what_belongs_to_others_says_whose_the_copies_are(shared: Path) -> None:
    (shared / "outputs").mkdir()
    for name, mode in (("a", 0o644), ("b", 0o664)):
        (shared / "outputs" / name).touch()
        (shared / "outputs" / name).chmod(mode)
    (shared / "outputs/c").touch()
    os.chown(shared / "outputs/c", 33_333, 33_333)
    lost: dict[str, tuple[str, ...]] = {}
    order = Order(str(shared / "outputs"), str(shared / "made"), "copy", (), whole=True, created="now")
    moving._system_rename()  # noqa: SLF001 - somebody else may not be able to read this Python
    with somebody():
        manifest, problems = make_backup(order, here, lost.__setitem__)
    assert problems == []
    assert {item.path: (item.uid, item.mode) for item in manifest.items} == {
        "a": (0, 0o644), "b": (0, 0o664), "c": (33_333, 0o644)
    }  # fmt: skip
    assert looks(shared / "made/b")[:2] == (0o644, 33_333)
    assert lost_lines(lost, Style())[0].startswith("Note: 3 copies not of its owner, but yours: ")


# --- what is not yours -----------------------------------------------------------------------------------------------


def repoint(folder: Path) -> None:
    with Folders(str(folder)) as folders:
        doing.do_step(folders, Step("repoint", "exp", "latest", f"{STATE}/trash/run/exp", NEW, OLD))


def rewrite_text(folder: Path) -> None:
    was, to = (keep_content(str(folder), content) for content in (OLD.encode(), NEW.encode()))
    with Folders(str(folder), texts=True) as folders:
        doing.do_step(folders, Step("rewrite", str(folder / "exp"), "latest", "", to, was))


def rewrite_state(folder: Path) -> None:
    unfinished.stage_rewrite(str(folder), "exp/latest", Recipe((b"new", (2, 9)), {}), lambda _: None)


@root
@pytest.mark.parametrize("change", [repoint, rewrite_text, rewrite_state])
@pytest.mark.parametrize("whose", ["another's", "another group's"])
def test_nobody_gets_the_file_of_somebody_else_by_replacing_it(
    shared: Path, change: Callable[[Path], None], whose: str
) -> None:
    (shared / "exp").mkdir()
    (shared / "exp").chmod(0o777)
    file = shared / "exp/latest"
    file.write_text(OLD)
    os.chown(file, 0 if whose == "another's" else 33_333, TEAM)
    file.chmod(0o664)
    before = (looks(file), file.read_bytes(), file.stat().st_ino)
    why = "belongs to root; a copy of it would be yours" if whose == "another's" else "a copy would lose its group"
    with somebody(), pytest.raises(OSError, match=why) as error:
        change(shared)
    assert error.value.errno == errno.EPERM
    assert (looks(file), file.read_bytes(), file.stat().st_ino) == before
    assert os.listdir(shared / "exp") == ["latest"]


@root
def test_a_preview_tells_as_well_whose_state_it_is(shared: Path) -> None:
    shutil.copytree(ROOT / "tests/real/outputs/lightning_default", shared / "lightning_default", symlinks=True)
    rules = load_rules(rule_texts(str(ROOT / "rules")))
    (found,) = find.survey(str(shared), ["*/checkpoints"])[0]
    with open_below(str(shared), found.directory) as directory:
        for name in os.listdir(directory):
            if "step" in name:
                new = f"epoch-{int(name[6:].split('-')[0]):02}_step-{int(name.split('step=')[1][:-5]):06}.ckpt"
                os.rename(name, new, src_dir_fd=directory, dst_dir_fd=directory)
    entries = scan(str(shared), found)
    names = {entry.name for entry in entries.entries}
    context = FixContext(str(shared), rules, entries, 0)
    ours = find_old_paths(context, names)
    assert ours.recipes
    assert ours.problems == ()
    with somebody():
        theirs = find_old_paths(context, names)
    assert theirs.recipes == ()
    assert {problem.text for problem in theirs.problems} == {
        "cannot get other paths in its state: belongs to root; a copy of it would be yours"
    }
    assert {problem.hint for problem in theirs.problems} == {"let its owner run this, or root"}


@root
def test_a_plan_tells_as_well_whose_pointer_it_is(shared: Path) -> None:
    """The checkpoint would be renamed, and its pointer could not follow."""
    folder = shared / "exp/checkpoints"
    folder.mkdir(parents=True)
    for name in (OLD, "epoch=4-step=50.ckpt"):
        (folder / name).write_bytes(b"x" * 50)
        os.chown(folder / name, 33_333, 33_333)
    (folder / "latest").write_text(OLD)
    rules = load_rules(rule_texts(str(ROOT / "rules")))
    (found,) = find.survey(str(shared), ["*/checkpoints"])[0]

    def plan() -> Plan:
        listing = scan(str(shared), found)
        with open_below(str(shared), found.directory) as directory:
            evidence = look(
                Looks(directory, listing, rules, Links(str(shared)), 0), make_plan(rules, listing), Evidence()
            )
        return make_plan(rules, listing, evidence=evidence)

    ours = plan()
    assert ([action.name for action in ours.actions], ours.problems) == ([OLD, "epoch=4-step=50.ckpt", "latest"], ())
    with somebody():
        theirs = plan()
    assert [action.name for action in theirs.actions] == ["epoch=4-step=50.ckpt"]
    (problem,) = theirs.problems
    text = f"cannot be renamed to {NEW}: latest names it, and belongs to root"
    assert problem == Problem("foreign", (OLD,), text, "let the owner of both run this, or root")


@root
def test_refs_tells_whose_text_it_is(shared: Path) -> None:
    path = shared / "x.py"
    path.write_text(f"load('one/checkpoints/{OLD}')")
    os.chown(path, ALICE, ALICE)
    old = Reference(22, OLD, NEW)
    text = TextFile(str(path), path.read_bytes(), path.read_text(), "utf-8", (old,))
    assert obstacle(text, {}, force=True) == ""
    with somebody():
        assert obstacle(text, {}, force=True) == f"belongs to {ALICE}; a copy of it would be yours"


# --- holes -----------------------------------------------------------------------------------------------------------


def make_sparse(path: Path, *data: tuple[int, bytes], size: int) -> None:
    with path.open("wb") as file:
        for at, content in data:
            file.seek(at)
            file.write(content)
        file.truncate(size)
    if path.stat().st_blocks * 512 >= size:
        pytest.skip("a file system without holes")


def used(path: Path) -> int:
    return path.stat().st_blocks * 512


SPARSE: dict[str, tuple[tuple[tuple[int, bytes], ...], int]] = {
    "nothing but a hole": ((), 3 * MIB + 7),
    "data at the end": (((2 * MIB + 100, b"end"),), 2 * MIB + 103),
    "data at the start": (((0, b"start" * 1000),), 3 * MIB),
    "in turn": (tuple((number * 256 * 1024, b"x" * 5000) for number in range(20)), 8 * MIB + 1),
    "zeros that were written": (((MIB, bytes(MIB)), (5 * MIB, b"y")), 6 * MIB),
}


@pytest.mark.parametrize("case", SPARSE)
@pytest.mark.parametrize("way", ["copy", "clone", "state", "member"])
def test_a_copy_has_the_bytes_and_the_holes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, way: str
) -> None:
    data, size = SPARSE[case]
    origin = tmp_path / "origin"
    make_sparse(origin, *data, size=size)
    content = origin.read_bytes()
    if way == "clone":
        monkeypatch.setattr(copying, "clone", lambda *_: False)  # a clone that cannot be becomes a copy
    item = looking.look(str(tmp_path), "origin")
    assert item
    if way == "state":
        name = unfinished.stage_rewrite(
            str(tmp_path), "origin", Recipe(((0, MIB), b"more", (MIB, size)), {}), lambda _: None
        )
        copy = tmp_path / ".ckptrules/work" / name
        content = content[:MIB] + b"more" + content[MIB:]
    else:
        copy = tmp_path / "copy"
        if way == "member":
            with origin.open("rb") as file:
                making.write_member(str(tmp_path), "copy", file, lambda _: None)
        else:
            held, *_ = copying.copy_file(str(tmp_path), item, str(tmp_path), "copy", way, lambda _: None)
            assert held.checksum == streams.checksum(str(tmp_path), "origin", lambda _: None)
    assert copy.read_bytes() == content
    assert used(copy) <= used(origin) + 160 * 1024  # a part that has moved by some bytes touches more blocks


def test_a_clone_with_other_parts_has_zeros_where_the_holes_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the clone holds at the place of a hole is something else."""
    origin = tmp_path / "origin"
    make_sparse(origin, (0, b"a" * MIB), (3 * MIB, b"b" * MIB), size=6 * MIB)

    def cloned(file: int, directory: int, name: str) -> bool:
        with open(os.open(name, os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=directory), "wb") as copy:
            copy.write(os.pread(file, 6 * MIB, 0))
        return True

    monkeypatch.setattr(copying, "clone", cloned)
    parts = ((0, 10), (10, MIB), b"x" * 5000, (MIB, 4 * MIB), (2 * MIB, 6 * MIB))
    name = unfinished.stage_rewrite(str(tmp_path), "origin", Recipe(parts, {}), lambda _: None)
    content, copy = origin.read_bytes(), tmp_path / ".ckptrules/work" / name
    assert copy.read_bytes() == content[:MIB] + b"x" * 5000 + content[MIB : 4 * MIB] + content[2 * MIB :]


def test_a_hole_is_not_read_and_needs_no_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "exp").mkdir()
    make_sparse(tmp_path / "exp/sparse", (256 * MIB, b"data"), size=512 * MIB)
    read: list[int] = []
    really = os.read

    def counting(file: int, count: int) -> bytes:
        chunk = really(file, count)
        read.append(len(chunk))
        return chunk

    monkeypatch.setattr(os, "read", counting)
    (item,) = looking.read_tree(str(tmp_path), "exp")[0]
    assert needed([item], str(tmp_path)) < MIB
    held, *_ = copying.copy_file(str(tmp_path), item, str(tmp_path), "copy", "copy", lambda _: None)
    assert sum(read) < MIB
    assert (held.size, used(tmp_path / "copy") < MIB) == (512 * MIB, True)


def test_a_file_that_shrinks_while_it_is_copied_ends_and_is_told(tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    make_sparse(origin, (0, b"a" * MIB), (6 * MIB, b"b"), size=8 * MIB)
    item = looking.look(str(tmp_path), "origin")
    assert item
    held, *_ = copying.copy_file(
        str(tmp_path), item, str(tmp_path), "copy", "copy", lambda _: os.truncate(origin, 2 * MIB)
    )
    assert held.changed
    assert (tmp_path / "copy").stat().st_size == held.size


# --- what a manifest may say -----------------------------------------------------------------------------------------

NOTE = {"user.note": "eA=="}
HOSTILE: dict[str, dict[str, object]] = {
    "a capability": {"attributes": {"security.capability": "eA=="}},
    "of root": {"attributes": {"trusted.overlay.opaque": "eA=="}},
    "another list": {"attributes": {"system.nfs4_acl": "eA=="}},
    "no base64": {"attributes": {"user.note": "%%"}},
    "no text": {"attributes": {"user.note": 5}},
    "a list of attributes": {"attributes": ["user.note"]},
    "a list that does not parse": {"attributes": as_text({ACCESS: b"\2\0\0\0x"})},
    "a list without a group": {"attributes": as_text({ACCESS: acl((OWNER, 7, 0), (OTHER, 7, 0))})},
    "a list with rights that are none": {"attributes": as_text({ACCESS: acl((OWNER, 9, 0), (GROUP, 7, 0), (OTHER, 7, 0))})},
    "a long value": {"attributes": as_text({"user.note": b"x" * 70_000})},
    "many values": {"attributes": as_text({f"user.{number}": b"x" * 60_000 for number in range(20)})},
    "a long name": {"attributes": {"user." + "x" * 300: "eA=="}},
    "a name with a zero": {"attributes": {"user.\0": "eA=="}},
    "a name that is no text": {"attributes": {"user.\ud800": "eA=="}},
    "no number": {"uid": "0"},
    "a truth": {"uid": True},
    "a fraction": {"gid": 1.5},
    "nobody": {"gid": 0xFFFFFFFF},
    "a negative one": {"uid": -2},
    "holes beyond the end": {"holes": 8},
    "a set-user-ID program": {"mode": 0o4755},
}  # fmt: skip


@every([*HOSTILE.values()])
def test_a_manifest_that_says_what_cannot_be_believed_is_refused(row: dict[str, object]) -> None:
    sound = {
        "path": "x",
        "kind": "file",
        "size": 7,
        "mtime_ns": 5,
        "mode": 0o600,
        "sha256": "0" * 64,
        "uid": 0,
        "gid": 1,
    }
    data = {
        "schema_version": 1,
        "created": "",
        "source": "",
        "mode": "copy",
        "complete": True,
        "experiments": [],
        "missing": [],
    }
    kept = {**sound, "attributes": {**NOTE, **as_text({ACCESS: SHARED, "user.\udcff": b""})}, "holes": 7}
    manifest = from_json(json.dumps({**data, "items": [kept]}))
    assert from_json(to_json(manifest)) == manifest
    with pytest.raises(ManifestError, match="has no sound"):
        from_json(json.dumps({**data, "items": [{**sound, **row}]}))


def test_no_attributes_belong_to_a_link() -> None:
    link = {"path": "x", "kind": "link", "size": 0, "mtime_ns": 5, "mode": 0o777, "link": "y", "attributes": NOTE}
    data = {
        "schema_version": 1,
        "created": "",
        "source": "",
        "mode": "copy",
        "complete": True,
        "experiments": [],
        "missing": [],
    }
    with pytest.raises(ManifestError, match="no sound attributes"):
        from_json(json.dumps({**data, "items": [link]}))


OPENED = {
    "everybody's": lambda path: path.chmod(0o666),
    "somebody else's": lambda path: os.chown(path, ALICE, ALICE),
}


@root
@pytest.mark.parametrize("open_it", OPENED.values(), ids=list(OPENED))
@pytest.mark.parametrize("way", ["restore", "unarchive"])
def test_owners_and_lists_are_taken_only_from_what_nobody_else_could_have_written(
    project: Project, tmp_path: Path, way: str, open_it: Callable[[Path], None]
) -> None:
    before = make_tree(project)
    project.doit("backup", f"to={tmp_path}")
    project.doit("archive", "experiments=exp", f"archive_dir={tmp_path}", "format=gz")
    (made,) = tmp_path.glob("outputs_backup_*")
    open_it(made / ".ckptrules/manifest.json" if way == "restore" else tmp_path / "exp.tar.gz")
    out = project.doit(way, f"backup={made}" if way == "restore" else f"archive={tmp_path}/exp.tar.gz")
    what = "backup" if way == "restore" else "archive"
    assert (
        f"Note: owners and access lists are not taken from this {what}: others could have written it\n    hint: " in out
    )
    after = all_looks(project.outputs / "exp")
    assert {seen[1:3] for seen in after.values()} == {(0, 0)}
    assert not any(ACCESS in seen[3] or DEFAULT in seen[3] for seen in after.values())
    assert looks(project.outputs / "exp/checkpoints/epoch-00_step-000001.ckpt")[0] == 0o600
    assert set(before["inherits"][3]) == {DEFAULT, "user.note"}
    assert after["inherits"][3] == {"user.note": b"of a directory"}


def test_an_archive_in_a_folder_that_everybody_may_change_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "x.tar.gz"
    path.touch()
    item = Item("x", "file", 0, 0, 0o660, uid=5, gid=6, attributes=as_text({ACCESS: SHARED, "user.note": b"x"}))
    manifest = Manifest("", "", "gz", complete=True, experiments=("x",), items=(item,))
    assert believed(str(path), manifest) == manifest
    tmp_path.chmod(0o777)
    (doubted,) = believed(str(path), manifest).items
    assert doubted == manifest.items[0]._replace(uid=-1, gid=-1, mode=0o600, attributes=as_text({"user.note": b"x"}))
    tmp_path.chmod(0o1777)
    assert believed(str(path), manifest) == manifest


def without_news(text: str) -> str:
    """Return a manifest as an earlier version wrote it."""
    data = json.loads(text)
    for row in data["items"]:
        for key in ("uid", "gid", "attributes", "holes"):
            row.pop(key, None)
    return json.dumps(data)


def test_a_backup_of_an_earlier_version_is_restored_as_before(project: Project, tmp_path: Path) -> None:
    project.make({"exp/checkpoints/x.ckpt": 5000})
    (project.outputs / "exp/checkpoints/x.ckpt").chmod(0o640)
    project.doit("backup", f"to={tmp_path}")
    (made,) = tmp_path.glob("outputs_backup_*")
    manifest = made / ".ckptrules/manifest.json"
    manifest.write_text(without_news(manifest.read_text()))
    before = all_looks(project.outputs)
    shutil.rmtree(project.outputs / "exp")
    assert "Note" not in project.doit("restore", f"backup={made}")
    before.pop(".ckptrules", None)
    after = {path: seen for path, seen in all_looks(project.outputs).items() if not path.startswith(".ckptrules")}
    assert after == {path: seen for path, seen in before.items() if not path.startswith(".ckptrules")}


def test_an_archive_of_an_earlier_version_is_known_again(project: Project, tmp_path: Path) -> None:
    project.make({"exp/checkpoints/x.ckpt": 5000})
    project.doit("archive", "experiments=exp", f"archive_dir={tmp_path}", "format=gz", "keep_source=1")
    place = Packing(str(project.outputs), "exp", str(tmp_path), "gz")
    manifest = from_json(without_news((tmp_path / "exp.tar.gz.manifest.json").read_text()))
    refuse_other(place, listing(place), manifest)


# --- what it costs ---------------------------------------------------------------------------------------------------


def test_a_plain_file_costs_three_calls_more_and_none_for_each_attribute_that_it_has_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").write_bytes(b"x")
    calls: list[str] = []

    def noted(name: str) -> Callable[..., Any]:
        really = getattr(os, name)

        def call(*arguments: Any) -> Any:
            calls.append(name)
            return really(*arguments)

        return call

    for name in ("listxattr", "getxattr", "setxattr", "removexattr", "fchown", "fchmod"):
        monkeypatch.setattr(os, name, noted(name))
    item = looking.look(str(tmp_path), "x")
    assert item
    copying.copy_file(str(tmp_path), item, str(tmp_path), "y", "copy", lambda _: None)
    assert calls == ["listxattr", "removexattr", "fchown", "fchmod"]
