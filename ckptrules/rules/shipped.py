"""Finds the files that come with the package, such as default rules and dodo.py, and the rule files of the user.

In a checkout, shipped files lie at its top level; the wheel has them inside the package.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterator, Mapping

from ckptrules.engine.ruleset import Fault, Location, RuleError
from ckptrules.storage import believing, reading

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RULES_DIR = "rules"
PINS = "pins.yaml"  # lies beside the rule files, but is none
TASKS_FILE = "dodo.py"
DEFAULT_RULES = "default-rules"
LOG_TEMPLATE = "experiment_log.md.j2"
_OUTPUTS_DIR = re.compile(r"outputs_dir[\"']?\s*:")


def shipped(name: str) -> str:
    """Return the path of a shipped file or folder."""
    inside = os.path.join(PACKAGE, "shipped_files", name)
    return inside if os.path.exists(inside) else os.path.join(os.path.dirname(PACKAGE), name)


def starter_files() -> Iterator[tuple[str, bytes]]:
    """Yield the path and the content of each file that ``ckptrules init`` writes."""
    names = [TASKS_FILE, *(os.path.join(RULES_DIR, name) for name in sorted(os.listdir(shipped(RULES_DIR))))]
    for name in names:
        with open(shipped(name), "rb") as file:
            yield name, file.read()


def rule_files(folder: str) -> list[str]:
    """List the rule files in a folder; none if there is no folder."""
    if not os.path.isdir(folder):
        return []
    return sorted(filter(_is_rule_file, os.listdir(folder)))


def _is_rule_file(name: str) -> bool:
    return name.lower().endswith((".yaml", ".yml")) and name != PINS


def groups() -> dict[str, dict[str, str]]:
    """Return a sentence on each command, by the headings of the shipped dodo.py. It is parsed, not run."""
    import ast

    with open(shipped(TASKS_FILE), encoding="utf-8") as file:
        text = file.read()
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(text).body:
        match node:
            case ast.Assign(value=ast.Call(ast.Name("command"), [ast.Constant(task), ast.Constant(sentence)])):
                above = text.splitlines()[: node.lineno - 1]
                heading = next(line for line in reversed(above) if line.startswith("# "))
                found.setdefault(heading[2:], {})[str(task)] = str(sentence)
    return found


def sentences() -> dict[str, str]:
    """Return a sentence on each command, in the order of the shipped dodo.py."""
    return {task: sentence for tasks in groups().values() for task, sentence in tasks.items()}


def lines_to_add(tasks: Collection[str], dodo: Collection[str]) -> list[str]:
    """Return the lines that add commands to a dodo.py; ``dodo`` are the names that it defines."""
    lines = [f'{task} = command("{task}", "{sentence}")' for task, sentence in sentences().items() if task in tasks]
    return [*["from ckptrules.run import command"] * ("command" not in dodo), *lines] if lines else []


def has_own_tasks() -> bool:
    """Say whether the dodo.py here may hold other tasks, as it differs from the shipped one."""
    try:
        with open(TASKS_FILE, "rb") as here, open(shipped(TASKS_FILE), "rb") as ours:
            return here.read() != ours.read()
    except OSError:
        return True


def may_have_outputs_dir(texts: Mapping[str, str]) -> bool:
    """Say whether rule files may have an ``outputs_dir``; most do not, and need not be parsed to see that."""
    return any(_OUTPUTS_DIR.search(text) for text in texts.values())


def log_template(rules_dir: str | None) -> str:
    """Read the template of the experiment log, in the rules folder or else the shipped one.

    Raises:
        OSError: it cannot be read.
    """
    own = os.path.join(rules_dir or RULES_DIR, LOG_TEMPLATE)
    path = own if may_be_there(own) else shipped(os.path.join(RULES_DIR, LOG_TEMPLATE))
    return believing.read_plain(path)


def pins_file(rules_dir: str | None) -> str:
    """Return the path of the pins in a rules folder."""
    return os.path.join(rules_dir or RULES_DIR, PINS)


@contextlib.contextmanager
def readable(place: Location, hint: str = "") -> Iterator[None]:
    """Raise RuleError where a file of rules cannot be read, or is no text."""
    try:
        yield
    except OSError as error:
        raise RuleError([Fault(place, f"cannot be read: {reading.why_of(error)}", hint)]) from None
    except UnicodeDecodeError as error:
        byte = f"byte {error.start} is {error.object[error.start]:#04x}"
        raise RuleError([Fault(place, f"is not UTF-8 text: {byte}")]) from None


def may_be_there(path: str) -> bool:
    """Say whether a path exists, or may exist if that cannot be seen. A broken link exists."""
    try:
        os.lstat(path)
    except OSError as error:
        return not isinstance(error, FileNotFoundError | NotADirectoryError)
    return True


def rule_texts(rules_dir: str | None) -> dict[str, str]:
    """Return the content of each rule file by the name that messages should show.

    Without ``rules_dir`` and a folder ``rules``, these are the shipped rules, with names ``default-rules/…``.

    Raises:
        RuleError: the folder or a file cannot be read, or the folder holds no rule file.
    """
    folder = shown = rules_dir or RULES_DIR
    if rules_dir is None and not may_be_there(RULES_DIR):  # a broken link may lead to a disk that is away
        folder, shown = shipped(RULES_DIR), DEFAULT_RULES
    hint = "name the folder of the rule files with rules_dir=PATH; 'ckptrules init' writes one to edit"
    with readable(Location(shown), hint):
        names = sorted(filter(_is_rule_file, os.listdir(folder)))
    texts: dict[str, str] = {}
    for name in names:
        file = os.path.join(shown, name)
        with readable(Location(file, 1, 1), hint):
            texts[file] = believing.read_plain(os.path.join(folder, name))
    if not texts:
        beside = f" but {PINS}" * os.path.lexists(os.path.join(folder, PINS))
        raise RuleError(
            [Fault(Location(shown), f"holds no *.yaml file{beside}", "'ckptrules init' writes rules to edit")]
        )
    return texts
