"""A draft for names that no rule knows: it loads, and reads the name that it was made from."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from ckptrules.engine.names.drafting import Unread, draft, format_lines, joined, unread, why_none
from ckptrules.engine.names.naming import claim
from ckptrules.rules.load import load_rules
from tests.support.tables import every, every_row

CASES: dict[str, tuple[list[str], str, dict[str, str]]] = {
    "net-40.npz": (["net-1.npz", "net-20.npz"], r"net-(?P<number>\d+)\.npz", {"number": "40"}),
    "gan_v2_7.pt": (["gan_v2_8.pt"], r"gan_v2_(?P<number>\d+)\.pt", {"number": "7"}),
    "m_ep3-val_loss=0.5-acc=0.8.pt": (
        ["m_ep4-val_loss=0.6-acc=0.9.pt"],
        r"m_ep(?P<epoch>\d+)-val_loss=(?P<val_loss>\d+\.\d+)-acc=(?P<acc>\d+\.\d+)\.pt",
        {"epoch": "3", "val_loss": "0.5", "acc": "0.8"},
    ),
    "ep3_loss-0.5.pt": (
        ["ep4_loss-0.6.pt"],
        r"ep(?P<epoch>\d+)_loss-(?P<loss>\d+\.\d+)\.pt",
        {"epoch": "3", "loss": "0.5"},
    ),
    "net_seed1_ep30.pt": (
        ["net_seed2_ep50.pt"],
        r"(?P<run>net_seed\d+)_ep(?P<epoch>\d+)\.pt",
        {"run": "net_seed1", "epoch": "30"},
    ),
    "m_step5_rank0.pt": (
        ["m_step5_rank1.pt", "m_step6_rank0.pt"],
        r"m_step(?P<step>\d+)_rank(?P<part>\d+)\.pt",
        {"step": "5", "part": "0"},
    ),
    "worker1-ep7.pt": (
        ["worker2-ep7.pt", "worker1-ep8.pt"],
        r"worker(?P<part>\d+)-ep(?P<epoch>\d+)\.pt",
        {"part": "1", "epoch": "7"},
    ),
    "iter5-1of2.pt": (["iter6-2of2.pt"], r"iter(?P<step>\d+)-(?P<part>\d+)of2\.pt", {"step": "5", "part": "1"}),
    "enc_5.pt": (["enc_6.pt", "dec_7.pt"], r"(?P<run>enc_)(?P<number>\d+)\.pt", {"run": "enc_", "number": "5"}),
    "a_net7_ep5.pt": (
        ["a_net7_ep6.pt", "b.pt"],
        r"(?P<run>a_net7)_ep(?P<epoch>\d+)\.pt",
        {"run": "a_net7", "epoch": "5"},
    ),
    "m_ep3_iter400_x.bin": ([], r"m_ep(?P<epoch>\d+)_iter(?P<step>\d+)_x\.bin", {"epoch": "3", "step": "400"}),
    "it's-7": (["it's-8"], r"it's-(?P<number>\d+)", {"number": "7"}),
    "ckpt1².pt": (["ckpt22².pt"], r"ckpt(?P<number>\d+)²\.pt", {"number": "1"}),
    "²ckpt٣-7.pt": (["²ckpt٣-8.pt"], r"²ckpt٣-(?P<number>\d+)\.pt", {"number": "7"}),
    r"a\=b\-c\ 7.pt": ([], r"a\\=b\\-c\\ (?P<number>\d+)\.pt", {"number": "7"}),
    "epoch_2nd_00004.pth": (["epoch_2nd_00006.pth"], r"epoch_2nd_(?P<number>\d+)\.pth", {"number": "00004"}),
    "12th_step_40k_7.pt": (["12th_step_40k_8.pt"], r"12th_step_40k_(?P<number>\d+)\.pt", {"number": "7"}),
    "7kitten.pt": (["8kitten.pt"], r"(?P<number>\d+)kitten\.pt", {"number": "7"}),
    "net-00001000.npz": (["net-00002000.npz"], r"net-(?P<number>\d+)\.npz", {"number": "00001000"}),
    "pile-20230108-5170.pth": (["pile-20230108-1000.pth"], r"pile-20230108-(?P<number>\d+)\.pth", {"number": "5170"}),
    "1234": (["1235"], r"(?P<number>\d+)", {"number": "1234"}),
}


@every([*CASES])
def test_a_draft_reads_the_name_that_it_is_made_from(name: str) -> None:
    others, match, fields = CASES[name]
    lines = draft(name, [*others, "other.txt"])
    assert lines[2] == "    match: '" + match.replace("'", "''") + "'"
    rules = load_rules({"rules/draft.yaml": "\n".join(["layout: ['*']", *lines, ""])})
    for one in (name, *(other for other in others if other[0] == name[0])):
        assert claim(one, rules).kind == "format"
    assert claim(name, rules).fields == fields


@every_row(
    "name",
    [
        "final weights",
        "",
        "step_1M.pt",
        "60k.ckpt",
        "epoch=3-epoch=4.ckpt",
        "loss0.5.pt",
        "net\n4.pt",
        "net\udcff4.pt",
        "ckpt².pt",
        "epoch٣.pt",
    ],
)
def test_where_no_number_counts_there_is_no_draft(name: str) -> None:
    assert draft(name, []) == []


@every(
    [
        "w_2026-01-30.pt w_2026-02-15.pt",
        "w_20260130.h5 w_20260215.h5",
        "w_20260130_101500.pt w_20260131_101500.pt",
        "w_20260130_101500.pt w_20260130_111500.pt",
        "w_1705312345.pt w_1705312399.pt",
        "BPR-Jan-05-2023_09-30-00.pth BPR-Jan-05-2023_09-30-07.pth",
        "BPR-Jan-05-2023_09-30-00.pth BPR-Jan-06-2023_09-30-00.pth",
        "w_5-Jan-2023.pt w_6-Jan-2023.pt",
        "w_2026-01-30.pt w_2026-01-31.pt",
        "w-20260130-0930.pt w-20260130-1010.pt",
        "G_1k_seed9.pt G_2k_seed8.pt",
        "G10-f0.pt G20-f1.pt",
        "m_1e3.pt m_2e4.pt",
        "lr0.1_bs32_e5.pt lr0.1_bs64_e6.pt",
        "a1_ep3_b2.pt a2_ep4_b3.pt",
        "a1_loss0.5_b2_ep3.pt a2_loss0.6_b3_ep4.pt",
        "ep3_loss0.5_loss0.6.pt ep4_loss0.6_loss0.7.pt",
        "net_ep30_lr0.1.pt net_ep50_lr0.2.pt",
        "ep3_20251009_015037.pt ep4_20251009_025037.pt",
        "ep3_reward=-0.5.pt ep4_reward=-0.6.pt",
        "ep3_loss1.2e-05.pt ep4_loss9.1e-04.pt",
        "ep5_enc.pt ep6_enc.pt ep7_dec.pt",
        "loss0.5_ep3.pt loss0.6_ep4.pt best.pt",
    ]
)
def test_where_several_numbers_may_count_or_tell_runs_there_is_no_draft(names: str) -> None:
    """The last number was taken, and any other passed over: a plan by such a draft deleted whole runs."""
    first, *others = names.split()
    assert draft(first, others) == []


@every(
    [
        "net_fold0.pt net_fold1.pt",
        "net-seed-1.pt net-seed-2.pt",
        "rank0.pt rank1.pt",
        "model_cuda0.pt model_cuda1.pt",
        "model_part_0.pt model_part_1.pt",
        "w-00001-of-00003.npz w-00002-of-00003.npz",
        "consolidated.00.pth consolidated.01.pth",
        "layer_3.pt layer_4.pt",
        "sd-v1.ckpt sd-v2.ckpt",
        "resnet18.pth resnet50.pth",
        "ae_dim16.pt ae_dim32.pt",
        "lstm_hidden_16.pt lstm_hidden_32.pt",
        "m_step5_rank0_seed1.pt m_step5_rank1_seed2.pt",
        "critic1.pt critic2.pt",
        "netG_scale0.pth netG_scale1.pth netG_scale2.pth",
        "quantile_1.pt quantile_5.pt quantile_9.pt",
        "model_view0.pt model_view1.pt",
        "xgb-station-101.pkl xgb-station-102.pkl",
        "agent_0.pt agent_1.pt",
        "policy_p0.pth policy_p1.pth",
        "era5_2019.pt era5_2020.pt",
        "unet_64.pt unet_128.pt",
        "ViT-B-16.pt ViT-B-32.pt",
        "RRDB_x2.pth RRDB_x4.pth",
        "data_0.pt data_1.pt",
        "processed_graph-7.pt processed_graph-8.pt",
        "val_predictions_epoch_3.pt val_predictions_epoch_4.pt",
        "latents.5.safetensors latents.6.safetensors",
    ]
)
def test_what_tells_folds_parts_or_items_is_no_number_that_counts(names: str) -> None:
    """By such a draft all folds but one went, all parts of each checkpoint but one, and a data set of PyG."""
    first, *others = names.split()
    assert draft(first, others) == []


def with_draft(names: Iterable[str]) -> list[Unread]:
    return [one for one, lines in joined(unread((name, False) for name in names)) if lines]


def test_names_that_tell_runs_in_two_places_have_no_draft() -> None:
    """By the seed alone the newest of ``unet`` made all of ``vae`` go."""
    names = [f"{run}_step{step}_seed{seed}.pt" for run in ("unet", "vae") for step in (1, 2) for seed in (0, 1)]
    assert with_draft(names) == []


def test_what_goes_on_otherwise_behind_the_number_has_no_draft() -> None:
    """Both were of the run in front: the newest average made the newest of the others go, and that the best by name."""
    names = "m-1_ep1.pt m-1_ep2.pt m-2_ep1.pt m-1_ep3_swa.pt m-1_ep4_swa.pt m-1_ep1_best_validation_0.1.pt"
    assert [one.kind for one in with_draft(names.split())] == ["m-0_ep0.pt"]


def test_names_that_differ_in_dashes_alone_are_of_no_run_together() -> None:
    """``checkpoint--1.pt``, always the newest of OpenSpiel, was number 1 of the run of all others, and went."""
    names = [f"checkpoint-{step}{what}.pt" for step in ("100", "200", "-1") for what in ("", "-optimizer")]
    assert [one.kind for one in with_draft(names)] == ["checkpoint-0.pt"]
    assert with_draft(["checkpoint--1.pt"]) == []
    assert with_draft(["net--1000.pt", "net--2000.pt"])


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("D_10k.pth", "unit"),
        ("ckpt-2026-11-28_13-01-00.tar", "datetime"),
        ("epoch=3-epoch=4.ckpt", "unclear"),
        ("final.pt", ""),
    ],
)
def test_why_there_is_no_draft_is_told(name: str, why: str) -> None:
    assert why in why_none(Unread("", False, 1, (name,)))  # noqa: FBT003 - a value
    assert bool(why) == bool(why_none(Unread("", False, 1, (name,))))  # noqa: FBT003 - a value


KINDS: dict[str, list[tuple[str, int]]] = {  # names of two directories → the ids, and how many names each
    "net-1.npz net-2.npz | net-3.npz": [("net", 3)],
    "model.pth.tar-10 model.pth.tar-60 |": [("model", 2)],  # of Torchreid
    "m_1.pdopt m_2.pdopt |": [("m", 2)],
    "net-1.npz net_1.pt | net_2.pt": [("net", 2), ("net_2", 1)],
    "mp_rank_00/net-1.npz mp_rank_01/net-1.npz |": [("net", 2)],
    "checkpoint_4000.tmp-1681/ checkpoint_5000.tmp/ |": [],  # what was being written
    "epoch-07_step-000064.ckpt.replaced-20261128T145956Z-8636 |": [],  # what RulesCheckpoint has set aside
    "final.pt notes.txt epoch=1-epoch=2.ckpt |": [],  # no number counts, no checkpoint, two epochs
    "dense_10.pt dense_20.pt emb_rank0_10.pt emb_rank1_10.pt emb_rank0_20.pt | emb_rank1_20.pt": [
        ("emb", 4),  # without it, dense went and these stayed
        ("dense", 2),
    ],
    "step_1/ | step_2/ step_1.pt": [("step", 2), ("step_2", 1)],
}


@every_row("names", KINDS)
def test_kinds_of_names_share_a_draft_each(names: str) -> None:
    rows = [[(name.rstrip("/"), name.endswith("/")) for name in half.split()] for half in names.split("|")]
    kinds = [pair for pair in joined(one for half in rows for one in unread(half)) if pair[1]]
    lines = format_lines(kinds)
    heads = [line.partition(" # ") for line in lines if line.startswith("  - id: ")]
    assert [(head[8:].strip(), int(comment.split()[0])) for head, _, comment in heads] == KINDS[names]
    if not heads:
        return
    rules = load_rules({"rules/draft.yaml": "\n".join(["layout: ['*']", "part_folders: ['mp_*']", *lines, ""])})
    for kind, _ in kinds:
        assert all(claim(name, rules, folder=kind.folder).kind in ("format", "ambiguous") for name in kind.names)


@every(["agent_9.pt agent_10.pt", "unet_256.pt unet_512.pt unet_768.pt", "m_2000.pt m_3000.pt", "net_1.pt net_2.pt"])
def test_what_may_count_as_well_has_a_draft(names: str) -> None:
    first, *others = names.split()
    assert draft(first, others)


def test_a_draft_is_made_from_some_names_however_many_there_are() -> None:
    ((one, lines),) = joined(unread((f"net-{number}.npz", False) for number in range(1000)))
    assert (one.number, len(one.names)) == (1000, 20)
    assert lines[2] == r"    match: 'net-(?P<number>\d+)\.npz'"
