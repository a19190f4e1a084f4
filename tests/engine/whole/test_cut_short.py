"""A save that ended between two files: what shows it, and what stays because of that."""

from __future__ import annotations

import random

import pytest

from ckptrules.engine.checkpoints import Evidence
from ckptrules.engine.entries import Entry, Listing
from ckptrules.engine.plan import make_plan
from ckptrules.engine.policy.retention import with_line
from ckptrules.engine.ruleset import RuleSet
from ckptrules.rules.load import load_rules
from tests.support.tables import every_row

RULES = load_rules({"rules/x.yaml": "{packs: [words], layout: ['*'], retention: {default: {keep_last: 1}}}"})
PAIRS = [f"net{net}_epoch_{n}.pth" for n in (1, 2) for net in "GD"]


@pytest.mark.parametrize("name", ["netG_epoch_1.pth", "netD_epoch_1.pth", "netD"])
@pytest.mark.parametrize("how", ["broken", "in use", "empty"])
def test_an_earlier_pair_shows_what_the_newest_lacks_though_one_of_it_is_no_good(name: str, how: str) -> None:
    """One broken file of the first epoch, and the half of the last one counted as whole: the only whole pair went."""
    sizes = {one: int(name not in one or how != "empty") for one in [*PAIRS, "netG_epoch_3.pth"]}
    listing = Listing("x", "x", tuple(Entry(one, "file", size, 0) for one, size in sizes.items()))
    said = {one: "it is cut off, or open" for one in sizes if name in one}
    evidence = {"broken": Evidence(broken=said), "in use": Evidence(in_use=said), "empty": Evidence()}[how]
    made = make_plan(
        RULES, listing, with_line(RULES.policies["default"], "keep_last", 1, "min_epoch"), evidence=evidence
    )
    assert not made.going
    assert "netG_epoch_3.pth" in made.unwhole
    assert ("netG_epoch_2.pth" in made.unwhole) == (name == "netD")  # no netD is whole, so what is beside it is not all


@pytest.mark.parametrize("first", [0, -1])
def test_which_empty_part_is_told_does_not_depend_on_the_order_of_the_listing(first: int) -> None:
    text = r"{layout: ['*'], formats: [{id: x, match: 's(?P<step>\d+)\.(?P<part>\w+)', examples: {s1.a: {step: 1}}}]}"
    entries = [Entry("s1.a", "file", 0, 0), Entry("s1.b", "file", 0, 0), Entry("s1.c", "file", 1, 0)]
    ordered = sorted(entries, reverse=bool(first))
    made = make_plan(load_rules({"rules/x.yaml": text}), Listing("x", "x", tuple(ordered)))
    assert "s1.c is not whole: s1.b is empty" in made.notes[0].text


def test_what_a_part_that_is_a_folder_lacks_all_lack() -> None:
    text = r"""{layout: ['*'], formats: [
      {id: x, match: 's(?P<step>\d+)\.(?P<part>\w+)', folder: true, examples: {s1.a: {step: 1}}}]}"""
    entries = (Entry("s1.a", "directory", 1, 0), Entry("s1.b", "directory", 1, 0, torn="1 of 2 shards"))
    made = make_plan(load_rules({"rules/x.yaml": text}), Listing("x", "x", entries))
    assert "s1.a is not whole: it has 1 of 2 shards in s1.b" in made.notes[0].text


FOLDERS = load_rules(
    {
        "rules/x.yaml": r"""
layout: ['*']
retention: {default: {keep_last: 1}}
formats: [{id: x, folder: true, match: 'cp-(?P<step>\d+)', examples: {cp-1: {step: 1}}}]
"""
    }
)
BOTH = ("mp_rank_00/model_optim_rng.pt", "mp_rank_01/model_optim_rng.pt")


