"""`doit packs`: the packs that there are, what they find here, and what they make of names."""

from __future__ import annotations

import os
import textwrap
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from ckptrules.engine.checkpoints import Claim, numbers_told
from ckptrules.engine.comparing import Compared
from ckptrules.engine.lookalikes import layout_for
from ckptrules.engine.naming import SlowRuleError, own_claim
from ckptrules.engine.packs import claim_of_packs
from ckptrules.engine.ruleset import Fault, Pack, RuleError
from ckptrules.engine.spelling import one_of
from ckptrules.outputs.picking import LAST_RESORT, Tree
from ckptrules.outputs.scouting import MOST_OPENED, OPENED, Sight, by_pack, scout
from ckptrules.report.style import Style, count_of, table
from ckptrules.rules import packs as packs_of_rules
from ckptrules.rules.load import load_pack
from ckptrules.rules.shipped import RULES_DIR
from ckptrules.run.options import Common, OptionError, a_file, a_path, option, some_text
from ckptrules.run.outcome import Done, Output, Prepared
from ckptrules.run.session import Session
from ckptrules.storage import writing

WIDTH = 80  # columns, where the terminal has no less


class Options(Common):
    """The options of `doit packs`."""

    finds_outputs = False
    copy: str | None = option(None, some_text, "write this pack into the rules folder, to edit it")
    names: str | None = option(None, a_path, "say what the packs make of the names in this file, one on each line")
    json: str | None = option(None, a_file, "with names=FILE: write what the packs make of them to this file, as JSON")


def prepare(session: Session, options: Options) -> Prepared:
    """Find out what is asked of the packs."""
    known = packs_of_rules.sources()
    if options.copy and options.copy not in known:
        raise OptionError(f"no pack '{options.copy}'", one_of(options.copy, known))
    if options.json and not options.names:
        raise OptionError(
            "packs json= needs names=FILE", "'doit catalog format=json' lists the checkpoints that are here"
        )
    style = session.style(options)
    if options.copy:
        return Prepared(partial(copy_pack, options, style))
    if options.names:
        return Prepared(partial(tell_names, options, style, names_in(options.names)))
    return Prepared(partial(show, options, style))


def all_packs() -> list[Pack]:
    """Compile every pack.

    Raises:
        RuleError: one does not hold.
    """
    faults: list[Fault] = []
    found = [load_pack(name, path, faults) for name, path in packs_of_rules.sources().items()]
    if faults:
        raise RuleError(faults)
    return found


# --- what they find here ----------------------------------------------------------------------------------------------


def show(options: Options, style: Style) -> Done:
    """List the packs: those that find something in this tree, where, with the evidence; then the others."""
    packs, tree = all_packs(), Tree(options.outputs_dir)
    seen: dict[str, list[Sight]] = defaultdict(list)
    for sight in scout(tree, packs) if os.path.isdir(options.outputs_dir) else ():
        seen[" or ".join(pack.name for pack in sight.packs)].append(sight)
    compared = _compared(tree, [sight for sights in seen.values() for sight in sights])
    rows = [row for name, sights in seen.items() for row in _rows(name, sights, compared, style)]
    found = table(("pack", "where", "names", "evidence"), rows, right=(2,), width=style.width) if rows else ""
    named = {pack.name for sights in seen.values() for sight in sights for pack in sight.packs}
    others = ", ".join(pack.name for pack in packs if pack.name not in named)
    text = found or f"No pack finds anything in '{style.name(options.outputs_dir)}'.\n"
    width = min(style.width or WIDTH, WIDTH)
    text += "\n".join(textwrap.wrap(f"Not found here: {others}", width, subsequent_indent="  ")) + "\n"
    text += "'packs: [name, …]' in the rules has them judge; 'doit packs copy=NAME' writes one to edit.\n"
    return Done(Output(text), failed=not rows)


def _compared(tree: Tree, sights: Sequence[Sight]) -> dict[str, dict[str, Compared]]:
    """Open some checkpoints of each directory, and compare them by what each pack reads."""
    found, left = {}, MOST_OPENED
    for sight in sights:
        found[sight.directory], opened = by_pack(tree, sight, min(left, OPENED))
        left -= opened
    return found


