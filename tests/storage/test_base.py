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
from ckptrules.storage.base import Changed, LockedError, Stat, Storage
from ckptrules.storage.writing import write_file
from tests.support.storages import FOLDER, NOTES, OTHER, STORAGES, disk
from tests.support.undisturbed import wait_a_tick

AT = 1_700_000_000_000_000_000


def content(storage: Storage, path: str, start: int = 0) -> bytes:
    with storage.read(path, start) as file:
        return file.read()


def files(storage: Storage, folder: str = "") -> Iterator[tuple[str, Stat]]:
    for name, stat in storage.list(folder):
        path = f"{folder}/{name}" if folder else name
        if stat.kind == "directory":
            yield from files(storage, path)
        else:
            yield path, stat


def test_what_is_created_is_there_whole_and_has_its_time(storage: Storage) -> None:
    made = storage.create(f"{FOLDER}/a", [b"one", b"", b"two"], AT)
    assert made[:3] == ("file", 6, AT)
    assert storage.stat(f"{FOLDER}/a") == made
    assert dict(files(storage)) == {f"{FOLDER}/a": made}
    assert content(storage, f"{FOLDER}/a") == b"onetwo"


@pytest.mark.parametrize(
    ("start", "read"), [(0, b"onetwo"), (2, b"etwo"), (6, b""), (9, b""), (-2, b"wo"), (-9, b"onetwo")]
)
def test_a_part_is_read_from_its_beginning_or_counted_from_the_end(storage: Storage, start: int, read: bytes) -> None:
    for path in (f"{FOLDER}/a", f"{NOTES}/a"):
        storage.create(path, [b"onetwo"])
        assert content(storage, path, start) == read


def fails_on_the_way() -> Iterator[bytes]:
    yield b"some"
    raise OSError("no more of it")


def test_what_cannot_be_written_whole_is_not_there(storage: Storage) -> None:
    storage.create(f"{NOTES}/old", [b"old"])
    for write in (storage.create, storage.replace):
        with pytest.raises(OSError, match="no more of it"):
            write(f"{NOTES}/a", fails_on_the_way())
    with pytest.raises(OSError, match="no more of it"):
        storage.replace(f"{NOTES}/old", fails_on_the_way())
    assert [path for path, _ in files(storage)] == [f"{NOTES}/old"]
    assert content(storage, f"{NOTES}/old") == b"old"


def test_nothing_that_is_there_is_ever_replaced_unasked(storage: Storage) -> None:
    first, second = (storage.create(f"{FOLDER}/{name}", [name.encode()]) for name in "ab")
    storage.create(f"{OTHER}/c", [b"c"])
    for taken in (f"{FOLDER}/b", OTHER):
        with pytest.raises(FileExistsError):
            storage.create(taken, [b"new"])
        with pytest.raises(FileExistsError):
            storage.move(f"{FOLDER}/a", taken)
    assert [storage.stat(f"{FOLDER}/{name}") for name in "ab"] == [first, second]
    assert [content(storage, path) for path in (f"{FOLDER}/a", f"{FOLDER}/b", f"{OTHER}/c")] == [b"a", b"b", b"c"]


def test_a_move_keeps_time_version_and_content(storage: Storage) -> None:
    before = storage.create(f"{FOLDER}/a", [b"x"], AT)
    for path, to in ((f"{FOLDER}/a", f"{OTHER}/b"), (f"{OTHER}/b", f"{STATE}/trash/run/exp/a")):
        storage.move(path, to, before.version)
        assert dict(files(storage)) == {to: before}
        assert content(storage, to) == b"x"
        with pytest.raises(FileNotFoundError):
            storage.stat(path)


