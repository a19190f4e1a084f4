"""`budget`: delete what no policy line keeps, the worst or oldest first, until the whole tree fits."""

from __future__ import annotations

from collections.abc import Sequence

from ckptrules.engine.checkpoints import Checkpoint
from ckptrules.engine.measures import size
from ckptrules.engine.policy.judging import Around, Judged, Line, yes
from ckptrules.engine.ruleset import Budget
from ckptrules.engine.shapes import MODE, Choice, Either, Keys, ListOf, Text, fault_of

OLDEST = "oldest"


def budget(limit: Budget, checkpoints: Sequence[Checkpoint], around: Around) -> Judged:
    """Keep what the decision for the whole tree keeps, and what came after that decision."""
    decided, late = around.tree.get(limit, {}), yes("had no need of a part in the budget, or came later")
    return {c.entry.name: decided.get(c.entry.name, late) for c in checkpoints}


_METRIC = Keys(
    "The worst by a metric goes first.",
    {
        "metric": Text("As in keep_best."),
        "mode": MODE,
    },
    ("metric", "mode"),
)
LINES = (
    Line(
        "budget",
        Keys(
            "What all checkpoints together may take: what no policy keeps goes until the rest fits.",
            {
                "total": Text(
                    "A size: 500GB. A file with several names counts once, the trash does not.", fault_of(size)
                ),
                "order": ListOf(
                    "By what they are judged, if not by age: the first that a checkpoint tells. What tells none stays.",
                    Either((_METRIC, Choice("The oldest goes first.", {OLDEST: OLDEST}))),
                    empty=False,
                ),
            },
            ("total",),
        ),
        budget,
        by_files=True,
        by_tree=lambda _: True,
        is_last=True,
    ),
)
