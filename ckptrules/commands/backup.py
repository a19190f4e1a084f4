"""Options → the doit tasks that make, list, restore and drop backups."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from doit.exceptions import TaskFailed
from doit.task import Task

from ckptrules import stopping
from ckptrules.engine.measures import visible
from ckptrules.report.style import Style
from ckptrules.run import command_line, jobs, startup
from ckptrules.run.hints import command
from ckptrules.run.options import OptionError, Options, as_pattern
from ckptrules.run.progress import stoppable
from ckptrules.run.reporter import Told
from ckptrules.stopping import StoppedError
from ckptrules.storage import copying, state, writing
from ckptrules.storage.reading import told
from ckptrules.vault import backups as vault_backups
from ckptrules.vault import report
from ckptrules.vault.backups import Held, NoBackupError, NoSpaceError, Order
from ckptrules.vault.manifest import Manifest

Action = tuple[Callable[..., Any], list[Any]]
Prepared = tuple[Action, tuple[str, ...]]  # what is to be done, and for which experiments
LISTED = "'doit backups' lists them"
FEW = 3
progress_bar = functools.partial(stoppable, "")


def backup(options: Options) -> Iterator[dict[str, Any]]:
    """Make the task that makes one backup."""
    return one_task("backup", prepare_backup, options)


def backups(options: Options) -> Iterator[dict[str, Any]]:
    """Make the task that lists the backups."""
    return one_task("backups", lambda _: ((show, [options, jobs.style(options)]), ()), options)


def restore(options: Options) -> Iterator[dict[str, Any]]:
    """Make the task that restores one backup."""
    return one_task("restore", prepare_restore, options)


def drop_backup(options: Options) -> Iterator[dict[str, Any]]:
    """Make the task that removes one backup."""
    return one_task("drop_backup", prepare_drop, options)


def one_task(name: str, prepare: Callable[[Options], Prepared], options: Options) -> Iterator[dict[str, Any]]:
    """Make one task; where it is really to be run (doit asks also to list it), ``prepare`` refuses what is wrong."""
    line = command_line.command_line()
    asked_for = any(word.base == name or fnmatchcase(name, word.task) for word in line.words)
    if not (line.command == "run" and asked_for):
        yield {"basename": name, "actions": []}
        return
    action, names = prepare(options)
    yield from jobs.one_task(name, [action], names)


# --- what is refused before anything is touched ----------------------------------------------------------------------


def prepare_backup(options: Options) -> Prepared:
    """Work out what is to be backed up, and where to.

    Raises:
        OptionError: no experiment is meant, or no backup can be made there.
    """
    jobs.outputs_dir(options)
    chosen_experiments("backup", options, known_experiments(options))  # refused before anything is written
    now = datetime.now().astimezone()
    folder = vault_backups.backups_folder(options.outputs_dir, options.to)
    path = os.path.normpath(os.path.join(folder, vault_backups.backup_name(options.outputs_dir, now)))
    refuse_place(folder, path, options)
    if not os.statvfs(options.outputs_dir).f_flag & os.ST_RDONLY:  # else nobody changes it: a disk that fails, say
        lock(options)
    chosen = chosen_experiments("backup", options, known_experiments(options))
    whole, created = not selects("backup", options), now.isoformat(timespec="seconds")
    order = Order(options.outputs_dir, path, options.mode, vault_backups.choose(chosen, None), whole, created)
    return (make, [options, jobs.style(options), order]), chosen


def known_experiments(options: Options) -> list[str]:
    """List the experiments that there are."""
    found = jobs.find(options.outputs_dir, jobs.load(options.rules_dir, options.outputs_dir))
    return [directory.experiment for directory in found]


def selects(task: str, options: Options) -> bool:
    """Say whether only some experiments are meant."""
    return options.experiments is not None or jobs.selects_by_word(task)


def prepare_restore(options: Options) -> Prepared:
    """Find the backup to restore; an ``outputs_dir`` that is gone is made anew.

    Raises:
        OptionError: there is nothing to restore, or nowhere to restore to.
    """
    path, manifest = chosen_backup(options, "restore")
    if not manifest.complete:
        hint = f"{command('drop_backup', backup=path)} removes it"
        raise OptionError(f"command line: backup '{path}': was interrupted before it was whole\n    hint: {hint}")
    names = chosen_experiments("restore", options, manifest.experiments)
    chosen = vault_backups.choose(names, None) if selects("restore", options) else None
    if not options.dry_run and not os.path.lexists(options.outputs_dir):
        try:
            writing.make_folder(options.outputs_dir)
        except OSError as error:
            raise OptionError(f"outputs_dir '{options.outputs_dir}' cannot be made: {told(error)}") from None
    lock(options)
    return (bring_back, [options, jobs.style(options), path, manifest, chosen]), names


def prepare_drop(options: Options) -> Prepared:
    """Find the backup to remove, and refuse what is more than a backup.

    Raises:
        OptionError: it is ``outputs_dir``, or holds it, or holds what is not of the backup.
    """
    path, manifest = chosen_backup(options, "drop_backup")
    if jobs.is_inside(options.outputs_dir, path) or jobs.is_inside(path, options.outputs_dir):
        fact = f"backup '{path}': is outputs_dir itself, or inside it, or around it"
        raise OptionError(f"command line: {fact}\n    hint: a backup that has become outputs is no backup any more")
    try:
        foreign = vault_backups.foreign_names(path, manifest)
    except OSError as error:
        raise OptionError(f"command line: backup '{path}': cannot be read: {told(error)}") from None
    if foreign:
        names = ", ".join(jobs.style(options).name(name) for name in foreign[:FEW]) + ", …" * (len(foreign) > FEW)
        fact = f"backup '{path}': holds what is not of the backup: {names}"
        raise OptionError(f"command line: {fact}\n    hint: move it away; it would be lost with the backup")
    if os.path.isdir(options.outputs_dir):
        lock(options)
    return (drop, [jobs.style(options), path, manifest]), ()


def chosen_experiments(task: str, options: Options, experiments: Iterable[str]) -> tuple[str, ...]:
    """Return the experiments that are meant: by words of the command line, and by ``experiments=``.

    Raises:
        OptionError: there is none.
    """
    names = sorted(set(experiments))
    pattern = as_pattern(options.experiments, names)
    if pattern is not None and not any(fnmatchcase(name, pattern) for name in names):
        hint = f"there are: {visible(', '.join(names)) or 'none'}"
        raise OptionError(f"command line: no experiment is named '{options.experiments}'\n    hint: {hint}")
    return tuple(jobs.chosen_of(task, options, names))


def refuse_place(folder: str, path: str, options: Options) -> None:
    """Refuse a place where no backup can be made.

    Raises:
        OptionError: it does not exist, is inside ``outputs_dir``, is taken, or cannot be reached by hard links.
    """
    try:
        names = os.listdir(folder)
    except OSError as error:
        hint = "the folder for the backups must be there already"
        raise OptionError(f"command line: to={folder}: {told(error)}\n    hint: {hint}") from None
    if jobs.is_inside(folder, options.outputs_dir):
        fact = f"'{folder}' is inside outputs_dir '{options.outputs_dir}'"
        raise OptionError(f"command line: {fact}\n    hint: name another folder with to=DIR")
    if {os.path.basename(path), os.path.basename(vault_backups.hidden_path(path))} & set(names):
        hint = "names of backups change every second; run again"
        raise OptionError(f"command line: '{path}' is there already\n    hint: {hint}")
    if options.mode == "link" and os.stat(folder).st_dev != os.stat(options.outputs_dir).st_dev:
        fact = f"mode=link: '{folder}' is on another file system than '{options.outputs_dir}'"
        raise OptionError(f"command line: {fact}\n    hint: hard links do not reach there; take mode=copy")


def chosen_backup(options: Options, task: str) -> tuple[str, Manifest]:
    """Find the backup that was named, and read its manifest.

    Raises:
        OptionError: none was named, or it is none.
    """
    if options.backup is None:
        raise OptionError(f"command line: {task} needs backup=DIR\n    hint: {LISTED}")
    path = os.path.normpath(options.backup)
    try:
        return path, vault_backups.read_backup(path)
    except NoBackupError as error:
        hint = f"only what 'doit backup' made can be taken; {LISTED}"
        raise OptionError(f"command line: backup '{path}': {visible(str(error))}\n    hint: {hint}") from None


def lock(options: Options) -> None:
    """Take the lock of ``outputs_dir`` for what changes something.

    Raises:
        LockedError, OptionError: it cannot be had.
    """
    if not options.dry_run:
        jobs.outputs_dir(options)
        startup.take_lock(options.outputs_dir, options.wait)
        startup.recover_first(options.outputs_dir)


# --- what the tasks do -----------------------------------------------------------------------------------------------


def make(options: Options, style: Style, order: Order, task: Task) -> TaskFailed | None:
    """Make a backup, or tell what it would be."""
    what = f"backup '{style.name(order.path)}'"
    lost: dict[str, tuple[str, ...]] = {}
    try:
        if options.dry_run:
            items, problems = vault_backups.collect(order)
            if order.mode == "copy":
                vault_backups.check_space(items, os.path.dirname(order.path) or ".")
            manifest = Manifest(order.created, order.outputs_dir, order.mode, complete=True, items=tuple(items))
        else:
            manifest, problems = vault_backups.make_backup(order, progress_bar, lost.__setitem__)
    except StoppedError:
        there = command("drop_backup", backup=vault_backups.hidden_path(order.path))
        return _tell(task, f"Not finished: {what}. {there} removes what is there of it.\n", failed=True)
    except NoSpaceError as error:
        hint = "make room, or name another folder with to=DIR"
        return _tell(task, report.failed_text(what, str(error), hint), failed=True)
    except OSError as error:
        return _tell(task, report.failed_text(what, told(error)), failed=True)
    return _tell(task, report.backup_text(order.path, manifest, problems, style, lost), failed=bool(problems))


def show(options: Options, style: Style, task: Task) -> TaskFailed | None:
    """List the backups, and check them where that is asked for."""
    folder = vault_backups.backups_folder(options.outputs_dir, options.to)
    try:
        held = vault_backups.find_backups(folder, options.outputs_dir)
    except OSError as error:
        return _tell(task, report.failed_text(f"'{style.name(folder)}'", told(error)), failed=True)
    if options.verify:
        try:
            held = _checked(folder, held)
        except StoppedError:
            return _tell(task, "Not finished: the backups are not checked.\n", failed=True)
    text = report.backups_table(held, folder, style, verified=options.verify)
    return _tell(task, text, failed=any(backup.damage for backup in held))


def _checked(folder: str, held: Sequence[Held]) -> list[Held]:
    checked = []
    with progress_bar(sum(backup.manifest.size for backup in held if backup.manifest)) as progress:
        for backup in held:
            damage = backup.damage
            if backup.manifest and backup.manifest.complete:
                damage = vault_backups.check_backup(os.path.join(folder, backup.name), backup.manifest, progress)
            checked.append(backup._replace(damage=damage))
    return checked


def bring_back(
    options: Options, style: Style, path: str, manifest: Manifest, chosen: tuple[str, ...] | None, task: Task
) -> TaskFailed | None:
    """Restore a backup, or tell what that would do."""
    outputs_dir = options.outputs_dir
    lost: dict[str, tuple[str, ...]] = {}
    stated, manifest = manifest, vault_backups.believed(path, manifest)
    try:
        with progress_bar(manifest.size) as progress:
            steps = vault_backups.plan_restore(outputs_dir, manifest, chosen, force=options.force, progress=progress)
        if not options.dry_run:
            journal = jobs.open_journal(outputs_dir, jobs.run_id(), jobs.run_header("restore", options))
            run, tell = jobs.run_id(), lost.__setitem__
            steps = vault_backups.restore(outputs_dir, path, run, steps, progress_bar, tell, journal, stopping.stopped)
    except StoppedError:
        state.clear_work(outputs_dir)
        return _tell(
            task, "Not finished: what was brought back so far is whole; the same command goes on.\n", failed=True
        )
    except OSError as error:
        return _tell(task, report.failed_text(f"'{style.name(outputs_dir)}'", told(error)), failed=True)
    notes = report.doubt_lines(stated, manifest, "this backup", os.geteuid())
    notes += report.lost_lines(lost, style)
    return _tell(task, report.restore_text(steps, style, notes), failed=any(step.problem for step in steps))


def drop(style: Style, path: str, manifest: Manifest, task: Task) -> TaskFailed | None:
    """Remove a backup, or tell that it would go."""
    try:
        if not style.preview:
            place = os.path.abspath(path)
            with progress_bar(len(manifest.items)) as progress:
                copying.remove_backup(place, vault_backups.hidden_path(place), progress)
    except StoppedError:
        rest = style.name(vault_backups.hidden_path(os.path.normpath(path)))
        return _tell(task, f"Not finished: backup '{style.name(path)}'. What is left of it: {rest}\n", failed=True)
    except OSError as error:
        return _tell(task, report.failed_text(f"backup '{style.name(path)}'", told(error)), failed=True)
    return _tell(task, report.dropped_text(path, manifest, style), failed=False)


def _tell(task: Task, text: str, *, failed: bool) -> TaskFailed | None:
    task.meta = {"told": Told(text)}
    return TaskFailed("problems left", report=False) if failed else None
