"""Render the templates of names: a small, strict part of Jinja2."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ckptrules.engine.checkpoints import number
from ckptrules.engine.spelling import one_of

if TYPE_CHECKING:
    import jinja2

MAX_PAD = 64
PYTHONS = re.compile(r"(?<!\{)\{([A-Za-z_]\w*)(?::[^{}]*)?\}(?!\})")  # a variable as Python's format() has it
_NODES = frozenset("Template Output TemplateData Name Filter Const CondExpr Compare Operand".split())


class TemplateError(ValueError):
    """A template cannot be used; the message is one fact, and ``hint``, if not empty, is what helps."""

    def __init__(self, fact: str, hint: str = "") -> None:
        super().__init__(fact)
        self.hint = hint


class MissingVariableError(TemplateError):
    """The rule captures no value for a variable of the template."""


def render(template: str, fields: Mapping[str, str]) -> str:
    """Render a template with captured fields.

    Raises:
        TemplateError: the template is refused, a variable is missing, or a filter does not fit its value.
    """
    import jinja2

    try:
        return _compiled(template)(fields)
    except jinja2.UndefinedError as error:
        raise MissingVariableError(str(error)) from None
    except (jinja2.TemplateError, TypeError, ValueError) as error:
        raise TemplateError(str(error)) from None


@lru_cache(maxsize=256)
def _compiled(template: str) -> Callable[[Mapping[str, str]], str]:
    return _environment().from_string(_tree(template)).render


def _tree(template: str) -> jinja2.nodes.Template:
    import jinja2

    if python := PYTHONS.search(template):
        hint = f"write {{{{ {python[1]} }}}}, with zeros in front {{{{ {python[1]} | pad(2) }}}}"
        raise TemplateError(f"'{python[0]}' is no variable, but text", hint)
    try:
        tree = _environment().parse(template)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(f"not a template: {error.message}") from None
    _refuse_more_than_a_name_needs(tree)
    return tree


def needed_variables(template: str) -> list[str]:
    """Return the variables that a template needs, sorted: all except those that an ``if`` tests.

    Raises:
        TemplateError: it is not valid Jinja2, or uses more of Jinja2 than a name needs.
    """
    from jinja2 import nodes

    tree = _tree(template)  # in which nothing can be set: each name is a variable
    tests = nodes.Output([choice.test for choice in tree.find_all(nodes.CondExpr)])
    all_names, tested = ({name.name for name in one.find_all(nodes.Name)} for one in (tree, tests))
    return sorted(all_names - tested)


def pad(value: object, width: int = 0) -> str:
    """Return digits with zeros in front, up to ``width``: ``pad(6)`` turns ``1932`` into ``001932``.

    Raises:
        TemplateError: the value is not made of digits, or the width is not between 0 and 64.
    """
    digits = _integer(value, "pad")
    if not (isinstance(width, int) and 0 <= width <= MAX_PAD):
        raise TemplateError(f"pad wants a width from 0 to {MAX_PAD}, not {width}")
    return f"{digits:0{width}d}"


def _integer(value: object, asked_by: str = "int") -> int:
    digits = number(str(value))
    if digits is None:
        raise TemplateError(f"{asked_by} wants digits, not '{value}'")
    return digits


FILTERS: dict[str, Callable[..., Any]] = {
    "pad": pad,
    "int": _integer,
    "lower": lambda value: str(value).lower(),
    "upper": lambda value: str(value).upper(),
}


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    import jinja2

    class Missing(jinja2.StrictUndefined):
        """A missing variable, which a template may only test with ``if``."""

        def __bool__(self) -> bool:  # type: ignore[override]
            return False

    environment = jinja2.Environment(undefined=Missing, autoescape=False, keep_trailing_newline=True)  # noqa: S701 - names, not HTML
    environment.filters = dict(FILTERS)
    environment.globals = {}
    return environment


def _refuse_more_than_a_name_needs(tree: jinja2.nodes.Node) -> None:
    """Refuse all but text, variables, filters and ``a if b else c``: no loops, and no access to objects."""
    from jinja2 import nodes

    for node in tree.find_all(nodes.Node):
        kind = type(node).__name__
        if kind not in _NODES:
            hint = "a template is text with {{ variable }}, {{ variable | filter }} and {{ a if b else c }}"
            raise TemplateError(f"a name template may not use {kind}", hint)
        if isinstance(node, nodes.Filter) and node.name not in FILTERS:
            raise TemplateError(f"no filter '{node.name}'", one_of(node.name, FILTERS))
