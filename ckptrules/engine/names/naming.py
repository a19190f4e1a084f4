"""Read a name by the rules: the rule that claims it, its fields, and the name that it should have. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, cast

from ckptrules.engine.checkpoints import Claim, ClaimKind, Named, number, order_of
from ckptrules.engine.names.metrics import mode_of
from ckptrules.engine.names.packs import claim_of_packs, may_rename
from ckptrules.engine.names.templates import MissingVariableError, TemplateError, render
from ckptrules.engine.names.words import read_words
from ckptrules.engine.ruleset import Pattern, Reason, Rule, RuleSet
from ckptrules.engine.state_folder import LONGEST_NAME

Reader = Callable[[str, bool | None], Named]
IN_COMMON = 16_384  # names cached for all directories: runs of one training code save at the same epochs and steps
SECONDS = 1.0  # processor time that a rule may take for one name
_BEST = re.compile(r"best-(?P<metric>[A-Za-z]\w*)-(?P<value>-?\d+(?:\.\d+)?)(?:\.[A-Za-z]\w*)?")  # protected
BRANCH = "_branch_"  # followed by a number, in the name of a group that several branches of a pattern have
READERS = {"words": read_words}
CHECKPOINTS = ("target", "legacy", "format")  # kinds of claims
POINTER = "pointer"  # id of the reason of a file that names checkpoints
_METRIC = re.compile(
    r"([A-Za-z][\w/.@]*)=(-?\d++(?:\.\d++)?+(?:[eE][+-]?\d++)?+|-?inf|nan)(?![A-Za-z\d=]|[._]\d)", re.ASCII
)
_EXTENSION = re.compile(r"\.[A-Za-z]\w*\Z", re.ASCII)


class SlowRuleError(Exception):
    """A rule that takes longer than `SECONDS` for one name."""

    def __init__(self, rule: Rule, name: str) -> None:
        super().__init__(rule, name)
        self.rule = rule
        self.name = name


def fits(rule: Rule, name: str) -> dict[str, str] | None:
    """Return the fields that a rule captures of a whole name; None where it does not fit.

    Raises:
        SlowRuleError: the rule takes too long, so nobody knows whether it fits.
    """
    fields = READERS[rule.reader](name) if rule.reader else _captured(rule, name)
    by_us = rule.reader or rule.pack  # in a pattern of their own, users say what a run is
    return _with_metrics_of_run(fields) if fields and by_us and "=" in fields.get("run", "") else fields


def _captured(rule: Rule, name: str) -> dict[str, str] | None:
    try:
        match = bounded(rule.match.pattern)(name, timeout=SECONDS)
    except TimeoutError:
        raise SlowRuleError(rule, name) from None
    if match is None:
        return None
    texts = match.groups()  # groupdict would take as long as the match
    fields = {key: texts[n - 1] for n, key in groups_of(rule.match) if texts[n - 1] is not None}
    if "metrics" not in fields:
        return fields
    metrics = _METRIC.finditer(fields["metrics"])  # -val_loss=0.02-acc=0.9
    return {**{metric[1]: metric[2] for metric in metrics}, **fields}


def _with_metrics_of_run(fields: dict[str, str]) -> dict[str, str]:
    """Take the values of metrics out of the run: ``val_loss=0.094-epoch=1`` and ``val_loss=0.089-epoch=2`` are of one.

    A value has two decimals or more, as ``iou=0.5`` may be a setting.
    """
    run, metrics = fields["run"], dict[str, str]()
    for metric, value in _METRIC.findall(run):
        if len(value.partition(".")[2]) > 1 and mode_of(metric) and mode_of(metric.rpartition("_")[2]):
            metrics[metric] = value
            run = run.replace(f"{metric}={value}", metric, 1)
    return metrics | fields | {"run": run}


@lru_cache(maxsize=256)
def groups_of(pattern: re.Pattern[str]) -> tuple[tuple[int, str], ...]:
    """Return the groups of a pattern by number; several may have one name (`BRANCH`)."""
    return tuple((number, key.partition(BRANCH)[0]) for key, number in pattern.groupindex.items())


def captures(rule: Rule) -> list[str]:
    """Return the fields that a rule captures, sorted."""
    return sorted({key for _, key in groups_of(rule.match)})


@lru_cache(maxsize=256)
def bounded(pattern: str) -> Callable[..., Any]:
    """Return the ``fullmatch`` of a pattern with a ``timeout``, as Python's own may backtrack for ever."""
    import regex

    return cast("Callable[..., Any]", regex.compile(pattern, regex.ASCII | regex.VERSION0).fullmatch)


def named(name: str, rules: RuleSet, *, folder: bool | None = None) -> Named:
    """Return the claim on a name and its new name. A name in a target format keeps its name.

    ``folder`` is whether a directory has the name; None if unknown.
    """
    return reader(rules)(name, folder)


