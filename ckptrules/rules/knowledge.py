"""What files beside and inside the checkpoints know of them: ``pointers`` name some, ``facts`` tell more."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from ckptrules.engine.ruleset import Fact, Fault, Pattern, Rule
from ckptrules.engine.shapes import TRUTH, Choice, Either, Keys, ListOf, Text
from ckptrules.engine.state_folder import STATE
from ckptrules.rules.shape import Value, name_fault

# Files by which frameworks and their users say which checkpoint to go on with, or which is the best. They are asked in
# any case: who writes them may name checkpoints as another framework does.
TRACKERS = (
    *"latest latest_checkpoint last_checkpoint best_checkpoint checkpoint".split(),
    *"best_epoch.txt best_step.txt latest_epoch.txt latest_step.txt last_epoch.txt last_step.txt".split(),
    *"latest.txt latest_checkpoint.txt last_checkpoint.txt best_checkpoint.txt last.txt best.txt".split(),
    *"latest.json latest_checkpoint.json last_checkpoint.json best_checkpoint.json last.json best.json".split(),
    *"checkpoint.json state.json latest_checkpointed_iteration.txt".split(),
)
# Endings by which they say that a checkpoint is not finished; asked in any case, too. A ``.tmp`` is no such: it becomes
# another file when it is whole, and the one without it is what was there before.
MARKERS = (
    *"-unfinished .unfinished -incomplete .incomplete -in-progress .in-progress .inprogress".split(),
    *".writing .saving .aria2".split(),
)
_INTEGER = re.compile("[-+]?[0-9]{1,9}")


def _file_fault(text: str) -> str:
    parts = text.split("/")
    below = parts[next((n for n, part in enumerate(parts) if part != ".."), len(parts)) :]
    if not below or {"", ".", ".."} & set(below):
        return (
            f"'{text}' must be the path of a file from the checkpoint directory; '..' may stand at its beginning only"
        )
    if "**" in below:
        return f"'{text}' would search a whole tree: each part of it must be a name, or a pattern of names"
    return f"'{text}' must not lead into '{STATE}'" if STATE in below else ""


def _offset_fault(text: str) -> str:
    return "" if _INTEGER.fullmatch(text) else f"'{text}' must be a whole number, such as 1 or -1"


SHAPES = {
    "pointers": ListOf(
        "Shell patterns of text files that name checkpoints: these stay, and the files follow a rename.",
        Either(
            (
                Text("a shell pattern", name_fault),
                Keys(
                    "A shell pattern, and whether what the files name stays.",
                    {
                        "match": Text("A shell pattern for the names of such files.", name_fault),
                        "protects": Choice("Whether what such a file names is never deleted.", TRUTH),
                    },
                    ("match", "protects"),
                ),
            )
        ),
    ),
    "facts": ListOf(
        "Files that know more of checkpoints than their names: metrics, times, which one is the best.",
        Keys(
            "One such file: JSON (also a document a line), YAML or CSV, by its ending.",
            {
                "file": Text("A path from the checkpoint directory; its parts may be shell patterns.", _file_fault),
                "within": Choice("true: the path is one inside each folder checkpoint, and tells of this one.", TRUTH),
                "rows": Text("The key of the list of rows in the document."),
                "by": Keys(
                    "Which row tells of which checkpoint: our field, and their key.",
                    {
                        "epoch": Text("Their key of the epoch."),
                        "step": Text("Their key of the step."),
                        "number": Text("Their key of the number."),
                        "name": Text("Their key of the name, its stem, or a path that ends in it."),
                    },
                ),
                "offset": Text(
                    "How much more the file counts than the names: 1 if it begins at 1 and they at 0.", _offset_fault
                ),
                "best": Text("The key of a text that names the best checkpoint: that one stays."),
                "score": Text("The key of the number by which that one is the best: it tells `init` the metric."),
                "inside": Choice(
                    "true: the file is a checkpoint of torch, and 'best' a path of keys in it: callbacks/*/best.",
                    TRUTH,
                ),
                "time": Text("The key of a time, in seconds since 1970 or ISO 8601: believed over the file's."),
            },
            ("file",),
        ),
    ),
}


def compile_pointers(values: Iterable[Value], formats: Sequence[Rule]) -> tuple[Pattern, ...]:
    """Compile the patterns of pointer files; a pack, or rules with formats, have the `TRACKERS` as well."""
    trackers = TRACKERS if formats else ()
    return (*map(_pointer, values), *(Pattern(tracker, formats[0].place) for tracker in trackers))


def compile_markers(values: Iterable[Value], formats: Sequence[Rule]) -> tuple[Pattern, ...]:
    """Compile the endings of what marks something as unfinished; where there are formats, `MARKERS` as well."""
    said = [Pattern(value.data, value.place) for value in values]
    return (*said, *(Pattern(ending, formats[0].place) for ending in MARKERS if formats))


def _pointer(value: Value) -> Pattern:
    if isinstance(value.data, str):
        return Pattern(value.data, value.place)
    said = {key: item.data for key, item in value.items()}
    return Pattern(said.get("match", ""), value.place, said.get("protects", True))


def compile_facts(values: Sequence[Value], faults: list[Fault]) -> tuple[Fact, ...]:
    """Compile where files know more; what makes no sense together is added to ``faults``."""
    found = [_fact(value) for value in values]
    if not faults:  # else what is missing may be what was refused
        faults += [Fault(fact.place, f"facts: {fact.file}: {text}") for fact in found for text in _senseless(fact)]
    return tuple(found)


def _fact(value: Value) -> Fact:
    said = {key: item.data for key, item in value.items()}
    by = tuple((ours, theirs.data) for ours, theirs in said.pop("by", {}).items())
    return Fact(said.pop("file"), value.place, by=by, offset=int(said.pop("offset", 0)), **said)


def _senseless(fact: Fact) -> Iterator[str]:
    if not (fact.by or fact.within or fact.best):
        yield "it needs 'by', which says what its rows tell of, or 'best'"
    if fact.within and fact.file.startswith("../"):
        yield "a path inside a checkpoint ('within') must not lead out of it"
    if fact.inside and (not fact.best or fact != Fact(fact.file, fact.place, best=fact.best, inside=True)):
        yield "'inside' goes with 'best' and 'file' alone"
    if fact.inside and "/" in fact.file:
        yield "'inside' goes with the name of a checkpoint, not with a path"
    if fact.offset and not any(ours != "name" for ours, _ in fact.by):
        yield "'offset' counts for an epoch, step or number in 'by'"
