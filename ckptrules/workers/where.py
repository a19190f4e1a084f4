"""Parses where the work is to be done (``executor=``), and checks whether workers can be had there."""

from __future__ import annotations

import re
from typing import NamedTuple

from ckptrules.storage.reading import why_of

NONE, PROCESSES, DASK = "none", "processes", "dask:"
HERE = (NONE, PROCESSES)
PATIENCE = 3  # seconds in which a scheduler must accept a connection
CLUSTER = (
    r"dask:(?:local:(?P<workers>[1-9]\d{0,2})"
    r"|(?P<trust>insecure:)?(?P<url>(?P<scheme>tcp|tls)://(?P<host>[^\s/:@\[\]]+|\[[0-9A-Fa-f:.]+\]):(?P<port>\d{1,5})))"
)
FORMS = f"{NONE}, {PROCESSES}, dask:local:N, dask:tls://HOST:PORT or dask:tcp://localhost:PORT"


class Cluster(NamedTuple):
    """Workers of Dask: so many on this machine, or those of the scheduler at ``url``, without TLS if it is trusted."""

    workers: int = 0
    url: str = ""
    is_trusted: bool = False


def read_executor(text: str) -> Cluster | None:
    """Parse the value of ``executor=``; return the cluster, or None for work on this machine without Dask.

    Raises:
        ValueError: the value is none of `FORMS`.
    """
    found = re.fullmatch(CLUSTER, text)
    if text in HERE:
        return None
    if not found or int(found["port"] or 0) > 65535:  # noqa: PLR2004 - the last port
        raise ValueError(f"{FORMS}\n    hint: executor=dask:local:2 starts two workers here")
    cluster = Cluster(int(found["workers"] or 0), found["url"] or "", bool(found["trust"]))
    if cluster.url and not cluster.is_trusted and not is_private(cluster.url):
        raise ValueError(
            f"dask:tls://…: without TLS, whoever reaches the port runs code as you\n"
            f"    hint: where you trust all who do: executor=dask:insecure:{cluster.url}"
        )
    return cluster


def host_of(url: str) -> str:
    """Return the host of ``tcp://host:port``, without the brackets of IPv6."""
    return url.partition("://")[2].rpartition(":")[0].strip("[]")


def is_private(url: str) -> bool:
    """Say whether no stranger can reach a scheduler: it is on this machine, or uses TLS."""
    if url.startswith("tls://") or host_of(url) == "localhost":
        return True
    import ipaddress  # here, as few runs need it

    try:
        return ipaddress.ip_address(host_of(url)).is_loopback
    except ValueError:
        return False


def why_not(cluster: Cluster) -> str:
    """Return why a cluster cannot be used, with a hint; empty if it probably can. Does not import Dask."""
    import importlib.util
    import socket

    if importlib.util.find_spec("distributed") is None:
        return "needs dask.distributed\n    hint: pip install 'ckptrules[dask]'"
    if cluster.url:
        try:
            socket.create_connection((host_of(cluster.url), int(cluster.url.rpartition(":")[2])), PATIENCE).close()
        except OSError as error:
            why = why_of(error)
            return f"nobody answers there: {why}\n    hint: is 'dask scheduler' at work, and is that its address?"
    return ""