def reader(rules: RuleSet, count: int = 0) -> Reader:
    """Return `named` for these rules, with a cache that all directories share.

    ``count`` is how many names the directory has. A directory with more than `IN_COMMON` gets a cache of its own, large
    enough for its old and new names.
    """
    return _of_one(rules, 2 << count.bit_length()) if count > IN_COMMON else _of_all(rules, IN_COMMON)


def _remembering(rules: RuleSet, most: int) -> Reader:
    return lru_cache(maxsize=most)(lambda name, folder: _named(name, rules, folder))


_of_all = lru_cache(maxsize=8)(_remembering)
_of_one = lru_cache(maxsize=2)(_remembering)  # for the rules, and for the other rules of a "what if"


def _named(name: str, rules: RuleSet, folder: bool | None) -> Named:  # noqa: FBT001 - lru_cache takes what is positional
    claimed = claim(name, rules, folder=folder)
    if claimed.kind != "legacy":
        kept = name if claimed.kind in CHECKPOINTS else ""
        return Named(claimed, kept, order=order_of(claimed.fields), fields=claimed.fields)
    try:
        target, new_fields = target_name(claimed, rules)
    except TemplateError as error:
        return Named(claimed, fault=str(error))
    # Epoch and step are those of the new name, so that the next run judges it alike. A metric that only the old name
    # has counts now; the next run keeps a checkpoint without it.
    fields = {key: value for key, value in claimed.fields.items() if key not in ("epoch", "step")} | new_fields
    return Named(claimed, target, order=order_of(fields), fields=fields)


def is_claimed(name: str, rules: RuleSet) -> bool:
    """Return whether a directory of this name is a checkpoint or a sidecar, so that no directories are sought in it."""
    return _kind_of_folder(name, rules) not in ("ignored", "unrecognised") or name.endswith(rules.sidecars)


def is_ignored(name: str, rules: RuleSet) -> bool:
    """Return whether the rules ignore a directory of this name, or take too long."""
    return _kind_of_folder(name, rules) in ("ignored", "")


def _kind_of_folder(name: str, rules: RuleSet) -> str:
    """Return the kind of the claim on a directory; empty where the rules take too long."""
    try:
        return claim(name, rules, folder=True).kind
    except SlowRuleError:
        return ""


def claim(name: str, rules: RuleSet, *, folder: bool | None = None) -> Claim:
    """Return the rule that a name belongs to, and its fields.

    The first that fits decides: protected patterns, patterns of what is no checkpoint, targets, legacy rules, formats.
    If legacy rules or formats of *two files* fit, the name is ambiguous: users choose the order of rules in a file, but
    not that of files. The first rule that fits a protected name reads its fields. Packs are asked where the user's
    rules say nothing, or rename a format of a pack.
    """
    own = own_claim(name, rules.user or rules, folder=folder)
    renamed = own.kind == "legacy" and rules.pack_of(own.reason) is not None
    if not rules.packs or not (own.kind == "unrecognised" or renamed):
        return own
    every = [(pack, own_claim(name, pack.rules, folder=folder)) for pack in rules.packs]
    of_packs = [(pack, claimed) for pack, claimed in every if claimed.kind != "unrecognised"]
    return own if renamed and may_rename(of_packs) else claim_of_packs(of_packs) or own


def own_claim(name: str, rules: RuleSet, *, folder: bool | None = None) -> Claim:
    """Return the claim on a name by these rules, without their packs."""
    if rules.may_be_special(name):
        if pattern := first_pattern(name, rules.protected):
            read, best = _reading(name, rules, folder), _BEST.fullmatch(name)
            fields = {**read.fields, **(best.groupdict() if best else {})}
            return Claim("protected", Reason(f"protected by '{pattern.text}'", pattern.place), read.rule, fields)
        if pattern := first_pattern(name, rules.pointers):
            return Claim("ignored", Reason(f"names checkpoints: '{pattern.text}'", pattern.place, POINTER))
        if pattern := first_pattern(name, rules.ignored):
            return Claim("ignored", Reason(f"no checkpoint: '{pattern.text}'", pattern.place))
        if pattern := next((ending for ending in rules.unfinished if name.endswith(ending.text)), None):
            return Claim("ignored", Reason(f"marks what is not finished: '{pattern.text}'", pattern.place))
    claimed = _reading(name, rules, folder)
    for fact in rules.facts if claimed.kind == "unrecognised" else ():
        if not (fact.within or fact.inside) and fnmatchcase(name, fact.file):
            return Claim("ignored", Reason(f"tells of checkpoints: '{fact.file}'", fact.place))
    return claimed


