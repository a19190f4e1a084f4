"""`doit page` and `html=`: what is drawn is what is planned or was done, and no other file is touched."""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import zlib
from typing import Any

import pytest

from ckptrules.report.page.drawing import unpacked
from tests.conftest import Project

TREE = {f"exp/checkpoints/epoch_{epoch:02}_step_{epoch * 10:06}.ckpt": 100 + epoch for epoch in range(20)}
OUT = "checkpoints.html"


def data_of(project: Project, name: str = OUT) -> dict[str, Any]:
    found = unpacked((project.folder / name).read_text())
    assert isinstance(found, dict)
    return found


def totals(data: dict[str, Any]) -> dict[str, int]:
    rows = [row for one in data["experiments"] for row in one["checkpoints"]]
    return {state: sum(row["bytes"] for row in rows if row["state"] == state) for state in ("stays", "goes")}


def test_a_page_shows_what_delete_old_would_do_and_changes_nothing(project: Project) -> None:
    project.make(TREE)
    before = project.tree(state=True)
    out = project.doit("page", "keep_min_epoch=10")
    assert out.endswith(f"Page: {OUT}\n")
    assert "Processing" not in out
    data = data_of(project)
    assert totals(data) == {"stays": sum(range(110, 120)), "goes": sum(range(100, 110))}
    assert data["summary"]["bytes_deleted"] == sum(range(100, 110))
    assert "with delete_old=1" in (project.folder / OUT).read_text()
    assert project.tree(state=True) == before


def test_with_delete_old_0_nothing_goes(project: Project) -> None:
    project.make(TREE)
    project.doit("page", "keep_min_epoch=10", "delete_old=0")
    assert totals(data_of(project))["goes"] == 0
    assert "Nothing would go" in (project.folder / OUT).read_text()


@pytest.mark.parametrize("task", ["plan", "migrate"])
def test_html_draws_what_json_writes(project: Project, task: str) -> None:
    project.make(TREE)
    out = project.doit(task, "delete_old=1", "keep_min_epoch=10", "json=it.json", "html=it.html")
    assert "Page: it.html\n" in out
    assert data_of(project, "it.html") == json.loads((project.folder / "it.json").read_text())


def test_a_page_of_a_run_speaks_of_the_past(project: Project) -> None:
    project.make(TREE)
    project.doit("migrate", "delete_old=1", "keep_min_epoch=10", "html=it.html")
    page = (project.folder / "it.html").read_text()
    assert "went" in page
    assert "would go" not in page.partition('id="data"')[0]


def test_undo_verify_and_history_have_pages_too(project: Project) -> None:
    project.make(TREE)
    project.doit("verify", "html=verify.html", check=1)
    project.doit("migrate", "delete_old=1", "keep_min_epoch=10")
    project.doit("history", "html=history.html")
    project.doit("undo", "html=undo.html")
    texts = {name: (project.folder / f"{name}.html").read_text() for name in ("verify", "history", "undo")}
    assert "20 of 20 are not sound" in texts["verify"]
    assert "<strong>1 run</strong>" in texts["history"]
    assert "20 changes" in texts["undo"]


def test_an_earlier_plan_is_drawn_again_without_the_tree(project: Project) -> None:
    project.make(TREE)
    project.doit("page", "json=plan.json")
    first = (project.folder / OUT).read_text()
    project.outputs.rename(project.folder / "elsewhere")
    assert project.doit("page", "plan=plan.json", "out=again.html") == "Page: again.html\n"
    assert (project.folder / "again.html").read_text() == first
    assert project.doit("page", f"plan={OUT}", "out=third.html") == "Page: third.html\n"
    assert (project.folder / "third.html").read_text() == first
    for word in ("keep_last=1", "json=other.json"):  # it was drawn as it was, and nothing said so
        assert "page draws plan.json as it is" in project.doit("page", "plan=plan.json", word, check=3)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "plan.json:1:2: Expecting property name enclosed in double quotes"),
        ("[]", "plan.json: schema_version 2 is wanted, not None"),
        ('{"schema_version": 1}', "plan.json: schema_version 2 is wanted, not 1"),
        ('{"schema_version": 2}', "plan.json: it lacks what a page is drawn from: "),
        ("[" * 100_000, "plan.json: it is no JSON"),
        ("\udcff", "plan.json: it is no JSON"),
        ("<!doctype html>", "plan.json: schema_version 2 is wanted, not None"),
        (None, "plan.json: No such file or directory"),
    ],
)
def test_what_no_page_can_be_drawn_from_is_told_with_its_place(
    project: Project, content: str | None, said: str
) -> None:
    project.make(TREE)
    if content is not None:
        (project.folder / "plan.json").write_bytes(content.encode(errors="surrogateescape"))
    out = project.doit("page", "plan=plan.json", check=3)
    assert out.startswith(f"ERROR: {said}")
    assert "hint: 'doit plan delete_old=1 json=plan.json'" in out
    assert not (project.folder / OUT).exists()


