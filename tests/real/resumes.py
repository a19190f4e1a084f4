"""A tree that a framework wrote, pruned as a newcomer does it: ``init``, ``plan``, ``migrate delete_old=1``, and no edit."""

import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from unittest import mock


class Pruned(NamedTuple):
    """What ``init`` said, the packs that it wrote, what is gone and what stays beside that: paths below the tree."""

    said: str
    packs: list[str]
    gone: list[str]
    stays: list[str]


def prune(base: Path, tree: str = "runs") -> Pruned:
    """Prune ``base/tree`` by what ``init`` writes: the newest two stay, and the best where a metric is known.

    ``init`` must leave no question, ``verify`` find no fault, ``plan`` say what happens then, and nothing be left to delete.
    """
    before = paths(base / tree)
    said = run(base, "ckptrules", "init", tree)
    assert "\n? " not in said, said
    planned = run(base, "doit", "plan", "delete_old=1")
    run(base, "doit", "verify")
    assert paths(base / tree) == before, "only migrate may change anything"
    done = run(base, "doit", "migrate", "delete_old=1")
    would = re.findall("⊗ Would delete: (.*)", planned)
    assert would, planned
    assert would == re.findall("⊗ Deleted: (.*)", done), planned + done
    assert "to delete   0" in run(base, "doit", "plan", "delete_old=1")
    after = paths(base / tree)
    gone = topmost(before - after)
    beside = {os.path.dirname(path) for path in gone}
    stays = sorted(path for path in after if os.path.dirname(path) in beside)
    return Pruned(said, packs_of(base / "rules/naming.yaml"), gone, stays)


@contextmanager
def stand_ins(*modules: str) -> Iterator[None]:
    """While a framework is imported, put modules that do nothing in the place of a wheel that needs the CUDA build of torch.

    Warnings of the import do not count. Beside the CPU build neither torchvision nor torchaudio can be imported, and where they are installed, Lightning and
    transformers cannot be either. So frameworks that need them are installed without what they depend on.
    """
    with mock.patch.dict(sys.modules, {name: mock.MagicMock() for name in modules}), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = set(sys.modules)
        yield
        loaded = {name: sys.modules[name] for name in sys.modules.keys() - before}
    sys.modules.update(loaded)


def run(base: Path, module: str, *arguments: str) -> str:
    """Run a command in ``base``, which must end well, and return what it printed."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=base, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def paths(tree: Path) -> set[str]:
    """Return all files and folders below a tree, but for our own state."""
    return {str(path.relative_to(tree)) for path in tree.rglob("*") if ".ckptrules" not in path.parts}


def topmost(some: set[str]) -> list[str]:
    """Return the paths that lie below no other of them."""
    return sorted(path for path in some if os.path.dirname(path) not in some)


def packs_of(naming: Path) -> list[str]:
    """Return the packs that rules name, without reading YAML."""
    _, _, behind = naming.read_text().partition("\npacks:\n")
    return re.findall(r"^  - (\w+)", behind.partition("\nignored:")[0], re.MULTILINE)
