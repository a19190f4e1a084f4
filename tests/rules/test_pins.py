"""``pins.yaml``: what is written is read again, and what is no such file is refused whole."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptrules.engine.pins import Pin
from ckptrules.engine.ruleset import RuleError
from ckptrules.rules.pins import change_pins, from_yaml, read_pins, to_yaml
from ckptrules.rules.shipped import rule_texts
from tests.support.tables import every_row

GOOD = "path: a/b, size: 1, time: 1.000000000"
letters = st.characters(exclude_characters="/\0", exclude_categories=["Cs"])  # no name, and no argument, holds others
names = st.text(letters, min_size=1, max_size=9).filter(lambda n: n not in (".", ".."))
odd = (
    st.binary(min_size=1, max_size=9).map(os.fsdecode).filter(lambda n: not {"/", "\0"} & {*n} and n not in (".", ".."))
)
paths = st.lists(names | odd, min_size=1, max_size=3).map("/".join)
pins = st.builds(
    Pin, paths, st.integers(0, 10**17), st.integers(-(10**20), 10**20), st.text(letters, max_size=20), st.none()
)


@given(st.lists(pins, max_size=4, unique_by=lambda pin: pin.path))
def test_what_is_written_is_read_again(written: list[Pin]) -> None:
    assert [pin._replace(place=None) for pin in from_yaml(to_yaml(written), "pins.yaml")] == written


@every_row(
    ("text", "fact"),
    [
        ("", "1:1: the file has no 'pins'"),
        ("[]", "1:1: the file must be a mapping, not a list"),
        ("pins: 1", "1:7: pins must be a list, not '1'"),
        ("pins: [{path: a/b}]", "1:8: pins[0] has no 'size'"),
        (
            "pins: [{path: /a, size: 1, time: 1.000000000}]",
            "1:15: pins[0]: path: '/a' must be a path below outputs_dir",
        ),
        ("pins: [{path: a/../b, size: 1, time: 1.000000000}]", "1:15: pins[0]: path: 'a/../b' must be a path below"),
        ("pins: [{path: a/b, size: -1, time: 1.000000000}]", "1:26: pins[0]: size must be a whole number, 0 or more"),
        ("pins: [{path: a/b, size: 1, time: soon}]", "1:35: pins[0]: time: 'soon' must be seconds with nine decimals"),
        (f"pins: [{{{GOOD}}}, {{{GOOD}}}]", "1:49: 'a/b' is pinned above already"),
        (f"pins: [{{{GOOD}}}]\nlayout: []", "2:1: the file has no key 'layout'"),
    ],
)
def test_what_is_no_file_of_pins_is_refused_with_its_place(text: str, fact: str) -> None:
    with pytest.raises(RuleError) as refused:
        from_yaml(text, "rules/pins.yaml")
    assert str(refused.value).startswith(f"rules/pins.yaml:{fact}")


def test_a_file_of_rules_is_not_passed_over_for_the_case_of_its_ending(tmp_path: Path) -> None:
    """What it protected was deleted, without a word about the file."""
    for name in ("KEEP.YAML", "layout.Yml", "old.yaml.bak"):
        (tmp_path / name).write_text("layout: []")
    assert [*rule_texts(str(tmp_path))] == [f"{tmp_path}/KEEP.YAML", f"{tmp_path}/layout.Yml"]


def test_pins_are_no_rules(tmp_path: Path) -> None:
    (tmp_path / "naming.yaml").write_text("layout: []")
    (tmp_path / "pins.yaml").write_text("pins: []")
    assert [*rule_texts(str(tmp_path))] == [f"{tmp_path}/naming.yaml"]


def test_a_folder_with_pins_alone_is_no_folder_of_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped rules do not take its place: they would give other names."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules/pins.yaml").write_text("pins: []")
    with pytest.raises(RuleError, match=r"rules: holds no \*.yaml file but pins.yaml"):
        rule_texts(None)


@pytest.mark.parametrize("make", ["file", "link"])
def test_what_is_called_rules_and_is_no_folder_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: str
) -> None:
    """The shipped rules took the place of those on a disk that was not mounted, and deleted by a policy of their own."""
    monkeypatch.chdir(tmp_path)
    assert "default-rules/naming.yaml" in rule_texts(None)
    if make == "file":
        (tmp_path / "rules").write_text("layout: []")
    else:
        (tmp_path / "rules").symlink_to("nowhere")
    with pytest.raises(RuleError, match="rules: cannot be read: "):
        rule_texts(None)


def test_where_the_disk_cannot_say_whether_there_are_rules_no_others_take_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules/own.yaml").write_text("layout: ['*']\n")
    look = os.lstat

    def fails(path: str) -> os.stat_result:
        if path == "rules":
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return look(path)

    monkeypatch.setattr(os, "lstat", fails)
    assert rule_texts(None) == {"rules/own.yaml": "layout: ['*']\n"}


def test_no_more_is_written_than_is_read_again(tmp_path: Path) -> None:
    """`doit pin name='*'` left a file that every command refused, `doit unpin` as well."""
    change_pins(str(tmp_path), lambda _: [Pin("a/b", 1, 1)])
    with pytest.raises(OSError, match="it would be larger than 1,000,000 bytes; 'protected' takes a pattern"):
        change_pins(str(tmp_path), lambda _: [Pin(f"a/{number}", 1, 1) for number in range(30_000)])
    assert len(read_pins(str(tmp_path))) == 1


@pytest.mark.parametrize("make", ["folder", "pipe", "link", "bytes"])
def test_what_cannot_be_read_is_not_taken_for_no_pins(tmp_path: Path, make: str) -> None:
    file = tmp_path / "pins.yaml"
    if make == "folder":
        file.mkdir()
    elif make == "pipe":
        os.mkfifo(file)
    elif make == "link":
        file.symlink_to("nowhere")
    else:
        file.write_bytes(b"\xff")
    with pytest.raises(RuleError):
        read_pins(str(tmp_path))


def test_no_file_and_no_folder_are_no_pins(tmp_path: Path) -> None:
    assert read_pins(str(tmp_path)) == read_pins(str(tmp_path / "nowhere")) == ()


def test_changes_at_once_are_all_made(tmp_path: Path) -> None:
    def add(number: int) -> None:
        change_pins(str(tmp_path), lambda before: [*before, Pin(f"a/{number}", 1, 1)])

    threads = [threading.Thread(target=add, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {pin.path for pin in read_pins(str(tmp_path))} == {f"a/{number}" for number in range(20)}


def test_a_link_is_written_through(tmp_path: Path) -> None:
    """Rules that several projects share by links lost their pins: a plain file took the place of the link."""
    other = tmp_path / "shared" / "other"
    other.parent.mkdir()
    other.write_text("pins: []")
    (tmp_path / "pins.yaml").symlink_to("shared/other")
    change_pins(str(tmp_path), lambda _: [Pin("a/b", 1, 1)])
    assert (tmp_path / "pins.yaml").is_symlink()
    assert "a/b" in other.read_text()
    assert [pin.path for pin in read_pins(str(tmp_path))] == ["a/b"]
