"""`ckptrules init`: look at a tree, say what is in it, and write a dodo.py and rules for it."""

from __future__ import annotations

import contextlib
import os
import re
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ckptrules.engine.actions import DELETES
from ckptrules.engine.comparing import Compared
from ckptrules.engine.lookalikes import as_line, looks_like
from ckptrules.engine.measures import human_size
from ckptrules.engine.packs import with_packs
from ckptrules.engine.retention import assignment, pick_policy
from ckptrules.engine.ruleset import Fault, RuleError, RuleSet
from ckptrules.engine.starting import (
    IGNORED,
    PROTOCOL,
    Decision,
    Seen,
    best_by,
    by_pattern,
    chosen_packs,
    naming_text,
    preset_text,
    retention_text,
)
from ckptrules.outputs import listing
from ckptrules.outputs.links import Links
from ckptrules.outputs.picking import Tree, pick_in, survey_by
from ckptrules.outputs.scouting import DEEPEST, MOST_NAMES
from ckptrules.outputs.seeing import Found, see
from ckptrules.report.style import Style, count_of, table
from ckptrules.rules import packs
from ckptrules.rules.load import load_pack, load_rules
from ckptrules.rules.shape import closest
from ckptrules.rules.shipped import (
    RULES_DIR,
    TASKS_FILE,
    has_own_tasks,
    lines_to_add,
    rule_files,
    rule_texts,
    starter_files,
)
from ckptrules.run import deciding, jobs, places, records
from ckptrules.run.command_line import TASKS
from ckptrules.run.options import OptionError, Planning
from ckptrules.storage import writing

DEFAULT = "outputs"
WELL_KNOWN = "runs work_dirs lightning_logs results checkpoints logs experiments exp output saved models".split()
NAMING, RETENTION = f"{RULES_DIR}/naming.yaml", f"{RULES_DIR}/retention.yaml"
WIDTH = 80  # columns of the table
MOST_WHAT, MOST_WHERE = 22, 26  # columns
MOST_ROWS = 12
FEW = 3  # folders that are named
PRESET = "preset="
ALSO_CALLED = {"hf": "huggingface", "transformers": "huggingface", "accelerate": "huggingface", "pl": "lightning"}
NOT_UNDERSTOOD, REFUSED = 1, 3  # exit codes


class Asked(NamedTuple):
    """What was asked for; nothing where it was left out."""

    folder: str
    preset: str


class Start(NamedTuple):
    """What there is to write and to say. ``understood`` is false where nothing is, ``next`` is what to do then."""

    texts: Mapping[str, str]
    told: str
    decisions: Sequence[Decision] = ()
    understood: bool = True
    next: str = ""


def begin(words: Sequence[str], program: str, encoding: str) -> tuple[int, str, str]:
    """Look, and write what is not there yet; return the exit code, what to say, and what went wrong.

    Args:
        words: what stands behind ``ckptrules init``.
        program: the one by which the commands work there.
        encoding: of the terminal.

    Raises:
        OptionError: the words make no sense, or lead to no folder to look in.
    """
    style = Style(encoding=encoding)
    try:
        if rule_files(RULES_DIR):
            load_rules(rule_texts(None))  # broken ones of the user's own are told of before any others
        start = start_of(read_words(words), style)
    except RuleError as error:
        return REFUSED, "", str(error)
    other = otherwise(start, style)
    lines, fault = written(start)
    told = [*other, start.told] if start.told else other
    if fault:
        return REFUSED, "\n".join([*told, *lines, ""]), fault
    if other:
        lines += lines_for_dodo()
        return NOT_UNDERSTOOD, "\n".join([*told, *lines, f"Next, by the rules as they are: '{program} plan'", ""]), ""
    for one in start.decisions:
        lines.append(f"Decide: {NAMING}:{one.line} packs: {one.text}, for {style.name(one.directory or os.curdir)}")
    deletes = bool(told) and RETENTION in start.texts
    steps = start.next or f"'{program} check', then '{program} plan{' delete_old=1' * deletes}'"
    lines += [*lines_for_dodo(), f"Next: {steps}"]
    lines += [f"To look at it in a browser: '{program} page'"] if deletes else []
    return 0 if start.understood else NOT_UNDERSTOOD, "\n".join([*told, *lines, ""]), ""


