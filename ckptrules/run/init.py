"""`ckptrules init`: look at a tree, say what is in it, and write a dodo.py and rules for it."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ckptrules.engine.lookalikes import as_line, looks_like
from ckptrules.engine.measures import visible
from ckptrules.engine.ruleset import Fault, RuleError, pattern_of
from ckptrules.engine.spelling import one_of
from ckptrules.engine.starting import (
    IGNORED,
    PROTOCOL,
    Decision,
    Seen,
    by_pattern,
    chosen_packs,
    naming_text,
    preset_text,
    retention_text,
)
from ckptrules.outputs.picking import Tree, survey_by
from ckptrules.outputs.scouting import DEEPEST, Scouted, see
from ckptrules.report.style import Style
from ckptrules.rules import packs
from ckptrules.rules.load import load_pack, load_rules
from ckptrules.rules.shipped import (
    RULES_DIR,
    TASKS_FILE,
    has_own_tasks,
    lines_to_add,
    rule_files,
    rule_texts,
    starter_files,
)
from ckptrules.run import refusing
from ckptrules.run.declared import TASKS
from ckptrules.run.hints import quoted
from ckptrules.run.init_look import told_look, told_rows, told_savings
from ckptrules.run.options import REFUSED, OptionError
from ckptrules.storage import writing

NAMING, RETENTION = f"{RULES_DIR}/naming.yaml", f"{RULES_DIR}/retention.yaml"
DEFAULT = "outputs"
WELL_KNOWN = "runs work_dirs lightning_logs results checkpoints logs experiments exp output saved models".split()
PRESET = "preset="
NOT_UNDERSTOOD = 1  # the exit code
ALSO_CALLED = {"hf": "huggingface", "transformers": "huggingface", "accelerate": "huggingface", "pl": "lightning"}


class Start(NamedTuple):
    """What there is to write and to say. ``understood`` is false where nothing is, ``next`` is what to do then."""

    texts: Mapping[str, str]
    told: str
    decisions: Sequence[Decision] = ()
    understood: bool = True
    next: str = ""


def begin(words: Sequence[str], program: str, encoding: str) -> tuple[int, str, str]:
    """Look, and write what is not there yet; return the exit code, what to say, and what went wrong.

    ``words`` stand behind ``ckptrules init``, ``program`` is the one by which the commands work there.

    Raises:
        OptionError: the words make no sense, or lead to no folder to look in.
    """
    style = Style(encoding=encoding)
    try:
        if rule_files(RULES_DIR):
            load_rules(rule_texts(None))  # broken ones of the user's own are told of before any others
        start = start_of(*read_words(words), style)
    except RuleError as error:
        return REFUSED, "", str(error)
    other = otherwise(start, style, words)
    lines, fault = written(start)
    told = [*other, start.told] if start.told else other
    if fault:
        return REFUSED, "\n".join([*told, *lines, ""]), fault
    if other:
        lines += lines_for_dodo()
        return NOT_UNDERSTOOD, "\n".join([*told, *lines, f"Next, by the rules as they are: '{program} plan'", ""]), ""
    for one in start.decisions:
        lines.append(f"Decide: {NAMING}:{one.line} packs: {one.text}, for {style.name(one.directory or os.curdir)}")
    deletes = bool(told) and RETENTION in start.texts and bool(start.understood or start.decisions)
    steps = start.next or f"'{program} check', then '{program} plan{' delete_old=1' * deletes}'"
    lines += [*lines_for_dodo(), f"Next: {steps}"]
    lines += [f"To look at it in a browser: '{program} page'"] if deletes else []
    return 0 if start.understood else NOT_UNDERSTOOD, "\n".join([*told, *lines, ""]), ""


def read_words(words: Sequence[str]) -> tuple[str, str]:
    """Read what stands behind ``ckptrules init``: the folder and the preset, each empty where it was left out.

    Raises:
        OptionError: it is something else, or there is no such folder or pack.
    """
    folders = [word for word in words if not word.startswith((PRESET, "-")) and "=" not in word]
    presets = [word.removeprefix(PRESET) for word in words if word.startswith(PRESET)]
    wrong = [word for word in words if word not in folders and not word.startswith(PRESET)]
    if wrong or len(folders) > 1 or len(presets) > 1:
        raise OptionError(f"init takes a folder and preset=NAME, not '{(wrong or words)[-1]}'")
    folder, preset = "".join(folders), "".join(presets)
    known = [PROTOCOL, *packs.sources()]
    if presets and preset not in known:
        raise OptionError(f"no preset '{preset}'", one_of(ALSO_CALLED.get(preset.lower(), preset), known))
    if not folder.isprintable():
        raise OptionError("the name of the folder cannot be written into a rule file")
    if folder and not presets and not os.path.isdir(folder):
        near = refusing.near_folder(folder)
        raise OptionError(f"there is no folder '{folder}'", near and f"did you mean '{visible(near)}'?")
    return os.path.normpath(folder) if folder else "", preset


def start_of(asked: str, preset: str, style: Style) -> Start:
    """Find out what to write, and what to say of it.

    Raises:
        OptionError: it is no folder to look in, or none that can be covered.
    """
    if preset == PROTOCOL:
        return Start(_protocol_texts(asked, ()), "")
    if preset:
        return Start({NAMING: _preset_text(asked, preset), RETENTION: retention_text((), {})[0]}, "")
    folder, found = _look(asked)
    place, prefix, found = _place(folder, found, fixed=bool(asked))
    others = [one for one in found.seen if one.packs != (PROTOCOL,)]
    told = [told_look(found, style), *told_rows(found, prefix, style)]
    if others:
        naming, decisions = naming_text(place, found.seen, prefix, _more(found.seen))
        texts, keeps = _with_retention(place, naming, found.seen)
        sure = any(one.sure for one in found.seen)
        told += [told_savings(place, texts, keeps)] if sure else []
        return Start(texts, "\n".join(told), decisions, understood=sure)
    if found.seen:
        return Start(_protocol_texts(place, found.seen, prefix), "\n".join(told))
    told += [
        f"No checkpoints that a pack knows in '{style.name(folder)}', down to {DEEPEST} folders deep.",
        "So the rules are those of the checkpoint protocol: epoch-03_step-000103.ckpt.",
    ]
    with contextlib.suppress(OptionError):  # what lies in this folder itself, no layout covers
        place, prefix, strange = _place(folder, found._replace(seen=found.strangers), fixed=bool(asked))
        if strange.seen:
            only = strange.seen[0].directory
            if len(strange.seen) == 1 and only.isprintable():
                prefix = only  # a pattern would take every folder beside it
            told.append("They cover what no pack knows, and keep the newest 2 of each run.")
            told.append("'doit plan' drafts a format for names that tell a number.")
            texts = {**_protocol_texts(place, strange.seen, prefix), RETENTION: retention_text((), {})[0]}
            return Start(texts, "\n".join(told), understood=False)
    there = bool(asked) or os.path.isdir(DEFAULT)
    go_on = "" if there else "when there are checkpoints, move rules/ away and run 'ckptrules init FOLDER'"
    return Start(_protocol_texts(asked, ()), "\n".join(told), understood=False, next=go_on)


def otherwise(start: Start, style: Style, words: Sequence[str]) -> list[str]:
    """Say where rules are there already that say something else, and what would be written; comments do not count."""
    there = rule_texts(None) if rule_files(RULES_DIR) else {}
    new = {path: _shipped(path) for path in (NAMING, RETENTION)} | dict(start.texts)
    if all(path in new and _bare(text) == _bare(new[path]) for path, text in there.items()):
        return []
    lines = [f"{RULES_DIR}/ is there already and says otherwise; what is there stays. What init would write now:"]
    if RETENTION not in start.texts:
        lines.append("    the rules of the checkpoint protocol, as 'ckptrules init preset=protocol' writes them")
    else:
        for path in (NAMING, RETENTION):
            lines += [f"    {style.name(line)}" for line in (f"# {path}", *_bare(new[path]))]
    again = " ".join(["ckptrules init", *(quoted(word, style.encoding) for word in words)])
    return [*lines, f"To have these instead: mv {RULES_DIR} {RULES_DIR}.old && {again}", ""]


def _bare(text: str) -> list[str]:
    """Return the lines of a rule file without comments."""
    return [bare for line in text.splitlines() if (bare := re.sub(r"(^|\s+)# .*$|^#$", "", line).rstrip())]


def written(start: Start) -> tuple[list[str], str]:
    """Write the files that are not there yet; return what came of each, and why it ended before the last."""
    lines: list[str] = []
    theirs = [name for name in rule_files(RULES_DIR) if f"{RULES_DIR}/{name}" not in (NAMING, RETENTION)]
    for path, content in starter_files():
        if theirs and path in (NAMING, RETENTION):
            lines.append(f"{path} is not written: {RULES_DIR}/{theirs[0]} is there already")
            continue
        try:
            writing.write_new(path, start.texts[path].encode() if path in start.texts else content)
        except FileExistsError as error:
            if error.filename != path:
                return lines, f"{path} cannot be written: {error.filename} is a file"
            lines.append(f"{path} is there already: left as it is")
        except OSError as error:
            return lines, f"{path} cannot be written: {error.strerror}"
        else:
            lines.append(f"wrote {path}")
    return lines, ""


def lines_for_dodo() -> list[str]:
    """Return the lines that a dodo.py of the user's own lacks; none where it is ours."""
    if not has_own_tasks():
        return []
    with open(TASKS_FILE, encoding="utf-8", errors="replace") as file:
        text = file.read()
    there = set(re.findall(r"""\bcommand\(\s*["'](\w+)""", text))
    own = "**DOIT_CONFIG" if re.search(r"^DOIT_CONFIG\b", text, re.MULTILINE) else ""
    config = ["from ckptrules.run import doit_config", f"DOIT_CONFIG = doit_config({own})"]
    config = [] if "doit_config(" in text else config
    has_import = {"command"} if re.search(r"\bimport\b.*\bcommand\b", text) else set[str]()
    lines = [*config, *lines_to_add([task for task in TASKS if task not in there], has_import)]
    return ["To have the commands in your dodo.py, add:", *(f"    {line}" for line in lines)] if lines else []


