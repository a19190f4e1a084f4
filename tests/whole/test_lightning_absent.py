"""Without Lightning, its callback says in one sentence what is missing, and everything else works."""

from __future__ import annotations

import subprocess
import sys

ABSENT = """
import sys
sys.modules["lightning"] = sys.modules["pytorch_lightning"] = None
import ckptrules
assert ckptrules.catalog
try:
    import ckptrules.lightning
except ImportError as error:
    print(error)
"""


def test_a_missing_lightning_is_named() -> None:
    out = subprocess.run([sys.executable, "-c", ABSENT], text=True, capture_output=True, check=True).stdout
    assert out == "ckptrules.lightning needs Lightning: pip install 'ckptrules[lightning]'\n"
