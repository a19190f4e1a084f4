"""The console script ``ckptrules``: the tasks of the shipped dodo.py, in any folder."""

from __future__ import annotations

import os
import signal
import sys
from importlib.machinery import SourceFileLoader
from types import ModuleType
from typing import Any

from ckptrules import __version__, stopping
from ckptrules.rules.shipped import TASKS_FILE, groups, shipped
from ckptrules.run.command_line import completed, make_output_safe, say
from ckptrules.run.declared import TASKS, declared
from ckptrules.run.help import COMPLETION, INIT, OWN, asks_for_help, page, refuse_unknown, topic_page
from ckptrules.run.hints import OURS
from ckptrules.run.options import REFUSED, OptionError
from ckptrules.run.words import encode_word, selects_by_name


def main() -> int:
    """Print help, run ``ckptrules init``, or run doit with the shipped tasks."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # so that `| head` ends this process without a traceback
    make_output_safe()
    arguments = [encode_word(word) if selects_by_name(word) else word for word in sys.argv[1:]]
    sys.argv[1:] = arguments
    try:
        topic = asks_for_help(arguments, (*TASKS, *OWN)) if arguments else ""
        if topic is not None:
            return show_help(topic)
        if arguments[0] == COMPLETION:
            return completion(arguments[1:])
        if arguments == ["--version"]:
            say(f"{OURS} {__version__}\n")
            return 0
        refuse_gone_folder()
        return init(arguments[1:]) if arguments[0] == INIT else run_doit(arguments)
    except OptionError as error:
        print(f"ERROR: {completed(str(error))}", file=sys.stderr)
        return REFUSED


def refuse_gone_folder() -> None:
    """Refuse to work in a folder that was removed."""
    try:
        os.getcwd()
    except OSError as error:
        raise OptionError(f"the folder that you stand in: {error.strerror}", "cd to another one", place="") from None


def run_doit(arguments: list[str]) -> int:
    """Run doit with the shipped tasks.

    Raises:
        OptionError: doit would print a traceback or its own objects.
    """
    from doit.cmd_base import ModuleTaskLoader
    from doit.doit_cmd import DoitMain
    from doit.exceptions import InvalidDodoFile

    os.environ["PYTHONSAFEPATH"] = "1"  # so that our processes import nothing from the current folder
    DoitMain.BIN_NAME = OURS
    if arguments[:1] == ["clean"]:  # a command of doit that does nothing for our tasks, and says nothing
        refuse_unknown("clean", TASKS)
    if arguments[:1] == ["dumpdb"]:
        raise OptionError("dumpdb reads another kind of database", f"'{OURS} info TASK' says what is up to date")
    tasks = ModuleType("dodo")
    loader = ModuleTaskLoader(vars(tasks))
    main = DoitMain(loader)
    has_flags = any(word.startswith("-") for word in arguments)  # the check of flags takes time
    if has_flags and (fault := fault_in_flags(main, loader, arguments)):
        hint = f"'{OURS} help' lists the commands; options of a command stand behind it"
        raise OptionError(fault, hint)
    try:
        SourceFileLoader("dodo", shipped(TASKS_FILE)).exec_module(tasks)  # `runpy` would change sys.argv[0]
    except InvalidDodoFile as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return REFUSED
    return int(main.run(arguments) or 0)  # doit returns None on success


def fault_in_flags(main: Any, loader: Any, arguments: list[str]) -> str:
    """Return what is wrong with the flags for doit; empty if nothing is. doit itself would print its objects."""
    from doit.cmdparse import CmdParseError

    commands = main.get_cmds()
    named = bool(arguments) and arguments[0] in commands
    name, rest = (arguments[0], arguments[1:]) if named else ("run", arguments)
    command = commands.get_plugin(name)(task_loader=loader, config=main.config, bin_name=OURS, cmds=commands)
    try:
        command.cmdparser.parse(rest)
    except CmdParseError as error:
        return str(error.__context__ or "unknown option")
    return ""


def show_help(topic: str) -> int:
    """Print the help on one command, or on all if the topic is empty.

    Raises:
        OptionError: there is no such command.
    """
    (begin, tasks), *others = groups().items()
    every = {begin: {**{word: own.sentence for word, own in OWN.items()}, **tasks}, **dict(others)}
    known = {task: sentence for tasks in every.values() for task, sentence in tasks.items()}
    if topic:
        refuse_unknown(topic, known)
    say(topic_page(topic, known, OURS) if topic else page(every, OURS))
    return 0


def init(words: list[str]) -> int:
    """Run ``ckptrules init``: look at the folder, write rules, print what was found."""
    import shutil

    from ckptrules.rules.shipped import has_own_tasks
    from ckptrules.run.init import begin

    encoding = sys.stdout.encoding or "ascii"
    try:
        is_ours = (os.path.lexists(TASKS_FILE) and has_own_tasks()) or not shutil.which("doit")
        code, text, fault = begin(words, OURS if is_ours else "doit", encoding)
    except KeyboardInterrupt:
        return stopping.EXIT_CODE
    say(text)
    if fault:
        print(f"ERROR: {fault}", file=sys.stderr)
    return code


def completion(words: list[str]) -> int:
    """Print the completion script of a shell, or the names for which such a script asks.

    Raises:
        OptionError: the shell is unknown.
    """
    from ckptrules.rules import packs
    from ckptrules.run.completion import LISTED, SHELLS, listed, script

    if words and words[0] in LISTED:
        say("".join(f"{name}\n" for name in listed(words[0], words[1:])))
        return 0
    if len(words) != 1 or words[0] not in SHELLS:
        raise OptionError(f"completion takes one shell: {', '.join(SHELLS)}")
    names = [*packs.sources()]
    presets = [f"preset={name}" for name in ("", "protocol", *names)]
    more = {INIT: ["@", *presets], COMPLETION: SHELLS, "help": [*TASKS, *OWN], "list": [], "copy": names}
    say(script(words[0], {task: declared(task) for task in TASKS}, more))
    return 0
