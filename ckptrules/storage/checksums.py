"""Checksums of contents. Each names its algorithm: BLAKE3, or SHA-256 where an earlier version wrote it."""

from __future__ import annotations

import hashlib
import re
from typing import Any

ALGORITHMS = ("blake3", "sha256")  # what is new has the first; each has 256 bits
_TEXT = re.compile(rf"({'|'.join(ALGORITHMS)}):[0-9a-f]{{64}}")


class Checksum:
    """The checksum of what was handed to it; its text is ``blake3:…``.

    It takes the algorithm of the one that it is to be compared ``with``.
    """

    def __init__(self, with_: str = "") -> None:
        self.algorithm = algorithm_of(with_)
        self._hash = _new(self.algorithm)
        self.update = self._hash.update

    def __str__(self) -> str:
        return f"{self.algorithm}:{self._hash.hexdigest()}"


def algorithm_of(checksum: str) -> str:
    """Return the algorithm that a checksum names, or that of new ones where there is none."""
    return checksum.partition(":")[0] or ALGORITHMS[0]


def is_sound(checksum: object) -> bool:
    """Say whether something is the text of a checksum that can be compared here."""
    return isinstance(checksum, str) and bool(_TEXT.fullmatch(checksum))


def _new(algorithm: str) -> Any:
    if algorithm != "blake3":
        return hashlib.new(algorithm)
    from blake3 import blake3  # what hashes nothing need not import it

    return blake3()  # in one thread: its pool of threads does not outlive a fork, and files are hashed side by side
