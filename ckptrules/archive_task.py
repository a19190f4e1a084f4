"""``doit archive`` and ``doit unarchive``: old experiments into one file each, and back.

doit reads this file for every command, so the work and its libraries are imported only where it is to be done.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckptrules import startup
from ckptrules.backup_tasks import Action, one_task
from ckptrules.options import Options


def archive(options: Options) -> Iterator[startup.TaskDict]:
    """Make the task that packs experiments."""
    return one_task("archive", _prepare_archive, options)


def unarchive(options: Options) -> Iterator[startup.TaskDict]:
    """Make the task that brings one experiment back."""
    return one_task("unarchive", _prepare_unarchive, options)


def _prepare_archive(options: Options) -> Action:
    from ckptrules.archive_work import prepare_archive

    return prepare_archive(options)


def _prepare_unarchive(options: Options) -> Action:
    from ckptrules.archive_work import prepare_unarchive

    return prepare_unarchive(options)
