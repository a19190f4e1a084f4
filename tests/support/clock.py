"""Lets a run take place on another day."""

from __future__ import annotations

import os
from pathlib import Path

LATER = """
import os, time
now, now_ns, shift = time.time, time.time_ns, int(os.environ["LATER"])
time.time, time.time_ns = lambda: now() + shift, lambda: now_ns() + shift * 10**9
"""


def days_later(days: int, folder: Path) -> dict[str, str]:
    """Return the environment of a run so many days from now; what moves its clock lies in the folder."""
    place = folder / "clock"
    place.mkdir(exist_ok=True)
    (place / "sitecustomize.py").write_text(LATER)
    path = f"{place}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    return {"PYTHONPATH": path, "LATER": str(days * 86_400)}
