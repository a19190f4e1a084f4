"""What tests of workers need."""

from __future__ import annotations

import pytest

from ckptrules import stopping


@pytest.fixture(autouse=True)
def _own_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave no wish behind that is shared with processes: what a later test forks and stops would share it, too."""
    monkeypatch.setattr(stopping, "_run", [0, 0])
