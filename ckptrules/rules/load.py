"""Compiles ``rules/*.yaml`` into a `RuleSet`, and tests it with its own examples."""

from __future__ import annotations

import fnmatch
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ckptrules.engine.names.naming import SlowRuleError
from ckptrules.engine.ruleset import Fault, Location, Pack, Rule, RuleError, RuleSet
from ckptrules.engine.shapes import Either, Keys, ListOf, Number, Text
from ckptrules.engine.state_folder import STATE
from ckptrules.rules import knowledge, naming, packs, policies
from ckptrules.rules.shape import Value, name_fault, path_fault, read_yaml
from ckptrules.rules.shipped import may_have_outputs_dir

DEFAULT_TRASH_DAYS = 7
SLOW_HINT = "make the pattern simpler: nested or alternative repetitions backtrack"


def _folder_fault(text: str) -> str:
    return f"'{text}' must be written out: nothing replaces '~' or '$' here" if text[0] in "~$" else ""


def _layout_fault(text: str) -> str:
    if text == "**":
        return "'**' would take outputs_dir itself for a checkpoint directory; '**/checkpoints' says which ones"
    into_state = f"'{text}' must not lead into '{STATE}', where the trash is" * (STATE in text.split("/"))
    return path_fault(text) or into_state


def _ending_fault(text: str) -> str:
    return f"'{text}' must be the end of names as they are, without '*'" if "*" in text else name_fault(text)


def _suffix_fault(text: str) -> str:
    good = text.startswith(".") and len(text) > 1 and {"/", "*"}.isdisjoint(text)
    return "" if good else f"'{text}' must be a suffix like .metadata.json"


SHAPE = Keys(
    "Rules of ckptrules. Every *.yaml file of the folder is read; the keys may stand in any of them.",
    {
        "outputs_dir": Text(
            "Folder that holds the experiments, from the current one; the option overrides it.", _folder_fault
        ),
        "layout": ListOf(
            "Where checkpoint directories lie below outputs_dir, with * ? [a-z] and **.",
            Text("e.g. */checkpoints", _layout_fault),
            empty=False,
        ),
        "packs": ListOf(
            "Rules for the checkpoints of frameworks, by name; yours come before them. 'doit packs' lists them.",
            Text("e.g. huggingface"),
        ),
        **naming.SHAPES,
        "protected": ListOf(
            "Shell patterns of names that are never renamed and never deleted.", Text("a shell pattern", name_fault)
        ),
        "ignored": ListOf("Shell patterns of names that are no checkpoints.", Text("a shell pattern", name_fault)),
        "sidecars": ListOf(
            "Suffixes of files that belong to a checkpoint: with .metadata.json, X.metadata.json goes with X.ckpt.",
            Text("e.g. .metadata.json", _suffix_fault),
        ),
        **knowledge.SHAPES,
        "part_folders": ListOf(
            "Shell patterns of folders that hold the parts of one checkpoint, one folder for each rank or host.",
            Text("e.g. mp_rank_*", name_fault),
        ),
        "unfinished": ListOf(
            "Endings of markers: x-unfinished says that x, and what begins with x. or x-, is not whole.",
            Text("e.g. -unfinished", _ending_fault),
        ),
        **policies.SHAPES,
        "settle": Number("Seconds that a checkpoint must be unchanged before it is touched; 0 = none.", 0),
        "trash_days": Number("Days that deleted checkpoints wait in the trash; 0 = none, they are gone at once.", 0),
    },
)
PACK = Keys(
    "A pack: rules for the checkpoints of one framework.",
    {
        "pack": Text("The name of the pack."),
        "marks": ListOf(
            "Paths from a checkpoint directory that show that the pack is meant; their parts may be shell patterns.",
            Text("e.g. checkpoint-*/trainer_state.json"),
        ),
        **{key: SHAPE.keys[key] for key in packs.KEYS},
    },
    ("pack", "formats"),
)
ALONE = ("layout", "experiments")  # lists that may stand in one file only


