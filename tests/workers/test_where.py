"""Where work is to be done is read strictly: nothing but this machine without TLS, unless told."""

from __future__ import annotations

import importlib.util
import socket

import pytest

from ckptrules.workers.where import FORMS, Cluster, is_private, read_executor, why_not
from tests.support.tables import every, every_row


@every_row(
    ("text", "cluster"),
    [
        ("none", None),
        ("processes", None),
        ("dask:local:2", Cluster(workers=2)),
        ("dask:tls://head.cluster:8786", Cluster(url="tls://head.cluster:8786")),
        ("dask:tcp://localhost:8786", Cluster(url="tcp://localhost:8786")),
        ("dask:tcp://127.0.1.1:8786", Cluster(url="tcp://127.0.1.1:8786")),
        ("dask:tcp://[::1]:8786", Cluster(url="tcp://[::1]:8786")),
        ("dask:insecure:tcp://10.0.0.7:8786", Cluster(url="tcp://10.0.0.7:8786", is_trusted=True)),
    ],
)
def test_an_executor_is_read(text: str, cluster: Cluster | None) -> None:
    assert read_executor(text) == cluster


@every(
    [
        *"dask dask: dask:local dask:local:0 dask:local:two dask:localhost:8786 dask:http://a:1 dask:tcp://a dask:tcp://:8786 "
        "dask:tcp://a:99999 dask:tcp://a:1/x dask:tcp://me@a:1 dask:insecure:local:2 Dask:local:2 slurm".split()
    ]
)
def test_what_is_none_is_refused_with_what_there_is(text: str) -> None:
    with pytest.raises(ValueError, match="processes") as refusal:
        read_executor(text)
    assert str(refusal.value).splitlines() == [FORMS, "    hint: executor=dask:local:2 starts two workers here"]


@pytest.mark.parametrize("host", ["gpu-7", "10.0.0.7", "localhost.evil.org", "[2001:db8::1]", "0.0.0.0"])
def test_another_machine_without_tls_is_refused_unless_told(host: str) -> None:
    with pytest.raises(ValueError, match="without TLS, whoever reaches the port runs code as you") as refusal:
        read_executor(f"dask:tcp://{host}:8786")
    allowed = str(refusal.value).rpartition("executor=")[2]
    assert read_executor(allowed) == Cluster(url=f"tcp://{host}:8786", is_trusted=True)


def test_an_address_of_a_worker_is_judged_likewise() -> None:
    assert [is_private(f"tcp://{host}:4711") for host in ("127.0.0.1", "10.0.0.1", "")] == [True, False, False]


def test_a_scheduler_that_does_not_answer_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    with socket.create_server(("127.0.0.1", 0)) as server:
        cluster = Cluster(url=f"tcp://127.0.0.1:{server.getsockname()[1]}")
    assert why_not(cluster).startswith("nobody answers there: Connection refused\n    hint: ")


def test_what_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert why_not(Cluster(workers=2)) == "needs dask.distributed\n    hint: pip install 'ckptrules[dask]'"
