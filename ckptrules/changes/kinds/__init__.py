"""The table of the kinds of change: the names of their files."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from ckptrules.changes.kinds.kind import ActionKind, Kind

FILES = (
    "move",
    "link",
    "pointer",
    "exchange",
    "text",
)
KINDS: Mapping[str, Kind] = {
    kind.name: kind for file in FILES for kind in import_module(f"ckptrules.changes.kinds.{file}").KINDS
}
ACTIONS: Mapping[str, ActionKind] = {action.name: action for kind in KINDS.values() for action in kind.actions}
