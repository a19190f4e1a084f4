"""Compiles the rules on files that know of checkpoints: pointers, facts, and markers of unfinished ones."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from ckptrules.engine.ruleset import Fact, Fault, Pattern, Rule
from ckptrules.engine.shapes import TRUTH, Choice, Either, Keys, ListOf, Text
from ckptrules.engine.state_folder import STATE
from ckptrules.rules.shape import Value, name_fault

# Files in which frameworks and users name the checkpoint to resume from, or the best one. All packs have them, as a
# program may name its checkpoints like those of another framework.
TRACKERS = (
    *"latest latest_checkpoint last_checkpoint best_checkpoint checkpoint".split(),
    *"best_epoch.txt best_step.txt latest_epoch.txt latest_step.txt last_epoch.txt last_step.txt".split(),
    *"latest.txt latest_checkpoint.txt last_checkpoint.txt best_checkpoint.txt last.txt best.txt".split(),
    *"latest.json latest_checkpoint.json last_checkpoint.json best_checkpoint.json last.json best.json".split(),
    *"checkpoint.json state.json latest_checkpointed_iteration.txt".split(),
)
# Endings that mark unfinished checkpoints; all packs have them, too. Not ``.tmp``: such a file is renamed when it is
# whole, and until then the file without the ending is an earlier, whole one.
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
                    "A shell pattern, and whether the named checkpoints stay.",
                    {
                        "match": Text("A shell pattern for the names of such files.", name_fault),
                        "protects": Choice("Whether checkpoints that such a file names are never deleted.", TRUTH),
                    },
                    ("match", "protects"),
                ),
            )
        ),
    ),
    "facts": ListOf(
        "Files that know more of checkpoints than the names do: metrics, times, which one is the best.",
        Keys(
            "One such file: JSON (also a document a line), YAML or CSV, by its ending.",
            {
                "file": Text("A path from the checkpoint directory; its parts may be shell patterns.", _file_fault),
                "within": Choice(
                    "true: the path begins in each folder checkpoint; the file is about that checkpoint.", TRUTH
                ),
                "rows": Text("The key of the list of rows in the document."),
                "by": Keys(
                    "Which row is about which checkpoint: the field of the name, and the key in the row.",
                    {
                        "epoch": Text("The key of the epoch."),
                        "step": Text("The key of the step."),
                        "number": Text("The key of the number."),
                        "name": Text("The key of the name, of its stem, or of a path that ends in it."),
                    },
                ),
                "offset": Text(
                    "How much higher the file counts than the names: 1 if it begins at 1, and the names at 0.",
                    _offset_fault,
                ),
                "best": Text("The key of a text that names the best checkpoint, which then stays."),
                "score": Text(
                    "The key of the number by which that checkpoint is the best; `init` takes the metric from it."
                ),
                "inside": Choice(
                    "true: the file is a checkpoint of torch, and 'best' a path of keys in it: callbacks/*/best.",
                    TRUTH,
                ),
                "time": Text("The key of a time, in seconds since 1970 or ISO 8601; it counts instead of the file's."),
            },
            ("file",),
        ),
    ),
}


def compile_patterns(
    values: Iterable[Value], usual: Iterable[str] = (), formats: Sequence[Rule] = ()
) -> tuple[Pattern, ...]:
    """Compile shell patterns or endings of names; rules with formats have the ``usual`` ones as well."""
    return (*map(_pattern, values), *(Pattern(text, formats[0].place) for text in usual if formats))


def _pattern(value: Value) -> Pattern:
    if isinstance(value.data, str):
        return Pattern(value.data, value.place)
    keys = {key: item.data for key, item in value.items()}
    return Pattern(keys.get("match", ""), value.place, keys.get("protects", True))


def compile_facts(values: Sequence[Value], faults: list[Fault]) -> tuple[Fact, ...]:
    """Compile files of facts; add faults for keys that contradict each other."""
    found = [_fact(value) for value in values]
    if not faults:  # else a missing key may have been refused
        faults += [Fault(fact.place, f"facts: {fact.file}: {text}") for fact in found for text in _contradictions(fact)]
    return tuple(found)


def _fact(value: Value) -> Fact:
    keys = {key: item.data for key, item in value.items()}
    by = tuple((ours, theirs.data) for ours, theirs in keys.pop("by", {}).items())
    return Fact(keys.pop("file"), value.place, by=by, offset=int(keys.pop("offset", 0)), **keys)


def _contradictions(fact: Fact) -> Iterator[str]:
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
