"""What `torch.load` refuses is loaded otherwise only where that was asked for; torch itself is a stand-in here."""

from __future__ import annotations

import pickle
import sys
from types import SimpleNamespace

import pytest

from ckptrules.formats.content import UnsoundError
from ckptrules.formats.loading import load


@pytest.mark.parametrize(
    ("errors", "unsafe", "comes"),
    [
        ([None], False, "load"),
        ([pickle.UnpicklingError("a global")], False, "needs_code"),
        ([pickle.UnpicklingError("a global"), None], True, "unsafe load"),
        ([pickle.UnpicklingError("a global"), pickle.UnpicklingError("no pickle")], True, "does_not_load"),
        ([RuntimeError("bad magic")], True, "does_not_load"),
        ([ModuleNotFoundError("No module named 'mine'")], True, "not_read"),
        ([pickle.UnpicklingError("a global"), AttributeError("no class")], True, "not_read"),
    ],
)
def test_code_runs_only_where_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, errors: list[Exception | None], comes: str, *, unsafe: bool
) -> None:
    asked: list[bool] = []

    def torch_load(path: str, *, map_location: str, weights_only: bool, mmap: bool | None) -> None:
        assert (path, map_location, mmap) == ("a.ckpt", "cpu", True)
        asked.append(weights_only)
        if error := errors[len(asked) - 1]:
            raise error

    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(load=torch_load))
    try:
        assert load("a.ckpt", "torch", unsafe=unsafe) == comes
    except UnsoundError as fault:
        assert fault.id == comes  # noqa: PT017 - either is an outcome
    assert asked == [True, False][: len(errors)]
