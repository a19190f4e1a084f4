"""Renames and prunes machine-learning checkpoints by rules. See README.md.

Programs may call `catalog` and the helpers `latest`, `best` and `at` (docs/catalog.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ckptrules.discovery import Record, at, best, catalog, latest

__version__ = "0.1.0"
__all__ = ["Record", "__version__", "at", "best", "catalog", "latest"]


def __getattr__(name: str) -> object:
    """Import these on first use, as the command line does not need them."""
    if name not in __all__:
        raise AttributeError(f"module 'ckptrules' has no attribute '{name}'")
    from ckptrules import discovery

    return getattr(discovery, name)