def read_words(words: Sequence[str]) -> Asked:
    """Read what stands behind ``ckptrules init``.

    Raises:
        OptionError: it is something else, or there is no such folder or pack.
    """
    folders = [word for word in words if not word.startswith((PRESET, "-")) and "=" not in word]
    presets = [word.removeprefix(PRESET) for word in words if word.startswith(PRESET)]
    wrong = [word for word in words if word not in folders and not word.startswith(PRESET)]
    if wrong or len(folders) > 1 or len(presets) > 1:
        raise OptionError(f"command line: init takes a folder and preset=NAME, not '{(wrong or words)[-1]}'")
    folder, preset = "".join(folders), "".join(presets)
    known = [PROTOCOL, *packs.sources()]
    if presets and preset not in known:
        hint = closest(ALSO_CALLED.get(preset.lower(), preset), known) or f"there are: {', '.join(known)}"
        raise OptionError(f"command line: no preset '{preset}'\n    hint: {hint}")
    if not folder.isprintable():
        raise OptionError("command line: the name of the folder cannot be written into a rule file")
    if folder and not presets and not os.path.isdir(folder):
        raise OptionError(f"command line: there is no folder '{folder}'")
    return Asked(os.path.normpath(folder) if folder else "", preset)


def start_of(asked: Asked, style: Style) -> Start:
    """Find out what to write, and what to say of it.

    Raises:
        OptionError: it is no folder to look in, or none that can be covered.
    """
    if asked.preset == PROTOCOL:
        return Start(_protocol_texts(asked.folder, ()), "")
    if asked.preset:
        return Start({NAMING: _preset_text(asked), RETENTION: retention_text((), {})[0]}, "")
    folder, found = _look(asked.folder)
    place, prefix, found = _place(folder, found, fixed=bool(asked.folder))
    others = [one for one in found.seen if one.packs != (PROTOCOL,)]
    told = [_told_look(found, style), *_told_rows(found, prefix, style)]
    if others:
        naming, decisions = naming_text(place, found.seen, prefix, _more(found.seen))
        texts, keeps = _with_retention(place, naming, found.seen)
        sure = any(one.sure for one in found.seen)
        told += [_told_savings(place, texts, keeps)] if sure else []
        return Start(texts, "\n".join(told), decisions, understood=sure)
    if found.seen:
        return Start(_protocol_texts(place, found.seen, prefix), "\n".join(told))
    told += [
        f"No checkpoints that a pack knows in '{style.name(folder)}', down to {DEEPEST} folders deep.",
        "So the rules are those of the checkpoint protocol: epoch-03_step-000103.ckpt.",
    ]
    with contextlib.suppress(OptionError):  # what lies in this folder itself, no layout covers
        place, prefix, strange = _place(folder, found._replace(seen=found.strangers), fixed=bool(asked.folder))
        if strange.seen:
            only = strange.seen[0].directory
            if len(strange.seen) == 1 and only.isprintable():
                prefix = only  # a pattern would take every folder beside it
            told.append("They cover what no pack knows, and 'doit plan' drafts a format for it.")
            return Start(_protocol_texts(place, strange.seen, prefix), "\n".join(told), understood=False)
    there = bool(asked.folder) or os.path.isdir(DEFAULT)
    go_on = "" if there else "where there are checkpoints, move rules/ away, and 'ckptrules init FOLDER' looks there"
    return Start(_protocol_texts(asked.folder, ()), "\n".join(told), understood=False, next=go_on)


def otherwise(start: Start, style: Style) -> list[str]:
    """Say where rules are there already that say something else, and what would be written; comments do not count."""
    there = [f"{RULES_DIR}/{name}" for name in rule_files(RULES_DIR)]
    new = {path: text.decode() for path, text in starter_files() if path in (NAMING, RETENTION)} | dict(start.texts)
    if not there or all(path in new and _bare(_text_of(path)) == _bare(new[path]) for path in there):
        return []
    lines = [f"{RULES_DIR}/ is there already and says otherwise; what is there stays. What init would write now:"]
    if RETENTION not in start.texts:
        lines.append("    the rules of the checkpoint protocol, as 'ckptrules init preset=protocol' writes them")
    else:
        for path in (NAMING, RETENTION):
            lines += [f"    {style.name(line)}" for line in (f"# {path}", *_bare(new[path]))]
    return [*lines, f"To have these instead: mv {RULES_DIR} {RULES_DIR}.old, and 'ckptrules init' as now", ""]


