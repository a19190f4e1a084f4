"""Compiles the formats of rule files: those of targets, of old names, and of names that stay."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ckptrules.engine.names.naming import BRANCH, READERS, captures
from ckptrules.engine.names.templates import TemplateError, needed_variables
from ckptrules.engine.names.words import READS
from ckptrules.engine.ruleset import Complete, Example, Fault, Location, Rule
from ckptrules.engine.shapes import TRUTH, Choice, Keys, ListOf, MapOf, Shape, Text
from ckptrules.engine.spelling import closest, one_of
from ckptrules.rules.shape import Value

TARGET_ID = "target"
MAX_PIECES = 20_000  # of a pattern, some 300 bytes each: `regex` writes repeats out
_BRACE = re.compile(r"(?<!\\)(?:\\\\)*\{(?![0-9]+(?:,[0-9]*)?\}|,[0-9]+\})")  # to `regex`, a{e} is an a with errors
_REPEAT = re.compile(r"([)\s]?)\{([0-9]+)")  # of a group or class, else of one character
_GROUP = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?P<(\w+)>", re.DOTALL
)  # or escapes and sets, in which no group stands
READ_BY_WORDS = re.compile("".join(f"(?P<{field}>)" for field in (*READS, "metrics")))
_NO_PATTERN = (re.error, RecursionError, OverflowError, ValueError, FutureWarning)
PATTERN_HINTS = {
    "unknown extension ?<": "a group that captures is written (?P<name>…)",
    "nothing to repeat": "this is no shell pattern: '.*' stands for any text, and '\\.' for a dot",
}
_ID = Text("A short name for messages.")
_TEMPLATE = Text("Jinja2 template of the new name; variables are captured groups, filters: pad(n), int, lower, upper.")
_MATCH = Text("Python regular expression, matched against the WHOLE name; (?P<epoch>\\d+) captures a field.")
_NEAR_MISSES = ListOf("Names that it must not fit; tested before it is used.", Text("a file name"), empty=False)
_PATTERNS = ListOf(
    "Shell patterns for paths inside the checkpoint, or (all, where the match captures part) for the texts of part.",
    Text("a shell pattern", empty=True),
    empty=False,
)
TARGET = Keys(
    "A naming format that checkpoints should have.",
    {
        "template": _TEMPLATE,
        "match": _MATCH,
        "examples": ListOf("Names in this format; tested before they are used.", Text("a file name"), empty=False),
        "counterexamples": _NEAR_MISSES,
    },
    ("template", "match", "examples"),
)
LEGACY = Keys(
    "One old naming format.",
    {
        "id": _ID,
        "match": _MATCH,
        "template": _TEMPLATE,
        "examples": MapOf("Old name: new name; tested before they are used.", Text("the new name")),
        "counterexamples": _NEAR_MISSES,
    },
    ("id", "match", "examples"),
)
FORMAT = Keys(
    "One format that is recognised and keeps its names.",
    {
        "id": _ID,
        "match": _MATCH,
        "reader": Choice(
            "words: instead of a match, read names that have words for their numbers, such as x_epoch3_step40.pt.",
            {word: word for word in READERS},
        ),
        "folder": Choice(
            "true: it fits only directories; false: only files (the default); any: both.",
            {**TRUTH, "any": "any"},
        ),
        "complete": Keys(
            "What makes a checkpoint whole: at least one pattern of any, and every one of all.",
            {"any": _PATTERNS, "all": _PATTERNS},
        ),
        "keep_name": Text("What a rename would break; 'doit explain' shows it."),
        "live": Text(
            "What a change would break while the run goes on; so none is made until its newest file is an hour old."
        ),
        "examples": MapOf(
            "Name: the fields that must be read from it; null for one that is not captured. Other fields may be, too.",
            MapOf("Field: text or number.", Text("digits compare as numbers, all else as text", empty=True)),
        ),
        "counterexamples": _NEAR_MISSES,
    },
    ("id", "examples"),
)
SHAPES: Mapping[str, Shape] = {
    "target": TARGET,
    "targets": ListOf("Several targets; a name gets the first one whose variables it has.", TARGET, empty=False),
    "legacy": ListOf("Old naming formats; the first rule that fits the whole name wins.", LEGACY),
    "formats": ListOf(
        "Formats that are recognised and never renamed; the first that fits the whole name wins.", FORMAT
    ),
    "rename": ListOf("Ids of formats whose names become those of the target.", Text("e.g. trainer")),
}


class Naming(NamedTuple):
    """All formats: those that names should get, those of old names, and those whose names stay."""

    targets: tuple[Rule, ...]
    legacy: tuple[Rule, ...]
    formats: tuple[Rule, ...]

    @property
    def all(self) -> tuple[Rule, ...]:
        """All formats."""
        return *self.targets, *self.legacy, *self.formats


def compile_naming(
    merged: Mapping[str, Any], faults: list[Fault], theirs: Sequence[Rule] = (), *, proved: bool = False
) -> Naming:
    """Compile checked YAML into formats; add what is wrong to ``faults``.

    ``theirs`` are the formats of packs, which ``rename`` may name. ``proved``: as for `load_rules`.
    """
    compiler = _Compiler(faults, proved)
    if "target" in merged and "targets" in merged:
        place = merged["targets"][0].place if merged["targets"] else merged["target"].place
        faults.append(Fault(place, "there are 'target' and 'targets'", "list them all under 'targets'"))
    several = [merged["target"]] if "target" in merged else merged.get("targets", [])
    before = len(faults)
    targets = tuple(filter(None, (compiler.target(value, n, len(several)) for n, value in enumerate(several))))
    sound = targets if len(faults) == before else ()  # else each legacy rule would repeat a fault of the targets
    legacy = tuple(filter(None, (compiler.legacy(value, sound) for value in merged.get("legacy", []))))
    if not merged.keys() & {"target", "targets"}:
        hint = "add a target, or list it under 'formats', which keep their names"
        faults += [Fault(rule.place, f"{rule.called}: there is no target to rename to", hint) for rule in legacy]
    formats = tuple(filter(None, (compiler.format(value) for value in merged.get("formats", []))))
    ids: dict[str, Location] = {}
    for rule in (*legacy, *formats):
        if rule.id in ids:
            faults.append(Fault(rule.place, f"{rule.called} stands in {ids[rule.id].file_line} already"))
        ids.setdefault(rule.id, rule.place)
    renamed = compiler.renamed(merged.get("rename", []), (*formats, *theirs), targets)
    with_targets = [rule._replace(pack="") for rule in renamed]
    return Naming(targets, (*legacy, *with_targets), tuple(rule for rule in formats if rule not in renamed))


class _Compiler(NamedTuple):
    """Compiles single formats; adds faults to ``faults``, and does not test templates that are ``proved``."""

    faults: list[Fault]
    proved: bool

    def refuse(self, place: Location, fact: str, hint: str = "") -> None:
        self.faults.append(Fault(place, fact, hint))

    def rule(self, identity: str, what: str, value: Value) -> Rule | None:
        match = READ_BY_WORDS if value.get("reader") else self.match(what, value)
        if match is None:
            return None
        values = {key: item.data for key, item in value.items()}
        return Rule(
            identity,
            match,
            values.get("template", ""),
            value.place,
            _examples(value.data["examples"]),
            {item.data: item.place for item in values.get("counterexamples", ())},
            keep_name=values.get("keep_name", ""),
            live=values.get("live", ""),
            called=what,
            reader=values.get("reader", ""),
        )

    def target(self, value: Value, number: int, count: int) -> Rule | None:
        identity = f"{TARGET_ID} {number + 1}" if count > 1 else TARGET_ID
        rule = self.rule(identity, identity, value) if value.whole else None
        if rule:
            self.check_variables(rule, value, ())
        return rule

    def legacy(self, value: Value, targets: Sequence[Rule]) -> Rule | None:
        identity = value.data["id"].data
        rule = self.rule(identity, f"legacy rule '{identity}'", value)
        if rule:
            self.check_variables(rule, value, targets)
        return rule

    def format(self, value: Value) -> Rule | None:
        identity = value.data["id"].data
        what = f"format '{identity}'"
        if ("match" in value.given) == ("reader" in value.given):
            self.refuse(value.place, f"{what} needs either 'match' or 'reader'")
        rule, folder = self.rule(identity, what, value), value.get("folder")
        if rule is None:
            return None
        rule = rule._replace(folder=None if folder and folder.data == "any" else bool(folder and folder.data))
        return rule._replace(complete=self.complete(what, rule, value.get("complete")))

    def complete(self, what: str, rule: Rule, value: Value | None) -> Complete | None:
        if value is None:
            return None
        lists = {key: tuple(item.data for item in several.data) for key, several in value.items()}
        place = value.key_place or value.place
        if not value.given & {"any", "all"}:
            self.refuse(place, f"{what}: complete says neither 'any' nor 'all'")
        if rule.folder is False and (not rule.has_parts or "any" in lists):
            hint = "'folder: true' makes it one; files that are one checkpoint share all but a group 'part'"
            self.refuse(place, f"{what}: complete looks inside, and what it fits is no directory", hint)
        return Complete(lists.get("any", ()), lists.get("all", ()), place)

    def renamed(self, ids: Sequence[Value], formats: Sequence[Rule], targets: Sequence[Rule]) -> list[Rule]:
        by_id = {rule.id: rule for rule in formats}
        found = []
        for value in ids:
            rule = by_id.get(value.data)
            if rule is None:
                self.refuse(value.place, f"rename: no format '{value.data}'", one_of(value.data, by_id))
            elif rule.keep_name:
                fact = f"rename: format '{rule.id}' ({rule.place.file_line}) keeps its names: {rule.keep_name}"
                self.refuse(value.place, fact)
            elif not targets and not self.faults:  # else it may have been refused
                self.refuse(value.place, "rename: there is no target to rename to")
            else:
                found.append(rule)
        return found

    def match(self, what: str, value: Value) -> re.Pattern[str] | None:
        pattern = value.get("match")
        if pattern is None:
            return None
        try:
            return compile_match(pattern.data)
        except _NO_PATTERN as error:
            offset = getattr(error, "pos", None)
            column = pattern.place.column + (0 if offset is None else offset + pattern.quoted)
            place = pattern.place._replace(column=column)
            why = str(getattr(error, "msg", error))
            hint = next((hint for part, hint in PATTERN_HINTS.items() if part in why), "")
            self.refuse(place, f"{what}: not a regular expression: {why}", hint)
            return None

    def check_variables(self, rule: Rule, value: Value, targets: Sequence[Rule]) -> None:
        """Refuse a rule that does not capture what its template uses or, without one, the template of any target."""
        groups, own = captures(rule), value.get("template")
        templates = [(own.data, own.place)] if own else [(target.template, target.place) for target in targets]
        lacks = [[v for v in self.variables_of(rule.called, *one) if v not in groups] for one in templates]
        for variable in lacks[0] if lacks and all(lacks) else ():
            fact = f"{rule.called}: template uses '{variable}', but match captures: {', '.join(groups) or 'nothing'}"
            hint = closest(variable, groups) or f"(?P<{variable}>…) in match captures it"
            self.refuse((own or value.get("match") or value).place, fact, hint)

    def variables_of(self, what: str, template: str, place: Location) -> list[str]:
        if self.proved:
            return []
        try:
            return needed_variables(template)
        except TemplateError as error:
            self.refuse(place, f"{what}: {error}", error.hint)
            return []


def compile_match(pattern: str) -> re.Pattern[str]:
    """Compile a pattern that means the same to Python and to the library ``regex``, which matches it later.

    A group may stand in several branches; for Python, each gets a name of its own (`BRANCH`).

    Raises:
        re.error, RecursionError, OverflowError, ValueError, FutureWarning: it is no such pattern.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)  # of sets whose meaning may change; `regex` has the new one
        match = re.compile(_branches(pattern), re.ASCII)
    if brace := _BRACE.search(pattern):
        raise re.error("'{' is no count here: write \\{", pattern, brace.end() - 1)
    repeats = _REPEAT.findall(pattern)
    once = sum(int(count) for group, count in repeats if not group)
    groups = math.prod(int(count) or 1 for group, count in repeats if group)
    if (len(pattern) + once) * groups > MAX_PIECES:
        raise ValueError("it is too long, or repeats too often")
    return match


def _branches(pattern: str) -> str:
    """Give each further group of one name a name of its own."""
    seen: dict[str, int] = {}

    def numbered(found: re.Match[str]) -> str:
        name = found[1]
        if not name:
            return found[0]
        seen[name] = seen.get(name, 0) + 1
        return found[0] if seen[name] == 1 else f"(?P<{name}{BRANCH}{seen[name]}>"

    return _GROUP.sub(numbered, pattern) if "|" in pattern else pattern


def _examples(value: Value) -> dict[str, Example]:
    if isinstance(value.data, list):
        return {item.data: Example(item.place) for item in value.data}
    return {name: _example(one) for name, one in value.items()}


def _example(value: Value) -> Example:
    place = value.key_place or value.place
    if isinstance(value.data, str):
        return Example(place, value.data)
    fields = {
        field: None if text.data in ("null", "~") and not text.quoted else text.data for field, text in value.items()
    }
    return Example(place, fields=fields)
