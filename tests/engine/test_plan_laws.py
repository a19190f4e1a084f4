"""Laws that hold for every listing: planning is deterministic and settles, nothing is lost, the floor holds."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptrules.engine.actions import Kept, Plan, Skipped
from ckptrules.engine.checkpoints import Checkpoint, Evidence
from ckptrules.engine.entries import Entry, Listing
from ckptrules.engine.measures import NS
from ckptrules.engine.names.naming import claim, named
from ckptrules.engine.names.sorting import Sorted, is_left_link
from ckptrules.engine.plan import make_plan
from ckptrules.engine.policy.judging import Around, Others
from ckptrules.engine.policy.lines import LINES
from ckptrules.engine.policy.retention import apply_policy, with_line
from ckptrules.engine.ruleset import Best, Bytes, Every, Leftover, Location, Policy, PolicyLine, Reason, Within
from ckptrules.engine.what_if import lines_in_use, without
from ckptrules.rules.load import load_rules
from tests.conftest import ROOT

RULES = load_rules({path.name: path.read_text(encoding="utf-8") for path in (ROOT / "rules").glob("*.yaml")})
FORMATS = (
    "epoch_epoch_{0:02d}_step_step_{1:06d}_20251009_015037.ckpt",
    "epoch_epoch_{0:02d}_step_step_{1:06d}_20251009_020000.ckpt",
    "epoch_{0:02d}_step_{1:06d}.ckpt",
    "epoch_{0}_step_{1}.ckpt",
    "epoch={0}-step={1}.ckpt",
    "epoch-{0:02d}_step-{1:06d}.ckpt",
    "epoch-{0:02d}_step-{1:06d}_hmean-0.8756.ckpt",
)
SPECIAL = ("last.ckpt", "best.ckpt", "best-loss-0.1.ckpt", "best-epoch=3-step=40.ckpt")
OTHERS = (
    "epoch=3-step=40-v1.ckpt",
    "epoch_3_step_40.ckpt.tmp",
    ".latest",
    "hparams.yaml",
    "broken-\udcff.ckpt",
    "a\nb",
)
LINKS = ("{}", "./{}", "/outputs/exp/checkpoints/{}", "../elsewhere/{}")

CHECKPOINTS = [
    form.format(epoch, step)
    for form in FORMATS
    for epoch, step in [(0, 0), (3, 40), (9, 120), (11, 40), (100, 1_000_000)]
]

laws = settings(max_examples=3 * settings().max_examples)
formatted = st.sampled_from(CHECKPOINTS)
junk = st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=20).filter(lambda n: n not in (".", ".."))
names = st.lists(st.sampled_from([*CHECKPOINTS, *SPECIAL, *OTHERS]) | formatted | junk, unique=True, max_size=14)


VALUES: dict[str, st.SearchStrategy[object]] = {
    "keep": st.sampled_from(["protected", "all"]),
    "min_epoch": st.sampled_from([0, 1, 3, 10, 11, 1000]),
    "min_step": st.sampled_from([0, 1, 40, 1000]),
    "keep_last": st.integers(1, 4),
    "keep_every_epochs": st.builds(Every, st.integers(1, 10), st.integers(0, 12), st.booleans()),
    "keep_every_steps": st.builds(Every, st.sampled_from([1, 40, 100]), st.sampled_from([0, 39]), st.booleans()),
    "keep_best": st.builds(
        Best, st.sampled_from(["hmean", "loss"]), st.sampled_from(["max", "min"]), st.integers(1, 3)
    ),
    "keep_within": st.builds(Within, st.integers(1, 3), st.just("1s"), st.booleans()),
    "keep_hourly": st.integers(1, 3) | st.just(-1),
    "keep_yearly": st.integers(1, 3),
}
NOW_NS = 3 * NS
KEYS = st.lists(st.sampled_from([*VALUES]), unique=True, min_size=1, max_size=4)  # made once: else checked at each draw
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "epoch": st.integers(0, 25).map(str),
        "step": st.integers(0, 300).map(str),
        "number": st.integers(0, 5).map(str),
        "hmean": st.sampled_from(["0.5", "0.50", "0.75", "nan", "-1", "inf", "many"]),
    },
)
FOUND = st.lists(st.tuples(FIELDS, st.integers(1, 30), st.integers(0, 4)), max_size=14)


@st.composite
def policies(draw: st.DrawFn, *, least: int = 1) -> tuple[Policy, Policy]:
    """Draw a policy with some of the lines, in any order; and the same, or with a limit of the size among its lines."""
    lines = [PolicyLine(key, draw(VALUES[key]), None) for key in draw(KEYS)]
    at, limit = (
        draw(st.integers(0, len(lines))),
        PolicyLine("max_total_size", Bytes(draw(st.integers(1, 60)), "1KB"), None),
    )
    limited = draw(st.sampled_from([lines, [limit], [*lines[:at], limit, *lines[at:]]]))
    policy = RULES.policies["default"]._replace(keep_at_least=draw(st.integers(least, 4)), examples=())
    return policy._replace(lines=tuple(lines)), policy._replace(lines=tuple(limited))


@st.composite
def candidates(draw: st.DrawFn) -> list[Checkpoint]:
    """Draw checkpoints of any age, size and metric, not only such as the rules would find."""
    return [
        Checkpoint(Entry(f"{n}.ckpt", "file", size, time * NS), fields, f"{n}.ckpt", Reason(""))
        for n, (fields, size, time) in enumerate(draw(FOUND))
    ]


@st.composite
def listings(draw: st.DrawFn) -> Listing:
    """Draw a directory. The size of an entry is its identity: two that are not empty never have the same."""
    found = []
    known = draw(names)
    for size, name in enumerate(known, start=1):
        kind = draw(st.sampled_from(["file", "file", "file", "empty", "directory", "link", "other"]))
        if kind == "link":
            form, to = draw(st.sampled_from(LINKS)), draw(st.sampled_from(known) | formatted)
            sibling = None if form.startswith("..") else to
            dangling = sibling is None and draw(st.booleans())
            link = Entry(name, "link", 0, 0, form.format(to), sibling, dangling)
            if not is_left_link(link, named(name, RULES)):  # it goes with its checkpoint
                found.append(link)
        elif kind == "directory":
            found.append(Entry(name, "directory", size, draw(st.integers(0, 2))))
        else:
            is_other, is_empty = kind == "other", kind == "empty"
            size_kept = 0 if is_other or is_empty else size
            found.append(Entry(name, "other" if is_other else "file", size_kept, draw(st.integers(0, 2))))
    return look({entry.name: entry for entry in found})


def look(files: Mapping[str, Entry]) -> Listing:
    """Read a directory that exists only in memory: a link dangles where nothing of its name is."""
    entries = [
        entry._replace(dangling=follow(entry, files) is None) if entry.sibling is not None else entry
        for entry in files.values()
    ]
    return Listing("exp", "exp/checkpoints", tuple(entries))


def follow(link: Entry, files: Mapping[str, Entry]) -> Entry | None:
    """Return what a link leads to in the end; None where it leads nowhere, or round in a circle."""
    entry: Entry | None = link
    for _ in files:
        if entry is None or entry.sibling is None:
            break
        entry = files.get(entry.sibling)
    return None if entry is None or entry.sibling is not None or entry.dangling else entry


def carry_out(plan: Plan, listing: Listing) -> tuple[dict[str, Entry], dict[str, Entry]]:
    """Carry a plan out in memory and return what is there and what is in the trash; a taken name is an error."""
    files, trash = by_name(listing), {}
    for action in plan.actions:
        entry = files.pop(action.name)
        if action.kind == "trash":
            trash[action.name] = entry
        elif action.kind == "rename":
            assert action.to not in files
            files[action.to] = entry._replace(name=action.to)
        else:
            assert entry.kind == "link"
            files[action.name] = entry._replace(link_text=action.to, sibling=action.to.rpartition("/")[2])
    return files, trash


def by_name(listing: Listing) -> dict[str, Entry]:
    return {entry.name: entry for entry in listing.entries}


def deleted(plan: Plan) -> set[str]:
    return {action.name for action in plan.actions if action.kind == "trash"}


# --- laws of a directory -----------------------------------------------------------------------------------------------


class Directory(NamedTuple):
    """A directory, with what may be asked of it.

    Only ``limited`` may have a limit of the size. ``shuffled`` is the listing in another order; of the two numbers the
    ``larger`` may be the same; ``verified`` are names.
    """

    listing: Listing
    policy: Policy
    limited: Policy
    shuffled: Listing
    fewer: int
    larger: int
    verified: frozenset[str]


DIRECTORIES: list[Callable[[Directory], None]] = []
PLANS: list[Callable[[Listing, Policy | None], None]] = []


@st.composite
def directories(draw: st.DrawFn) -> Directory:
    listing = draw(listings())
    shuffled = listing._replace(entries=tuple(draw(st.permutations(listing.entries))))
    count = draw(st.integers(1, 4))
    verified = draw(st.frozensets(st.sampled_from(sorted(by_name(listing)) or ["none"])))
    return Directory(listing, *draw(policies()), shuffled, count, count + draw(st.integers(0, 4)), verified)


@laws
@given(directories())
def test_laws_of_a_directory(drawn: Directory) -> None:
    for law in DIRECTORIES:
        law(drawn)
    for of_plans in PLANS:
        for policy in (None, drawn.limited):
            of_plans(drawn.listing, policy)


@DIRECTORIES.append
def a_larger_keep_last_never_deletes_more(drawn: Directory) -> None:
    fewer, larger = (
        make_plan(RULES, drawn.listing, with_line(drawn.policy, "keep_last", number, "min_epoch", "min_step"))
        for number in (drawn.fewer, drawn.larger)
    )
    assert deleted(larger) <= deleted(fewer)


@DIRECTORIES.append
def without_a_line_goes_at_most_what_it_keeps(drawn: Directory) -> None:
    evidence = Evidence(now_ns=NOW_NS)
    plan = make_plan(RULES, drawn.listing, drawn.policy, evidence=evidence)
    for _, line in lines_in_use(drawn.policy):
        less = make_plan(RULES, drawn.listing, without(drawn.policy, line), evidence=evidence)
        assert deleted(less) >= deleted(plan)
        assert len(deleted(less) - deleted(plan)) <= plan.keeps.get(line, 0)


@DIRECTORIES.append
def the_order_of_the_listing_changes_nothing(drawn: Directory) -> None:
    for policy in (None, drawn.limited):
        assert make_plan(RULES, drawn.shuffled, policy) == make_plan(RULES, drawn.listing, policy)


@DIRECTORIES.append
def the_floor_holds(drawn: Directory) -> None:
    left = sound(drawn.listing) - deleted(make_plan(RULES, drawn.listing, drawn.limited))
    assert len(left) >= min(drawn.limited.keep_at_least, len(sound(drawn.listing)))


@DIRECTORIES.append
def nothing_goes_where_nothing_that_stays_is_verified(drawn: Directory) -> None:
    goes = deleted(make_plan(RULES, drawn.listing, drawn.limited))
    is_proved = bool((sound(drawn.listing) - goes) & drawn.verified)
    bound = make_plan(RULES, drawn.listing, drawn.limited, evidence=Evidence(verified=drawn.verified))
    assert deleted(bound) == (goes if is_proved else set())
    assert ("unverified" in {problem.id for problem in bound.problems}) == bool(goes and not is_proved)


def sound(listing: Listing) -> set[str]:
    """Return the names of the checkpoints that hold something."""
    kinds = ("protected", "target", "legacy")
    return {entry.name for entry in listing.entries if entry.size and claim(entry.name, RULES).kind in kinds}


@PLANS.append
def a_second_run_has_nothing_to_do(listing: Listing, policy: Policy | None) -> None:
    files, _ = carry_out(make_plan(RULES, listing, policy), listing)
    assert make_plan(RULES, look(files), policy).actions == ()


def test_what_only_names_tell_apart_stays_or_goes_whatever_its_new_name() -> None:
    """By its old name one was the newer, by its new one the other: a second run deleted what the first had kept."""
    names = [FORMATS[0].format(11, 40), "epoch=100-step=1000000.ckpt", "epoch-11_step-000040_hmean-0.8756.ckpt"]
    link = Entry("0", "link", 0, 0, names[-1], names[-1])
    policy = RULES.policies["default"]._replace(
        lines=(PolicyLine("keep", "protected", None),), keep_at_least=2, examples=()
    )
    listing = Listing("exp", "exp/checkpoints", (*(Entry(name, "file", 1, 0) for name in names), link))
    files, _ = carry_out(make_plan(RULES, listing, policy), listing)
    assert make_plan(RULES, look(files), policy).actions == ()


def test_a_link_that_somebody_made_is_never_taken_for_one_that_we_left() -> None:
    """Both stand under an old name of the checkpoint that they lead to; the first holds it back, also in a second run."""
    to = FORMATS[0].format(3, 40)
    files = [Entry(FORMATS[0].format(*one), "file", 1, 0) for one in ((0, 0), (3, 40), (9, 120), (11, 40))]
    link = Entry(FORMATS[1].format(3, 40), "link", 0, 0, to, to)
    policy = RULES.policies["default"]._replace(lines=(PolicyLine("keep_last", 1, None),), keep_at_least=1, examples=())
    for of_plans in PLANS:
        of_plans(Listing("exp", "exp/checkpoints", (*files, link)), policy)


@PLANS.append
def no_content_disappears_and_links_lead_where_they_led(listing: Listing, policy: Policy | None) -> None:
    files, trash = carry_out(make_plan(RULES, listing, policy), listing)
    contents = Counter((entry.kind, entry.size, entry.mtime_ns) for entry in listing.entries)
    assert Counter((e.kind, e.size, e.mtime_ns) for e in (*files.values(), *trash.values())) == contents
    before = by_name(listing)
    for name, link in before.items():
        if link.kind == "link" and (led_to := follow(link, before)):
            leads_to = follow(files[name], files)
            assert leads_to
            assert leads_to._replace(name="") == led_to._replace(name="", link_text=leads_to.link_text)


@PLANS.append
def every_name_stands_in_the_plan_exactly_once(listing: Listing, policy: Policy | None) -> None:
    plan = make_plan(RULES, listing, policy)
    rows: tuple[Kept | Skipped, ...] = (*plan.kept, *plan.skipped)
    told = [action.name for action in plan.actions] + [row.name for row in rows]
    told += [name for problem in plan.problems for name in problem.names]
    assert sorted(told) == sorted(by_name(listing))


@PLANS.append
def only_understood_checkpoints_that_are_sound_are_touched(listing: Listing, policy: Policy | None) -> None:
    entries = by_name(listing)
    plan = make_plan(RULES, listing, policy)
    assert policy or not deleted(plan)
    assert deleted(plan).isdisjoint(entry.sibling for entry in listing.entries if not entry.dangling)
    for action in plan.actions:
        entry = entries[action.name]
        if action.kind == "relink":
            assert entry.kind == "link"
        else:
            assert claim(action.name, RULES).kind in (["legacy"] if action.kind == "rename" else ["legacy", "target"])
            assert entry.kind in ("file", "directory")
            assert entry.size


@PLANS.append
def nothing_goes_as_a_leftover_that_is_anything_else(listing: Listing, policy: Policy | None) -> None:
    everything = RULES._replace(leftovers=(Leftover("*", 1, "1s", Location("rules/x.yaml", 1, 1)),))
    plain = make_plan(RULES, listing, policy, evidence=Evidence(now_ns=9 * NS))
    made = make_plan(everything, listing, policy, evidence=Evidence(now_ns=9 * NS))
    swept = {action.name for action in made.actions if action.kind == "sweep"}
    assert swept <= {row.name for row in plain.skipped}
    assert swept.isdisjoint(entry.name for entry in listing.entries if entry.kind in ("link", "other"))
    assert not (swept and policy is None)
    assert [a for a in made.actions if a.name not in swept] == list(plain.actions)
    assert (made.kept, made.problems, made.remaining) == (plain.kept, plain.problems, plain.remaining)


# --- laws of retention -------------------------------------------------------------------------------------------------


class Candidates(NamedTuple):
    """Checkpoints that a policy judges, with what may be asked of them.

    Only ``limited`` may have a limit of the size, and its floor may be 0, as that of ``more``, which has no limit either.
    ``others`` are checkpoints that stay in any case, ``pinned`` names.
    """

    found: list[Checkpoint]
    shuffled: list[Checkpoint]
    policy: Policy
    limited: Policy
    more: Policy
    others: int
    pinned: dict[str, Reason]
    size: int
    taken: int
    newest: int


CANDIDATES: list[Callable[[Candidates], None]] = []


@st.composite
def judged(draw: st.DrawFn) -> Candidates:
    found = draw(candidates())
    shuffled = draw(st.permutations(found))
    numbers = draw(st.sets(st.integers(0, 13)))
    pinned = {one.entry.name: Reason("pinned") for n, one in enumerate(found) if n in numbers}
    policy, limited = draw(policies(least=0))
    more, _ = draw(policies(least=0))
    others, size, room = draw(st.integers(0, 3)), draw(st.integers(1, 90)), draw(st.integers(0, 30))
    return Candidates(found, shuffled, policy, limited, more, others, pinned, size, room, draw(st.integers(1, 4)))


@laws
@given(judged())
def test_laws_of_retention(drawn: Candidates) -> None:
    for law in CANDIDATES:
        law(drawn)


@CANDIDATES.append
def keep_and_remove_are_all_each_with_a_reason(drawn: Candidates) -> None:
    verdict = apply_policy(drawn.limited, drawn.found, Around(NOW_NS, others_of(drawn.others)))
    names = [checkpoint.entry.name for checkpoint in drawn.found]
    assert sorted([*verdict.keep, *verdict.remove]) == sorted(names)
    assert all([*verdict.keep.values(), *verdict.remove.values()])
    assert drawn.others + len(verdict.keep) >= min(drawn.limited.keep_at_least, drawn.others + len(names))
    assert set(verdict.saves) == set(verdict.remove)


@CANDIDATES.append
def the_order_of_the_candidates_changes_no_decision(drawn: Candidates) -> None:
    verdicts = (apply_policy(drawn.limited, found, Around(NOW_NS, Others())) for found in (drawn.shuffled, drawn.found))
    assert next(verdicts) == next(verdicts)


@CANDIDATES.append
def more_lines_never_delete_more(drawn: Candidates) -> None:
    few, more = drawn.policy, drawn.more
    both = few._replace(lines=(*few.lines, *more.lines), keep_at_least=max(few.keep_at_least, more.keep_at_least))
    removed = [
        set(apply_policy(policy, drawn.found, Around(NOW_NS, others_of(drawn.others))).remove)
        for policy in (few, more, both)
    ]
    assert removed[2] <= removed[0] & removed[1]


@CANDIDATES.append
def what_is_held_makes_no_other_go(drawn: Candidates) -> None:
    policy, found, others, held = drawn.policy, drawn.found, others_of(drawn.others), drawn.pinned
    without = set(apply_policy(policy, found, Around(NOW_NS, others)).remove)
    assert set(apply_policy(policy, found, Around(NOW_NS, others), held).remove) == without - held.keys()


@CANDIDATES.append
def a_size_limit_keeps_more_and_what_it_keeps_fits(drawn: Candidates) -> None:
    found, others, size = drawn.found, Others(drawn.taken), drawn.size
    limit = PolicyLine("max_total_size", Bytes(size, "1KB"), None)
    limited = drawn.policy._replace(lines=(*drawn.policy.lines, limit))
    without = set(apply_policy(drawn.policy, found, Around(NOW_NS, others)).keep)
    kept = set(apply_policy(limited, found, Around(NOW_NS, others)).keep)
    assert without <= kept
    assert without == kept or drawn.taken + sum(c.entry.size for c in found if c.entry.name in kept) <= size


@CANDIDATES.append
def keep_last_never_cuts_through_equal_ones(drawn: Candidates) -> None:
    said = LINES["keep_last"].judge(drawn.newest, drawn.found, Around(NOW_NS, Others()))
    ranked = [c for c in drawn.found if not said[c.entry.name].why.endswith(" in its name")]
    by_order = {c.entry.name: c.age_order[:2] for c in ranked if "by file time" not in said[c.entry.name].why}
    fates: dict[tuple[int, ...], set[bool]] = defaultdict(set)
    for name, order in by_order.items():
        fates[order].add(said[name].keeps)
    for checkpoint in ranked:
        fates[checkpoint.age_order[:3]].add(said[checkpoint.entry.name].keeps)
    assert all(len(kept) == 1 for kept in fates.values())


@CANDIDATES.append
def the_line_that_would_save_a_checkpoint_does(drawn: Candidates) -> None:
    policy = with_floor(drawn.limited)
    verdict = apply_policy(policy, drawn.found, Around(NOW_NS, Others()))
    for name, saves in verdict.saves.items():
        for changed in saves:
            lines = tuple(changed if line.key == changed.key else line for line in policy.lines)
            assert name in apply_policy(policy._replace(lines=lines), drawn.found, Around(NOW_NS, Others())).keep


@CANDIDATES.append
def the_newest_by_epoch_and_step_stays_and_with_keep_last_by_file_time_too(drawn: Candidates) -> None:
    policy = with_floor(drawn.limited)
    verdict = apply_policy(policy, drawn.found, Around(NOW_NS, Others()))
    ends = sorted(drawn.found, key=lambda c: c.age_order)[-1:]
    if any(line.key == "keep_last" for line in policy.lines):
        ends += sorted(drawn.found, key=lambda c: (c.entry.mtime_ns, c.age_order))[-1:]
    assert {checkpoint.entry.name for checkpoint in ends} <= set(verdict.keep)


def test_which_of_two_links_that_lead_nowhere_is_told_does_not_depend_on_the_order_of_the_listing() -> None:
    name = "epoch-03_step-000040.ckpt"
    links = [Entry(link, "link", 0, 0, f"../elsewhere/{name}", dangling=True) for link in ("0", "last.ckpt")]
    listings = [Listing("x", "x", (Entry(name, "file", 1, 0), *order)) for order in (links, links[::-1])]
    one, other = (make_plan(RULES, listing, RULES.policies["default"]) for listing in listings)
    assert one == other


def others_of(count: int) -> Others:
    return Others(names=tuple(f"other-{number}" for number in range(count)))


def with_floor(policy: Policy) -> Policy:
    return policy._replace(keep_at_least=max(1, policy.keep_at_least))


class Counted(str):
    """A name that counts how often it is looked for."""

    __slots__ = ()
    times = 0

    def __hash__(self) -> int:
        Counted.times += 1
        return super().__hash__()


def test_what_one_in_use_costs_grows_as_the_directory_does() -> None:
    def cost(count: int) -> int:
        names = [Counted(f"epoch-{n:02d}_step-{n:06d}.ckpt") for n in range(count)]
        listing = look({name: Entry(name, "file", 1, n) for n, name in enumerate(names)})
        Counted.times = 0
        make_plan(RULES, listing, RULES.policies["default"], evidence=Evidence(in_use={names[-1]: "it is open"}))
        return Counted.times

    assert cost(400) < 3 * cost(200)


def test_whose_part_a_name_is_does_not_cost_more_where_all_is_spared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each name of a run that goes on asked for all: 20,000 took a quarter of a minute."""
    asked: list[Sorted] = []
    heads = vars(Sorted)["heads"].fget

    def counted(found: Sorted) -> dict[str, str]:
        asked.append(found)
        return {**heads(found)}

    monkeypatch.setattr(Sorted, "heads", property(counted))
    names = [f"epoch-{n:02d}_step-{n:06d}.ckpt" for n in range(20)]
    spared = dict.fromkeys(names, Reason("a run may go on"))
    make_plan(RULES, look({name: Entry(name, "file", 1, 0) for name in names}), evidence=Evidence(spared=spared))
    assert len(asked) < len(names) / 2
