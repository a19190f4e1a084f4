"""Laws that hold for every listing: planning is deterministic and settles, nothing is lost, the floor holds."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

from hypothesis import example, given, settings
from hypothesis import strategies as st

from ckptrules.engine.conflicts import find_groups, has_no_rivals
from ckptrules.engine.judging import NS, Around, Others
from ckptrules.engine.lines import LINES
from ckptrules.engine.naming import claim
from ckptrules.engine.plan import make_plan
from ckptrules.engine.retention import apply_policy, with_keep_last
from ckptrules.engine.values import (
    Best,
    Bytes,
    Checkpoint,
    Entry,
    Every,
    Evidence,
    Kept,
    Leftover,
    Listing,
    Location,
    Plan,
    Policy,
    PolicyLine,
    Reason,
    Skipped,
    Within,
)
from ckptrules.engine.what_if import lines_of, without
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

laws = settings(max_examples=150, deadline=None)
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
    "max_total_size": st.builds(Bytes, st.integers(1, 60), st.just("1KB")),
}
NOW_NS = 3 * NS


@st.composite
def policies(draw: st.DrawFn, *, without: str = "", least: int = 1) -> Policy:
    """Draw a policy with some of the lines, in any order."""
    keys = draw(st.lists(st.sampled_from([k for k in VALUES if k != without]), unique=True, min_size=1, max_size=4))
    lines = tuple(PolicyLine(key, draw(VALUES[key]), None) for key in keys)
    return RULES.policies["default"]._replace(lines=lines, keep_at_least=draw(st.integers(least, 4)), examples=())


@st.composite
def candidates(draw: st.DrawFn) -> list[Checkpoint]:
    """Draw checkpoints of any age, size and metric, not only such as the rules would find."""
    fields = st.fixed_dictionaries(
        {},
        optional={
            "epoch": st.integers(0, 25).map(str),
            "step": st.integers(0, 300).map(str),
            "number": st.integers(0, 5).map(str),
            "hmean": st.sampled_from(["0.5", "0.50", "0.75", "nan", "-1", "inf", "many"]),
        },
    )
    found = draw(st.lists(st.tuples(fields, st.integers(1, 30), st.integers(0, 4)), max_size=14))
    return [
        Checkpoint(Entry(f"{n}.ckpt", "file", size, time * NS), fields, f"{n}.ckpt", Reason(""))
        for n, (fields, size, time) in enumerate(found)
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
            found.append(Entry(name, "link", 0, 0, form.format(to), sibling, dangling))
        elif kind == "directory":
            found.append(Entry(name, "directory", size, draw(st.integers(0, 2))))
        else:
            is_other, is_empty = kind == "other", kind == "empty"
            size_kept = 0 if is_other or is_empty else size
            found.append(Entry(name, "other" if is_other else "file", size_kept, draw(st.integers(0, 2))))
    return look({entry.name: entry for entry in found})


plans = st.tuples(listings(), st.none() | policies())


@laws
@example({"a": "x"}, {"a": [("s", "t")], "b": [("s", "s")]}, {"s"})  # one sidecar of two checkpoints
@given(
    st.dictionaries(st.sampled_from("abc"), st.sampled_from("abcxy"), max_size=3),
    st.dictionaries(
        st.sampled_from("abc"), st.lists(st.tuples(st.sampled_from("st"), st.sampled_from("stx"))), max_size=2
    ),
    st.sets(st.sampled_from("abcxyst")),
)
def test_where_no_rivals_are_seen_at_once_a_search_finds_none(
    targets: dict[str, str], sidecars: dict[str, list[tuple[str, str]]], others: set[str]
) -> None:
    checkpoints = [Checkpoint(Entry(name, "file", 1, 0), {}, to, Reason("")) for name, to in targets.items()]
    pairs = {owner: sorted(set(found)) for owner, found in sidecars.items()}
    entries = [Entry(name, "file", 1, 0) for name in sorted(others | targets.keys())]
    if has_no_rivals(checkpoints, entries, pairs):
        assert find_groups(checkpoints, entries, pairs) == []


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


@laws
@given(listings(), policies(without="max_total_size"), st.integers(1, 4), st.integers(0, 4))
def test_a_larger_keep_last_never_deletes_more(listing: Listing, policy: Policy, count: int, more: int) -> None:
    fewer, larger = (make_plan(RULES, listing, with_keep_last(policy, number)) for number in (count, count + more))
    assert deleted(larger) <= deleted(fewer)


@laws
@given(listings(), policies(without="max_total_size"))
def test_without_a_line_goes_at_most_what_it_keeps(listing: Listing, policy: Policy) -> None:
    evidence = Evidence(now_ns=NOW_NS)
    plan = make_plan(RULES, listing, policy, evidence=evidence)
    for line in lines_of(policy):
        less = make_plan(RULES, listing, without(policy, line), evidence=evidence)
        assert deleted(less) >= deleted(plan)
        assert len(deleted(less) - deleted(plan)) <= plan.keeps.get(line, 0)


@laws
@given(plans, st.data())
def test_the_order_of_the_listing_changes_nothing(
    given_plan: tuple[Listing, Policy | None], data: st.DataObject
) -> None:
    listing, policy = given_plan
    other = listing._replace(entries=tuple(data.draw(st.permutations(listing.entries))))
    assert make_plan(RULES, other, policy) == make_plan(RULES, listing, policy)


@laws
@given(plans)
def test_a_second_run_has_nothing_to_do(given_plan: tuple[Listing, Policy | None]) -> None:
    listing, policy = given_plan
    files, _ = carry_out(make_plan(RULES, listing, policy), listing)
    assert make_plan(RULES, look(files), policy).actions == ()


@laws
@given(plans)
def test_no_content_disappears_and_links_lead_where_they_led(given_plan: tuple[Listing, Policy | None]) -> None:
    listing, policy = given_plan
    files, trash = carry_out(make_plan(RULES, listing, policy), listing)
    contents = Counter((entry.kind, entry.size, entry.mtime_ns) for entry in listing.entries)
    assert Counter((e.kind, e.size, e.mtime_ns) for e in (*files.values(), *trash.values())) == contents
    before = by_name(listing)
    for name, link in before.items():
        if link.kind == "link" and (led_to := follow(link, before)):
            leads_to = follow(files[name], files)
            assert leads_to
            assert leads_to._replace(name="") == led_to._replace(name="", link_text=leads_to.link_text)


@laws
@given(plans)
def test_every_name_stands_in_the_plan_exactly_once(given_plan: tuple[Listing, Policy | None]) -> None:
    listing, policy = given_plan
    plan = make_plan(RULES, listing, policy)
    rows: tuple[Kept | Skipped, ...] = (*plan.kept, *plan.skipped)
    told = [action.name for action in plan.actions] + [row.name for row in rows]
    told += [name for problem in plan.problems for name in problem.names]
    assert sorted(told) == sorted(by_name(listing))


@laws
@given(plans)
def test_only_understood_checkpoints_that_are_sound_are_touched(given_plan: tuple[Listing, Policy | None]) -> None:
    listing, policy = given_plan
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


@laws
@given(listings(), st.none() | policies())
def test_nothing_goes_as_a_leftover_that_is_anything_else(listing: Listing, policy: Policy | None) -> None:
    everything = RULES._replace(leftovers=(Leftover("*", 1, "1s", Location("rules/x.yaml", 1, 1)),))
    plain = make_plan(RULES, listing, policy, evidence=Evidence(now_ns=9 * NS))
    made = make_plan(everything, listing, policy, evidence=Evidence(now_ns=9 * NS))
    swept = {action.name for action in made.actions if action.kind == "sweep"}
    assert swept <= {row.name for row in plain.skipped}
    assert swept.isdisjoint(entry.name for entry in listing.entries if entry.kind in ("link", "other"))
    assert not (swept and policy is None)
    assert [a for a in made.actions if a.name not in swept] == list(plain.actions)
    assert (made.kept, made.problems, made.remaining) == (plain.kept, plain.problems, plain.remaining)


@laws
@given(listings(), policies())
def test_the_floor_holds(listing: Listing, policy: Policy) -> None:
    sound = {
        entry.name
        for entry in listing.entries
        if entry.size and claim(entry.name, RULES).kind in ("protected", "target", "legacy")
    }
    left = sound - deleted(make_plan(RULES, listing, policy))
    assert len(left) >= min(policy.keep_at_least, len(sound))


@laws
@given(listings(), policies(), st.data())
def test_nothing_goes_where_nothing_that_stays_is_verified(
    listing: Listing, policy: Policy, data: st.DataObject
) -> None:
    sound = {
        entry.name
        for entry in listing.entries
        if entry.size and claim(entry.name, RULES).kind in ("protected", "target", "legacy")
    }
    verified = data.draw(st.sets(st.sampled_from(sorted(by_name(listing)) or ["none"])))
    goes = deleted(make_plan(RULES, listing, policy))
    is_proved = bool((sound - goes) & verified)
    bound = make_plan(RULES, listing, policy, evidence=Evidence(verified=frozenset(verified)))
    assert deleted(bound) == (goes if is_proved else set())
    assert ("unverified" in {problem.id for problem in bound.problems}) == bool(goes and not is_proved)


@laws
@given(candidates(), policies(least=0), st.integers(0, 3))
def test_keep_and_remove_are_all_each_with_a_reason(found: list[Checkpoint], policy: Policy, others: int) -> None:
    verdict = apply_policy(policy, found, Others(others), NOW_NS)
    names = [checkpoint.entry.name for checkpoint in found]
    assert sorted([*verdict.keep, *verdict.remove]) == sorted(names)
    assert all([*verdict.keep.values(), *verdict.remove.values()])
    assert others + len(verdict.keep) >= min(policy.keep_at_least, others + len(names))
    assert set(verdict.saves) == set(verdict.remove)


@laws
@given(candidates(), policies(least=0), st.data())
def test_the_order_of_the_candidates_changes_no_decision(
    found: list[Checkpoint], policy: Policy, data: st.DataObject
) -> None:
    other = data.draw(st.permutations(found))
    assert apply_policy(policy, other, Others(0), NOW_NS) == apply_policy(policy, found, Others(0), NOW_NS)


@laws
@given(candidates(), policies(without="max_total_size"), policies(without="max_total_size"), st.integers(0, 3))
def test_more_lines_never_delete_more(found: list[Checkpoint], few: Policy, more: Policy, others: int) -> None:
    both = few._replace(lines=(*few.lines, *more.lines), keep_at_least=max(few.keep_at_least, more.keep_at_least))
    removed = [set(apply_policy(policy, found, Others(others), NOW_NS).remove) for policy in (few, more, both)]
    assert removed[2] <= removed[0] & removed[1]


@laws
@given(candidates(), policies(without="max_total_size"), st.sets(st.integers(0, 13)), st.integers(0, 3))
def test_a_pin_makes_no_other_go(found: list[Checkpoint], policy: Policy, numbers: set[int], others: int) -> None:
    held = {c.entry.name: Reason("pinned") for n, c in enumerate(found) if n in numbers}
    without = set(apply_policy(policy, found, Others(others), NOW_NS).remove)
    assert set(apply_policy(policy, found, Others(others), NOW_NS, held, pinned=held).remove) == without - held.keys()


@laws
@given(candidates(), policies(without="max_total_size"), st.integers(1, 90), st.integers(0, 30))
def test_a_size_limit_keeps_more_and_what_it_keeps_fits(
    found: list[Checkpoint], policy: Policy, size: int, taken: int
) -> None:
    limited = policy._replace(lines=(*policy.lines, PolicyLine("max_total_size", Bytes(size, "1KB"), None)))
    without = set(apply_policy(policy, found, Others(0, taken), NOW_NS).keep)
    kept = set(apply_policy(limited, found, Others(0, taken), NOW_NS).keep)
    assert without <= kept
    assert without == kept or taken + sum(c.entry.size for c in found if c.entry.name in kept) <= size


@laws
@given(candidates(), st.integers(1, 4))
def test_keep_last_never_cuts_through_equal_ones(found: list[Checkpoint], count: int) -> None:
    said = LINES["keep_last"].judge(count, found, Around(NOW_NS, Others(0)))
    by_order = {c.entry.name: c.age_order[:2] for c in found if "by file time" not in said[c.entry.name].why}
    fates: dict[tuple[int, ...], set[bool]] = defaultdict(set)
    for name, order in by_order.items():
        fates[order].add(said[name].keeps)
    for checkpoint in found:
        fates[checkpoint.age_order[:3]].add(said[checkpoint.entry.name].keeps)
    assert all(len(kept) == 1 for kept in fates.values())


@laws
@given(candidates(), policies())
def test_the_line_that_would_save_a_checkpoint_does(found: list[Checkpoint], policy: Policy) -> None:
    verdict = apply_policy(policy, found, Others(0), NOW_NS)
    for name, saves in verdict.saves.items():
        for changed in saves:
            lines = tuple(changed if line.key == changed.key else line for line in policy.lines)
            assert name in apply_policy(policy._replace(lines=lines), found, Others(0), NOW_NS).keep


@laws
@given(candidates(), policies())
def test_the_newest_by_epoch_and_step_stays_and_with_keep_last_by_file_time_too(
    found: list[Checkpoint], policy: Policy
) -> None:
    verdict = apply_policy(policy, found, Others(0), NOW_NS)
    ends = sorted(found, key=lambda c: c.age_order)[-1:]
    if any(line.key == "keep_last" for line in policy.lines):
        ends += sorted(found, key=lambda c: (c.entry.mtime_ns, c.age_order))[-1:]
    assert {checkpoint.entry.name for checkpoint in ends} <= set(verdict.keep)
