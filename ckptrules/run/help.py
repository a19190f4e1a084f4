"""Write the help: the page of all commands, and the page of each. ASCII, 80 columns. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ckptrules.engine.spelling import nearest
from ckptrules.run.declared import declared
from ckptrules.run.options import Common, Option, OptionError
from ckptrules.run.words import DOIT_COMMANDS, Word

WIDTH = 79
HELP = ("-h", "--help")
INIT, COMPLETION = "init", "completion"
WITHOUT_OPTIONS = frozenset({"demo"})

ELSEWHERE = {
    word: ours
    for words, ours in (
        ("clean cleanup delete gc prune remove rm trim", "plan delete_old=1"),
        ("df du size stats status summary", "usage"),
        ("ls show", "catalog"),
        ("apply mv rename", "migrate"),
        ("revert rollback untrash", "undo"),
        ("version", "--version"),
    )
    for word in words.split()
}
"""Words of other programs, with the command that does the same here: a typed `prune` must not suggest `purge`."""


class Own(NamedTuple):
    """A word that only the program ``ckptrules`` knows; it is no task.

    ``sentence`` says what it does, ``takes`` what may stand behind it, ``options`` what each of these means. ``more``
    is the end of its page.
    """

    sentence: str
    takes: str
    options: Mapping[str, str]
    more: str


OWN = {
    INIT: Own(
        "Look which checkpoints are here, and write rules for them; overwrite nothing",
        "[FOLDER] [preset=NAME]",
        {
            "FOLDER": "folder to look in: outputs_dir in the rules [outputs, or runs and the like, or this one]",
            "preset=NAME": "write the rules of a pack without a look: 'ckptrules packs' lists them; or protocol",
        },
        """\
It writes dodo.py and rules/, and leaves what is there as it is. It opens three
checkpoints a directory at most, and runs none of them. preset=protocol writes
the rules of the checkpoint protocol: epoch-03_step-000103.ckpt.

Examples
  ckptrules init                       look in the well-known folders
  ckptrules init runs                  look in runs/
  ckptrules init preset=huggingface    write without a look

Exit codes
  0   something was understood, or a preset is written
  1   nothing was for sure: there are questions ('Decide:') or the rules of the
      protocol; or rules/ is there already, and says otherwise
  3   refused: broken rules, the home folder, no such folder, a file that cannot
      be written

More: docs/init.md in the source
""",
    ),
    COMPLETION: Own(
        "Print what completes tasks, options and their values in a shell",
        "SHELL",
        {"SHELL": "bash (4 or later), zsh or fish"},
        """\
Put one of these into the file that your shell reads at its start; for zsh
behind compinit. It serves doit, too, where the dodo.py names ckptrules.

Examples
  eval "$(ckptrules completion bash)"    in ~/.bashrc
  eval "$(ckptrules completion zsh)"     in ~/.zshrc
  ckptrules completion fish | source     in ~/.config/fish/config.fish

Exit codes
  0   it is printed
  3   refused: another shell

More: docs/completion.md in the source
""",
    ),
}
WHAT = """\
ckptrules renames checkpoints to one format and deletes those that a retention
policy does not keep. It shows a plan first, overwrites nothing, and can undo.
"""
EXAMPLES = """\
Examples
  ckptrules init FOLDER                 write rules for what lies below FOLDER
  {program} plan                        show what would be renamed, and why
  {program} plan delete_old=1           ... and what would be deleted
  {program} migrate:'exp*'              rename, in some experiments only

Options are name=value, or flags behind the task. {program} TASK --help shows
them. More: 'ckptrules demo' on a sample tree; https://pydoit.org for the flags
of doit itself.
"""


def asks_for_help(arguments: Sequence[str], tasks: Iterable[str]) -> str | None:
    """Return the task whose help is asked for, an empty text for the page of all, or None if no help is asked for."""
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
    known, bases = tuple(tasks), [Word(word, {}).base for word in words]
    return next((base for base in bases if base in known), bases[0])


def page(groups: Mapping[str, Mapping[str, str]], program: str) -> str:
    """Return the page of all: what this is, the commands in groups, examples, and where to read on."""
    column = max(len(task) for tasks in groups.values() for task in tasks) + 4
    lines = [WHAT]
    for group, tasks in groups.items():
        lines.append(group)
        lines += [_row(f"  {task}", sentence, column) for task, sentence in tasks.items()]
    return "\n".join([*lines, "", EXAMPLES.format(program=program)])


def topic_page(topic: str, sentences: Mapping[str, str], program: str) -> str:
    """Return the page of a task, with its options in both forms and their defaults, or the page of a word of `OWN`."""
    if topic in OWN:
        own = OWN[topic]
        return f"{_a_page(f'ckptrules {topic} {own.takes}', own.sentence, own.options)}\n{own.more}"
    known = {} if topic in WITHOUT_OPTIONS else declared(topic).known()
    its_own_first = sorted(known.values(), key=lambda option: hasattr(Common, option.name))
    rows = {_forms(option): option.described for option in its_own_first}
    return _a_page(f"{program} {topic}{' [name=value ...]' * bool(rows)}", sentences[topic], rows)


def _a_page(usage: str, sentence: str, rows: Mapping[str, str]) -> str:
    lines = [usage, "", _filled(sentence, "  ")]
    if rows:
        lines += ["", "Options"]
        lines += [line for form, meaning in rows.items() for line in (f"  {form}", _filled(meaning, " " * 8))]
        lines += ["", "In brackets: what holds where it is not given."]
    return "\n".join([*lines, ""])


def refuse_unknown(word: str, tasks: Iterable[str]) -> None:
    """Refuse an unknown task.

    Raises:
        OptionError: with a hint at the nearest task, or at the list of all.
    """
    known = list(tasks)
    if word not in known:
        near = ELSEWHERE.get(word.lower()) or nearest(word, [*known, *OWN])
        hint = f"did you mean 'ckptrules {near}'?" if near else "'ckptrules help' lists them"
        raise OptionError(f"there is no task '{word}'", hint)


def _forms(option: Option) -> str:
    if option.is_flag:
        return f"{option.name}=1, --{option.dashed}, --no-{option.dashed}"
    return f"{option.name}=X, --{option.dashed} X"


def _row(start: str, text: str, column: int) -> str:
    first = start.ljust(column) if len(start) < column else f"{start}\n{' ' * column}"
    lines = textwrap.wrap(text, WIDTH - column)
    return first + f"\n{' ' * column}".join(lines)


def _filled(text: str, indent: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent=indent, subsequent_indent=indent)
