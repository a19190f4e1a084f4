"""Define the names of the state folder and of the files in its trash."""

from __future__ import annotations

import hashlib
import re

STATE = ".ckptrules"  # below outputs_dir, and below a backup
MANIFEST = f"{STATE}/manifest.json"  # of a backup
JOURNALS, TRASH, WORK = f"{STATE}/journal", f"{STATE}/trash", f"{STATE}/work"
VERIFIED = f"{STATE}/verified"  # results of `verify`, in a folder for each directory
REFS = f"{STATE}/refs"  # what files held before `refs` changed them
LOCK, HOST_LOCK, DATABASE = "lock", "lock.host", "doit.db"  # names in the state folder
LAST_RUN = "lock.last_run"  # likewise: the last run, its time, and whether it is at work
PROOF, RATES = "proved", "rates"  # likewise: the rules that were found sound; bytes a second, by command
_FOLDERS = (JOURNALS, VERIFIED, TRASH, WORK, REFS)
BELIEVED = (LOCK, HOST_LOCK, LAST_RUN, PROOF, DATABASE, *(one.removeprefix(f"{STATE}/") for one in _FOLDERS))
"""Names in the state folder that nobody else may change; who reads `RATES` alone can do without."""
TRASH_SUFFIX = ".trashed"
OLD_TEXT = ".pointer"  # in the trash, before that suffix: what a pointer file held
_OLD_TEXT = re.compile(rf"(?s:(.+)){re.escape(OLD_TEXT)}(?:-\d+)?(?:{re.escape(TRASH_SUFFIX)})?")
LONGEST_NAME = 255  # bytes


def trash_folder(run: str, directory: str) -> str:
    """Return the folder in the trash for what a run deletes from a directory; both are paths below ``outputs_dir``."""
    return f"{TRASH}/{run}/{directory}".rstrip("/")


def trash_name(name: str) -> str:
    """Return the name that a name gets in the trash; if that is too long, a checksum replaces its end."""
    raw = name.encode("utf-8", "surrogateescape")
    if len(raw) + len(TRASH_SUFFIX) > LONGEST_NAME:
        end = f"~{hashlib.sha256(raw).hexdigest()[:16]}"
        name = raw[: LONGEST_NAME - len(TRASH_SUFFIX) - len(end)].decode("utf-8", "surrogateescape") + end
    return name + TRASH_SUFFIX


def old_text_name(name: str, number: int) -> str:
    """Return the name in the trash of an old text of a pointer file; ``number`` counts such texts from 1."""
    return trash_name(f"{name}{OLD_TEXT}-{number}" if number > 1 else name + OLD_TEXT)


def pointer_of(name: str) -> str:
    """Return the pointer file that a name in the trash is an old text of; empty for a name that was deleted."""
    found = _OLD_TEXT.fullmatch(name)
    return found[1] if found else ""
