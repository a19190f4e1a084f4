"""The kinds of change. A new one is a file beside this one, and a row here."""

from __future__ import annotations

from collections.abc import Mapping

from ckptrules.changes.kinds.exchange import Exchange
from ckptrules.changes.kinds.kind import ActionKind, Kind
from ckptrules.changes.kinds.link import Link, Relink, Unlink
from ckptrules.changes.kinds.move import Move
from ckptrules.changes.kinds.pointer import Repoint
from ckptrules.changes.kinds.text import Rewrite

_ROWS = (
    Move(),
    Relink(),
    Link(),
    Unlink(),
    Repoint(),
    Exchange(),
    Rewrite(),
)

KINDS: Mapping[str, Kind] = {kind.name: kind for kind in _ROWS}
ACTIONS: Mapping[str, ActionKind] = {action.name: action for kind in _ROWS for action in kind.actions}