@pytest.mark.parametrize(
    "before",
    [
        "none broken whole",
        "none empty whole",
        "none whole broken",
        "half whole broken",
        "whole whole half-broken",
        "whole half-broken whole",
        "half-empty whole whole",
    ],
)
def test_a_last_whole_save_stays_whatever_became_of_those_around_it(before: str) -> None:
    """``cp-20`` had no parts, and ``cp-30`` was empty: it did not count, and the half of the newest did."""
    entries, broken = list[Entry](), dict[str, str]()
    for step, kind in enumerate([*before.split(), "half"], start=1):
        parts = () if kind == "none" else BOTH[: 1 if "half" in kind else 2]
        why = "an empty file: mp_rank_00/model_optim_rng.pt" if "empty" in kind else ""
        entries.append(Entry(f"cp-{step}", "directory", 9, 0, hollow=why, files=parts))
        broken |= {f"cp-{step}": "it is cut off"} if "broken" in kind else {}
    listing = Listing("x", "x", tuple(entries))
    made = make_plan(FOLDERS, listing, FOLDERS.policies["default"], evidence=Evidence(broken=broken))
    assert "cp-4" in made.unwhole
    assert not {f"cp-{step}" for step, kind in enumerate(before.split(), start=1) if kind == "whole"}.issubset(
        made.going
    )


def test_the_only_pair_stays_beside_single_ones() -> None:
    """The empty ``netD_epoch_1.pth`` was removed by hand: ``netG_epoch_3.pth`` made the only whole pair go."""
    names = ["netG_epoch_1.pth", "netG_epoch_2.pth", "netD_epoch_2.pth", "netG_epoch_3.pth", "netG_epoch_4.pth"]
    policy = with_line(RULES.policies["default"], "keep_last", 1, "min_epoch")
    for some, goes in ((names[:4], names[:1]), (names, [names[0], names[3]])):
        made = make_plan(RULES, Listing("x", "x", tuple(Entry(one, "file", 1, 0) for one in some)), policy)
        assert (sorted(made.going), made.unwhole) == (sorted(goes), ())


@pytest.mark.parametrize("how", ["broken", "in use", "empty"])
@pytest.mark.parametrize(
    ("files", "pair"),
    [
        ("G1 D1 G2 G3 D3!", "1"),
        ("D1 G2 D2 G3 D3!", "2"),
        ("G1 G2 D2 G3! D3", "2"),
        ("G1 D1 G2 G3! D3", "1"),
        ("G1 D1 G2 G3 D3! G4 D4! G5 D5!", "1"),
    ],
)
def test_what_is_no_good_of_the_newest_save_shows_that_the_rest_is_not_all(files: str, pair: str, how: str) -> None:
    """``netG_epoch_3.pth`` counted beside an empty ``netD_epoch_3.pth``, as one of the two before had none."""
    sizes = {f"net{one[0]}_epoch_{one[1]}.pth": int(how != "empty" or "!" not in one) for one in files.split()}
    said = {f"net{one[0]}_epoch_{one[1]}.pth": "it is cut off, or open" for one in files.split() if "!" in one}
    evidence = {"broken": Evidence(broken=said), "in use": Evidence(in_use=said), "empty": Evidence()}[how]
    listing = Listing("x", "x", tuple(Entry(one, "file", size, 0) for one, size in sizes.items()))
    policy = with_line(RULES.policies["default"], "keep_last", 1, "min_epoch")
    made = make_plan(RULES, listing, policy, evidence=evidence)
    assert {f"netG_epoch_{pair}.pth", f"netD_epoch_{pair}.pth"}.isdisjoint(made.going)
    assert {name for name in sizes if max(sizes)[-6:] in name}.difference(said) <= {*made.unwhole}


@pytest.mark.parametrize("name", ["epoch-2.ckpt", "epoch_2.safetensors"])
def test_an_empty_file_that_was_never_saved_with_others_tears_none(name: str) -> None:
    """Such as one of the name of a folder in another form, or the first copy in another format."""
    files = [Entry(name, "file", 0, 0), Entry("epoch_1.ckpt", "file", 9, 0)]
    made = make_plan(RULES, Listing("x", "x", (Entry("epoch_2.ckpt", "directory", 9, 0), *files)))
    assert not made.unwhole


@pytest.mark.parametrize("first", [0, 1])
def test_the_only_whole_folder_stays_beside_those_with_less(first: int) -> None:
    parts = (BOTH[:first], BOTH, BOTH[:1])
    entries = [Entry(f"cp-{step}", "directory", 9, 0, files=some) for step, some in enumerate(parts)]
    made = make_plan(FOLDERS, Listing("x", "x", tuple(entries)), FOLDERS.policies["default"])
    assert (made.going, made.unwhole) == ({"cp-0"}, ())


UNTOLD = r"""
layout: ['*']
retention: {default: {keep_last: 1}}
formats: [{id: x, match: '(?:model|optim)_(?P<epoch>\d+)\.pth', examples: {model_1.pth: {epoch: 1}}}]
"""

DRAFTED = r"""
layout: ['*']
retention: {default: {keep_last: 1}}
formats:
  - {id: x, match: '(?P<number>\d+)_(?P<run>\w+)\.ckpt', examples: {1_nets.ckpt: {number: 1}}}
  - {id: y, match: '(?P<run>\w+)_(?P<number>\d+)\.(?:pth|h5)', examples: {G_AB_1.pth: {number: 1}}}
"""


ENDINGS = r"""
layout: ['*']
retention: {default: {keep_last: 1}}
formats:
  - {id: x, match: '(?P<run>\w+)_(?P<number>\d+)\.pdopt', examples: {m_1.pdopt: {number: 1}}}
  - {id: y, match: '(?P<run>\w+)_(?P<number>\d+)\.pdparams', examples: {m_1.pdparams: {number: 1}}}
"""


@every_row(
    ("rules", "form", "roles"),
    [
        (RULES, "epoch_{0}_{1}.pth", ("student", "teacher")),
        (load_rules({"rules/x.yaml": UNTOLD}), "{1}_{0}.pth", ("model", "optim")),  # no field tells the two apart
        (load_rules({"rules/x.yaml": DRAFTED}), "{0}_{1}.ckpt", ("nets", "optims")),  # of StarGAN v2
        (load_rules({"rules/x.yaml": DRAFTED}), "{1}_{0}.pth", ("G_AB", "G_BA")),  # of PyTorch-GAN, as the next
        (load_rules({"rules/x.yaml": DRAFTED}), "{1}_{0}.pth", ("generator", "D_VAE")),
        (load_rules({"rules/x.yaml": DRAFTED}), "{1}_{0}.pth", ("E", "G")),
        (load_rules({"rules/x.yaml": ENDINGS}), "model_{0}.{1}", ("pdopt", "pdparams")),
        (load_rules({"rules/x.yaml": DRAFTED}), "{1}_{0}.pth", ("policy", "replay_buffer")),
        (load_rules({"rules/x.yaml": DRAFTED}), "{1}_{0}.pth", ("q1", "q2")),
        (load_rules({"rules/x.yaml": DRAFTED}), "{1}_{0}.pth", ("critic1", "critic2")),  # of epochs 1 and 2, too
    ],
)
def test_one_of_two_without_the_other_is_not_whole(rules: RuleSet, form: str, roles: tuple[str, ...]) -> None:
    """The student of the last whole pair went, and its teacher stayed; of model and optim the whole pair went."""
    names = [form.format(n, role) for n in (1, 2, 3) for role in roles]
    listing = Listing("x", "x", tuple(Entry(one, "file", 1, 0) for one in names[:-1]))
    made = make_plan(rules, listing, with_line(rules.policies["default"], "keep_last", 1, "min_epoch"))
    assert made.going.isdisjoint(names[2:])
    assert made.unwhole == (names[-2],)


def test_numbers_of_critics_are_no_epochs() -> None:
    """With the numbers of critics taken for those of their epochs, each of the first pairs would lack one."""
    names = [f"critic{k}_{n}.pth" for n in (1, 2, 3, 4) for k in (1, 2)]
    rules = load_rules({"rules/x.yaml": DRAFTED})
    for count in (4, 6, 8):
        listing = Listing("x", "x", tuple(Entry(one, "file", 1, 0) for one in names[:count]))
        made = make_plan(rules, listing, with_line(rules.policies["default"], "keep_last", 1, "min_epoch"))
        assert (made.going, made.unwhole) == ({*names[: count - 2]}, ())


