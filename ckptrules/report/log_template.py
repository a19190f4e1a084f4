"""Pure: the template of an entry for the experiment log. It can do little, so that no template runs for ever."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import nodes

LONGEST_TEMPLATE = 20_000  # letters
LONGEST_ENTRY = 10_000_000  # letters
NAME = "<template>"  # what Jinja2 calls a template without a name in a traceback


class LogTemplateError(ValueError):
    """A template that cannot be used; the message is one fact, ``line`` is counted from 1, ``hint`` may be empty."""

    def __init__(self, line: int, fact: str, hint: str = "") -> None:
        super().__init__(fact)
        self.line = line
        self.hint = hint


def render(template: str, values: Mapping[str, Any]) -> str:
    """Render the template. The values are numbers, texts, and lists of texts.

    Raises:
        LogTemplateError: it uses more of Jinja2 than an entry needs, or fails, or gives too long a text.
    """
    import jinja2

    if len(template) > LONGEST_TEMPLATE:
        raise LogTemplateError(1, f"it is longer than {LONGEST_TEMPLATE} letters")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # noqa: S701 - the values are escaped, for Markdown
    environment.filters, environment.globals = dict(FILTERS), {}
    try:
        tree = environment.parse(template)
        _refuse_more_than_an_entry_needs(tree)
        return "".join(_limited(environment.from_string(tree).generate(values))).strip("\n") + "\n"
    except LogTemplateError:
        raise
    except Exception as error:  # noqa: BLE001 - a template may fail in any way: it computes
        raise LogTemplateError(_line_of(error), str(error) or type(error).__name__) from None


def _limited(pieces: Iterator[str]) -> Iterator[str]:
    left = LONGEST_ENTRY
    for piece in pieces:
        left -= len(piece)
        if left < 0:
            raise LogTemplateError(1, f"the entry would be longer than {LONGEST_ENTRY} letters")
        yield piece


def _line_of(error: BaseException) -> int:
    """Return the line of the template that failed, or the first where that is not known."""
    line, trace = getattr(error, "lineno", None), error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == NAME:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line or 1


def _list(value: object) -> list[Any]:
    """Refuse a text: to join its letters again and again would make it long."""
    if not isinstance(value, list):
        raise TypeError(f"a list is wanted, not {type(value).__name__}")
    return value


FILTERS: Mapping[str, Callable[..., Any]] = {
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
HINT = (
    "a log template is text with {{ variable | filter }}, {{ a if b else c }} and {% if %}; "
    f"the filters are {', '.join(FILTERS)}"
)
_NODES = frozenset("Output TemplateData Name Const Filter If CondExpr Compare Operand And Or Not".split())


def _refuse_more_than_an_entry_needs(tree: nodes.Template) -> None:
    """Allow what takes no longer than the template and its values are long: no loops, no calls, no sums.

    Raises:
        LogTemplateError: at the first that is more.
    """
    from jinja2 import nodes

    for node in tree.find_all(nodes.Node):
        kind = type(node).__name__
        if isinstance(node, nodes.Filter):
            values = [*node.args, node.dyn_args, node.dyn_kwargs]
            if node.name in FILTERS and all(isinstance(value, nodes.Const | None) for value in values):
                continue
            kind = f"Filter '{node.name}'"
        if kind not in _NODES:
            raise LogTemplateError(node.lineno or 1, f"it may not use {kind}", HINT)
