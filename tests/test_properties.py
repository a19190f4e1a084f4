"""Laws that hold for every listing: planning is deterministic and settles, nothing is lost, the floor holds."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from ckptrules.model import Checkpoint, Entry, Listing, Plan, PolicyLine, Reason
from ckptrules.naming import claim
from ckptrules.plan import make_plan
from ckptrules.retention import apply_policy, with_min_epoch
from ckptrules.rules import load_rules

ROOT = Path(__file__).parent.parent
RULES = load_rules({path.name: path.read_text(encoding="utf-8") for path in (ROOT / "rules").glob("*.yaml")})
POLICY = RULES.policies["default"]

numbers = st.integers(0, 30) | st.integers(0, 2_000_000)
formats = st.sampled_from(
    [
        "epoch_epoch_{0:02d}_step_step_{1:06d}_20251009_015037.ckpt",
        "epoch_{0:02d}_step_{1:06d}.ckpt",
        "epoch_{0}_step_{1}.ckpt",
        "epoch={0}-step={1}.ckpt",
        "epoch-{0:02d}_step-{1:06d}.ckpt",
        "epoch-{0:02d}_step-{1:06d}_hmean-0.8756.ckpt",
    ]
)
named = st.builds(lambda form, epoch, step: form.format(epoch, step), formats, st.integers(0, 20), numbers)
special = st.sampled_from(["last.ckpt", "best.ckpt", "best-loss-0.1.ckpt", "a.tmp", ".hidden", "notes.txt"])
junk = st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=20).filter(lambda n: n not in (".", ".."))
names = st.lists(named | special | junk, unique=True, max_size=14)


@st.composite
def listings(draw: st.DrawFn) -> Listing:
    found = []
    known = draw(names)
    for name in known:
        size = draw(st.sampled_from([0, 1, 1, 1, 10**10]))
        kind = draw(st.sampled_from(["file", "file", "file", "directory", "link", "other"]))
        if kind == "link":
            sibling = draw(st.sampled_from(known))
            found.append(Entry(name, "link", 0, 0, sibling, sibling, draw(st.booleans())))
        else:
            found.append(Entry(name, kind, size, draw(st.integers(0, 3))))  # type: ignore[arg-type]
    return Listing("exp", "exp/checkpoints", tuple(found))


def apply(plan: Plan, listing: Listing) -> tuple[Listing, list[Entry]]:
    """Carry a plan out in memory; as on disk, a taken name is an error."""
    files = {entry.name: entry for entry in listing.entries}
    trash = []
    for action in plan.actions:
        entry = files.pop(action.name)
        if action.kind == "trash":
            trash.append(entry)
        elif action.kind == "rename":
            assert action.to not in files
            files[action.to] = entry._replace(name=action.to)
        else:
            files[action.name] = entry._replace(link_text=action.to, sibling=action.to)
    return listing._replace(entries=tuple(files.values())), trash


@given(listings(), st.booleans(), st.randoms(use_true_random=False))
def test_the_order_of_the_listing_changes_nothing(listing: Listing, delete: bool, random: object) -> None:  # noqa: FBT001
    shuffled = list(listing.entries)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    policy = POLICY if delete else None
    assert make_plan(RULES, listing._replace(entries=tuple(shuffled)), policy) == make_plan(RULES, listing, policy)


@given(listings(), st.booleans())
@settings(max_examples=200)
def test_a_second_run_has_nothing_to_do_and_nothing_is_lost(listing: Listing, delete: bool) -> None:  # noqa: FBT001
    policy = POLICY if delete else None
    left, trash = apply(make_plan(RULES, listing, policy), listing)
    assert not make_plan(RULES, left, policy).actions
    contents = sorted((entry.kind, entry.size, entry.mtime_ns) for entry in (*left.entries, *trash))
    assert contents == sorted((entry.kind, entry.size, entry.mtime_ns) for entry in listing.entries)


@given(listings(), st.integers(0, 25))
@settings(max_examples=200)
def test_deletion_leaves_a_sound_checkpoint_and_spares_what_is_protected(listing: Listing, limit: int) -> None:
    plan = make_plan(RULES, listing, with_min_epoch(POLICY, limit))
    deleted = {action.name for action in plan.actions if action.kind == "trash"}
    understood = {action.name for action in plan.actions} | {row.name for row in plan.kept}
    sound = {e.name for e in listing.entries if e.kind in ("file", "directory") and e.size and e.name in understood}
    assert not sound or sound - deleted
    assert not deleted & {"last.ckpt", "best.ckpt", "best-loss-0.1.ckpt"}
    assert not deleted & {name for problem in plan.problems for name in problem.names}
    assert not deleted & {e.sibling for e in listing.entries if e.kind == "link" and not e.dangling}


@given(listings(), st.integers(0, 25), st.integers(0, 25))
def test_a_lower_threshold_never_deletes_more(listing: Listing, one: int, other: int) -> None:
    low, high = (
        {
            action.name
            for action in make_plan(RULES, listing, with_min_epoch(POLICY, limit)).actions
            if action.kind == "trash"
        }
        for limit in sorted((one, other))
    )
    assert low <= high


@given(listings())
def test_every_name_stands_in_the_plan_exactly_once(listing: Listing) -> None:
    plan = make_plan(RULES, listing, POLICY)
    listed = [action.name for action in plan.actions] + [row.name for row in plan.kept]
    listed += [row.name for row in plan.skipped]
    listed += [name for problem in plan.problems for name in problem.names]
    assert sorted(listed) == sorted(entry.name for entry in listing.entries)


@given(st.lists(named, unique=True), st.integers(0, 25), st.integers(1, 5), st.integers(0, 3))
def test_keep_and_remove_are_all_with_reasons(names: list[str], limit: int, floor: int, remaining: int) -> None:
    checkpoints = [Checkpoint(Entry(n, "file", 1, 0), claim(n, RULES).fields, n, Reason("")) for n in names]
    policy = POLICY._replace(lines=(PolicyLine("min_epoch", limit, None),), keep_at_least=floor)
    verdict = apply_policy(policy, checkpoints, remaining)
    assert sorted([*verdict.keep, *verdict.remove]) == sorted(names)
    assert all([*verdict.keep.values(), *verdict.remove.values()])
    assert remaining + len(verdict.keep) >= min(floor, remaining + len(names))