def test_a_last_pair_stays_behind_two_of_which_one_is_empty() -> None:
    sizes = {f"net{net}_epoch_{n}.pth": int(net == "G" or n < 3) for n in (1, 2, 3, 4) for net in "GD"}
    listing = Listing(
        "x", "x", tuple(Entry(one, "file", size, 0) for one, size in {**sizes, "netG_epoch_5.pth": 1}.items())
    )
    made = make_plan(RULES, listing, with_line(RULES.policies["default"], "keep_last", 1, "min_epoch"))
    assert {"netG_epoch_2.pth", "netD_epoch_2.pth"}.isdisjoint(made.going)


def folders(*saves: str) -> Listing:
    """List folders ``cp-1`` and so on, each with these files."""
    files = (Entry(f"cp-{n}", "directory", 9, 0, files=(*save.split(),)) for n, save in enumerate(saves, start=1))
    return Listing("x", "x", (*files,))


@every_row(
    ("saves", "goes", "newest"),
    [
        ("task.ckpt optimizer.ckpt,task.ckpt optimizer.ckpt,task.ckpt", "", "cp-3"),
        ("a.pt b.pt,a.pt b.pt,a.pt b.pt,a.pt", "cp-1", "cp-4"),
        ("a.pt b.pt,a.pt b.pt c.pt,a.pt", "", "cp-3"),  # not all saves before it have the same
        ("a.pt b.pt,a.pt b.pt,a.pt tmp.pt", "", "cp-3"),  # what is being written has another name
        ("a.pt b.pt,a.pt", "", "cp-2"),
        ("a_1.pt b_1.pt,a_2.pt b_2.pt,a_3.pt", "", "cp-3"),  # the number is that of the save
        ("rng_state.pth b.pt,rng_state.pth b.pt,b.pt rng_state_0.pth", "cp-1 cp-2", ""),  # now of two processes
        ("s_0/a.npz s_1/a.npz,s_0/a.npz s_1/a.npz,s_0/a.npz", "", "cp-3"),  # of mesh-transformer-jax
        ("s_0/a.npz s_1/a.npz,s_0/a.npz s_1/a.npz,s_0/a.npz s_2/a.npz", "cp-1 cp-2", ""),
        ("a.pt,a.pt,a.pt b.pt", "cp-1 cp-2", ""),
        ("m-1-of-2.pt m-2-of-2.pt,m-1-of-2.pt m-2-of-2.pt,m-1-of-1.pt", "cp-1 cp-2", ""),  # names tell how many
        ("rank0.pt rank1.pt,rank0.pt rank1.pt,rank0.pt", "cp-1 cp-2", ""),
        ("b.pt,b.pt c.pt,b.pt c.pt", "cp-1 cp-2", ""),
        ("b.pt,b.pt,b.pt", "cp-1 cp-2", ""),
        ("a.pt b.pt,a.pt b.pt,a.pt,a.pt", "cp-1 cp-3", ""),  # it saves less since the third
        ("a.pt,a.pt b.pt,a.pt,a.pt b.pt,a.pt", "cp-1 cp-2 cp-3", ""),  # each second has more: the last of these stays
        ("a.pt,a.pt,b.pt", "", "cp-3"),  # its format is another since, or all but the other file is missing
        ("a.pt,a.pt,b.pt,b.pt", "cp-1 cp-2 cp-3", ""),
        ("a.pt b.pt,a.pt b.pt,a.pt,a.pt,a.pt", "cp-1 cp-3 cp-4", ""),  # the last with both stays: a disk may be full
        ("a.pt,a.pt b.pt,a.pt,a.pt,a.pt", "cp-1 cp-3 cp-4", ""),
    ],
)
def test_a_folder_without_a_file_of_those_before_it_is_not_whole(saves: str, goes: str, newest: str) -> None:
    """The folder without its optimizer made all others go: no training could go on."""
    made = make_plan(FOLDERS, folders(*saves.split(",")), FOLDERS.policies["default"])
    assert (made.going, " ".join(made.unwhole)) == ({*goes.split()}, newest)


