"""Names, finds and checks backups of ``outputs_dir``."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial
from itertools import islice
from typing import NamedTuple

from ckptrules.engine.actions import Problem
from ckptrules.engine.entries import Item, lies_in
from ckptrules.engine.measures import human_size
from ckptrules.engine.state_folder import MANIFEST, STATE
from ckptrules.storage import believing, looking, reading, streams, unfinished
from ckptrules.storage.reading import Progress, why_of
from ckptrules.vault.manifest import LONGEST, Manifest, ManifestError, from_json
from ckptrules.workers.pieces import Each, Lost

MISSING = "is missing"
TOO_LONG = f"its {MANIFEST} is longer than {human_size(LONGEST)}"


class NoBackupError(Exception):
    """A folder is no sound backup of ours; the message is one fact."""


class NotOursError(NoBackupError):
    """A folder never was a backup of ours."""


class FoundBackup(NamedTuple):
    """A backup in a folder of backups; ``manifest`` is None if it is damaged.

    ``checked`` says that its files were compared with the manifest, ``damage`` what was found.
    """

    name: str
    manifest: Manifest | None
    damage: tuple[Problem, ...] = ()
    checked: bool = False


def backup_name(outputs_dir: str, now: datetime) -> str:
    """Return the name of a backup: ``outputs_backup_20251015_101500``."""
    return f"{os.path.basename(os.path.abspath(outputs_dir))}_backup_{now:%Y%m%d_%H%M%S}"


def hidden_path(path: str) -> str:
    """Return the path of a backup while it is made or removed: a hidden one, if it is not hidden already."""
    folder, name = os.path.split(path)
    return path if is_hidden(name) else os.path.join(folder, unfinished.PARTIAL.format(name))


def is_hidden(name: str) -> bool:
    """Return whether this is the name of a backup that is, or was, being made or removed."""
    return name.startswith(".") and name.endswith(".partial")


def backups_folder(outputs_dir: str, to: str | None) -> str:
    """Return the folder of the backups: ``to``, or the one of ``outputs_dir``."""
    return to or os.path.normpath(os.path.join(outputs_dir, os.pardir))


def paths_of(experiments: Iterable[str]) -> tuple[str, ...]:
    """Return the paths of experiments, each once: ``a/.`` is ``a``."""
    return tuple(sorted(set(map(os.path.normpath, experiments))))


def belongs(path: str, experiments: Collection[str]) -> bool:
    """Return whether a path is in one of the experiments, or is a directory above one."""
    return any(lies_in(path, name) or name.startswith(f"{path}/") for name in experiments)


def read_backup(folder: str) -> tuple[Manifest, bool]:
    """Read and check the manifest of a backup; return also whether nobody else could have written it.

    Raises:
        NoBackupError: the folder has no sound manifest.
    """
    if os.path.islink(folder) or not os.path.isdir(folder):
        raise NotOursError("is a link" if os.path.islink(folder) else "is no directory")
    try:
        with reading.open_file(folder, MANIFEST) as file, open(file, encoding="utf-8", closefd=False) as text:
            if os.fstat(file).st_size > LONGEST:
                raise NoBackupError(TOO_LONG)
            return from_json(text.read(LONGEST)), believing.is_trusted(os.fstat(file))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise NotOursError("carries no manifest of ckptrules") from None
        raise NoBackupError(f"its {MANIFEST} cannot be read: {why_of(error)}") from None
    except UnicodeDecodeError:
        raise NoBackupError(f"its {MANIFEST} is not UTF-8 text") from None
    except ManifestError as error:
        raise NoBackupError(f"its {MANIFEST}: {error}") from None


def find_backups(folder: str, outputs_dir: str) -> list[FoundBackup]:
    """List the backups in a folder, oldest first, without ``outputs_dir`` itself, which may be an old backup."""
    held = []
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        try:
            manifest = None if os.path.realpath(path) == os.path.realpath(outputs_dir) else read_backup(path)[0]
        except NotOursError:
            continue
        except NoBackupError as error:
            held.append(FoundBackup(name, None, (Problem("damaged", (name,), str(error)),)))
        else:
            held += [FoundBackup(name, manifest)] if manifest else []
    return sorted(held, key=lambda backup: (backup.manifest.created if backup.manifest else "", backup.name))


def check_backups(folder: str, held: Sequence[FoundBackup], each: Each) -> Iterator[tuple[Problem, ...]]:
    """Compare the backups of a folder with their manifests, files by checksum; yield the damage of each."""
    names = [(one.name, one.manifest.items) for one in held if one.manifest]
    every = [item._replace(path=f"{name}/{item.path}") for name, items in names for item in items]
    with each(partial(difference, folder), every) as answers:
        for _, items in names:
            pairs = zip(items, map(fault_of, islice(answers, len(items))), strict=True)
            yield tuple(Problem("damaged", (item.path,), fault) for item, fault in pairs if fault)


def fault_of(answer: str | Lost) -> str:
    """Return the result of `difference`, or why there is none."""
    return f"was not read: {answer.why}" if isinstance(answer, Lost) else answer


def foreign_names(folder: str, manifest: Manifest) -> list[str]:
    """List the paths in the folder of a backup that are not in its manifest: dropping the backup would lose them.

    Raises:
        OSError: a part of the folder cannot be read.
    """
    ours = {item.path for item in manifest.items}
    (items, unreadable), (state, _) = looking.read_tree(folder), looking.read_tree(folder, STATE)
    for error in unreadable.values():
        raise error
    foreign = [item.path for item in items if item.path not in ours]
    return foreign + [item.path for item in state if not item.path.startswith(MANIFEST)]


def difference(root: str, item: Item, progress: Progress) -> str:
    """Return how a file, directory or link below a folder differs from its item in a manifest; empty if not at all."""
    fault = quick_difference(root, item)
    if fault is not None:
        return fault
    try:
        checksum = streams.checksum(root, item.path, progress, item.checksum)
    except OSError as error:
        return f"cannot be read: {why_of(error)}"
    return "" if checksum == item.checksum else "has another checksum"


def quick_difference(root: str, item: Item, *, by_time: bool = False) -> str | None:
    """As `difference`, without reading the file; None if only its content can show a difference.

    With ``by_time``, a file of the same size and time counts as the same.
    """
    try:
        there = looking.look(root, item.path)
    except OSError as error:
        return f"cannot be read: {why_of(error)}"
    if there is None:
        return MISSING
    if there.kind != item.kind:
        return f"is a {there.kind}, not a {item.kind}"
    if there.link != item.link:
        return f"leads to '{there.link}', not to '{item.link}'"
    if there.size != item.size:
        return f"has {there.size} bytes, not {item.size}"
    return "" if item.kind != "file" or (by_time and there.mtime_ns == item.mtime_ns) else None
