"""Loads checkpoints with torch (the extra ``ckptrules[torch]``). Only here may a pickle be executed."""

from __future__ import annotations

import pickle
import warnings

from ckptrules.formats.content import UnsoundError

LOADS = ("torch", "torch before 1.6")  # `torch.load` refuses other pickles, and TorchScript
OF_THIS_MACHINE = (ImportError, AttributeError, MemoryError)  # a module, a class, or memory is missing here


def load(path: str, kind: str, *, unsafe: bool) -> str:
    """Load a file with ``torch.load`` to see whether that works; return how: ``load`` or ``unsafe load``.

    All tensors go to the CPU; if ``kind`` (as `FileContent.kind`) is ``torch``, they are mapped, not read. ``unsafe``
    loads what ``weights_only=True`` refuses with ``weights_only=False``, which RUNS the code that the file names.

    Raises:
        UnsoundError: the file does not load; ``not_read`` if this machine may lack what it needs.
    """
    try:
        _load(path, kind, weights_only=True)
    except pickle.UnpicklingError:
        if not unsafe:
            hint = "unsafe=1 loads it by running the code that it names: only for what you trust"
            fact = "does not load without running code (weights_only=True)"
            raise UnsoundError("needs_code", fact, hint) from None
    else:
        return "load"
    _load(path, kind, weights_only=False)
    return "unsafe load"


def _load(path: str, kind: str, *, weights_only: bool) -> None:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.load(path, map_location="cpu", weights_only=weights_only, mmap=kind == "torch" or None)
        except Exception as error:
            if weights_only and isinstance(error, pickle.UnpicklingError):
                raise
            fact = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
            if isinstance(error, OF_THIS_MACHINE):
                fact = f"is not verified: to load it fails here: {fact}"
                raise UnsoundError("not_read", fact, "load it where it was written") from None
            raise UnsoundError("does_not_load", f"does not load: {fact}") from None
