"""Pure: a name → the rule that claims it → fields → the name that it should have."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ckptrules.engine.values import Claim, Named, Pattern, Reason, Rule, RuleSet, number, order_of

if TYPE_CHECKING:
    import jinja2

MAX_NAME_BYTES = 255
IN_COMMON = 4096  # names that are remembered: runs of one training code save at the same epochs and steps
MAX_PAD = 64
BEST = re.compile(r"best-(?P<metric>[A-Za-z]\w*)-(?P<value>-?\d+(?:\.\d+)?)\.\w+")  # what a protected name tells
_EXTENSION = re.compile(r"\.[A-Za-z]\w*\Z", re.ASCII)


class TemplateError(ValueError):
    """A template that cannot be used; the message is one fact, ``hint`` says what helps (or is empty)."""

    def __init__(self, fact: str, hint: str = "") -> None:
        super().__init__(fact)
        self.hint = hint


class SlowRuleError(Exception):
    """A rule that works on one name for so long that it was given up."""

    def __init__(self, rule: Rule, name: str) -> None:
        super().__init__(rule, name)
        self.rule = rule
        self.name = name


def fits(rule: Rule, name: str) -> re.Match[str] | None:
    """Match a rule against a whole name.

    Raises:
        SlowRuleError: somebody had the patience to interrupt it (see ``watch.py``).
    """
    try:
        return rule.match.fullmatch(name)
    except TimeoutError:
        raise SlowRuleError(rule, name) from None


def named(name: str, rules: RuleSet) -> Named:
    """Decide which rule a name belongs to, and which name it gives. A name in the target format is right as it is."""
    return reader(rules)(name)


@lru_cache(maxsize=8)
def reader(rules: RuleSet) -> Callable[[str], Named]:
    """Return `named` for these rules. Each name is read once for all experiments that have it."""
    return lru_cache(maxsize=IN_COMMON)(lambda name: _named(name, rules))


def _named(name: str, rules: RuleSet) -> Named:
    said = claim(name, rules)
    if said.kind == "target":
        return Named(said, name, order=order_of(said.fields), fields=said.fields)
    if said.kind != "legacy":
        return Named(said)
    try:
        target = target_name(said, rules)
    except TemplateError as error:
        return Named(said, fault=str(error))
    fields = _told_by(target, said.fields, rules)
    return Named(said, target, order=order_of(fields), fields=fields)


def _told_by(target: str, captured: Mapping[str, str], rules: RuleSet) -> dict[str, str]:
    """Return the fields of a checkpoint as its new name will tell them: a later run must not judge it otherwise.

    A metric that the new name does not tell is believed now, since without it everything is kept later.
    """
    match = fits(rules.target, target)
    fields = {key: value for key, value in captured.items() if key not in ("epoch", "step")}
    return {**fields, **(_captured(match.groupdict()) if match else {})}


def is_claimed(name: str, rules: RuleSet) -> bool:
    """Say whether a directory of this name is a checkpoint, or goes with one: what lies in it is not looked at."""
    try:
        return claim(name, rules).kind not in ("ignored", "unrecognised") or name.endswith(rules.sidecars)
    except SlowRuleError:
        return True


def claim(name: str, rules: RuleSet) -> Claim:
    """Decide which rule a name belongs to.

    Protected names come first, then what is no checkpoint at all, then the target format, then the legacy rules in
    their order. A legacy rule in *another file* that fits as well makes the name ambiguous: the order of
    rules inside a file is the user's choice, the order of files is an accident.
    """
    if rules.special.match(name):
        if pattern := first_pattern(name, rules.protected):
            return Claim("protected", Reason(f"protected by '{pattern.text}'", pattern.place))
        if pattern := first_pattern(name, rules.pointers):
            return Claim("ignored", Reason(f"names checkpoints: '{pattern.text}'", pattern.place))
        if pattern := first_pattern(name, rules.ignored):
            return Claim("ignored", Reason(f"no checkpoint: '{pattern.text}'", pattern.place))
        if pattern := next((ending for ending in rules.unfinished if name.endswith(ending.text)), None):
            return Claim("ignored", Reason(f"marks what is not finished: '{pattern.text}'", pattern.place))
    if match := fits(rules.target, name):
        reason = Reason("already in the target format", rules.target.place)
        return Claim("target", reason, rules.target, _captured(match.groupdict()))
    winner: Claim | None = None
    for rule in rules.legacy:
        if winner and winner.rule and rule.place.file == winner.rule.place.file:
            continue
        if match := fits(rule, name):
            if winner and winner.rule:
                both = f"'{winner.rule.id}' ({winner.rule.place.file_line}) and '{rule.id}' ({rule.place.file_line})"
                return Claim("ambiguous", Reason(f"rules of two files claim it: {both}", rule.place))
            reason = Reason(f"legacy rule '{rule.id}'", rule.place)
            winner = Claim("legacy", reason, rule, _captured(match.groupdict()))
    return winner or Claim("unrecognised", Reason("unable to parse: no rule fits the whole name"))


def target_name(found: Claim, rules: RuleSet) -> str:
    """Return the name that a claimed checkpoint should have.

    Raises:
        TemplateError: the template fails on these fields, or gives a name that is unsafe or that the target
            format does not read back as the same fields (so a second run would rename it again).
    """
    if found.rule is None:
        raise TemplateError("no rule claims it")
    name = render(found.rule.template, found.fields)
    if fault := unsafe_name(name):
        raise TemplateError(fault)
    match = fits(rules.target, name)
    if match is None:
        raise TemplateError(f"'{name}' does not fit target.match")
    read_back = _captured(match.groupdict())
    for key, value in found.fields.items():
        if key in read_back and not _same(read_back[key], value):
            raise TemplateError(f"'{name}' reads back as {key}={read_back[key]}, not {value}")
    return name


def first_pattern(name: str, patterns: Sequence[Pattern]) -> Pattern | None:
    """Return the first shell pattern that fits the whole name."""
    for pattern in patterns:
        if fnmatchcase(name, pattern.text):
            return pattern
    return None


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
    if len(name.encode("utf-8", "surrogateescape")) > MAX_NAME_BYTES:
        return f"the new name is longer than {MAX_NAME_BYTES} bytes"
    return ""


def render(template: str, fields: Mapping[str, str]) -> str:
    """Render a template with captured fields.

    Raises:
        TemplateError: a variable is missing, or a filter does not fit its value.
    """
    return _rendered(template, tuple(fields.items()))


@lru_cache(maxsize=IN_COMMON)
def _rendered(template: str, fields: tuple[tuple[str, str], ...]) -> str:
    import jinja2

    try:
        return compile_template(template)(dict(fields))
    except (jinja2.TemplateError, TypeError, ValueError) as error:
        raise TemplateError(str(error)) from None


@lru_cache(maxsize=256)
def compile_template(template: str) -> Callable[[Mapping[str, str]], str]:
    """Compile a template.

    Raises:
        TemplateError: the template is not valid Jinja2, or uses more of it than a name needs.
    """
    tree = _tree(template)
    _refuse_more_than_a_name_needs(tree)
    return _environment().from_string(tree).render


@lru_cache(maxsize=256)
def _tree(template: str) -> jinja2.nodes.Template:
    import jinja2

    try:
        return _environment().parse(template)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(f"not a template: {error.message}") from None


def template_variables(template: str) -> list[str]:
    """List the variables of a template, sorted.

    Raises:
        TemplateError: as `compile_template`.
    """
    from jinja2 import meta

    compile_template(template)
    return sorted(meta.find_undeclared_variables(_tree(template)))


def pad(value: object, width: int = 0) -> str:
    """Write digits with at least ``width`` places: ``pad(6)`` makes ``1932`` into ``001932`` and leaves ``1932000``.

    Raises:
        TemplateError: the value is not made of digits, or the width is not between 0 and 64.
    """
    digits = number(str(value))
    if digits is None:
        raise TemplateError(f"pad wants digits, not '{value}'")
    if not (isinstance(width, int) and 0 <= width <= MAX_PAD):
        raise TemplateError(f"pad wants a width from 0 to {MAX_PAD}, not {width}")
    return f"{digits:0{width}d}"


def _integer(value: object) -> int:
    digits = number(str(value))
    if digits is None:
        raise TemplateError(f"int wants digits, not '{value}'")
    return digits


FILTERS: dict[str, Callable[..., Any]] = {
    "pad": pad,
    "int": _integer,
    "lower": lambda value: str(value).lower(),
    "upper": lambda value: str(value).upper(),
}
_NODES = frozenset("Template Output TemplateData Name Filter Const CondExpr Compare Operand".split())


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True)  # noqa: S701 - names, not HTML
    environment.filters = dict(FILTERS)
    environment.globals = {}
    return environment


def _refuse_more_than_a_name_needs(tree: jinja2.nodes.Node) -> None:
    """Allow text, variables, filters and ``a if b else c``: nothing that reaches into objects or repeats."""
    from jinja2 import nodes

    for node in tree.find_all(nodes.Node):
        kind = type(node).__name__
        if kind not in _NODES:
            hint = "a template is text with {{ variable }}, {{ variable | filter }} and {{ a if b else c }}"
            raise TemplateError(f"a name template may not use {kind}", hint)
        if isinstance(node, nodes.Filter) and node.name not in FILTERS:
            import difflib

            near = difflib.get_close_matches(node.name, FILTERS, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(FILTERS)}"
            raise TemplateError(f"no filter '{node.name}'", hint)


def _captured(groups: Mapping[str, str | None]) -> dict[str, str]:
    return {key: value for key, value in groups.items() if value is not None}


def _same(one: str, other: str) -> bool:
    """Compare fields: ``09`` and ``9`` are one epoch; ``0abc`` and ``abc`` are two hashes."""
    numbers = number(one), number(other)
    return one == other if None in numbers else numbers[0] == numbers[1]


def stems_of(name: str) -> list[str]:
    """Return what the marker of a name may begin with: the name, the same without its extension, and so on."""
    stems = [name]
    while (stem := stem_of(stems[-1])) not in ("", stems[-1]):
        stems.append(stem)
    return stems


def stem_of(name: str) -> str:
    """Return a checkpoint's name without its extension: what its sidecars begin with."""
    return _EXTENSION.sub("", name)