def test_who_says_what_a_folder_needs_decides_it() -> None:
    text = r"""{layout: ['*'], retention: {default: {keep_last: 1}}, formats: [
      {id: x, match: 'cp-(?P<step>\d+)', folder: true, complete: {all: [a.pt]}, examples: {cp-1: {step: 1}}}]}"""
    rules = load_rules({"rules/x.yaml": text})
    inside = {f"cp-{n}": frozenset(["a.pt"]) for n in (1, 2, 3)}
    made = make_plan(
        rules, folders("a.pt b.pt", "a.pt b.pt", "a.pt"), rules.policies["default"], evidence=Evidence(inside=inside)
    )
    assert (made.going, made.unwhole) == ({"cp-1", "cp-2"}, ())


def test_saves_without_a_number_are_told_apart_by_the_time_in_their_names() -> None:
    """Those of SpeechBrain were one save all together, so none of them lacked anything."""
    text = r"""{layout: ['*'], retention: {default: {keep_last: 1}}, formats: [
      {id: x, match: 'CKPT\+(?P<datetime>.+)', folder: true, examples: {CKPT+2024-01-05: {datetime: 2024-01-05}}}]}"""
    rules = load_rules({"rules/x.yaml": text})
    names = [f"CKPT+2024-01-0{day}+10-00-00" for day in (1, 2, 3)]
    files = (("a.ckpt", "b.ckpt"), ("a.ckpt", "b.ckpt"), ("a.ckpt",))
    entries = (Entry(name, "directory", 9, 0, files=some) for name, some in zip(names, files, strict=True))
    made = make_plan(rules, Listing("x", "x", tuple(entries)), rules.policies["default"])
    assert (made.going, made.unwhole) == (set(), (names[2],))


def test_files_of_one_save_whose_numbers_are_of_two_kinds_belong_together() -> None:
    """A pack called the number of two networks a step, and a draft that of their optimizer a number."""
    text = r"""{layout: ['*'], retention: {default: {keep_last: 1}}, formats: [
      {id: x, match: '(?P<part>[GD])_(?P<step>\d+)\.pth', examples: {G_1.pth: {step: 1}}},
      {id: y, match: '(?P<run>opt)_(?P<number>\d+)\.pth', examples: {opt_1.pth: {number: 1}}}]}"""
    rules = load_rules({"rules/x.yaml": text})
    names = [f"{net}_{n}.pth" for n in (1, 2, 3) for net in ("G", "D", "opt")][:-1]
    listing = Listing("x", "x", tuple(Entry(one, "file", 1, 0) for one in names))
    made = make_plan(rules, listing, rules.policies["default"])
    assert (made.going, made.unwhole) == (set(), ("D_3.pth",))


def test_a_number_is_an_epoch_beside_epochs() -> None:
    """A pack called the number of the model an epoch, and a draft that of the codes a number: the last pair went."""
    text = r"""{layout: ['*'], retention: {default: {keep_last: 1}}, formats: [
      {id: x, match: '(?P<run>model)_(?P<epoch>\d+)\.pth', examples: {model_1.pth: {epoch: 1}}},
      {id: y, match: '(?P<run>codes)_(?P<number>\d+)\.pth', examples: {codes_1.pth: {number: 1}}}]}"""
    rules = load_rules({"rules/x.yaml": text})
    names = [f"{name}_{n}.pth" for n in (1, 2, 3, 4) for name in ("codes", "model")]
    del names[-2]
    entries = (Entry(one, "file", 1, 100 * int(one[-5]) + len(one)) for one in names)
    made = make_plan(rules, Listing("x", "x", tuple(entries)), rules.policies["default"])
    assert (made.going, made.unwhole) == ({"codes_1.pth", "model_1.pth"}, ("model_4.pth",))


@pytest.mark.parametrize("number", [4, 5, 6])
def test_a_digit_of_an_ending_is_no_number_of_a_save(number: int) -> None:
    """Of gen_5.h5 the 5 of the ending was taken for that of the save: the last pair was torn."""
    rules = load_rules({"rules/x.yaml": DRAFTED})
    names = [f"{net}_{n}.h5" for n in range(number - 3, number + 1) for net in ("gen", "dis")]
    listing = Listing("x", "x", tuple(Entry(one, "file", 1, 0) for one in names[:-1]))
    made = make_plan(rules, listing, rules.policies["default"])
    assert (made.going, made.unwhole) == ({*names[:2]}, (names[-2],))


