"""What a run notes of itself."""

from __future__ import annotations

import pytest

from ckptrules import stopping
from ckptrules.run.records import Journals


def test_a_run_that_is_stopped_while_that_is_asked_ends_with_a_note_or_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal between two questions ended a run, and its journal did not say so."""
    noted, answers = list[bool](), iter([False, True])
    monkeypatch.setattr(stopping, "stopped", lambda: next(answers))
    monkeypatch.setattr(Journals, "note_stop", lambda _: noted.append(True))
    journals = Journals("run")
    assert [journals.note_if_stopped(), len(noted)] == [False, 0]
    assert [journals.note_if_stopped(), len(noted)] == [True, 1]
