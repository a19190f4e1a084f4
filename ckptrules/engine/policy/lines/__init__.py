"""List the kinds of policy lines: each has its own file, and the name of that file in this table."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from ckptrules.engine.policy.judging import Line

FILES = (
    "budget",
    "keep",
    "minimum",
    "keep_last",
    "keep_every",
    "keep_best",
    "keep_within",
    "keep_calendar",
    "max_total_size",
)
LINES: Mapping[str, Line] = {
    line.key: line for file in FILES for line in import_module(f"ckptrules.engine.policy.lines.{file}").LINES
}
IN_POLICIES = {key: line for key, line in LINES.items() if key != "budget"}  # `budget` is a key of the rule file itself