def test_an_epoch_is_that_of_a_step() -> None:
    """The models told epoch and step, the optimizers only the epoch: they were never compared."""
    names = [one for n in (1, 2, 3) for one in (f"model_epoch_{n}_step_{n}0.pt", f"optimizer_epoch_{n}.pt")][:-1]
    made = make_plan(
        RULES,
        Listing("x", "x", tuple(Entry(one, "file", 1, 0) for one in names)),
        with_line(RULES.policies["default"], "keep_last", 1, "min_epoch"),
    )
    assert (made.going, made.unwhole) == (set(), (names[-1],))


def test_what_shows_by_its_times_that_files_are_saved_together_stays() -> None:
    """Two torn saves in a row left one pair, which alone shows nothing: the next run let it go."""
    rules = load_rules({"rules/x.yaml": DRAFTED})
    names = [f"{net}_{n}.pth" for n in (1, 2, 3, 4) for net in ("vqvae", "prior")] + ["vqvae_5.pth", "vqvae_6.pth"]
    for _ in range(3):
        entries = (Entry(one, "file", 1, 100 * int(one[-5]) + len(one)) for one in names)
        names = sorted({*names} - make_plan(rules, Listing("x", "x", tuple(entries)), rules.policies["default"]).going)
    assert {"vqvae_4.pth", "prior_4.pth"} <= {*names}
    assert "vqvae_2.pth" not in names


def test_a_file_that_is_new_since_one_save_hides_no_other_that_is_missing() -> None:
    """With ``ema_2.pth`` no two saves had the same files: ``optim_2.pth`` stayed, and ``model_2.pth`` went."""
    rules = load_rules({"rules/x.yaml": DRAFTED})
    names = ["model_1.pth", "optim_1.pth", "model_2.pth", "optim_2.pth", "ema_2.pth", "model_3.pth"]
    made = make_plan(
        rules, Listing("x", "x", tuple(Entry(one, "file", 1, 0) for one in names)), rules.policies["default"]
    )
    assert (made.going, made.unwhole) == (set(), ("model_3.pth",))


@pytest.mark.parametrize("word", ["checkpoint", "ckpt", "snapshot", "model"])
def test_a_word_for_checkpoints_is_no_training_of_its_own(word: str) -> None:
    """The optimizers had no run, the models one that was called ``checkpoint``: of each, another step stayed."""
    text = rf"""{{layout: ['*'], retention: {{default: {{keep_last: 1}}}}, formats: [
      {{id: x, match: '(?P<run>{word})-(?P<step>\d+)\.pt', examples: {{{word}-1.pt: {{step: 1}}}}}},
      {{id: y, match: '{word}-(?P<step>\d+)-optimizer\.pt', examples: {{{word}-1-optimizer.pt: {{step: 1}}}}}}]}}"""
    rules = load_rules({"rules/x.yaml": text})
    names = [f"{word}-{step}{what}.pt" for step in (1, 2) for what in ("", "-optimizer")]
    entries = tuple(Entry(name, "file", 1, 0) for name in (*names, f"{word}-3.pt"))
    made = make_plan(rules, Listing("x", "x", entries), rules.policies["default"])
    assert not made.going
    assert f"{word}-3.pt" in made.unwhole


def test_a_number_of_parts_that_no_name_has_is_not_asked_of_a_folder() -> None:
    """A folder that tells how many ranks wrote it, and is one name, had 0 of 4 parts."""
    text = r"""{layout: ['*'], formats: [{id: x, match: 'cp-(?P<step>\d+)-of-(?P<parts>\d+)', folder: true,
      complete: {any: [a.pt]}, examples: {cp-1-of-4: {step: 1}}}]}"""
    rules = load_rules({"rules/x.yaml": text})
    for inside, unwhole in ((("a.pt",), ()), ((), ("cp-1-of-4",))):
        listing = Listing("x", "x", (Entry("cp-1-of-4", "directory", 9, 0),))
        made = make_plan(rules, listing, evidence=Evidence(inside={"cp-1-of-4": frozenset(inside)}))
        assert made.unwhole == unwhole
        assert "parts" not in str(made.notes)


