"""Write the scripts that complete tasks, options and values in a shell: functions of sh, and a caller for each shell.

The words are in the script, so a Tab starts no Python. Only the names of policies and experiments, which differ from
folder to folder, come from the program.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence

from ckptrules.engine.ruleset import RuleError
from ckptrules.outputs.picking import survey_by
from ckptrules.rules.load import load_rules
from ckptrules.rules.shipped import rule_texts
from ckptrules.run.help import WITHOUT_OPTIONS
from ckptrules.run.options import Common, Option
from ckptrules.run.words import encode_task

LISTED = ("policy", "experiments")  # options with values that the program lists
PATH, ASKED = "@", "+"  # in place of a value: any path; a name that the program lists
SCRIPTS = os.path.join(os.path.dirname(__file__), "shells")  # `words.sh`, and the caller for each shell
SHELLS = ("bash", "zsh", "fish")


def script(shell: str, declared: Mapping[str, type[Common]], more: Mapping[str, Sequence[str]]) -> str:
    """Return the script for a shell.

    ``more`` holds the words that may stand behind each word that is no task, and the values of some options.
    """
    rows: dict[str, Sequence[str]] = {
        task: [] if task in WITHOUT_OPTIONS else [*_words(options, more)] for task, options in declared.items()
    }
    rows |= {word: behind for word, behind in more.items() if not any(word in one.known() for one in declared.values())}
    cases = "\n".join(f'    {word}) echo "{" ".join(words)}" ;;' for word, words in rows.items())
    words = _text("words.sh").replace("@TASKS@", " ".join(rows)).replace("@ROWS@", cases)
    return _text(f"completion.{shell}").replace("@WORDS@", words)


def _text(name: str) -> str:
    with open(os.path.join(SCRIPTS, name), encoding="utf-8") as file:
        return file.read()


def _words(options: type[Common], more: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for option in options.known().values():
        yield from (f"{option.name}={value}" for value in _values(option, more))


def _values(option: Option, more: Mapping[str, Sequence[str]]) -> Sequence[str]:
    """Return what may stand behind the ``=``: first nothing, then each value; of a flag only 1."""
    if option.is_flag:
        return ["1"]
    one = PATH * option.is_path or ASKED * (option.name in LISTED)
    return ["", *([one] if one else more.get(option.name, option.values))]


def listed(option: str, words: Sequence[str]) -> list[str]:
    """List the policies of the rules, or the experiments as in names of tasks; none if they cannot be read.

    ``words`` are those of the command line, with ``rules_dir`` and ``outputs_dir``.
    """
    with contextlib.suppress(RuleError, OSError, ValueError):  # a Tab shows no errors
        given = dict(_unquoted(word).partition("=")[::2] for word in words)
        rules = load_rules(rule_texts(given.get("rules_dir")), proved=True)
        if option == "policy":
            return list(rules.policies)
        outputs_dir = os.path.expanduser(given.get("outputs_dir") or rules.outputs_dir or "outputs")
        directories, _ = survey_by(outputs_dir, rules)
        return [encode_task(found.experiment) for found in directories]
    return []


def _unquoted(word: str) -> str:
    """Remove the quotes of a typed word: bash and zsh hand them on, fish does not."""
    return "".join(shlex.split(word)) if set(word) & set("\"'\\") else word
