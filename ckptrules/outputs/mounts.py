"""Find file systems that other hosts write to, too: this host cannot see which files they have open there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from ckptrules.engine.entries import lies_in

TABLE = "/proc/self/mountinfo"  # proc_pid_mountinfo(5)
SHARED = frozenset(
    "9p acfs afs beegfs beegfs_nodev ceph cifs coda gfs2 glusterfs gpfs kafs lustre mmfs ncpfs nfs nfs4 ocfs2 orangefs "
    "panfs prl_fs pvfs2 smb3 smbfs vboxsf virtiofs vmhgfs wekafs".split()
)
FUSE = "fuse."  # begins the kinds of file systems that a program provides; it may share them with other hosts
LOCAL = frozenset("bindfs exfat fuse-overlayfs mergerfs ntfs ntfs-3g unionfs".split())  # programs that do not


def shared_kind(outputs_dir: str) -> str:
    """Return the kind of a shared file system that contains a folder or is mounted below it; empty if there is none."""
    return shared_in(table(), os.path.realpath(outputs_dir))


def table() -> str:
    """Return the table of mounts of this process; empty where the system has none."""
    try:
        with open(TABLE, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""


def shared_in(mounts: str, path: str) -> str:
    """Return `shared_kind` by a table of mounts, for a path without links."""
    nearest, around, below = "", "", []
    path = path.rstrip("/")
    for point, kind in _read(mounts):
        if lies_in(path, point) and len(point) >= len(nearest):  # the last mount at one point covers the others
            nearest, around = point, kind
        elif lies_in(point, path):
            below.append(kind)
    return next(filter(_is_shared, (around, *below)), "")


def _read(mounts: str) -> Iterator[tuple[str, str]]:
    """Yield the mount point and the kind of each file system."""
    for line in mounts.splitlines():
        where, _, what = line.partition(" - ")
        if len(fields := where.split(" ")) > 4 and what:  # noqa: PLR2004 - the place of the mount point
            yield (
                re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields[4]).rstrip("/"),
                what.partition(" ")[0],
            )


def _is_shared(kind: str) -> bool:
    return kind in SHARED or (kind.startswith(FUSE) and kind.removeprefix(FUSE) not in LOCAL)