@pytest.mark.parametrize(
    ("saves", "torn", "goes"),
    [
        ("GD GD G GD", "3", ""),
        ("GD GD GD G GD", "4", "G1 D1"),
        ("GD GD G! GD", "3", ""),  # its other file is there and empty
        ("GD G GD", "2", ""),
        ("GD G GD G", "", "G1 G2"),  # each second save has less
        ("GD GD G GD G GD", "", "G1 D1 G2 D2 G3 G4"),
        ("GD GD G G", "", "G1"),  # it saves less since the third: the last with both stays
        ("GD GD G GD GD GD GD", "3", ""),  # what shows it stays, before it and after it
        ("GD GD G GD GD GD GD GD", "3", "G6 D6"),
        ("GD GD G GD D GD GD", "35", ""),  # what is torn shows of no other that it may lack something
        ("GDE GDE GD GDE GE GDE GDE", "35", ""),
        ("GDE GDE DE D", "34", ""),  # both of the newest two
        ("GD GD GD G D", "", "G1 D1 G2 D2"),  # it may save them in turn: the last with both stays
        ("GD GD G GD GD D GD GD", "36", ""),
        ("GD GD G GD GD D", "36", ""),
        ("G G GD GD", "", "G1 G2"),  # it saves more since the third
        ("G GD GD GD", "", "G1 G2 D2"),
    ],
)
def test_a_save_that_lacks_what_all_around_it_have_does_not_count(saves: str, torn: str, goes: str) -> None:
    """The half of epoch 3 was one of the newest two, so a whole pair went; what shows it stays, or the next run errs."""
    sizes = {
        f"net{net}_epoch_{n}.pth": int(net == "G" or "!" not in save)
        for n, save in enumerate(saves.split(), start=1)
        for net in ("GD" if "!" in save else save)
    }
    policy = with_line(RULES.policies["default"], "keep_last", 2, "min_epoch")
    gone = {f"net{one[0]}_epoch_{one[1]}.pth" for one in goes.split()}
    for left in (sizes, {name: size for name, size in sizes.items() if name not in gone}):
        listing = Listing("x", "x", tuple(Entry(name, "file", size, 0) for name, size in left.items()))
        made = make_plan(RULES, listing, policy)
        assert made.going == gone & left.keys()
        assert {name[-5] for name in made.unwhole if sizes[name]} == {*torn}


FORMS = ("net{part}_epoch_{n}.pth", "{part}_step_{n}00.pt", "epoch_{n}_{part}.ckpt", "{part}_{n}.pth")
KINDS = ("model optim", "netG netD", "G D E opt", "vqvae prior", "actor critic1 critic2", "encoder decoder aux")


@pytest.mark.parametrize("seed", range(4))
def test_a_second_run_deletes_nothing_more(seed: int) -> None:
    """What showed that a save is torn, or which runs are saved together, went in the first run: the next one erred."""
    draw = random.Random(seed)
    runs = 0
    for _ in range(150):
        form, parts, share = draw.choice(FORMS), draw.choice(KINDS).split(), draw.choice([0.05, 0.2, 0.4])
        entries = [
            Entry(form.format(part=part, n=n), "file", int(draw.random() > 0.05), (n * 10_000 + k) * 10**9)
            for n in range(1, draw.randint(3, 8))
            for k, part in enumerate(parts)
            if draw.random() > share
        ]
        policy = with_line(RULES.policies["default"], "keep_last", draw.choice([1, 2]), "min_epoch")
        first = make_plan(RULES, Listing("x", "x", tuple(entries)), policy)
        left = tuple(entry for entry in entries if entry.name not in first.going)
        again = make_plan(RULES, Listing("x", "x", left), policy)
        assert not again.going, (entries, first.going)
        runs += bool(first.going)
    assert runs > 10
