"""Pure: a name → the rule that claims it → fields → the name that it should have."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, cast

from ckptrules.engine.checkpoints import Claim, ClaimKind, Named, number, order_of
from ckptrules.engine.packs import claim_of_packs, may_rename
from ckptrules.engine.ruleset import Pattern, Reason, Rule, RuleSet
from ckptrules.engine.state_folder import LONGEST_NAME
from ckptrules.engine.templates import MissingVariableError, TemplateError, render
from ckptrules.engine.words import read_words

Reader = Callable[[str, bool | None], Named]
IN_COMMON = 16_384  # names that are remembered: runs of one training code save at the same epochs and steps
SECONDS = 1.0  # of the processor, that a rule may take for one name
_BEST = re.compile(r"best-(?P<metric>[A-Za-z]\w*)-(?P<value>-?\d+(?:\.\d+)?)(?:\.[A-Za-z]\w*)?")  # protected
BRANCH = "_branch_"  # with a number behind it, in the name of a group that stands in several branches of a pattern
READERS = {"words": read_words}
CHECKPOINTS = ("target", "legacy", "format")  # kinds of claims
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
    """Match a rule against a whole name, and return the fields that it captures; None where it does not fit.

    Raises:
        SlowRuleError: it takes too long; nobody knows whether it fits.
    """
    if rule.reader:
        return READERS[rule.reader](name)
    try:
        match = bounded(rule.match.pattern)(name, timeout=SECONDS)
    except TimeoutError:
        raise SlowRuleError(rule, name) from None
    if match is None:
        return None
    texts = match.groups()  # its groupdict takes as long as the match
    fields = {key: texts[n - 1] for n, key in groups_of(rule.match) if texts[n - 1] is not None}
    if "metrics" not in fields:
        return fields
    metrics = _METRIC.finditer(fields["metrics"])  # each key=value of it is one: -val_loss=0.02-acc=0.9
    return {**{found[1]: found[2] for found in metrics}, **fields}


@lru_cache(maxsize=256)
def groups_of(pattern: re.Pattern[str]) -> tuple[tuple[int, str], ...]:
    """Return the groups of a pattern by number; several may have one name (`BRANCH`)."""
    return tuple((number, key.partition(BRANCH)[0]) for key, number in pattern.groupindex.items())


def captures(rule: Rule) -> list[str]:
    """Return the names of what a rule captures, sorted."""
    return sorted({key for _, key in groups_of(rule.match)})


@lru_cache(maxsize=256)
def bounded(pattern: str) -> Callable[..., Any]:
    """Return the ``fullmatch`` of a pattern, which takes a ``timeout``: Python's own backtracks for ever."""
    import regex

    return cast("Callable[..., Any]", regex.compile(pattern, regex.ASCII | regex.VERSION0).fullmatch)


def named(name: str, rules: RuleSet, *, folder: bool | None = None) -> Named:
    """Decide which rule a name belongs to, and which name it gives. A name in a target format is right as it is.

    ``folder`` says whether it is that of a directory; None where that is not known.
    """
    return reader(rules)(name, folder)


def reader(rules: RuleSet, count: int = 0) -> Reader:
    """Return `named` for these rules. Each name is read once for all experiments that have it.

    ``count`` is how many names the directory at hand has, for all of which it is asked several times: where they are
    more than is remembered in common, they are remembered by themselves, and the names that they get.
    """
    return _of_one(rules, 2 << count.bit_length()) if count > IN_COMMON else _of_all(rules, IN_COMMON)


def _remembering(rules: RuleSet, most: int) -> Reader:
    return lru_cache(maxsize=most)(lambda name, folder: _named(name, rules, folder))


_of_all = lru_cache(maxsize=8)(_remembering)
_of_one = lru_cache(maxsize=2)(_remembering)  # by the rules, and by those of a question "what if"


def _named(name: str, rules: RuleSet, folder: bool | None) -> Named:  # noqa: FBT001 - lru_cache takes what is positional
    said = claim(name, rules, folder=folder)
    if said.kind != "legacy":
        kept = name if said.kind in CHECKPOINTS else ""
        return Named(said, kept, order=order_of(said.fields), fields=said.fields)
    try:
        target, told = target_name(said, rules)
    except TemplateError as error:
        return Named(said, fault=str(error))
    # Epoch and step are those that the new name tells: a later run must not judge it otherwise. A metric that it does
    # not tell is believed now, since without it everything is kept later.
    fields = {key: value for key, value in said.fields.items() if key not in ("epoch", "step")} | told
    return Named(said, target, order=order_of(fields), fields=fields)


def is_claimed(name: str, rules: RuleSet) -> bool:
    """Say whether a directory of this name is a checkpoint, or goes with one: what lies in it is not looked at."""
    try:
        said = claim(name, rules, folder=True)
        return said.kind not in ("ignored", "unrecognised") or name.endswith(rules.sidecars)
    except SlowRuleError:
        return True


def is_ignored(name: str, rules: RuleSet) -> bool:
    """Say whether a directory of this name is no checkpoint by the rules."""
    try:
        return claim(name, rules, folder=True).kind == "ignored"
    except SlowRuleError:
        return True


