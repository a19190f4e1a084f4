"""What is decided over all directories together: laws of the budget, and of the best across experiments."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from ckptrules.engine.checkpoints import Checkpoint
from ckptrules.engine.entries import Entry, HardLinks
from ckptrules.engine.measures import NS, taken
from ckptrules.engine.ruleset import Best, Budget, Bytes, Location, Reason
from ckptrules.engine.tree import OwnPlan, SharedOut, best_across, budget_note, share_out, times_of

HERE = Location("rules/x.yaml", 1, 1)
NOW = 1_000_000 * NS


def one(
    name: str, size: int = 10, time: int = 1, epoch: int | None = None, inode: int = 0, names: int = 2, **metrics: str
) -> Checkpoint:
    shared = (HardLinks(1, inode, size, names),) if inode else ()
    entry = Entry(name, "file", size, time * NS, shared=shared)
    return Checkpoint(entry, {} if epoch is None else {"epoch": str(epoch)}, name, Reason("by a rule", HERE), metrics)


def budget(total: int, *order: tuple[str, str]) -> Budget:
    return Budget(Bytes(total, f"{total}B"), order)  # type: ignore[arg-type]


def kept(shared: SharedOut) -> set[tuple[str, str]]:
    return {(directory, name) for directory, said in shared.says.items() for name, one in said.items() if one.keeps}


def room(checkpoints: Iterable[Checkpoint]) -> int:
    found = list(checkpoints)
    return taken(sum(c.entry.size for c in found), [link for c in found for link in c.entry.shared])


# --- trees ------------------------------------------------------------------------------------------------------------


@st.composite
def trees(draw: st.DrawFn) -> list[OwnPlan]:
    """Draw directories whose checkpoints may share files, with each other and over directories."""
    sizes = [1, 10, 25, 60]
    parts = []
    for number in range(draw(st.integers(0, 4))):
        found = []
        for name in range(draw(st.integers(0, 5))):
            inode = draw(st.sampled_from([0, 0, 1, 2, 3]))
            size = sizes[inode] if inode else draw(st.sampled_from(sizes))
            loss = draw(st.sampled_from(["", "0.1", "0.5", "-2", "nan", "inf", "none"]))
            time = draw(st.sampled_from([1, 2, 3, 2_000_000, -1]))
            epoch = draw(st.sampled_from([None, 1, 2, 3]))
            checkpoint = one(f"c{name}", size, time, epoch, inode)
            found.append(checkpoint._replace(metrics={"loss": loss} if loss else {}))
        cut = draw(st.integers(0, len(found)))
        parts.append(
            OwnPlan(f"d{number}", tuple(found[:cut]), tuple(found[cut:]), frozenset(c.entry.name for c in found))
        )
    return parts


budgets = st.builds(budget, st.integers(0, 200)) | st.builds(
    budget, st.integers(0, 200), st.just(("loss", "min")), st.sampled_from([("acc", "max"), ("loss", "max")])
)


class Drawn(NamedTuple):
    """A tree and its budget; the same tree in ``another_order``, a ``greater`` budget, how many are to be the best."""

    parts: list[OwnPlan]
    limit: Budget
    another_order: list[OwnPlan]
    greater: Budget
    best: int


LAWS: list[Callable[[Drawn], None]] = []


@st.composite
def drawn_trees(draw: st.DrawFn) -> Drawn:
    parts, limit = draw(trees()), draw(budgets)
    turned = [part._replace(rest=part.rest[::-1], stays=part.stays[::-1]) for part in parts]
    greater = limit._replace(total=Bytes(limit.total.size + draw(st.integers(1, 100)), "more"))
    return Drawn(parts, limit, draw(st.permutations(turned)), greater, draw(st.integers(1, 4)))


@settings(max_examples=3 * settings().max_examples)
@given(drawn_trees())
def test_laws_of_a_tree(drawn: Drawn) -> None:
    for law in LAWS:
        law(drawn)


@LAWS.append
def the_order_of_directories_and_names_changes_nothing(drawn: Drawn) -> None:
    assert share_out(drawn.limit, drawn.another_order, NOW) == share_out(drawn.limit, drawn.parts, NOW)


@LAWS.append
def only_what_no_line_keeps_is_spoken_of_and_all_of_it(drawn: Drawn) -> None:
    said = share_out(drawn.limit, drawn.parts, NOW).says
    assert {(d, n) for d in said for n in said[d]} == {(p.directory, c.entry.name) for p in drawn.parts for c in p.rest}


@LAWS.append
def it_fits_or_nothing_stays_that_takes_room(drawn: Drawn) -> None:
    shared = share_out(drawn.limit, drawn.parts, NOW)
    must = [c for p in drawn.parts for c in p.stays]
    left = [c for p in drawn.parts for c in p.rest if (p.directory, c.entry.name) in kept(shared)]
    assert (shared.must, shared.stays) == (room(must), room([*must, *left]))
    assert shared.stays <= max(drawn.limit.total.size, shared.must)
    assert shared.must <= shared.stays <= shared.every == room(c for p in drawn.parts for c in (*p.rest, *p.stays))


@LAWS.append
def where_all_fits_nothing_goes(drawn: Drawn) -> None:
    shared = share_out(drawn.limit, drawn.parts, NOW)
    if shared.every <= drawn.limit.total.size:
        assert len(kept(shared)) == sum(len(part.rest) for part in drawn.parts)


@LAWS.append
def a_greater_budget_lets_nothing_more_go(drawn: Drawn) -> None:
    less, more = (kept(share_out(limit, drawn.parts, NOW)) for limit in (drawn.limit, drawn.greater))
    assert less <= more


@LAWS.append
def what_would_save_it_does(drawn: Drawn) -> None:
    for directory, said in share_out(drawn.limit, drawn.parts, NOW).says.items():
        for name, opinion in said.items():
            if not opinion.keeps:
                assert (directory, name) in kept(share_out(opinion.would, drawn.parts, NOW))


@LAWS.append
def as_many_are_best_as_are_asked_for(drawn: Drawn) -> None:
    said = best_across(Best("loss", "max", drawn.best, "*"), drawn.parts)
    rated = [c for p in drawn.parts for c in p.stays if c.metrics.get("loss", "none") not in ("none", "nan", "inf")]
    assert sum(" is best " in one.why for rows in said.values() for one in rows.values()) == min(drawn.best, len(rated))
    assert all(math.isfinite(float(c.metrics["loss"])) for c in rated)


# --- single sentences -------------------------------------------------------------------------------------------------


def test_the_oldest_of_all_directories_goes_first() -> None:
    parts = [
        OwnPlan("a", (one("old", time=1), one("new", time=4))),
        OwnPlan("b", (one("older", time=2), one("mid", time=3))),
    ]
    assert kept(share_out(budget(20), parts, NOW)) == {("a", "new"), ("b", "mid")}


def test_the_worst_of_all_directories_goes_first_and_of_equal_ones_the_older() -> None:
    parts = [
        OwnPlan("a", (one("bad", loss="0.9"), one("best", loss="0.1"))),
        OwnPlan("b", (one("old", loss="0.5", time=1), one("new", loss="0.5", time=2), one("nan", loss="nan"))),
    ]
    assert kept(share_out(budget(20, ("loss", "min")), parts, NOW)) == {("a", "best"), ("b", "new")}
    assert kept(share_out(budget(20, ("loss", "max")), parts, NOW)) == {("a", "bad"), ("b", "new")}


def test_a_directory_without_the_metric_goes_by_age_in_step_with_the_others() -> None:
    parts = [
        OwnPlan("a", tuple(one(f"a{n}", loss=str(n)) for n in range(4))),
        OwnPlan("b", tuple(one(f"b{n}", time=9 - n) for n in range(2))),
    ]
    assert kept(share_out(budget(30, ("loss", "min")), parts, NOW)) == {("a", "a0"), ("b", "b0"), ("a", "a1")}


def test_a_file_with_names_in_two_directories_counts_once() -> None:
    parts = [OwnPlan("a", (one("x", 10, inode=1), one("old", 10, time=0))), OwnPlan("b", (), (one("y", 10, inode=1),))]
    shared = share_out(budget(10), parts, NOW)
    assert (shared.every, shared.must, kept(shared)) == (20, 10, {("a", "x")})


def test_what_must_stay_is_told_where_it_is_too_much() -> None:
    parts = [OwnPlan("a", (one("x", 10),), (one("y", 30),))]
    shared = share_out(budget(20), parts, NOW)
    assert kept(shared) == set()
    assert budget_note(budget(20), shared).startswith(
        "What must stay takes 30 B, more than the budget of 20B: of 40 B "
    )
    assert budget_note(budget(35), share_out(budget(35), parts, NOW)).startswith(
        "The budget of 35B keeps 30 B of 40 B "
    )


def test_a_later_epoch_is_never_older_than_an_earlier_one() -> None:
    found = [one("e3", time=1, epoch=3), one("e1", time=5, epoch=1), one("e2", time=2, epoch=2), one("none", time=3)]
    assert times_of(found, NOW) == {"e1": 5 * NS, "e2": 5 * NS, "e3": 5 * NS, "none": 3 * NS}
    assert times_of([one("ahead", time=9_000_000), one("before", time=-1)], NOW) == {"ahead": NOW, "before": NOW}


def test_the_best_across_directories_are_ranked_together() -> None:
    best = Best("loss", "min", 2, "sweep_*")
    names = ("a", "b")
    parts = [
        OwnPlan("a", (), (one("a", loss="0.3"), one("b", loss="0.1")), frozenset(names)),
        OwnPlan(
            "b", (one("goes", loss="0.01"),), (one("b", loss="nan"), one("a", loss="0.2")), frozenset({*names, "goes"})
        ),
        OwnPlan("c", (), (one("a", loss="0.01"), one("b")), frozenset({"b"})),
    ]
    said = best_across(best, parts)
    assert {(d, n): one.keeps for d in said for n, one in said[d].items()} == {
        ("a", "a"): False, ("a", "b"): True, ("b", "a"): True, ("b", "b"): False, ("c", "b"): True,
    }  # fmt: skip
    assert said["a"]["a"].why == "loss 0.3 is not of the best 2 across 'sweep_*'"
    assert str(said["a"]["a"].would) == "{metric: loss, mode: min, count: 3, across: 'sweep_*'}"
    assert best_across(best, parts[::-1]) == said


def test_the_line_that_would_save_it_is_whole() -> None:
    parts = [OwnPlan("a", (one("x", loss="0.1"), one("y", loss="0.2")))]
    said = share_out(budget(10, ("loss", "min")), parts, NOW).says["a"]["y"]
    assert said.why == "does not fit in the budget of 10B: 2 of 2 by loss (0.2)"
    assert str(said.would) == "{total: 20B, order: [{metric: loss, mode: min}, oldest]}"


def test_what_tells_no_metric_of_the_order_counts_as_what_must_stay() -> None:
    parts = [OwnPlan("a", (one("x", loss="0.1"), one("y", epoch=1))), OwnPlan("b", (one("z", loss="none"),))]
    shared = share_out(budget(20, ("loss", "min"))._replace(by_age=False), parts, NOW)
    assert kept(shared) == {("a", "y"), ("b", "z")}
    assert (shared.every, shared.must, shared.stays) == (30, 20, 20)
    assert str(shared.says["a"]["x"].would) == "{total: 30B, order: [{metric: loss, mode: min}]}"
