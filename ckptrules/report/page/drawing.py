"""Pure: the data of a run → the page. All of it is one file: no server, no network, no address."""

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
MOST = 1 << 28  # bytes of data that a page may hold, as some 500,000 checkpoints do: few compressed ones may be endless


class PageError(ValueError):
    """What was given is no JSON that a page can be drawn from; the message is one fact, to stand behind the path."""


def draw(data: Data) -> str:
    """Draw the page of what one command planned or did.

    Args:
        data: the JSON of ``plan``, ``migrate``, ``undo``, ``verify`` or ``history``, as ``docs/json.md`` describes it.

    Raises:
        PageError: it is not of the schema version that this program writes, or lacks what that version has.
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
    """Write the data so that they stand in a page: compressed, as 100,000 checkpoints are some 50 MB of JSON."""
    text = json.dumps(data, separators=(",", ":"), sort_keys=True, default=str)
    return json.dumps(
        {"encoding": "gzip, base64", "json": base64.b64encode(compress(text.encode(), 6, mtime=0)).decode()}
    )


def unpacked(page: str) -> Any:
    """Return the data that a page was drawn from.

    Raises:
        PageError: it is no page of this program.
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
    """Make a sentence safe to show; no line ends between a number and its unit."""
    return _UNIT.sub(THIN, "".join(c if c == THIN else visible(c) for c in text) if THIN in text else visible(text))


def _size(size: int) -> str:
    return human_size(size).replace(" ", THIN)


def _breaking(text: str) -> Markup:
    from markupsafe import Markup, escape

    return Markup("<wbr>").join(escape(piece) for piece in _BREAKS.split(visible(text)))


@lru_cache(maxsize=1)
def _environment() -> tuple[jinja2.Environment, Mapping[str, str]]:
    """Return what renders the template, and the style and the script that stand in it."""
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
