"""Rules-driven renaming and retention of machine-learning checkpoints. See README.md."""

from __future__ import annotations

__version__ = "0.1.0"
__all__ = ["__version__"]
