"""Every command speaks of a checkpoint of several files as one: its name, and how many files it has."""

from __future__ import annotations

import json

import pytest

from tests.commands.test_verify import put
from tests.conftest import Project
from tests.support.torch_files import torch_zip

RULES = r"""
layout: ['*/checkpoints']
sidecars: [.json]
protected: ['best*']
targets:
  - template: 'ckpt-{{ step | pad(6) }}-rank{{ part }}.pt'
    match: 'ckpt-(?P<step>\d{6})-rank(?P<part>\d+)\.pt'
    examples: [ckpt-000100-rank0.pt]
legacy:
  - id: ranks
    match: 's(?P<step>\d+)_r(?P<part>\d+)\.pt'
    examples: {s100_r0.pt: ckpt-000100-rank0.pt}
formats:
  - id: gan
    match: '(?:(?P<run>[a-z]+)_)?(?P<part>[GD])_(?P<number>\d+)\.pth'
    complete: {all: [G, D]}
    keep_name: 'so-vits resumes from names that begin with G_ and D_'
    examples: {G_100.pth: {number: 100, part: G}}
  - id: tensorflow
    match: 'model\.ckpt-(?P<step>\d+)(?P<part>\.index|\.data-\d{5}-of-\d{5})'
    complete: {all: ['.index', '.data-*']}
    examples: {model.ckpt-5.index: {step: 5, part: .index}}
"""
POLICY = "trash_days: 7\nretention:\n  default: {keep_last: 1}\n"


@pytest.fixture
def ranks(project: Project) -> Project:
    """Make two checkpoints of four ranks, one with a sidecar, and three pairs of which one lacks a file."""
    (project.folder / "rules" / "naming.yaml").write_text(RULES)
    (project.folder / "rules" / "retention.yaml").write_text(POLICY)
    for step in (100, 200):
        for rank in range(4):
            put(project, f"s{step}_r{rank}.pt", torch_zip({"global_step": step}))
    put(project, "s100_r2.json", b"{}")
    for name in ("G_1", "D_1", "G_2", "D_2", "G_3"):
        put(project, f"{name}.pth", torch_zip({}), "gan")
    return project


def test_undo_trash_and_history_name_a_checkpoint_once(ranks: Project) -> None:
    before = ranks.tree()
    ranks.doit("migrate", "delete_old=1")
    rows = [row.split()[2:6] for row in ranks.doit("trash").splitlines()[1:-1]]
    assert [(row[0], row[1:3]) for row in rows] == [
        ("s100_r0.pt", ["(4", "files)"]),
        ("s100_r2.json", ["2", "B"]),
        ("D_1.pth", ["(2", "files)"]),
    ]
    preview = ranks.doit("undo", "dry_run=1")
    assert "Would restore: s100_r0.pt (4 files)\n                 + s100_r2.json\n" in preview
    assert "Would rename: ckpt-000200-rank0.pt (4 files)\n                → s200_r0.pt\n  ↶" in preview
    assert "Would restore: D_1.pth (2 files)\n" in preview
    assert "+ s100_r3.pt\n" in ranks.doit("undo", "dry_run=1", "verbose=1")
    assert "  1        2  " in ranks.doit("history")
    assert "Migrated 1 checkpoint to" in ranks.doit("log")
    ranks.doit("undo")
    assert ranks.tree() == before
    ranks.doit("undo", f"run={ranks.doit('history').splitlines()[1].split()[0]}")
    assert ranks.names("exp") == [f"ckpt-000200-rank{rank}.pt" for rank in range(4)]
    assert ranks.doit("trash").count("(4 files)") == 1


def test_journals_without_parts_are_written_as_they_were(ranks: Project) -> None:
    ranks.make({"one/checkpoints/s7_r0.pt": 5})
    ranks.doit("migrate:one")
    (journal,) = (ranks.outputs / ".ckptrules/journal").iterdir()
    units = [json.loads(line).get("units") for line in journal.read_text().splitlines()]
    assert [len(unit) for row in units if row for unit in row] == [3]


def test_a_journal_whose_parts_cannot_be_is_not_believed(ranks: Project) -> None:
    ranks.doit("migrate:exp")
    (journal,) = (ranks.outputs / ".ckptrules/journal").iterdir()
    journal.write_text(journal.read_text().replace(", 3]", ", 99]").replace(",3]", ",99]"))
    assert "no such unit" in ranks.doit("undo", check=3)


def test_explain_tells_the_files_and_why_a_name_is_kept(ranks: Project) -> None:
    head = ranks.doit("explain", "name=s100_r0.pt")
    assert "\n  files        4: s100_r0.pt, s100_r1.pt, s100_r2.pt, s100_r3.pt\n" in head
    assert "\n  goes         is a part of s100_r0.pt\n" in ranks.doit("explain", "name=s100_r3.pt")
    pair = ranks.doit("explain", "name=D_2.pth")
    assert "\n  keeps name   so-vits resumes from names that begin with G_ and D_" in pair
    assert "\n  stays        newest 1 of 1" in pair
    lacking = ranks.doit("explain", "name=outputs/gan/checkpoints/G_3.pth", "json=e.json")
    assert "\n  stays        is not whole: it lacks 'D'" in lacking
    (one,) = json.loads((ranks.folder / "e.json").read_text())["explained"]
    assert (one["parts"], one["fields"]) == ([], {"part": "G", "number": "3"})


