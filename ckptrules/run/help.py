"""Pure: the first word that people get: a page of our commands, or the options of one. ASCII, 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ckptrules.run.options import DOIT_COMMANDS, OPTIONS, Option, OptionError, Word

WIDTH = 79
HELP = ("-h", "--help")
INIT = "init"
WITHOUT_OPTIONS = (INIT, "demo")
GROUPS: Mapping[str, tuple[str, ...]] = {
    "Begin": (INIT, "demo"),
    "Look": ("plan", "explain", "verify", "catalog", "usage", "check"),
    "Change": ("migrate", "fix_state", "drop_links", "refs"),
    "Take back": ("history", "undo", "trash", "purge"),
    "Keep elsewhere": ("backup", "backups", "restore", "drop_backup", "archive", "unarchive"),
    "Note and repeat": ("log", "schedule"),
}
WHAT = """\
ckptrules renames checkpoints to one format and deletes those that a retention
policy does not keep. It shows a plan first, overwrites nothing, and can undo.
"""
EXAMPLES = """\
Examples
  {program} plan outputs_dir=outputs    show what would be renamed, and why
  {program} plan delete_old=1           ... and what would be deleted
  {program} migrate:'exp*'              rename, in some experiments only

Options are name=value, or flags behind the task. {program} TASK --help shows
them. More: README.md, https://pydoit.org for the flags of doit itself.
"""


def asks_for_help(arguments: Sequence[str], tasks: Iterable[str]) -> str | None:
    """Return the task that help is asked for, an empty text for the page of all, or None where nobody asks.

    Args:
        arguments: what was typed.
        tasks: those that there are, `INIT` among them.
    """
    asked = [argument for argument in arguments if argument in HELP]
    words = [argument for argument in arguments if not argument.startswith("-") and "=" not in argument]
    if words[:1] == ["help"]:
        words = words[1:]
        if words and words[0] in DOIT_COMMANDS:
            return None
    elif not asked:
        return None
    if not words or words[0] in DOIT_COMMANDS:
        return ""
    known = tuple(tasks)
    return next((task for word in words for task in known if Word(word, {}).selects(task)), Word(words[0], {}).base)


def page(sentences: Mapping[str, str], program: str) -> str:
    """Write the page: what this is, the commands in groups, examples, where to read on."""
    column = max(map(len, sentences)) + 4
    lines = [WHAT]
    for group, tasks in GROUPS.items():
        lines.append(group)
        lines += [_row(f"  {task}", sentences[task], column) for task in tasks]
    return "\n".join([*lines, "", EXAMPLES.format(program=program)])


def task_page(task: str, sentence: str, program: str) -> str:
    """Write what a task does, and its options in both forms, with their defaults."""
    lines = [f"{program} {task}" + " [name=value ...]" * (task not in WITHOUT_OPTIONS), "", _filled(sentence, "  ")]
    rows = list(_option_rows(task))
    if rows:
        lines += ["", "Options", *rows, "", "In brackets: what holds where it is not given."]
    return "\n".join([*lines, ""])


def refuse_unknown(word: str, tasks: Iterable[str]) -> None:
    """Refuse a task that is none.

    Raises:
        OptionError: with the task that is nearest.
    """
    import difflib

    known = list(tasks)
    if word not in known:
        near = difflib.get_close_matches(word, known, n=1)
        hint = f"did you mean 'ckptrules {near[0]}'?" if near else "'ckptrules help' lists them"
        raise OptionError(f"command line: there is no task '{word}'\n    hint: {hint}")


def _option_rows(task: str) -> Iterator[str]:
    for option in OPTIONS if task not in WITHOUT_OPTIONS else ():
        if not option.tasks or task in option.tasks:
            yield f"  {_forms(option)}"
            yield _filled(option.help + f" [{option.default}]" * bool(option.default), " " * 8)


def _forms(option: Option) -> str:
    if option.flag:
        return f"{option.name}=1, --{option.dashed}, --no-{option.dashed}"
    return f"{option.name}=X, --{option.dashed} X"


def _row(start: str, text: str, column: int) -> str:
    first = start.ljust(column) if len(start) < column else f"{start}\n{' ' * column}"
    lines = textwrap.wrap(text, WIDTH - column)
    return first + f"\n{' ' * column}".join(lines)


def _filled(text: str, indent: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent=indent, subsequent_indent=indent)