def test_a_folder_is_the_sum_of_what_is_in_it_and_moves_with_it(storage: Storage) -> None:
    for name, text, at in (("a", b"12", AT), ("b", b"345", AT + 7)):
        storage.create(f"{OTHER}/{name}", [text], at)
    before = storage.stat(OTHER)
    assert before[:3] == ("directory", 5, AT + 7)
    storage.move(OTHER, f"{FOLDER}/new", before.version)
    assert storage.stat(f"{FOLDER}/new") == before
    assert {path: stat.size for path, stat in files(storage)} == {f"{FOLDER}/new/a": 2, f"{FOLDER}/new/b": 3}
    with pytest.raises(OSError, match="nvalid"):
        storage.move(f"{FOLDER}/new", f"{FOLDER}/new/inner")
    storage.replace(f"{FOLDER}/new/a", [b"12"])
    assert storage.stat(f"{FOLDER}/new").version != before.version
    storage.remove(f"{FOLDER}/new")
    assert list(files(storage)) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda storage, was: storage.move(f"{FOLDER}/a", f"{FOLDER}/b", was),
        lambda storage, was: storage.remove(f"{FOLDER}/a", was),
        lambda storage, was: storage.replace(f"{FOLDER}/a", [b"mine"], was),
    ],
    ids=["move", "remove", "replace"],
)
def test_what_has_changed_since_it_was_looked_at_stays(
    storage: Storage, change: Callable[[Storage, str], object]
) -> None:
    seen = storage.create(f"{FOLDER}/a", [b"seen"])
    storage.replace(f"{FOLDER}/a", [b"anew"])
    with pytest.raises(Changed, match="has changed since it was looked at"):
        change(storage, seen.version)
    assert content(storage, f"{FOLDER}/a") == b"anew"
    assert [path for path, _ in files(storage)] == [f"{FOLDER}/a"]
    change(storage, storage.stat(f"{FOLDER}/a").version)
    assert [content(storage, path) for path, _ in files(storage)] in ([b"anew"], [], [b"mine"])


@pytest.mark.parametrize(
    "use",
    [
        lambda storage, path: storage.stat(path),
        lambda storage, path: list(storage.list(path)),
        lambda storage, path: storage.stamp(path),
        content,
        lambda storage, path: storage.move(path, f"{FOLDER}/to"),
        lambda storage, path: storage.remove(path),
        lambda storage, path: storage.replace(path, [b""], "1"),
    ],
    ids="stat list stamp read move remove replace".split(),
)
def test_what_is_not_there_is_said_so(storage: Storage, use: Callable[[Storage, str], object]) -> None:
    for path in (f"{FOLDER}/gone", "gone/gone", f"{STATE}/gone", f"{STATE}/gone/gone"):
        with pytest.raises(FileNotFoundError):
            use(storage, path)


def test_a_file_is_no_folder(storage: Storage) -> None:
    for path in (f"{FOLDER}/a", f"{NOTES}/a"):
        storage.create(path, [b"x"])
        for use in (
            lambda path=path: list(storage.list(path)),
            lambda path=path: storage.create(f"{path}/b", [b""]),
            lambda path=path: storage.move(path, f"{path}/b"),
            lambda path=path: content(storage, os.path.dirname(path)),
        ):
            with pytest.raises(OSError, match=r"."):
                use()
        assert content(storage, path) == b"x"


@pytest.mark.parametrize("path", ["", ".", "..", f"{FOLDER}/..", f"{FOLDER}/../../a", f"{FOLDER}/", f"{STATE}/../../a"])
def test_no_path_leads_out_of_the_root(storage: Storage, path: str) -> None:
    storage.create(f"{FOLDER}/a", [b"x"])
    for change in (
        lambda: storage.create(path, [b""]),
        lambda: storage.replace(path, [b""]),
        lambda: storage.append(path, b""),
        lambda: storage.move(f"{FOLDER}/a", path),
    ):
        with pytest.raises(OSError, match=r"."):
            change()
    assert [path for path, _ in files(storage)] == [f"{FOLDER}/a"]


def test_lines_are_appended_and_a_replaced_file_goes_on(storage: Storage) -> None:
    for durable in (True, False, True):
        storage.append(f"{NOTES}/a", b"x\n", durable=durable)
    assert content(storage, f"{NOTES}/a") == b"x\n" * 3
    storage.replace(f"{NOTES}/a", [b"y\n"], durable=False)
    storage.append(f"{NOTES}/a", b"z\n")
    assert content(storage, f"{NOTES}/a") == b"y\nz\n"


@pytest.mark.parametrize(
    ("folder", "write"),
    [
        (NOTES, lambda storage: storage.create(f"{NOTES}/a", [b"x"])),
        (NOTES, lambda storage: storage.replace(f"{NOTES}/a", [b"x"])),
        (NOTES, lambda storage: storage.append(f"{NOTES}/a", b"x")),
        (FOLDER, lambda storage: write_file(f"{storage.root}/{FOLDER}/a", "x")),
    ],
    ids=["create", "replace", "append", "beside"],
)
def test_what_is_durable_has_its_name_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, write: Callable[[Storage], object]
) -> None:
    storage, synced, fsync = disk(tmp_path / "outputs"), set[int](), os.fsync

    def watched(file: int) -> None:
        synced.add(os.fstat(file).st_ino)
        fsync(file)

    monkeypatch.setattr(os, "fsync", watched)
    write(storage)
    assert (tmp_path / "outputs" / folder).stat().st_ino in synced


