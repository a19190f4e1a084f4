"""Refuse command lines and places before anything is done; and print the help, in place of a run.

Each function `refuse_…` raises an OptionError with a hint at what to do instead.
"""

from __future__ import annotations

import os
import sys
from pathlib import PurePath

from ckptrules.engine.spelling import nearest
from ckptrules.engine.state_folder import STATE
from ckptrules.rules.shipped import RULES_DIR, has_own_tasks, lines_to_add, sentences
from ckptrules.run.command_line import program, refusal, say
from ckptrules.run.declared import TASKS, declared
from ckptrules.run.hints import OURS, command, quoted
from ckptrules.run.options import REFUSED, Common, OptionError, a_file, a_page, is_page
from ckptrules.run.session import Session, processes_asked
from ckptrules.run.words import DEFAULT_TASK, CommandLine
from ckptrules.storage.reading import StateError, why_of

TEXT = 4096  # bytes at the beginning of a file: a checkpoint has a zero among them, a text has none


def show_help_first() -> None:
    """Print the help of a task, if the command line asks for it: doit would print a dump of its own objects.

    Raises:
        SystemExit: with 0 after the help; with 3 if there is no such task.
    """
    from ckptrules.run.help import OWN, asks_for_help, topic_page

    topic = asks_for_help(sys.argv[1:], TASKS)
    if not topic:
        return
    try:
        if topic not in OWN:
            refuse_not_ours(topic)
    except OptionError as error:
        print(f"ERROR: {refusal(str(error))}", file=sys.stderr)
        raise SystemExit(REFUSED) from None
    if topic in (*TASKS, *OWN):
        say(topic_page(topic, sentences(), program()[0]))
        raise SystemExit(0)


def refuse_line(line: CommandLine) -> None:
    """Refuse a command line whose words are valid, but not together."""
    refuse_patterns_of_commands(line)
    refuse_mistyped(line)
    refuse_stale_looks(line)
    refuse_runs_without_lock(line)
    refuse_processes_of_doit(line)


def refuse_mistyped(line: CommandLine) -> None:
    """Refuse unknown tasks, and experiments of a command that takes none; unless the user has tasks of their own."""
    foreign = [word.base for word in line.words if word.base not in TASKS]
    if line.command in ("run", "info") and foreign:
        refuse_not_ours(foreign[0], line)
    whole = [word for word in line.words if word.base in TASKS and "experiments" not in declared(word.base).known()]
    for word in whole if line.command == "run" and all_are_ours() else ():
        if word.base != word.task:
            chosen = word.task.removeprefix(word.base)
            about = "path= says where it works" if "path" in declared(word.base).known() else "it is for the whole tree"
            raise OptionError(f"'{word.base}' takes no experiment", f"leave '{chosen}' out: {about}")


def refuse_patterns_of_commands(line: CommandLine) -> None:
    """Refuse ``mi*`` and ``usa*:a``, which may be meant for experiments: for doit they select commands."""
    for word in line.words:
        start, star, _ = word.base.partition("*")
        if star and any(f"{task}:".startswith(start) for task in TASKS):
            hint = argument_hint(line, word.task.rpartition(":")[2]) or "write the command out"
            raise OptionError(f"'{word.task}' is a pattern in place of a command", hint)


def refuse_stale_looks(line: CommandLine) -> None:
    """Refuse commands in one call of which one would come too early to see, or to show, what the other changes.

    `pin`, `unpin` and `undo` change what others look at. A `plan` is there to be read first, and ``plan migrate`` may
    mean the plan of a migrate.
    """
    asked = [word.base for word in line.words if line.command == "run" and word.base in TASKS]
    for first in (task for task in asked if task in ("pin", "unpin", "undo")):
        others = (task for task in asked if task != first and (first != "undo" or line.options(task).will_change))
        if other := next(others, ""):
            fact = f"'{first}' and '{other}' in one call: each would look before the other has changed anything"
            raise OptionError(fact, "run one after the other")
    for other in (task for task in asked if "plan" in asked and task in ("migrate", "after")):
        if line.options(other).will_change:
            fact = f"'plan' and '{other}' in one call: nobody could read the plan first"
            raise OptionError(fact, f"{command('plan')} shows what {command('migrate')} does; run one after the other")


