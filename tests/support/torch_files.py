"""Files as ``torch.save`` writes them, made without torch."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer


def lightning_file(*best: str) -> bytes:
    """Return a checkpoint of Lightning with a ``ModelCheckpoint`` for each path that it calls the best."""
    callbacks = {f"ModelCheckpoint{{'monitor': {n}}}": {"best_model_path": path} for n, path in enumerate(best)}
    return torch_zip({"epoch": 1, "global_step": 2, "state_dict": {}, "callbacks": {"Timer": {}, **callbacks}})


def torch_zip(value: object, tensors: Mapping[str, bytes] = MappingProxyType({}), protocol: int = 2) -> bytes:
    """Return what ``torch.save`` writes of a value, but for the alignment; ``tensors`` are bytes by their keys."""
    return in_torch(pickle.dumps(value, protocol=protocol), tensors)


def in_torch(pickled: bytes, tensors: Mapping[str, bytes] = MappingProxyType({})) -> bytes:
    """Return a file as torch writes it, with this pickle."""
    data = {f"x/data/{key}": content for key, content in tensors.items()}
    return zipped({"x/data.pkl": pickled, **data, "x/version": b"3\n"})


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """Return a zip file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method, compresslevel=1) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def write_large(path: Path, state: object, size: int) -> None:
    """Write a file that torch loads as ``state``, with a tensor of so many zeros, which take no room on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _Sparse(path, "x") as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(state, protocol=2))
        with archive.open("archive/data/0", "w") as tensor:
            for _ in range(size >> 20):
                tensor.write(bytes(1 << 20))
        archive.writestr("archive/version", b"3\n")


class _Sparse(io.FileIO):
    def write(self, data: Buffer, /) -> int:
        content = bytes(data)
        if content.strip(b"\0"):
            return super().write(content)
        self.seek(len(content), os.SEEK_CUR)
        return len(content)