@pytest.mark.on_disk  # in memory, all of it may come within one tick of the clock
def test_a_stamp_changes_with_every_name(storage: Storage) -> None:
    storage.create(f"{FOLDER}/a", [b"x"])
    stamps = [storage.stamp(FOLDER)]
    for change in (
        lambda: storage.create(f"{FOLDER}/b", [b"x"]),
        lambda: storage.move(f"{FOLDER}/b", f"{FOLDER}/c"),
        lambda: storage.remove(f"{FOLDER}/a"),
    ):
        wait_a_tick()
        change()
        stamps.append(storage.stamp(FOLDER))
    assert None in stamps or len(set(stamps)) == len(stamps)
    assert storage.stamp(FOLDER) == stamps[-1]


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


def test_what_is_free_is_a_number_of_bytes_or_not_known(storage: Storage) -> None:
    free = storage.free()
    assert free is None or free > 0


NAMES = st.sampled_from(["a", "b", "a.b", "A", "é", "a b", "\udc80"])
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("create"), NAMES, st.binary(max_size=3)),
        st.tuples(st.just("replace"), NAMES, st.binary(max_size=3)),
        st.tuples(st.just("append"), NAMES, st.binary(max_size=3)),
        st.tuples(st.just("move"), NAMES, NAMES),
        st.tuples(st.just("remove"), NAMES, st.none()),
    ),
    max_size=12,
)


@settings(max_examples=15, deadline=None)
@given(CHANGES)
def test_all_storages_come_to_the_same_and_lists_are_complete(
    changes: list[tuple[str, str, bytes | str | None]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        storages = [make(Path(folder) / name) for name, make in STORAGES.items()]
        expected: dict[str, bytes] = {}
        for change in changes:
            assert len({_done(storage, *change) for storage in storages}) == 1, change
            _expect(expected, *change)
            for storage in storages:
                there = dict(files(storage))
                assert {path: content(storage, path) for path in there} == expected
                assert {path: storage.stat(path) for path in there} == there
                assert {path: stat.size for path, stat in there.items()} == {p: len(c) for p, c in expected.items()}


def _done(storage: Storage, how: str, name: str, what: bytes | str | None) -> str:
    """Make a change; return the error that came of it."""
    path = f"{NOTES}/{name}"
    try:
        if isinstance(what, bytes):
            storage.append(path, what) if how == "append" else getattr(storage, how)(path, [what])
        elif what is None:
            storage.remove(path)
        else:
            storage.move(path, f"{NOTES}/{what}")
    except OSError as error:
        return type(error).__name__
    return ""


def _expect(there: dict[str, bytes], how: str, name: str, what: bytes | str | None) -> None:
    path = f"{NOTES}/{name}"
    if isinstance(what, bytes):
        if not (how == "create" and path in there):
            there[path] = there.get(path, b"") + what if how == "append" else what
    elif path in there and what is None:
        del there[path]
    elif path in there and f"{NOTES}/{what}" not in there:
        there[f"{NOTES}/{what}"] = there.pop(path)


@pytest.mark.parametrize("folder", [FOLDER, NOTES])
@pytest.mark.parametrize("kind", ["link", "folder of a link", "pipe", "second name"])
def test_a_disk_reads_and_writes_through_nothing_planted(tmp_path: Path, kind: str, folder: str) -> None:
    storage, precious = disk(tmp_path / "outputs"), tmp_path / "precious"
    precious.mkdir()
    (precious / "a").write_bytes(b"thesis")
    place = tmp_path / "outputs" / folder / "planted"
    storage.create(f"{folder}/a", [b"x"])
    path = f"{folder}/planted/a" if kind == "folder of a link" else f"{folder}/planted"
    match kind:
        case "link":
            place.symlink_to(precious / "a")
        case "folder of a link":
            place.symlink_to(precious)
        case "pipe":
            os.mkfifo(place)
        case _:
            os.link(precious / "a", place)
    uses: list[Callable[[], object]] = [
        lambda: storage.append(path, b"evil"),
        lambda: storage.create(path, [b"evil"]),
        *([] if kind == "second name" and folder == FOLDER else [lambda: content(storage, path)]),  # of the user's own
    ]
    for use in uses:
        with pytest.raises(OSError, match=r"."):
            use()
    if kind != "folder of a link":
        storage.replace(path, [b"ours"])
        assert content(storage, path) == b"ours"
        storage.remove(path)
    assert {file.name: file.read_bytes() for file in precious.iterdir()} == {"a": b"thesis"}