def _rows(
    name: str, sights: Sequence[Sight], compared: Mapping[str, Mapping[str, Compared]], style: Style
) -> Iterator[tuple[str, ...]]:
    """Yield a row for each kind of folder: the pattern that covers it, how many names, the evidence.

    Below it stands how the numbers in the names compare with those inside, by each pack that reads any.
    """
    by_pattern: dict[str, list[Sight]] = defaultdict(list)
    for sight in sights:
        by_pattern[(layout_for([sight.directory]) or ["."])[0]].append(sight)
    for pattern, several in sorted(by_pattern.items()):
        evidence = several[0].packs[0].evidence
        more = f", in {len(several)} folders" if len(several) > 1 else ""
        yield name, style.name(pattern), str(sum(len(one.names) for one in several)), style.name(evidence) + more
        for pack in several[0].packs:
            inside = Compared(*map(sum, zip(*(compared[one.directory][pack.name] for one in several), strict=True)))
            who = f" by {pack.name}" * (len(several[0].packs) > 1)
            if inside.text:
                yield "", "", "", inside.text + who


# --- a pack to edit ---------------------------------------------------------------------------------------------------


def copy_pack(options: Options, style: Style) -> Done:
    """Write a pack into the rules folder as rules of the user's own; overwrite nothing."""
    name = str(options.copy)
    path = os.path.join(options.rules_dir or RULES_DIR, f"{name}.yaml")
    text = as_rules(packs_of_rules.text_of(name, packs_of_rules.sources([name])[name]))
    try:
        if not options.dry_run:
            writing.write_new(path, text.encode())
    except FileExistsError:
        return Done(Output(f"{style.name(path)} is there already: left as it is.\n"), failed=True)
    except OSError as error:
        return Done(Output(f"{style.name(path)} cannot be written: {error.strerror}\n"), failed=True)
    wrote = "Would write" if options.dry_run else "Wrote"
    end = f"Take '{name}' out of 'packs:', if it stands there; 'doit check' tests the rules.\n"
    return Done(Output(f"{wrote} {style.name(path)}.\n{end}"))


def as_rules(text: str) -> str:
    """Turn the text of a pack into that of a rule file: without its name and its marks, its layout as a comment.

    That stands in one rule file only; who has none elsewhere takes the mark of the comment away.
    """
    lines, key = [], ""
    for line in text.splitlines():
        if line[:1] not in (" ", "", "#"):
            key = line.partition(":")[0]
        if line.startswith("#") or key not in ("pack", "marks", "layout"):
            lines.append(line)
        elif key == "layout":
            lines.append(f"# {line}")
    return "\n".join(["# yaml-language-server: $schema=schema.json", *lines]) + "\n"


# --- what they make of names ------------------------------------------------------------------------------------------


def names_in(path: str) -> list[str]:
    """Read names, one a line.

    Raises:
        OptionError: the file cannot be read.
    """
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return [line for line in file.read().split("\n") if line]
    except OSError as error:
        raise OptionError(f"names={path} cannot be read: {error.strerror}") from None


def tell_names(options: Options, style: Style, names: Sequence[str]) -> Done:
    """Say of each name what the packs make of it."""
    from ckptrules.run.json_file import write_data  # not above: nothing else needs it

    packs = all_packs()
    rows = [verdict(name, packs) for name in names]
    faults = write_data(options, rows, style)
    cells = [(style.name(row["name"]), row["kind"], _fields(row["fields"]), ", ".join(row["packs"])) for row in rows]
    known = sum(row["kind"] != "unknown" for row in rows)
    text = table(("name", "kind", "fields", "packs"), cells) + f"{count_of(len(rows), 'name')}, {known} known\n"
    return Done(Output("".join([text, *faults.values()])), failed=bool(faults) or not known)


def verdict(name: str, packs: Sequence[Pack]) -> dict[str, Any]:
    """Say what packs make of a name together, without any directory: kind, numbers, and which packs.

    What a pack ignores, it ignores only among its own checkpoints. The last resort is asked where the others know
    nothing.
    """
    every = [(pack, said) for pack in packs for said in [_said(name, pack)] if said]
    every = [pair for pair in every if pair[0].name != LAST_RESORT] or every
    claiming = [pair for pair in every if pair[1].kind != "ignored"] or every
    said = claim_of_packs(claiming)
    kind = _kind(said) if said else "unknown"
    fields = numbers_told(said.fields) if said and kind != "ambiguous" else None
    return {"name": name, "kind": kind, "fields": fields or None, "packs": [pack.name for pack, _ in claiming]}


def _said(name: str, pack: Pack) -> Claim | None:
    try:
        said = own_claim(name, pack.rules)
    except SlowRuleError:
        return None
    return None if said.kind == "unrecognised" else said


def _kind(said: Claim) -> str:
    return "pointer" if said.reason.text.startswith("names checkpoints") else said.kind


def _fields(fields: Mapping[str, int] | None) -> str:
    return " ".join(f"{key} {value}" for key, value in (fields or {}).items())
