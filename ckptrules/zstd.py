"""Find the module for zstd: Python has one from 3.14 on; before, the extra ``archive`` brings it."""

from __future__ import annotations

import sys
from typing import Any


def library() -> Any:
    """Return the module; ImportError if it is not installed."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd
