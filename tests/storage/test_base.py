"""Every storage keeps the protocol: one suite over all implementations."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptrules.engine.state_folder import STATE
from ckptrules.storage.base import LockedError, Stat, Storage
from tests.support.storages import STORAGES, disk

FOLDER = f"{STATE}/journal"


def content(storage: Storage, path: str, start: int = 0) -> bytes:
    with storage.read(path, start) as file:
        return file.read()


def files(storage: Storage, folder: str = STATE) -> Iterator[tuple[str, Stat]]:
    for name, stat in storage.list(folder):
        if stat.kind == "directory":
            yield from files(storage, f"{folder}/{name}")
        else:
            yield f"{folder}/{name}", stat


@pytest.mark.parametrize(
    ("start", "read"), [(0, b"onetwo"), (2, b"etwo"), (6, b""), (9, b""), (-2, b"wo"), (-9, b"onetwo")]
)
def test_a_part_is_read_from_its_beginning_or_counted_from_the_end(storage: Storage, start: int, read: bytes) -> None:
    storage.replace(f"{FOLDER}/a", [b"one", b"", b"two"])
    assert content(storage, f"{FOLDER}/a", start) == read


def fails_on_the_way() -> Iterator[bytes]:
    yield b"some"
    raise OSError("no more of it")


def test_what_cannot_be_written_whole_is_not_there(storage: Storage) -> None:
    storage.replace(f"{FOLDER}/old", [b"old"])
    for name in ("a", "old"):
        with pytest.raises(OSError, match="no more of it"):
            storage.replace(f"{FOLDER}/{name}", fails_on_the_way())
    assert [path for path, _ in files(storage)] == [f"{FOLDER}/old"]
    assert content(storage, f"{FOLDER}/old") == b"old"


def test_a_folder_is_the_sum_of_what_is_in_it_and_goes_with_it(storage: Storage) -> None:
    for name, text in (("a", b"12"), ("b/c", b"345")):
        storage.replace(f"{FOLDER}/{name}", [text])
    newest = max(stat.time_ns for _, stat in files(storage))
    assert storage.stat(FOLDER)[:3] == ("directory", 5, newest)
    assert {path: stat.size for path, stat in files(storage)} == {f"{FOLDER}/a": 2, f"{FOLDER}/b/c": 3}
    storage.remove(FOLDER)
    with pytest.raises(FileNotFoundError):
        storage.stat(FOLDER)


@pytest.mark.parametrize(
    "use",
    [
        lambda storage, path: storage.stat(path),
        lambda storage, path: list(storage.list(path)),
        content,
        lambda storage, path: storage.remove(path),
    ],
    ids="stat list read remove".split(),
)
def test_what_is_not_there_is_said_so(storage: Storage, use: Callable[[Storage, str], object]) -> None:
    for path in (f"{STATE}/gone", f"{STATE}/gone/gone"):
        with pytest.raises(FileNotFoundError):
            use(storage, path)


def test_a_file_is_no_folder(storage: Storage) -> None:
    path = f"{FOLDER}/a"
    storage.replace(path, [b"x"])
    uses: list[Callable[[], object]] = [
        lambda: list(storage.list(path)),
        lambda: storage.replace(f"{path}/b", [b""]),
        lambda: storage.append(f"{path}/b", b""),
        lambda: storage.replace(FOLDER, [b""]),
        lambda: content(storage, FOLDER),
    ]
    for use in uses:
        with pytest.raises(OSError, match=r"."):
            use()
    assert content(storage, path) == b"x"


@pytest.mark.parametrize("path", [f"{FOLDER}/..", f"{FOLDER}/../../a", f"{FOLDER}/", f"{STATE}/../../a"])
def test_no_path_leads_out_of_the_root(storage: Storage, path: str) -> None:
    storage.replace(f"{FOLDER}/a", [b"x"])
    with pytest.raises(OSError, match=r"."):
        storage.replace(path, [b""])
    with pytest.raises(OSError, match=r"."):
        storage.append(path, b"")
    assert [path for path, _ in files(storage)] == [f"{FOLDER}/a"]


def test_lines_are_appended_and_a_replaced_file_goes_on(storage: Storage) -> None:
    for durable in (True, False, True):
        storage.append(f"{FOLDER}/a", b"x\n", durable=durable)
    assert content(storage, f"{FOLDER}/a") == b"x\n" * 3
    storage.replace(f"{FOLDER}/a", [b"y\n"], durable=False)
    storage.append(f"{FOLDER}/a", b"z\n")
    assert content(storage, f"{FOLDER}/a") == b"y\nz\n"


def test_one_holds_the_lock_and_others_are_told_of_it(storage: Storage) -> None:
    for holder in ("the first", "the second"):
        with storage.lock(holder), pytest.raises(LockedError, match=holder), storage.lock("another", wait=0.01):
            pass
    with pytest.raises(ZeroDivisionError), storage.lock("what fails"):
        raise ZeroDivisionError
    with storage.lock("the last"):
        pass


def test_the_lock_is_waited_for(storage: Storage) -> None:
    begun, order = threading.Event(), []

    def another() -> None:
        begun.set()
        with storage.lock("another", wait=60):
            order.append("another")

    waiting = threading.Thread(target=another)
    with storage.lock("this one"):
        waiting.start()
        begun.wait()
        order.append("this one")
    waiting.join()
    assert order == ["this one", "another"]


NAMES = st.sampled_from(["a", "b", "a.b", "A", "é", "a b", "\udc80"])
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["replace", "append"]), NAMES, st.binary(max_size=3)),
        st.tuples(st.just("remove"), NAMES, st.none()),
    ),
    max_size=12,
)


@settings(max_examples=15, deadline=None)
@given(CHANGES)
def test_all_storages_come_to_the_same_and_lists_are_complete(changes: list[tuple[str, str, bytes | None]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        storages = [make(Path(folder) / name) for name, make in STORAGES.items()]
        for storage in storages:
            storage.replace(f"{FOLDER}/there", [b""])
        expected = {f"{FOLDER}/there": b""}
        for change in changes:
            assert len({_done(storage, *change) for storage in storages}) == 1, change
            _expect(expected, *change)
            for storage in storages:
                there = dict(files(storage))
                assert {path: content(storage, path) for path in there} == expected
                assert {path: storage.stat(path) for path in there} == there
                assert {path: stat.size for path, stat in there.items()} == {p: len(c) for p, c in expected.items()}


def _done(storage: Storage, how: str, name: str, what: bytes | None) -> str:
    """Make a change; return the error that came of it."""
    path = f"{FOLDER}/{name}"
    try:
        if what is None:
            storage.remove(path)
        else:
            storage.append(path, what) if how == "append" else storage.replace(path, [what])
    except OSError as error:
        return type(error).__name__
    return ""


def _expect(there: dict[str, bytes], how: str, name: str, what: bytes | None) -> None:
    path = f"{FOLDER}/{name}"
    if what is None:
        there.pop(path, None)
    else:
        there[path] = there.get(path, b"") + what if how == "append" else what


@pytest.mark.parametrize("kind", ["link", "folder of a link", "pipe", "second name"])
def test_a_disk_reads_and_writes_through_nothing_planted(tmp_path: Path, kind: str) -> None:
    storage, precious = disk(tmp_path / "outputs"), tmp_path / "precious"
    precious.mkdir()
    (precious / "a").write_bytes(b"thesis")
    place = tmp_path / "outputs" / FOLDER / "planted"
    storage.replace(f"{FOLDER}/a", [b"x"])
    path = f"{FOLDER}/planted/a" if kind == "folder of a link" else f"{FOLDER}/planted"
    match kind:
        case "link":
            place.symlink_to(precious / "a")
        case "folder of a link":
            place.symlink_to(precious)
        case "pipe":
            os.mkfifo(place)
        case _:
            os.link(precious / "a", place)
    uses: list[Callable[[], object]] = [lambda: storage.append(path, b"evil"), lambda: content(storage, path)]
    for use in uses:
        with pytest.raises(OSError, match=r"."):
            use()
    if kind == "folder of a link":
        with pytest.raises(OSError, match=r"."):
            storage.replace(path, [b"evil"])
    else:
        storage.replace(path, [b"ours"])
        assert content(storage, path) == b"ours"
        storage.remove(path)
    assert {file.name: file.read_bytes() for file in precious.iterdir()} == {"a": b"thesis"}