def _reading(name: str, rules: RuleSet, folder: bool | None) -> Claim:  # noqa: FBT001 - as above
    for rule in rules.targets:
        if (fields := fits(rule, name)) is not None:
            return Claim("target", Reason("already in the target format", rule.place), rule, fields)
    legacy = _claim_of("legacy", rules.legacy, name, folder)
    unread = Claim("unrecognised", Reason("unable to parse: no rule fits the whole name"))
    return legacy or _claim_of("format", rules.formats, name, folder) or unread


def _claim_of(kind: ClaimKind, rules: Sequence[Rule], name: str, folder: bool | None) -> Claim | None:  # noqa: FBT001 - as above
    """Return the claim of the first rule that fits; an ambiguous one if a rule of another file fits as well."""
    first: tuple[Rule, dict[str, str]] | None = None
    for rule in rules:
        is_other = folder is not None and rule.folder not in (None, folder)
        if is_other or (first and rule.place.file == first[0].place.file):
            continue
        if (fields := fits(rule, name)) is None:
            continue
        if first:
            both = ((rule, fields), first)
            places = " and ".join(f"'{one.id}' ({one.place.file_line})" for one in (first[0], rule))
            part, of_part = next(((one, own) for one, own in both if one.has_parts), (None, {}))
            return Claim("ambiguous", Reason(f"rules of two files claim it: {places}", rule.place), part, of_part)
        first = rule, fields
    return Claim(kind, Reason(first[0].called, first[0].place), *first) if first else None


def target_name(claimed: Claim, rules: RuleSet) -> tuple[str, dict[str, str]]:
    """Return the name that a claimed checkpoint should have, and the fields that a target reads from it.

    A rule without a template uses the first target whose variables are all captured.

    Raises:
        TemplateError: no template can be rendered, or the new name is unsafe, or no target reads the same fields from
            it. A second run would then rename it again, or two checkpoints that differ in part, run or a field of
            ``per`` would get one name.
    """
    if claimed.rule is None:
        raise TemplateError("no rule claims it")
    own = claimed.rule.template
    name = _first_rendered([own] if own else [target.template for target in rules.targets], claimed.fields)
    if fault := unsafe_name(name):
        raise TemplateError(fault)
    read_back = next((fields for target in rules.targets if (fields := fits(target, name)) is not None), None)
    if read_back is None:
        raise TemplateError(f"'{name}' does not fit {'target.match' if len(rules.targets) == 1 else 'any target'}")
    apart = {"part", "run", *(field for policy in rules.policies.values() for field in policy.per)}
    for key, value in claimed.fields.items():
        if key in read_back and not same_text(read_back[key], value):
            raise TemplateError(f"'{name}' reads back as {key}={read_back[key]}, not {value}")
        if value and key in apart and key not in read_back:
            per = "" if key in ("part", "run") else f", or take '{key}' out of every 'per'"
            hint = f"let template and match of the target carry '{key}', or list the rule under 'formats'{per}"
            raise TemplateError(f"'{name}' does not tell {key} '{value}', and two would become one", hint)
    return name, read_back


def _first_rendered(templates: Sequence[str], fields: Mapping[str, str]) -> str:
    first: TemplateError | None = None
    for template in templates:
        try:
            return render(template, fields)
        except MissingVariableError as error:
            first = first or error
    raise first or TemplateError("there is no target")


def first_pattern(name: str, patterns: Sequence[Pattern]) -> Pattern | None:
    """Return the first shell pattern that fits the whole name."""
    return next((pattern for pattern in patterns if pattern.fits(name)), None)


def unsafe_name(name: str) -> str:
    """Return why no file may get this name; empty if one may. Linux and macOS limit a name to 255 bytes."""
    if name in ("", ".", ".."):
        return f"'{name}' is no file name"
    if "/" in name or "\\" in name:
        return f"'{name}' contains a path separator"
    readable = name.isprintable() or all(letter.isprintable() or "\udc80" <= letter <= "\udcff" for letter in name)
    if not readable:
        return f"{name!r} contains a control character"
    if len(name.encode("utf-8", "surrogateescape")) > LONGEST_NAME:
        return f"the new name is longer than {LONGEST_NAME} bytes"
    return ""


def same_text(one: str, other: str) -> bool:
    """Return whether two field texts are equal: ``09`` and ``9`` are one epoch, ``0abc`` and ``abc`` are two hashes."""
    return one == other or (number(one) is not None and number(one) == number(other))


def stems_of(name: str) -> list[str]:
    """Return what a marker of this name may begin with: the name, or its text before any dot or dash."""
    return [name, *(name[:place] for place, letter in enumerate(name) if letter in ".-" and place)]


def stem_of(name: str) -> str:
    """Return a checkpoint's name without its extension: the beginning of the names of its sidecars."""
    return _EXTENSION.sub("", name)
