"""Who can do the work of a backup or an archive."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from tests.support.dask_work import Scheduler


@pytest.fixture
def executors() -> Iterator[list[str]]:
    """Name this process, processes, and workers of Dask where that is installed: started once for all commands of a test."""
    named = ["none", "processes"]
    if not find_spec("distributed"):
        yield named
        return
    scheduler = Scheduler(workers=2)
    yield [*named, scheduler.executor]
    scheduler.end()