@pytest.mark.parametrize("name", ["outputs/exp/checkpoints/epoch_00_step_000000.ckpt", "-", "", "page"])
def test_a_page_is_never_written_over_something_else(project: Project, name: str) -> None:
    project.make(TREE)
    before = project.tree(state=True)
    for option in (f"out={name}", f"html={name}"):
        task = "page" if option.startswith("out") else "plan"
        assert "must be the path of a page, such as checkpoints.html" in project.doit(task, option, check=3)
    assert project.tree(state=True) == before


def test_a_page_is_not_written_through_a_link_to_something_else(project: Project) -> None:
    project.make(TREE)
    (project.folder / "kept.ckpt").write_text("weights")
    (project.folder / OUT).symlink_to("kept.ckpt")
    for task, option in (("page", "out"), ("plan", "html")):
        assert "kept.ckpt', which is no page" in project.doit(task, f"{option}={OUT}", check=3)
    assert (project.folder / "kept.ckpt").read_text() == "weights"


@pytest.mark.parametrize("out", ["nowhere/x.html", "outputs/x.html", "rules/x.html"])
def test_a_page_has_no_place_among_what_it_tells_of(project: Project, out: str) -> None:
    project.make(TREE)
    project.doit("plan", "json=plan.json")
    for words in (["page", f"out={out}"], ["page", "plan=plan.json", f"out={out}"], ["plan", f"html={out}"]):
        assert f"={out}: " in project.doit(*words, check=3)
    assert not (project.folder / out).exists()


def test_where_one_stands_among_the_outputs_a_page_lies_beside_dodo(project: Project) -> None:
    project.make(TREE)
    naming = project.folder / "rules" / "naming.yaml"
    naming.write_text(
        re.sub(r"(?m)^layout:.*(?:\n[ -].*)*", "outputs_dir: .\nlayout: [outputs/*/checkpoints]", naming.read_text())
    )
    assert f"Page: {OUT}\n" in project.doit("page")
    assert (project.folder / OUT).exists()
    for words in (["page", "out=outputs/x.html"], ["plan", "html=rules/x.html"], ["plan", "json=x.json"]):
        assert "write it elsewhere, such as " in project.doit(*words, check=3)
    assert "such as json=/tmp/'my x.json'\n" in project.doit("plan", "json=my x.json", check=3)


def test_without_a_browser_that_is_said(project: Project) -> None:
    project.make(TREE)
    out = project.doit("page", "open=1", env={"PATH": "", "BROWSER": "", "DISPLAY": ""})
    assert "No browser was found here" in out


def test_with_dry_run_no_page_is_written(project: Project) -> None:
    project.make({"a/checkpoints/epoch-12_step-001200.ckpt": 10})
    project.doit("plan", "json=plan.json")
    before = sorted(path.name for path in project.folder.iterdir())
    for words in ("page dry_run=1", "page dry_run=1 plan=plan.json"):
        assert "Page: " not in project.doit(*words.split())
    assert sorted(path.name for path in project.folder.iterdir()) == before


def gzip_bomb() -> bytes:
    """Return half a gigabyte of zeros, packed; its checksum is wrong, but nobody is to come so far."""
    packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    piece = packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)
    return gzip.compress(b"")[:10] + piece * 32 + b"\x03\0" + bytes(8)


def paged(packed: bytes) -> str:
    data = json.dumps({"encoding": "gzip, base64", "json": base64.b64encode(packed).decode()})
    return f'<!doctype html>\n<script type="application/json" id="data">{data}</script>'


HOSTILE = {
    "a number of 5,000 digits": ('{"schema_version": ' + "9" * 5000 + "}", "it is no JSON"),
    "lists in lists": ("[" * 100_000, "it is no JSON"),
    "lists in lists in a page": (paged(gzip.compress(b"[" * 100_000)), "it is no JSON"),
    "no gzip": (paged(b"x" * 50), "its data cannot be read"),
    "gzip of nothing that can be": (paged(gzip.compress(b"{}")[:10] + b"\xff" * 50), "its data cannot be read"),
}


@pytest.mark.parametrize("held", HOSTILE)
def test_a_page_is_drawn_of_no_hostile_data(project: Project, held: str) -> None:
    refuses(project, *HOSTILE[held])


@pytest.mark.whole
def test_nor_of_data_that_unpack_to_half_a_gigabyte(project: Project) -> None:
    refuses(project, paged(gzip_bomb()), "its data are more than 268 MB")


def refuses(project: Project, text: str, said: str) -> None:
    (project.folder / "sent.html").write_text(text)
    out = project.doit("page", "plan=sent.html", check=3)
    assert out.startswith("ERROR: sent.html: ")
    assert said in out
    assert not (project.folder / OUT).exists()


def test_a_page_waits_for_no_pipe(project: Project) -> None:
    os.mkfifo(project.folder / "pipe")
    out = project.doit("page", "plan=pipe", check=3)
    assert "ERROR: pipe: is a named pipe, not a plain file" in out
