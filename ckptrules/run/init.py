"""`ckptrules init`: look at a tree, report what is in it, and write a dodo.py and rules for it."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ckptrules.engine.measures import visible
from ckptrules.engine.names.lookalikes import as_line, looks_like
from ckptrules.engine.names.starting import (
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
from ckptrules.engine.ruleset import Fault, RuleError, pattern_of
from ckptrules.engine.spelling import one_of
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
from ckptrules.run.init_look import kind_rows, look_text, savings_text
from ckptrules.run.options import REFUSED, OptionError
from ckptrules.storage import writing

NAMING, RETENTION = f"{RULES_DIR}/naming.yaml", f"{RULES_DIR}/retention.yaml"
DEFAULT = "outputs"
WELL_KNOWN = "runs work_dirs lightning_logs results checkpoints logs experiments exp output saved models wandb".split()
PRESET = "preset="
NOT_UNDERSTOOD = 1  # the exit code
ALSO_CALLED = {"hf": "huggingface", "transformers": "huggingface", "accelerate": "huggingface", "pl": "lightning"}


class Start(NamedTuple):
    """The rule files to write, by path, and the report of the look.

    ``decisions`` are left to the user. ``understood`` is false if no pack knows a checkpoint for sure. ``next`` is what
    to do next, if it is not the usual.
    """

    texts: Mapping[str, str]
    report: str
    decisions: Sequence[Decision] = ()
    understood: bool = True
    next: str = ""


def begin(words: Sequence[str], program: str, encoding: str) -> tuple[int, str, str]:
    """Look at a tree, and write the files that do not exist yet; return the exit code, the report, and the error.

    ``words`` stand behind ``ckptrules init``, ``program`` is the program by which the commands work there.

    Raises:
        OptionError: the words are wrong, or lead to no folder to look in.
    """
    style = Style(encoding=encoding)
    try:
        if rule_files(RULES_DIR):
            load_rules(rule_texts(None))  # if the rules here are broken, that is the first thing to report
        start = start_of(*read_words(words), style)
    except RuleError as error:
        return REFUSED, "", str(error)
    differing = differences(start, style, words)
    lines, fault = written(start)
    report = [*differing, start.report] if start.report else differing
    if fault:
        return REFUSED, "\n".join([*report, *lines, ""]), fault
    if differing:
        lines += [*lines_for_dodo(), f"Next, by the rules as they are: '{program} plan'"]
        return NOT_UNDERSTOOD, "\n".join([*report, *lines, ""]), ""
    for one in start.decisions:
        lines.append(f"Decide: {NAMING}:{one.line} packs: {one.text}, for {style.name(one.directory or os.curdir)}")
    deletes = bool(report) and RETENTION in start.texts and bool(start.understood or start.decisions)
    steps = start.next or f"'{program} check', then '{program} plan{' delete_old=1' * deletes}'"
    lines += [*lines_for_dodo(), f"Next: {steps}"]
    lines += [f"To look at it in a browser: '{program} page'"] if deletes else []
    return 0 if start.understood else NOT_UNDERSTOOD, "\n".join([*report, *lines, ""]), ""


def read_words(words: Sequence[str]) -> tuple[str, str]:
    """Return the folder and the preset behind ``ckptrules init``, each empty if it is left out.

    Raises:
        OptionError: there are other words, or there is no such folder or pack.
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
    """Look at the ``asked`` folder, or take the preset; return the files to write, and the report.

    Raises:
        OptionError: the folder holds much more than experiments, or no layout can cover it.
    """
    if preset == PROTOCOL:
        return Start(_protocol_texts(asked, ()), "")
    if preset:
        return Start({NAMING: _preset_text(asked, preset), RETENTION: retention_text((), {})[0]}, "")
    folder, found, beside = _look(asked)
    place, prefix, found = _place(folder, found, fixed=bool(asked))
    others = [one for one in found.seen if one.packs != (PROTOCOL,)]
    report = [look_text(found, style), *kind_rows(found, prefix, style)]
    if beside:
        text = f"Checkpoints that these rules do not cover lie in {', '.join(map(style.name, beside))}."
        report.append(f"{text}\nTo cover all: mv {RULES_DIR} {RULES_DIR}.old && ckptrules init .\n")
    if others:
        naming, decisions = naming_text(place, found.seen, prefix, _more(found.seen))
        texts, keeps = _with_retention(place, naming, found.seen)
        sure = any(one.sure for one in found.seen)
        report += [savings_text(place, texts, keeps)] if sure else []
        return Start(texts, "\n".join(report), decisions, understood=sure)
    if found.seen:
        return Start(_protocol_texts(place, found.seen, prefix), "\n".join(report))
    report += [
        f"No checkpoints that a pack knows in '{style.name(folder)}', down to {DEEPEST} folders deep.",
        "So the rules are those of the checkpoint protocol: epoch-03_step-000103.ckpt.",
    ]
    with contextlib.suppress(OptionError):  # no layout covers checkpoints in this folder itself
        place, prefix, strange = _place(folder, found._replace(seen=found.strangers), fixed=bool(asked))
        if strange.seen:
            only = strange.seen[0].directory
            if len(strange.seen) == 1 and only.isprintable():
                prefix = only  # the layout is this one folder: a pattern would take all folders beside it, too
            report.append("They cover what no pack knows, and keep the newest 2 of each run.")
            report.append("'doit plan' drafts a format for names that tell a number.")
            texts = {**_protocol_texts(place, strange.seen, prefix), RETENTION: retention_text((), {})[0]}
            return Start(texts, "\n".join(report), understood=False)
    exists = bool(asked) or os.path.isdir(DEFAULT)
    go_on = "" if exists else "when there are checkpoints, move rules/ away and run 'ckptrules init FOLDER'"
    return Start(_protocol_texts(asked, ()), "\n".join(report), understood=False, next=go_on)