def load_rules(texts: Mapping[str, str], *, proved: bool = False) -> RuleSet:
    """Compile the rules, and test them with their own examples.

    Args:
        texts: the content of each rule file by the name that messages should show.
        proved: these very texts passed the test before, so templates and examples are not tested again.

    Raises:
        RuleError: it has all faults, each with file, line and column.
    """
    faults: list[Fault] = []
    merged = _merged(texts, SHAPE, faults)
    if not faults and "packs" not in merged:
        first = Location(min(texts, default="rules"), 1, 1)
        if "layout" not in merged:
            hint = "layout: ['*/checkpoints'] finds the folders NAME/checkpoints"
            faults.append(Fault(first, "no rule file has 'layout'", hint))
        if not merged.keys() & {"target", "targets", "formats"}:
            hint = "'ckptrules init' looks whose checkpoints they are; 'doit packs' lists the packs"
            faults.append(Fault(first, "no rule file has 'target', nor 'targets', 'formats' or 'packs'", hint))
    if (folder := merged.get("outputs_dir")) and not may_have_outputs_dir(texts):
        faults.append(Fault(folder.key_place or folder.place, "write outputs_dir without escapes"))
    rules = _compile(merged, sorted(texts), faults, proved=proved)
    if rules is None or faults:
        raise RuleError(faults)
    if proved:
        return rules
    from ckptrules.rules import proving  # here, as most runs have rules that are proved

    every = [rules._replace(packs=()), *(pack.rules for pack in rules.packs)]
    try:
        failed = [*(fault for one in every for fault in proving.prove(one)), *proving.prove_policies(rules)]
    except SlowRuleError as slow:
        failed = [Fault(slow.rule.place, f"{slow.rule.called} needs too long for '{slow.name}'", SLOW_HINT)]
    if failed:
        raise RuleError(failed)
    return rules


def outputs_dir_of(texts: Mapping[str, str]) -> str | None:
    """Return the ``outputs_dir`` in rule files, without compiling them.

    Raises:
        RuleError: a file is broken, or two files have an ``outputs_dir``.
    """
    faults: list[Fault] = []
    merged = _merged(texts, SHAPE, faults)
    if faults:
        raise RuleError(faults)
    return merged["outputs_dir"].data if "outputs_dir" in merged else None


def _merged(texts: Mapping[str, str], shape: Keys, faults: list[Fault]) -> dict[str, Any]:
    """Read files and merge them: lists and policies add up, any other key may stand in one file only."""
    merged: dict[str, Any] = {}
    for name, text in sorted(texts.items()):
        file = read_yaml(text, name, shape, faults)
        for key, value in file.items() if file else ():
            if key == "retention":
                by_name = merged.setdefault(key, {})
                for policy, lines in value.items():
                    _claim_name(by_name, policy, lines, f"retention policy '{policy}'", faults)
            elif isinstance(shape.keys[key], ListOf | Either) and key not in ALONE:
                merged.setdefault(key, []).extend(value.several)
            else:
                _claim_name(merged, key, value, f"'{key}'", faults)
    return merged


def _claim_name(taken: dict[str, Any], name: str, value: Value, what: str, faults: list[Fault]) -> None:
    if name in taken:
        first = taken[name].key_place
        faults.append(Fault(value.key_place or value.place, f"{what} stands in {first.file_line} already"))
    else:
        taken[name] = value


def _compile(merged: Mapping[str, Any], files: Sequence[str], faults: list[Fault], *, proved: bool) -> RuleSet | None:
    paths = packs.chosen(merged.get("packs", []), faults)
    if len(paths) < len({value.data for value in merged.get("packs", [])}):
        return None  # the rest may need the missing pack, and would have faults that are none
    listed = [load_pack(name, path, faults) for name, path in paths.items()]
    theirs = [rule for pack in listed for rule in pack.rules.formats]
    named = naming.compile_naming(merged, faults, theirs, proved=proved)
    rules = _compile_names(merged, files, named, faults)
    facts = (*rules.facts, *(fact for pack in listed for fact in pack.rules.facts))
    metrics_in_files = any(not fact.inside for fact in facts) or any(
        suffix.endswith(".json") for suffix in rules.sidecars
    )
    every = (*named.all, *theirs)
    by_name = policies.compile_policies(merged.get("retention", {}), every, faults, metrics_in_files=metrics_in_files)
    values = {key: value.data for key, value in merged.items() if isinstance(value, Value)}
    rules = rules._replace(
        layout=rules.layout or tuple(dict.fromkeys(pattern for pack in listed for pattern in pack.rules.layout)),
        part_folders=tuple(
            dict.fromkeys(text for one in (rules, *(p.rules for p in listed)) for text in one.part_folders)
        ),
        layout_of_packs=not rules.layout,
        policies=by_name,
        trash_days=values.get("trash_days", DEFAULT_TRASH_DAYS),
        settle=values.get("settle", 0),
        says_settle="settle" in merged,
        experiments=policies.compile_experiments(merged.get("experiments"), by_name, faults),
        max_delete=policies.compile_max_delete(merged.get("max_delete"), faults),
        outputs_dir=values.get("outputs_dir"),
        budget=policies.compile_budget(merged.get("budget"), every, faults, metrics_in_files=metrics_in_files),
        packs=tuple(listed),
    )
    return None if faults else rules._replace(naming_digest=_naming_digest(rules))


