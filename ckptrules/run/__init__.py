"""One call of doit. A dodo.py imports `doit_config` and `command` from here."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ckptrules.run.startup import command, doit_config

__all__ = ["command", "doit_config"]


def __getattr__(name: str) -> object:
    """Import a name when it is first used: a page of help needs no doit."""
    if name not in __all__:
        raise AttributeError(f"module 'ckptrules.run' has no attribute '{name}'")
    from ckptrules.run import startup

    return getattr(startup, name)