def differences(start: Start, style: Style, words: Sequence[str]) -> list[str]:
    """Return lines with the new rules, if there are other rules already; differences in comments do not count."""
    old = rule_texts(None) if rule_files(RULES_DIR) else {}
    new = {path: _shipped(path) for path in (NAMING, RETENTION)} | dict(start.texts)
    if all(path in new and _bare(text) == _bare(new[path]) for path, text in old.items()):
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
    """Write the files that do not exist yet; return a line on each, and the error that ended it early, if any."""
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
    """Return the lines to add to a dodo.py without our commands; if one has some, `doit check` says what it lacks."""
    if not has_own_tasks():
        return []
    with open(TASKS_FILE, encoding="utf-8", errors="replace") as file:
        text = file.read()
    if "doit_config(" in text:
        return []
    own = "**DOIT_CONFIG" if re.search(r"^DOIT_CONFIG\b", text, re.MULTILINE) else ""
    lines = ["from ckptrules.run import doit_config", f"DOIT_CONFIG = doit_config({own})", *lines_to_add(TASKS, ())]
    return ["To have the commands in your dodo.py, add:", *(f"    {line}" for line in lines)]


def _look(folder: str) -> tuple[str, Scouted, list[str]]:
    """Look in the folder; without one, in the default one and the well-known ones, or else in this one.

    Returns the folder in which checkpoints were seen, the sights there, and the other well-known ones with checkpoints.
    """
    rules = load_rules({NAMING: f"packs: [{', '.join(packs.sources())}]\nignored: ['.*', '*.tmp']\n"}, proved=True)
    own = load_rules({NAMING: _shipped(NAMING)}, proved=True)
    if folder:
        return folder, see(_not_home(folder), rules, own), []
    known = {os.path.realpath(name): name for name in reversed((DEFAULT, *WELL_KNOWN)) if os.path.isdir(name)}
    free = [name for name in reversed(known.values()) if not _holds_home(name)]
    looks = {name: look for name in free if (look := see(name, rules, own)).seen}
    if DEFAULT in looks or (len(looks) == 1 and not os.path.isdir(DEFAULT)):
        first = DEFAULT if DEFAULT in looks else next(iter(looks))
        return first, looks.pop(first), [*looks]
    return os.curdir, see(_not_home(os.curdir), rules, own), []


def _holds_home(folder: str) -> bool:
    return refusing.is_inside(os.path.expanduser("~"), folder)