def _look(folder: str) -> tuple[str, Scouted]:
    """Look in a folder; without one, in the folders that most have, and where there are none, in this one."""
    rules = load_rules({NAMING: f"packs: [{', '.join(packs.sources())}]\nignored: ['.*', '*.tmp']\n"}, proved=True)
    own = load_rules({NAMING: _shipped(NAMING)}, proved=True)
    known = [name for name in WELL_KNOWN if os.path.isdir(name)]
    first = [folder] if folder else [DEFAULT] if os.path.isdir(DEFAULT) else known
    found = [(name, see(_not_too_much(name), rules, own)) for name in first]
    if folder:
        return found[0]
    some = [one for one in found if one[1].seen]
    return some[0] if len(some) == 1 else (os.curdir, see(_not_too_much(os.curdir), rules, own))


def _not_too_much(folder: str) -> str:
    """Return a folder; refuse one in which the home folder lies: much more than experiments."""
    if refusing.is_inside(os.path.expanduser("~"), folder):
        fact = f"'{folder}' holds the whole home folder" if folder != os.curdir else "this folder holds the home folder"
        raise OptionError(fact, "name the folder of the experiments: ckptrules init FOLDER")
    return folder


def _place(folder: str, found: Scouted, *, fixed: bool) -> tuple[str, str, Scouted]:
    """Return the folder of the experiments, the part that begins the layout, if one does, and all paths.

    It is the folder that was looked in, unless checkpoints lie in that itself, which no layout covers. Where none was
    named (not ``fixed``) and all lie in one folder below this one, it is that.
    """
    paths = {one.directory for one in found.seen}
    tops = {path.split("/")[0] for path in paths}
    if "" in paths:
        above, name = os.path.split(os.path.abspath(folder)) if folder == os.curdir else os.path.split(folder)
        if folder == os.curdir or not name.isprintable():
            hint = "go one folder up, and name it: ckptrules init FOLDER"
            raise OptionError("the checkpoints lie in this folder itself, where no layout finds them", hint, place="")
        return _not_too_much(above or os.curdir), name, _moved(found, lambda path: f"{name}/{path}".rstrip("/"))
    if not fixed and folder == os.curdir and len(tops) == 1 and not tops & paths and "".join(tops).isprintable():
        top = tops.pop()
        return top, "", _moved(found, lambda path: os.path.relpath(path, top).removeprefix(os.curdir))
    return folder, "", found