def all_are_ours() -> bool:
    """Say whether all tasks are of ckptrules: the shipped dodo.py is used, and no file of the user adds tasks."""
    start, *where = program()
    return start == OURS or not (any(word.startswith(("-f", "--file")) for word in where) or has_own_tasks())


def refuse_not_ours(task: str, line: CommandLine | None = None) -> None:
    """Refuse an unknown task, unless the user has tasks of their own."""
    from ckptrules.run.help import refuse_unknown

    if all_are_ours() and task not in TASKS:
        if line and (hint := argument_hint(line, task)):
            raise OptionError(f"there is no task '{task}'", hint)
        refuse_unknown(task, TASKS)


def argument_hint(line: CommandLine, word: str) -> str:
    """Return how to give a word to the first command of a line, as a checkpoint, experiment or folder; or nothing."""
    before = next((word.base for word in line.words if word.base in TASKS), DEFAULT_TASK)
    takes = declared(before).known()
    if "name" in takes:
        return f"for a checkpoint that is called so: {command(before, name=word)}"
    is_one = word[0] != "." and os.path.isdir(f"{line.options(before).outputs_dir}/{word}")
    if "experiments" in takes and (is_one or "*" in word):
        return f"for the experiment{'s' * (not is_one)}: {command(quoted(f'{before}:{word}'))}"
    return f"for the experiments in that folder: {command(before, outputs_dir=word)}" if os.path.isdir(word) else ""


def refuse_runs_without_lock(line: CommandLine) -> None:
    """Refuse `doit auto` and `doit strace`: only a plain run takes the lock and finishes an interrupted run."""
    ours = [word.base for word in line.words if word.base in TASKS]
    if line.command in ("auto", "strace") and ours:
        fact = f"'doit {line.command}' would run '{ours[0]}' without the lock"
        raise OptionError(fact, f"leave '{line.command}' out")


def refuse_processes_of_doit(line: CommandLine) -> None:
    """Refuse ``-P process`` and a negative ``-n``.

    doit's own processes outlive their main process, which waits for ever if one of them is killed. With ``-n -1`` doit
    runs nothing, without a message.
    """
    if not line.has_foreign_words and line.flag("-P", "--parallel-type") == "process":
        raise OptionError("processes of doit's own are not used", "leave out '-P process': -n is enough")
    if (asked := processes_asked(line)) < 0:
        raise OptionError(f"-n {asked}: no task would be run", "without -n, there are as many processes as pay")


def refuse_lacking(session: Session) -> None:
    """Refuse a command that the dodo.py does not define."""
    line, dodo = session.line, session.dodo
    asked = [word.base for word in line.words]
    if task := next((task for task in asked if line.command == "run" and task in session.lacking), None):
        fact = f"{os.path.basename(dodo['__file__'])} has no '{task}', which ckptrules knows"
        raise OptionError(fact, "\n    ".join(["add to it:", *lines_to_add([task], dodo)]), place="")


def refuse_configured_folder(options: Common, typed: Common) -> None:
    """Refuse an ``outputs_dir`` in doit's own configuration: the lock was taken before doit reads that.

    ``typed`` are the options without that configuration.
    """
    if options.outputs_dir != typed.outputs_dir:
        fact = f"outputs_dir '{options.outputs_dir}' stands in doit's configuration, which is read too late for it"
        hint = "give it on the command line: outputs_dir={0}; or once for all in the rules: 'outputs_dir: {0}'"
        raise OptionError(fact, hint.format(options.outputs_dir), place="")


# --- where a command may work and write -------------------------------------------------------------------------------