def _text_of(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


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
    config = [] if "doit_config()" in text else ["from ckptrules.run import doit_config", "DOIT_CONFIG = doit_config()"]
    has_import = {"command"} if re.search(r"\bimport\b.*\bcommand\b", text) else set[str]()
    lines = [*config, *lines_to_add([task for task in TASKS if task not in there], has_import)]
    return ["To have the commands in your dodo.py, add:", *(f"    {line}" for line in lines)] if lines else []


# --- where to look ----------------------------------------------------------------------------------------------------


def _look(folder: str) -> tuple[str, Found]:
    """Look in a folder; without one, in the folders that most have, and where there are none, in this one."""
    rules = load_rules({NAMING: f"packs: [{', '.join(packs.sources())}]\nignored: ['.*', '*.tmp']\n"}, proved=True)
    own = load_rules({path: text.decode() for path, text in starter_files() if path == NAMING}, proved=True)
    known = [name for name in WELL_KNOWN if os.path.isdir(name)]
    first = [folder] if folder else [DEFAULT] if os.path.isdir(DEFAULT) else known
    found = [(name, see(_not_too_much(name), rules, own)) for name in first]
    if folder:
        return found[0]
    some = [one for one in found if one[1].seen]
    return some[0] if len(some) == 1 else (os.curdir, see(_not_too_much(os.curdir), rules, own))


def _not_too_much(folder: str) -> str:
    """Return a folder.

    Raises:
        OptionError: the home folder lies in it: much more than experiments.
    """
    if places.is_inside(os.path.expanduser("~"), folder):
        fact = f"'{folder}' holds the whole home folder" if folder != os.curdir else "this folder holds the home folder"
        raise OptionError(f"command line: {fact}\n    hint: name the folder of the experiments: ckptrules init FOLDER")
    return folder


def _place(folder: str, found: Found, *, fixed: bool) -> tuple[str, str, Found]:
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
            raise OptionError(
                f"the checkpoints lie in this folder itself, where no layout finds them\n    hint: {hint}"
            )
        return _not_too_much(above or os.curdir), name, _moved(found, lambda path: f"{name}/{path}".rstrip("/"))
    if not fixed and folder == os.curdir and len(tops) == 1 and not tops & paths and "".join(tops).isprintable():
        top = tops.pop()
        return top, "", _moved(found, lambda path: os.path.relpath(path, top).removeprefix(os.curdir))
    return folder, "", found


def _moved(found: Found, move: Callable[[str], str]) -> Found:
    def all_of(several: Sequence[Seen]) -> tuple[Seen, ...]:
        return tuple(one._replace(directory=move(one.directory)) for one in several)

    return found._replace(seen=all_of(found.seen), strangers=all_of(found.strangers))


# --- what is written --------------------------------------------------------------------------------------------------


def _preset_text(asked: Asked) -> str:
    """Return the rules of a pack; what lies in the folder itself, a layout covers from the folder above."""
    above, name = os.path.split(asked.folder)
    if name in ("", os.curdir, os.pardir) or not any(map(looks_like, Tree(asked.folder).names(""))):
        return preset_text(asked.preset, asked.folder)
    faults: list[Fault] = []
    layout = load_pack(asked.preset, faults).rules.layout
    return preset_text(
        asked.preset, _not_too_much(above or os.curdir), [name, *(f"{name}/{pattern}" for pattern in layout)]
    )


def _protocol_texts(place: str, seen: Sequence[Seen], prefix: str = "") -> dict[str, str]:
    """Return the shipped rules, with the folder and the layout where these are others."""
    text = next(text.decode() for path, text in starter_files() if path == NAMING)
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
    text = next(text.decode() for path, text in starter_files() if path == NAMING)
    text = text[text.index("\ntarget:") :]
    return re.sub(r"  - id: lightning-default\n(?:    .*\n)*", "", text) if "lightning" in chosen_packs(seen) else text


def _with_retention(place: str, naming: str, seen: Sequence[Seen]) -> tuple[dict[str, str], str]:
    rules = load_rules({NAMING: naming}, proved=True)
    found, _ = survey_by(place, rules)
    names = {one.directory: one.experiment for one in found}
    text, keeps = retention_text([one for one in seen if one.directory in names], names)
    return {NAMING: naming, RETENTION: text}, keeps


# --- what is said -----------------------------------------------------------------------------------------------------


def _told_look(found: Found, style: Style) -> str:
    text = f"Looked at {count_of(found.folders, 'folder')}"
    if found.opened:
        text += f"; opened {count_of(found.opened, 'checkpoint')} to compare, ran none of them"
    stopped = f"\nStopped after {MOST_NAMES:,} names: name a folder to have the rest looked at, too." * found.stopped
    closed = "".join(f"\nNot looked into: {style.name(path or os.curdir)}: {why}." for path, why in found.closed[:FEW])
    closed += f"\nNor {count_of(len(found.closed) - FEW, 'further folder')}." * (len(found.closed) > FEW)
    return f"{text}.{stopped}{closed}\n"


def _told_rows(found: Found, prefix: str, style: Style) -> list[str]:
    """Return a table of what is where, each row with its evidence below it."""
    rows, evidence = [], []
    for where, several in _kinds(found, prefix):
        one = several[0]
        what = (" + " if one.sure else " or ").join(one.packs) or "unknown"
        what = what if one.sure else f"? {what}"
        count, size = sum(each.checkpoints for each in several), sum(each.size for each in several)
        cells = (_cut(style.name(what), MOST_WHAT), _cut(style.name(where), MOST_WHERE))
        rows.append((*cells, str(count), human_size(size), "yes" if one.sure else "no"))
        inside = Compared(*map(sum, zip(*(each.compared for each in several), strict=True))).text
        no_best = any(
            each.sure and each.numbers and each.packs != (PROTOCOL,) and not best_by(each)[0] for each in several
        )
        facts = "; ".join(filter(None, (inside, "no metric" * no_best)))
        room = WIDTH - 4 - len(facts) - 2 * bool(facts)
        text = "; ".join(filter(None, (_cut(style.name(one.evidence), room), facts)))
        evidence.append(f"    {text}")
    if not rows:
        return []
    heading, *lines = table(("what", "where", "checkpoints", "size", "sure?"), rows, right=(2, 3)).splitlines()
    more = [f"  and {len(rows) - MOST_ROWS} more kinds"] * (len(rows) > MOST_ROWS)
    both = [line for pair in zip(lines, evidence, strict=True) for line in pair][: 2 * MOST_ROWS]
    return ["\n".join([heading, *both, *more, ""])]


def _kinds(found: Found, prefix: str) -> list[tuple[str, list[Seen]]]:
    """Put together what the same packs know below one pattern, as sure; what is not sure is shown with its path."""
    kinds: dict[tuple[object, ...], list[Seen]] = {}
    patterns = {one: pattern for pattern, several in by_pattern(found.seen, prefix).items() for one in several}
    for one in (*found.seen, *found.strangers):
        inside = one.compared.agrees, one.compared.one_less == one.compared.opened > 0
        kinds.setdefault((one.packs, one.sure, inside, patterns.get(one, one.directory)), []).append(one)
    rows = []
    for several in kinds.values():
        first = several[0]
        more = f" and {len(several) - 1} more" if len(several) > 1 else ""
        rows.append((patterns[first] if first.sure else f"{first.directory or os.curdir}{more}", several))
    return rows


def _told_savings(place: str, texts: Mapping[str, str], keeps: str) -> str:
    """Plan every directory by what is written, and say how much would go."""
    rules = load_rules(texts)
    goes, total, blind = _measured(place, rules)
    of = f"{human_size(goes)} of {human_size(total)} would go"
    text = f"If you kept {keeps}, {of}; nothing goes unless you ask for it."
    where = f"No metric is known of {count_of(blind, 'experiment')}, so no best is kept"
    text += f" {where}: name one with keep_best, or pin it." * bool(blind)
    return textwrap.fill(text, WIDTH) + "\n"


def _measured(place: str, rules: RuleSet) -> tuple[int, int, int]:
    """Return the bytes that would go by the policies, those of all that lies there, and where no best is known.

    The last is the number of experiments of which something would go.
    """
    options = Planning(outputs_dir=place, delete_old=True, dry_run=True)
    header = {"started_ns": time.time_ns()}
    job = jobs.Job(options, rules, None, "", "", Style(), header, Links(place), records.Journals(""))
    tree, seen = Tree(place), set[tuple[int, int]]()
    goes = total = blind = 0
    for found in survey_by(place, rules)[0]:
        policy = pick_policy(rules, assignment(rules, found.experiment), options.policy)
        own = jobs.with_policy(
            job._replace(rules=with_packs(rules, pick_in(tree, rules.packs, found.directory))), policy
        )
        plan, listed = deciding.plan_of(own, found)
        blind += plan.blind
        going = {name for a in plan.actions if a.kind in DELETES for name in (a.name, *(old for old, _ in a.with_it))}
        known = {name for row in plan.kept for name in (row.name, *row.with_it)} | going
        with contextlib.suppress(OSError):  # gone meanwhile
            in_parts = {entry.name: entry.size for entry in listed.entries if "/" in entry.name}
            sizes = in_parts | listing.sizes(place, found.directory, seen, going)
            goes += sum(size for name, size in sizes.items() if name in going)
            total += sum(size for name, size in sizes.items() if name in known)
    return goes, total, blind


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 14]}...{text[-11:]}"