def _not_home(folder: str) -> str:
    """Return the folder; refuse one that holds the home folder, which has much more than experiments."""
    if _holds_home(folder):
        fact = f"'{folder}' holds the whole home folder" if folder != os.curdir else "this folder holds the home folder"
        raise OptionError(fact, "name the folder of the experiments: ckptrules init FOLDER")
    return folder


def _place(folder: str, found: Scouted, *, fixed: bool) -> tuple[str, str, Scouted]:
    """Return the folder of the experiments, the first part of the layout (or nothing), and the sights from there.

    If checkpoints lie in the ``folder`` itself, it is the folder above, as a layout has at least one part. If the user
    named no folder (not ``fixed``) and all checkpoints lie in one folder below this one, it is that.
    """
    paths = {one.directory for one in found.seen}
    tops = {path.split("/")[0] for path in paths}
    if "" in paths:
        above, name = os.path.split(os.path.abspath(folder)) if folder == os.curdir else os.path.split(folder)
        if folder == os.curdir or not name.isprintable():
            hint = "go one folder up, and name it: ckptrules init FOLDER"
            raise OptionError("the checkpoints lie in this folder itself, where no layout finds them", hint, place="")
        return _not_home(above or os.curdir), name, _moved(found, lambda path: f"{name}/{path}".rstrip("/"))
    if not fixed and folder == os.curdir and len(tops) == 1 and not tops & paths and "".join(tops).isprintable():
        top = tops.pop()
        return top, "", _moved(found, lambda path: os.path.relpath(path, top).removeprefix(os.curdir))
    return folder, "", found


def _moved(found: Scouted, move: Callable[[str], str]) -> Scouted:
    def all_of(several: Sequence[Seen]) -> tuple[Seen, ...]:
        return tuple(one._replace(directory=move(one.directory)) for one in several)

    return found._replace(seen=all_of(found.seen), strangers=all_of(found.strangers))


def _preset_text(asked: str, preset: str) -> str:
    """Return the rules of a pack; if checkpoints lie in the folder itself, the layout begins in the folder above."""
    above, name = os.path.split(asked)
    if name in ("", os.curdir, os.pardir) or not any(map(looks_like, Tree(asked).names(""))):
        return preset_text(preset, asked)
    faults: list[Fault] = []
    patterns = load_pack(preset, packs.sources([preset])[preset], faults).rules.layout
    layout = [pattern_of(name), *(f"{pattern_of(name)}/{one}" for one in patterns)]
    return preset_text(preset, _not_home(above or os.curdir), layout)


def _shipped(path: str) -> str:
    """Return the text of a file of the package."""
    return dict(starter_files())[path].decode()


def _protocol_texts(place: str, seen: Sequence[Seen], prefix: str = "") -> dict[str, str]:
    """Return the shipped rules, with another folder and layout where these differ."""
    text = _shipped(NAMING)
    patterns = list(by_pattern(seen, prefix))
    if place in ("", DEFAULT) and set(patterns) <= {"*/checkpoints"}:
        return {NAMING: text}
    head = f"outputs_dir: {as_line([place])[1:-1]}\n" if place else ""
    layout = f"layout: {as_line(patterns)}\n" if patterns else r"\g<0>"
    return {NAMING: re.sub(r"^layout:.*\n", lambda match: head + match.expand(layout), text, flags=re.MULTILINE)}


def _more(seen: Sequence[Seen]) -> str:
    """Return the keys below the packs; if there are names of the checkpoint protocol, too, those of its format."""
    if all(PROTOCOL not in one.packs for one in seen):
        return IGNORED
    text = _shipped(NAMING)
    text = text[text.index("\ntarget:") :]
    return re.sub(r"  - id: lightning-default\n(?:    .*\n)*", "", text) if "lightning" in chosen_packs(seen) else text


def _with_retention(place: str, naming: str, seen: Sequence[Seen]) -> tuple[dict[str, str], str]:
    """Return the texts of both rule files, and in words what the policy keeps."""
    rules = load_rules({NAMING: naming}, proved=True)
    found, _ = survey_by(place, rules)
    names = {one.directory: one.experiment for one in found}
    text, keeps = retention_text([one for one in seen if one.directory in names], names)
    return {NAMING: naming, RETENTION: text}, keeps