def load_pack(name: str, path: str, faults: list[Fault]) -> Pack:
    """Read and compile a pack; add its faults to ``faults``.

    Raises:
        RuleError: it cannot be read.
    """
    return compile_pack(name, packs.text_of(name, path), faults)


def compile_pack(name: str, text: str, faults: list[Fault]) -> Pack:
    """Compile the text of a pack; add its faults to ``faults``."""
    merged = _merged({packs.shown(name): text}, PACK, faults)
    named = naming.compile_naming(merged, faults)
    formats = tuple(
        rule._replace(id=f"{name}/{rule.id}", called=f"format '{name}/{rule.id}'", pack=name) for rule in named.formats
    )
    rules = _compile_names(merged, [packs.shown(name)], named._replace(formats=formats), faults)
    marks = tuple(value.data for value in merged.get("marks", []))
    return Pack(name, packs.shown(name), marks, rules._replace(naming_digest=_naming_digest(rules)))


def _compile_names(
    merged: Mapping[str, Any], files: Sequence[str], named: naming.Naming, faults: list[Fault]
) -> RuleSet:
    """Compile the keys that rule files and packs share."""
    rules = RuleSet(
        files=tuple(files),
        layout=tuple(value.data for value in merged["layout"].data) if "layout" in merged else (),
        targets=named.targets,
        protected=knowledge.compile_patterns(merged.get("protected", [])),
        ignored=knowledge.compile_patterns(merged.get("ignored", [])),
        legacy=named.legacy,
        sidecars=tuple(value.data for value in merged.get("sidecars", [])),
        pointers=knowledge.compile_patterns(merged.get("pointers", []), knowledge.TRACKERS, named.formats),
        facts=knowledge.compile_facts(merged.get("facts", []), faults),
        unfinished=knowledge.compile_patterns(merged.get("unfinished", []), knowledge.MARKERS, named.formats),
        formats=named.formats,
        part_folders=tuple(value.data for value in merged.get("part_folders", [])),
        leftovers=policies.compile_leftovers(merged.get("leftovers", [])),
    )
    return rules._replace(special=_special(rules))


def _special(rules: RuleSet) -> str:
    """Return one expression for all shell patterns and endings, as most names fit none of them."""
    patterns = [one.text for one in (*rules.protected, *rules.ignored, *rules.pointers)]
    endings = [f"(?s:.*{re.escape(one.text)})\\Z" for one in rules.unfinished]
    return "|".join([*map(fnmatch.translate, patterns), *endings]) or r"(?!)"


def _naming_digest(rules: RuleSet) -> str:
    """Return a checksum of all that decides about names; places and examples do not."""
    patterns = rules.protected, rules.ignored, rules.pointers, rules.unfinished
    parts = (
        rules.layout,
        [[*map(_deciding, formats)] for formats in (rules.targets, rules.legacy, rules.formats)],
        [[(pattern.text, pattern.protects) for pattern in several] for several in patterns],
        [(fact.file, *fact[2:]) for fact in rules.facts],
        rules.sidecars,
        rules.part_folders,
        [(pack.name, pack.marks, pack.rules.naming_digest) for pack in rules.packs],
    )
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _deciding(rule: Rule) -> tuple[object, ...]:
    complete = rule.complete and rule.complete[:2]
    return rule.id, rule.reader or rule.match.pattern, rule.template, rule.folder, rule.live, complete