def test_explain_knows_part_folders(ranks: Project) -> None:
    (ranks.folder / "rules" / "parts.yaml").write_text("part_folders: ['mp_rank_*']\n")
    ranks.make({f"mp/checkpoints/mp_rank_0{rank}/G_{n}.pth": 9 for rank in (0, 1) for n in (1, 2)})
    out = ranks.doit("explain", "name=outputs/mp/checkpoints/mp_rank_01/G_1.pth")
    assert "mp/checkpoints/mp_rank_01/G_1.pth\n  named by     format 'gan'" in out
    assert "mp_rank_01/G_2.pth" not in out
    assert out.count("named by") == 1
    assert ranks.doit("explain", "name=G_1.pth", "experiments=mp").count("named by     format 'gan'") == 2


def test_the_catalog_shows_runs_and_plain_numbers_where_names_tell_them(ranks: Project) -> None:
    put(ranks, "alto_G_7.pth", torch_zip({}), "gan")
    put(ranks, "alto_D_7.pth", torch_zip({}), "gan")
    heading, *rows, end = ranks.doit("catalog").splitlines()
    assert heading.split()[-2:] == ["number", "run"]
    assert [row.split()[1:4] for row in rows][2:] == [
        ["D_1.pth", "(2", "files)"],
        ["D_2.pth", "(2", "files)"],
        ["alto_D_7.pth", "(2", "files)"],
    ]
    assert rows[-1].split()[-2:] == ["7", "alto"]
    assert end == "5 checkpoints"


def test_what_is_wrong_with_all_parts_is_told_once(ranks: Project) -> None:
    for name in ("model.ckpt-5.index", "model.ckpt-5.data-00000-of-00001"):
        put(ranks, name, b"a format that nobody knows", "tf")
    out = ranks.doit("verify:tf", check=1)
    assert out.count("Problem: ") == 1
    assert "Problem: model.ckpt-5.data-00000-of-00001 (2 files) is in no known format" in out


def test_usage_counts_all_files_of_a_checkpoint(ranks: Project) -> None:
    size = sum((ranks.outputs / f"exp/checkpoints/s100_r{rank}.pt").stat().st_size for rank in range(4))
    (row,) = [row.split() for row in ranks.doit("usage").splitlines() if row.startswith("exp ")]
    assert row[1:5] == [str(size), "B", str(size + 2), "B"]  # the sidecar goes along


def test_usage_counts_what_lies_in_part_folders(ranks: Project) -> None:
    (ranks.folder / "rules" / "parts.yaml").write_text("part_folders: ['mp_rank_*']\n")
    for name in ("mp_rank_00/s100_r0.pt", "mp_rank_01/s100_r0.pt"):
        ranks.make({f"folders/checkpoints/{name}": 1000})
    (row,) = [row.split() for row in ranks.doit("usage").splitlines() if row.startswith("folders ")]
    assert row[1:] == ["2", "KB", "2", "KB"]  # kept, total


def test_archive_and_backup_hold_all_files(ranks: Project) -> None:
    before = ranks.tree()
    (ranks.folder / "packed").mkdir()
    (ranks.folder / "saved").mkdir()
    ranks.doit("backup", "to=saved")
    ranks.doit("archive", "experiments=exp", "archive_dir=packed")
    ranks.doit("unarchive", "archive=packed/exp.tar.zst")
    assert ranks.tree() == before
    ranks.doit("migrate", "delete_old=1")
    (saved,) = (ranks.folder / "saved").iterdir()
    ranks.doit("restore", f"backup={saved}", "force=1")
    assert {path: text for path, text in ranks.tree().items() if path in before} == before


def test_links_stay_under_the_old_names_of_all_files_until_they_are_dropped(ranks: Project) -> None:
    old, new = ([form.format(rank) for rank in range(4)] for form in ("s200_r{}.pt", "ckpt-000200-rank{}.pt"))
    before = ranks.tree()
    out = ranks.doit("migrate", "delete_old=1", "leave_links=1")
    assert "+ links stay under the 4 old names: s200_r0.pt, …\n" in out
    assert ranks.names("exp") == sorted([*old, *new])
    assert "1 up to date\n  renamed     0\n" in ranks.doit("migrate", "delete_old=1", "leave_links=1")
    ranks.doit("undo")
    assert ranks.tree() == before
    ranks.doit("migrate", "delete_old=1", "leave_links=1")
    assert ranks.doit("drop_links").count("Link removed: ") == 4
    assert ranks.names("exp") == new
    ranks.doit("undo")
    assert ranks.names("exp") == sorted([*old, *new])
    for rank in range(4):
        put(ranks, f"s300_r{rank}.pt", torch_zip({"global_step": 300}))
    ranks.doit("migrate", "delete_old=1")
    assert ranks.names("exp") == [f"ckpt-000300-rank{rank}.pt" for rank in range(4)]


def test_refs_know_the_old_names_of_all_files(ranks: Project) -> None:
    ranks.doit("migrate:exp")
    (ranks.folder / "load.py").write_text("load('outputs/exp/checkpoints/s200_r3.pt')\n")
    assert "ckpt-000200-rank3.pt" in ranks.doit("refs", "paths=load.py")


def test_what_is_left_to_a_person_is_counted_once(ranks: Project) -> None:
    for rank in range(4):
        put(ranks, f"s300_r{rank}.pt", torch_zip({"global_step": 300})[: -9 if rank == 2 else None])
    ranks.doit("verify", check=1)
    out = ranks.doit("plan", "delete_old=1", "experiments=exp", check=1)
    (row,) = [line.split() for line in out.splitlines() if line.startswith("exp ")]
    assert (row[1], row[4]) == ("2", "1")


def test_fix_state_is_silent_of_what_keeps_its_name_and_is_of_another_framework(ranks: Project) -> None:
    for name in ("model.ckpt-5.index", "model.ckpt-5.data-00000-of-00001"):
        put(ranks, name, b"a format that nobody knows", "tf")
    assert "Skipped" not in ranks.doit("fix_state")