def claim(name: str, rules: RuleSet, *, folder: bool | None = None) -> Claim:
    """Decide which rule a name belongs to.

    Protected names come first, then what is no checkpoint at all, then the target formats, then the legacy rules and
    then the formats in their order. A legacy rule or a format in *another file* that fits as well makes the name
    ambiguous: the order of rules inside a file is the user's choice, the order of files is an accident. What is read of
    a protected name is read by the first rule that fits it. Packs are asked where none of these says anything, and
    where it is a format of theirs that is to be renamed.
    """
    said = own_claim(name, rules.user or rules, folder=folder)
    renamed = said.kind == "legacy" and rules.pack_of(said.reason) is not None
    if not rules.packs or not (said.kind == "unrecognised" or renamed):
        return said
    every = [(pack, own_claim(name, pack.rules, folder=folder)) for pack in rules.packs]
    theirs = [(pack, one) for pack, one in every if one.kind != "unrecognised"]
    return said if renamed and may_rename(theirs) else claim_of_packs(theirs) or said


def own_claim(name: str, rules: RuleSet, *, folder: bool | None = None) -> Claim:
    """Decide which rule a name belongs to, without the packs."""
    if rules.may_be_special(name):
        if pattern := first_pattern(name, rules.protected):
            read, best = _reading(name, rules, folder), _BEST.fullmatch(name)
            fields = {**read.fields, **(best.groupdict() if best else {})}
            return Claim("protected", Reason(f"protected by '{pattern.text}'", pattern.place), read.rule, fields)
        if pattern := first_pattern(name, rules.pointers):
            return Claim("ignored", Reason(f"names checkpoints: '{pattern.text}'", pattern.place))
        if pattern := first_pattern(name, rules.ignored):
            return Claim("ignored", Reason(f"no checkpoint: '{pattern.text}'", pattern.place))
        if pattern := next((ending for ending in rules.unfinished if name.endswith(ending.text)), None):
            return Claim("ignored", Reason(f"marks what is not finished: '{pattern.text}'", pattern.place))
    said = _reading(name, rules, folder)
    for fact in rules.facts if said.kind == "unrecognised" else ():
        if not (fact.within or fact.inside) and fnmatchcase(name, fact.file):
            return Claim("ignored", Reason(f"tells of checkpoints: '{fact.file}'", fact.place))
    return said


def _reading(name: str, rules: RuleSet, folder: bool | None) -> Claim:  # noqa: FBT001 - as above
    for rule in rules.targets:
        if (fields := fits(rule, name)) is not None:
            return Claim("target", Reason("already in the target format", rule.place), rule, fields)
    winner: Claim | None = None
    kinds: tuple[tuple[ClaimKind, tuple[Rule, ...]], ...] = ("legacy", rules.legacy), ("format", rules.formats)
    for kind, several in kinds:
        for rule in several:
            is_other = folder is not None and rule.folder not in (None, folder)
            if is_other or (winner and winner.rule and rule.place.file == winner.rule.place.file):
                continue
            if (fields := fits(rule, name)) is not None:
                if winner and winner.rule:
                    text = f"rules of two files claim it: {_both(winner.rule, rule)}"
                    part = rule if rule.has_parts else winner.rule if winner.rule.has_parts else None
                    told = fields if part is rule else winner.fields if part else {}
                    return Claim("ambiguous", Reason(text, rule.place), part, told)
                winner = Claim(kind, Reason(rule.called, rule.place), rule, fields)
        if winner:
            return winner
    return Claim("unrecognised", Reason("unable to parse: no rule fits the whole name"))


def _both(one: Rule, other: Rule) -> str:
    return f"'{one.id}' ({one.place.file_line}) and '{other.id}' ({other.place.file_line})"


def target_name(found: Claim, rules: RuleSet) -> tuple[str, dict[str, str]]:
    """Return the name that a claimed checkpoint should have, and the fields that it tells.

    Where its rule has no template of its own, the first target gives the name whose variables are all captured.

    Raises:
        TemplateError: no template serves, or one gives a name that is unsafe or that no target format reads back as
            the same fields (so a second run would rename it again), part, run and what policies split by among them.
    """
    if found.rule is None:
        raise TemplateError("no rule claims it")
    own = found.rule.template
    name = _first_rendered([own] if own else [target.template for target in rules.targets], found.fields)
    if fault := unsafe_name(name):
        raise TemplateError(fault)
    read_back = next((told for target in rules.targets if (told := fits(target, name)) is not None), None)
    if read_back is None:
        raise TemplateError(f"'{name}' does not fit {'target.match' if len(rules.targets) == 1 else 'any target'}")
    apart = {"part", "run", *(field for policy in rules.policies.values() for field in policy.per)}
    for key, value in found.fields.items():
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
    """Say why a name may not be given to a file, or return an empty text.

    Linux and macOS limit a name to 255 bytes.
    """
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
    """Compare fields: ``09`` and ``9`` are one epoch; ``0abc`` and ``abc`` are two hashes."""
    return one == other or (number(one) is not None and number(one) == number(other))


def stems_of(name: str) -> list[str]:
    """Return what the marker of a name may begin with: the name, or what stands in it before a point or a dash."""
    return [name, *(name[:place] for place, letter in enumerate(name) if letter in ".-" and place)]


def stem_of(name: str) -> str:
    """Return a checkpoint's name without its extension: what its sidecars begin with."""
    return _EXTENSION.sub("", name)