def _moved(found: Scouted, move: Callable[[str], str]) -> Scouted:
    def all_of(several: Sequence[Seen]) -> tuple[Seen, ...]:
        return tuple(one._replace(directory=move(one.directory)) for one in several)

    return found._replace(seen=all_of(found.seen), strangers=all_of(found.strangers))


def _preset_text(asked: str, preset: str) -> str:
    """Return the rules of a pack; what lies in the folder itself, a layout covers from the folder above."""
    above, name = os.path.split(asked)
    if name in ("", os.curdir, os.pardir) or not any(map(looks_like, Tree(asked).names(""))):
        return preset_text(preset, asked)
    faults: list[Fault] = []
    patterns = load_pack(preset, packs.sources([preset])[preset], faults).rules.layout
    layout = [pattern_of(name), *(f"{pattern_of(name)}/{one}" for one in patterns)]
    return preset_text(preset, _not_too_much(above or os.curdir), layout)


def _shipped(path: str) -> str:
    """Return the text of a file as it comes with the package."""
    return dict(starter_files())[path].decode()


def _protocol_texts(place: str, seen: Sequence[Seen], prefix: str = "") -> dict[str, str]:
    """Return the shipped rules, with the folder and the layout where these are others."""
    text = _shipped(NAMING)
    patterns = list(by_pattern(seen, prefix))
    if place in ("", DEFAULT) and set(patterns) <= {"*/checkpoints"}:
        return {NAMING: text}
    head = f"outputs_dir: {as_line([place])[1:-1]}\n" if place else ""
    layout = f"layout: {as_line(patterns)}\n" if patterns else r"\g<0>"
    return {NAMING: re.sub(r"^layout:.*\n", lambda match: head + match.expand(layout), text, flags=re.MULTILINE)}


def _more(seen: Sequence[Seen]) -> str:
    """Return the keys below the packs: those of the format of this package where it is there, too."""
    if all(PROTOCOL not in one.packs for one in seen):
        return IGNORED
    text = _shipped(NAMING)
    text = text[text.index("\ntarget:") :]
    return re.sub(r"  - id: lightning-default\n(?:    .*\n)*", "", text) if "lightning" in chosen_packs(seen) else text


def _with_retention(place: str, naming: str, seen: Sequence[Seen]) -> tuple[dict[str, str], str]:
    rules = load_rules({NAMING: naming}, proved=True)
    found, _ = survey_by(place, rules)
    names = {one.directory: one.experiment for one in found}
    text, keeps = retention_text([one for one in seen if one.directory in names], names)
    return {NAMING: naming, RETENTION: text}, keeps
