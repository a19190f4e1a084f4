"""Renders the template of the experiment log. Little of Jinja2 is allowed, so that no template runs for ever. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2
    from jinja2 import nodes

LONGEST_TEMPLATE = 20_000  # characters
LONGEST_ENTRY = 10_000_000  # characters
MOST_STEPS = 10**9  # of a loop, if each name in it is a list, and each filter goes through one
NAME = "<template>"  # what Jinja2 calls a template without a name in a traceback


class LogTemplateError(ValueError):
    """A template cannot be used; the message is one fact, ``line`` counts from 1, ``hint`` may be empty."""

    def __init__(self, line: int, fact: str, hint: str = "") -> None:
        super().__init__(fact)
        self.line = line
        self.hint = hint


def render(template: str, values: Mapping[str, Any]) -> str:
    """Render the template. The values are numbers, texts, and lists of texts.

    Raises:
        LogTemplateError: it uses what is not allowed, fails, or renders too long a text.
    """
    if len(template) > LONGEST_TEMPLATE:
        raise LogTemplateError(1, f"it is longer than {LONGEST_TEMPLATE} letters")
    try:
        environment = _environment()
        tree = environment.parse(template)
        _refuse_unknown_nodes(tree)
        _refuse_long_loops(tree, max((len(value) for value in values.values() if isinstance(value, list)), default=0))
        return "".join(_limited(environment.from_string(tree).generate(values))).strip("\n") + "\n"
    except LogTemplateError:
        raise
    except Exception as error:  # noqa: BLE001 - a template may fail in any way
        raise LogTemplateError(_line_of(error), str(error) or type(error).__name__) from None


def _limited(pieces: Iterator[str]) -> Iterator[str]:
    left = LONGEST_ENTRY
    for piece in pieces:
        left -= len(piece)
        if left < 0:
            raise LogTemplateError(1, f"the entry would be longer than {LONGEST_ENTRY} letters")
        yield piece


def _line_of(error: BaseException) -> int:
    """Return the line of the template that failed; 1 if it is unknown."""
    line, trace = getattr(error, "lineno", None), error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == NAME:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line or 1


def _list(value: object) -> list[Any]:
    """Refuse a text, which would grow if its characters were joined again and again."""
    if not isinstance(value, list):
        raise TypeError(f"a list is wanted, not {type(value).__name__}")
    return value


def _number(value: object) -> int:
    """Refuse a text, which would grow if it were added to itself again and again."""
    if not isinstance(value, int):
        raise TypeError(f"a number is wanted, not {type(value).__name__}")
    return value


FILTERS: dict[str, Callable[..., Any]] = {
    "join": lambda value, between="": str(between).join(map(str, _list(value))),
    "sort": lambda value: sorted(_list(value)),
    "first": lambda value: value[0],
    "last": lambda value: value[-1],
    "length": len,
    "count": len,
    "lower": lambda value: str(value).lower(),
    "upper": lambda value: str(value).upper(),
    "trim": lambda value: str(value).strip(),
}
TESTS = ("defined", "undefined", "none", "odd", "even")
LOOP = ("first", "last", "index", "index0", "revindex", "length")
HINT = (
    "a log template is text with {{ variable | filter }}, {{ a if b else c }}, {% if %}, {% set %} and {% for %}, one "
    f"not in another; numbers may be added; the filters are {', '.join(FILTERS)}"
)
_NODES = frozenset(
    "Template Output TemplateData Name Const Filter Test If CondExpr Compare Operand And Or Not Neg Add Sub Assign For "
    "Getattr Getitem Slice".split()
)


def _environment() -> jinja2.Environment:
    import jinja2
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters = dict(FILTERS)
    environment.tests = {name: environment.tests[name] for name in TESTS}
    environment.globals = {}
    environment.intercepted_binops = frozenset("+-")
    environment.binop_table = {
        "+": lambda one, two: _number(one) + _number(two),
        "-": lambda one, two: _number(one) - _number(two),
    }
    return environment


def _refuse_unknown_nodes(tree: nodes.Template) -> None:
    """Refuse what may take longer than template and values are long: calls, a loop in a loop, products."""
    from jinja2 import nodes

    for node in tree.find_all(nodes.Node):
        if fault := _fault(node):
            raise LogTemplateError(node.lineno or 1, f"it may not use {fault}", HINT)


def _refuse_long_loops(tree: nodes.Template, turns: int) -> None:
    """Refuse a loop that goes through a long list at each of its turns."""
    from jinja2 import nodes

    for loop in tree.find_all(nodes.For):
        inside = [node for part in (*loop.body, *loop.else_) for node in (part, *part.find_all(nodes.Node))]
        own = {"loop", getattr(loop.target, "name", "")}
        names = sum(isinstance(node, nodes.Name) and node.name not in own for node in inside)
        passes = sum(isinstance(node, nodes.Filter | nodes.Compare | nodes.Getitem) for node in inside)
        if names * (1 + passes) * turns**2 > MOST_STEPS:
            raise LogTemplateError(
                loop.lineno or 1, "a loop over so many experiments may name nothing but its own", HINT
            )


def _fault(node: nodes.Node) -> str:
    from jinja2 import nodes

    kind = type(node).__name__
    if kind not in _NODES:
        return kind
    if isinstance(node, nodes.Filter | nodes.Test):
        known = FILTERS if isinstance(node, nodes.Filter) else TESTS
        values = [*node.args, *(pair.value for pair in node.kwargs), node.dyn_args, node.dyn_kwargs]
        plain = all(isinstance(value, nodes.Const | None) for value in values)
        return "" if node.name in known and plain else f"{kind} '{node.name}'"
    if isinstance(node, nodes.For):
        plain = isinstance(node.target, nodes.Name) and not node.recursive
        return "" if plain and not any(node.find_all(nodes.For)) else "this kind of For"
    if isinstance(node, nodes.Assign):
        return "" if isinstance(node.target, nodes.Name) else "this kind of Assign"
    if isinstance(node, nodes.Getattr):
        plain = isinstance(node.node, nodes.Name) and node.node.name == "loop" and node.attr in LOOP
        return "" if plain else f"Getattr '.{node.attr}'"
    if isinstance(node, nodes.Getitem):
        text = isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str)
        return "Getitem" if text or not isinstance(node.arg, nodes.Const | nodes.Neg | nodes.Slice) else ""
    return ""