def refuse_missing_outputs(outputs_dir: str) -> None:
    """Refuse an ``outputs_dir`` that is no directory or cannot be listed."""
    try:
        with os.scandir(outputs_dir):
            pass
    except OSError as error:
        near = near_folder(outputs_dir) if isinstance(error, FileNotFoundError) else ""
        hint = near and f"did you mean outputs_dir={quoted(near)}?"
        looks = "; 'ckptrules init' looks where checkpoints are" * (not os.path.lexists(RULES_DIR))
        hint = hint or f"name the folder of the experiments with outputs_dir=PATH{looks}"
        raise OptionError(os.strerror(error.errno or 0), hint, f"outputs_dir '{outputs_dir}'") from None


def refuse_backup(options: Common) -> None:
    """Refuse to change a backup, as it would no longer hold what it was made of, or our own state."""
    from ckptrules.outputs.find import is_backup  # not above: `doit list` does without

    place = PurePath(os.path.realpath(options.outputs_dir))
    fact = "is in the state of ckptrules" if STATE in place.parts else ""
    if backup := next((one for one in (place, *place.parents) if is_backup(str(one.parent), one.name)), None):
        fact = "is a backup" if backup == place else f"lies in a backup, '{backup}'"
    if fact:
        hint = "name the folder of the experiments with outputs_dir=PATH"
        raise OptionError(f"{fact}: nothing in it is changed", hint, f"outputs_dir '{options.outputs_dir}'")


def near_folder(path: str) -> str:
    """Return the folder whose name is nearest to a mistyped last part of a path, or an empty text."""
    above, name = os.path.split(os.path.normpath(path))
    try:
        with os.scandir(above or os.curdir) as entries:
            near = nearest(name, (entry.name for entry in entries if entry.is_dir()))
    except OSError:
        return ""
    return near and os.path.join(above, near)


def is_inside(path: str, folder: str) -> bool:
    """Say whether a path is a folder or lies in it, after all links are followed."""
    path, folder = os.path.realpath(path), os.path.realpath(folder)
    return os.path.commonpath([path, folder]) == folder


def refuse_report_place(options: Common) -> None:
    """Refuse to write a report where it could replace a checkpoint, a rule file or a device."""
    files = [name for name, option in options.known().items() if option.read in (a_file, a_page)]
    places = [(name, path) for name in files if (path := getattr(options, name))]
    for name, path in places:
        real = os.path.realpath(path)
        fact = ""
        if not os.path.isdir(os.path.dirname(real)):
            fact = "there is no such folder to write in"
        elif os.path.exists(path) and not os.path.isfile(path):  # not `real`: /dev/stdout may lead to a nameless pipe
            fact = "is no file"
        elif is_binary(path):
            fact = "is there already and is no text, a checkpoint perhaps: nothing is written over it"
        elif options.known()[name].read is a_page and not is_page(real):
            fact = f"leads to '{real}', which is no page"
        # Where the current folder is the outputs, a page beside dodo.py is allowed: no checkpoint ends in .html.
        beside = os.path.dirname(real) == os.path.realpath(os.curdir) and options.known()[name].read is a_page
        for folder in (options.outputs_dir, options.rules_dir or RULES_DIR):
            if is_inside(real, folder) and not (beside and folder == options.outputs_dir):
                fact = f"would be written into '{folder}', among what it tells of"
                fact += f"\n    hint: write it elsewhere, such as {name}=/tmp/{quoted(os.path.basename(path))}"
        if fact:
            raise OptionError(f"{name}={path}: {fact}")


def is_binary(path: str) -> bool:
    """Say whether there is a file with a zero byte near its beginning, so that it is no earlier report."""
    try:
        with open(path, "rb") as file:
            return b"\0" in file.read(TEXT)
    except OSError:  # the report fails later, with its own message
        return False


def refusal_of(error: OSError) -> str:
    """Return the text of an error of the system, with the hint if it is a `reading.StateError`."""
    return f"{why_of(error)}\n    hint: {error.hint}" if isinstance(error, StateError) else why_of(error)
