"""``dry_run=1`` wins over every other option: no command changes anything on the disk with it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from ckptrules.run.declared import TASKS
from tests.whole.test_golden import Session, here

__all__ = ["here"]  # a fixture

BEFORE = (
    "doit pin name='epoch-40*' note='Table 2'",
    "doit migrate:exp delete_old=1 leave_links=1",
    "doit backup to=saved mode=copy experiments=exp",
    "doit archive archive_dir=archives experiments=paper_1 format=gz",
    "doit verify:detector quick=1",
    "doit migrate:'ocr training' delete_old=1",
)
DRY = (
    "doit plan delete_old=1 fix_state=1",
    "doit migrate delete_old=1 fix_state=1 leave_links=1 on_conflict=keep_newest",
    "doit -n 2 migrate delete_old=1",
    "doit verify",
    "doit catalog",
    "doit catalog format=csv out=new.csv",
    "doit catalog format=csv out=docs/notes.md",
    "doit check",
    "doit history",
    "doit undo",
    "doit undo run='<run 1>'",
    "doit purge",
    "doit purge yes=1",
    "doit purge older_than=1s yes=1",
    "doit explain name='*'",
    "doit trash",
    "doit usage archive_dir=archives",
    "doit archive archive_dir=archives experiments=group/run_1 format=gz",
    "doit archive archive_dir=archives experiments=group/run_1 format=gz keep_source=1",
    "doit unarchive archive=archives/paper_1.tar.gz",
    "doit schedule",
    "doit fix_state",
    "doit drop_links",
    "doit refs",
    "doit refs apply=1",
    "doit refs apply=1 force=1",
    "doit log",
    "doit log out=docs/notes.md",
    "doit log out=new.md",
    "doit demo",
    "doit backup",
    "doit backups to=saved verify=1",
    "doit restore backup='saved/<backup>'",
    "doit restore backup='saved/<backup>' force=1",
    "doit drop_backup backup='saved/<backup>'",
    "doit pin name='exp/checkpoints/epoch*' note=other",
    "doit page out=docs/notes.html",
    "doit packs",
    "doit packs copy=huggingface",
    "doit pins",
    "doit unpin name='*'",
    "doit after path=outputs/group/run_1/checkpoints/epoch=25-step=250.ckpt delete_old=1",
)


def seen(*places: Path) -> dict[str, str]:
    """Return all that lies below some places, with the content, the mode and the time of each."""
    found = {}
    for place in places:
        for folder, directories, files in os.walk(place):
            for path in (Path(folder), *(Path(folder, name) for name in (*directories, *files))):
                status = path.lstat()
                content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else ""
                digest = hashlib.sha256(repr(content).encode()).hexdigest()
                found[str(path)] = f"{digest} {status.st_mode:o} {status.st_mtime_ns} {status.st_ino}"
    return found


@pytest.fixture
def session(here: Path, tmp_path: Path) -> Session:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return Session(here, scratch)


def test_no_command_changes_anything_with_dry_run(session: Session) -> None:
    """Also where another option asks for a change: ``refs apply=1`` did rewrite, ``log out=`` did write."""
    state = session.scratch / "state"
    state.mkdir()
    for command in BEFORE:
        session.told(command)
    (session.folder / "docs/notes.md").write_text("see outputs/exp/checkpoints/epoch=12-step=120.ckpt\n")
    for journal in session.journals():  # as if the last run had been killed
        if "ocr training" in (text := journal.read_text()):
            journal.write_text("".join(line for line in text.splitlines(keepends=True)[:2]))
    assert "interrupted: " in session.told("doit history")
    changed = {}
    for command in DRY:
        before = seen(session.folder, state)
        told = session.told(f"{command} dry_run=1")
        after = seen(session.folder, state)
        assert "Traceback" not in told
        assert "exit code 3" not in told, told
        if before != after:
            changed[command] = sorted(path for path, _ in before.items() ^ after.items())
    assert changed == {}


def test_every_command_is_tried() -> None:
    words = {word for command in DRY for word in command.split()}
    assert set(TASKS) - words == set()
