"""Draws the page from the data of a run: one file that needs no server and no network. Pure."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from gzip import compress
from typing import TYPE_CHECKING, Any
from zlib import MAX_WBITS, decompressobj
from zlib import error as ZlibError  # noqa: N812 - a class

from ckptrules.engine.measures import human_size, visible
from ckptrules.report.data import SCHEMA_VERSION
from ckptrules.report.page.sections import THIN, sections, thousands
from ckptrules.report.page.verdict import Data

if TYPE_CHECKING:
    import jinja2
    from markupsafe import Markup

_UNIT = re.compile(r"(?<=\d) (?=[KMGTP]?B\b)")
_BREAKS = re.compile(r"(?<=[-_/])")
MOST = 1 << 28  # bytes of data in a page, some 500,000 checkpoints; a few compressed bytes may stand for far more


class PageError(ValueError):
    """No page can be drawn from a file; the message is one fact, to be put after the path."""


def draw(data: Data) -> str:
    """Draw the page of what one command planned or did.

    Args:
        data: the JSON of ``plan``, ``migrate``, ``undo``, ``verify`` or ``history``, as ``docs/json.md`` describes it.

    Raises:
        PageError: the data have another schema version, or lack something.
    """
    version = data.get("schema_version") if isinstance(data, Mapping) else None
    if version != SCHEMA_VERSION:
        raise PageError(f": schema_version {SCHEMA_VERSION} is wanted, not {version!r}")
    import jinja2

    environment, sources = _environment()
    try:
        return environment.get_template("page.html.j2").render(
            page=sections(data),
            data=packed(data),
            sources=sources,
            hashes={key: _hash(sources[key]) for key in sources},
        )
    except (jinja2.TemplateError, KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise PageError(f": it lacks what a page is drawn from: {type(error).__name__} {error}") from error


def packed(data: Data) -> str:
    """Return the data as a text in the page: compressed, as 100,000 checkpoints are some 50 MB of JSON."""
    text = json.dumps(data, separators=(",", ":"), sort_keys=True, default=str)
    return json.dumps(
        {"encoding": "gzip, base64", "json": base64.b64encode(compress(text.encode(), 6, mtime=0)).decode()}
    )


def unpacked(page: str) -> Any:
    """Return the data in a page; None if the text is no page of this program.

    Raises:
        PageError: the data cannot be read, or are too long.
    """
    found = re.search(r'<script type="application/json" id="data">([^<]*)</script>', page)
    try:
        if not found:
            return None
        unpacking = decompressobj(MAX_WBITS + 16)  # of gzip
        text = unpacking.decompress(base64.b64decode(json.loads(found[1])["json"], validate=True), MOST)
        if not unpacking.unconsumed_tail:
            return json.loads(text if unpacking.eof else "")
    except (ValueError, KeyError, TypeError, ZlibError) as error:
        raise PageError(": it is a page, but its data cannot be read") from error
    raise PageError(f": it is a page, but its data are more than {human_size(MOST)}")


def prose(text: str) -> str:
    """Escape what is unsafe to show, and let no line end between a number and its unit."""
    return _UNIT.sub(THIN, "".join(c if c == THIN else visible(c) for c in text) if THIN in text else visible(text))


def _size(size: int) -> str:
    return human_size(size).replace(" ", THIN)


def _breaking(text: str) -> Markup:
    from markupsafe import Markup, escape

    return Markup("<wbr>").join(escape(piece) for piece in _BREAKS.split(visible(text)))


@lru_cache(maxsize=1)
def _environment() -> tuple[jinja2.Environment, Mapping[str, str]]:
    """Return the environment that renders the template, and the style and the script of the page."""
    import jinja2

    loader = jinja2.PackageLoader("ckptrules", "report/page")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"seen": visible, "prose": prose, "breaking": _breaking, "size": _size, "count": thousands}
    sources = {name: loader.get_source(environment, f"page.{name}")[0] for name in ("css", "js")}
    return environment, sources


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
