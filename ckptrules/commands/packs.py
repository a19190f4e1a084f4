"""`doit packs`: list the packs, show what they find here, copy one, and show how they read names."""

from __future__ import annotations

import os
import textwrap
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from ckptrules.engine.checkpoints import Claim, numbers_told
from ckptrules.engine.measures import count_of
from ckptrules.engine.names.comparing import Compared
from ckptrules.engine.names.lookalikes import layout_for
from ckptrules.engine.names.naming import POINTER, SlowRuleError, own_claim
from ckptrules.engine.names.packs import claim_of_packs
from ckptrules.engine.ruleset import Fault, Pack, RuleError
from ckptrules.engine.spelling import one_of
from ckptrules.outputs.picking import LAST_RESORT, Tree
from ckptrules.outputs.scouting import Sight, by_pack, scout
from ckptrules.report.style import Style, table, with_texts
from ckptrules.rules import packs as packs_of_rules
from ckptrules.rules.load import load_pack
from ckptrules.rules.shipped import RULES_DIR
from ckptrules.run.options import Common, OptionError, a_file, a_path, option, some_text
from ckptrules.run.outcome import Done, Prepared
from ckptrules.run.session import Session
from ckptrules.storage import writing

WIDTH = 80  # columns at most


class Options(Common):
    """The options of `doit packs`."""

    finds_outputs = False
    copy: str | None = option(None, some_text, "write this pack into the rules folder, to edit it")
    names: str | None = option(None, a_path, "say what the packs make of the names in this file, one on each line")
    json: str | None = option(None, a_file, "with names=FILE: write what the packs make of them to this file, as JSON")


def prepare(session: Session, options: Options) -> Prepared:
    """Choose what to do: copy a pack, read names, or list the packs."""
    known = packs_of_rules.sources()
    if options.copy and options.copy not in known:
        raise OptionError(f"no pack '{options.copy}'", one_of(options.copy, known))
    if options.copy and options.names:
        raise OptionError("packs takes copy= or names=, not both", "run one after the other")
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
        RuleError: a pack is broken.
    """
    faults: list[Fault] = []
    packs = [load_pack(name, path, faults) for name, path in packs_of_rules.sources().items()]
    if faults:
        raise RuleError(faults)
    return packs


# --- what they find here ----------------------------------------------------------------------------------------------


def show(options: Options, style: Style) -> Done:
    """List the packs: first those that find something in this tree, with places and evidence, then the others."""
    packs, tree = all_packs(), Tree(options.outputs_dir)
    seen: dict[str, list[Sight]] = defaultdict(list)
    for sight in scout(tree, packs) if os.path.isdir(options.outputs_dir) else ():
        seen[" or ".join(pack.name for pack in sight.packs)].append(sight)
    compared = {sight.directory: by_pack(tree, sight)[0] for sights in seen.values() for sight in sights}
    rows = [row for name, sights in seen.items() for row in _rows(name, sights, compared, style)]
    found = with_texts(("pack", "where", "names", "evidence"), rows, (2,), style.width) if rows else ""
    named = {pack.name for sights in seen.values() for sight in sights for pack in sight.packs}
    others = ", ".join(pack.name for pack in packs if pack.name not in named)
    text = found or f"No pack finds anything in '{style.name(options.outputs_dir)}'.\n"
    width = min(style.width or WIDTH, WIDTH)
    text += "\n".join(textwrap.wrap(f"Not found here: {others}", width, subsequent_indent="  ")) + "\n"
    text += "'packs: [name, …]' in the rules has them judge; 'doit packs copy=NAME' writes one to edit.\n"
    return Done(text, failed=not rows)


def _rows(
    name: str, sights: Sequence[Sight], compared: Mapping[str, Mapping[str, Compared]], style: Style
) -> Iterator[tuple[str, ...]]:
    """Yield a row for each kind of folder: the pattern that covers it, the number of names, the evidence.

    A row below it says, for each pack, how the numbers in names compare with those inside, if it reads any.
    """
    by_pattern: dict[str, list[Sight]] = defaultdict(list)
    for sight in sights:
        by_pattern[(layout_for([sight.directory]) or ["."])[0]].append(sight)
    for pattern, several in sorted(by_pattern.items()):
        evidence = several[0].packs[0].evidence
        more = f", in {len(several)} folders" if len(several) > 1 else ""
        yield name, style.name(pattern), str(sum(len(sight.names) for sight in several)), style.name(evidence) + more
        for pack in several[0].packs:
            of_pack = (compared[sight.directory][pack.name] for sight in several)
            inside = Compared(*map(sum, zip(*of_pack, strict=True)))
            by = f" by {pack.name}" * (len(several[0].packs) > 1)
            if inside.text:
                yield "", "", "", inside.text + by


# --- a pack to edit ---------------------------------------------------------------------------------------------------


def copy_pack(options: Options, style: Style) -> Done:
    """Write a pack into the rules folder, for the user to edit; overwrite nothing."""
    name = str(options.copy)
    path = os.path.join(options.rules_dir or RULES_DIR, f"{name}.yaml")
    text = as_rules(packs_of_rules.text_of(name, packs_of_rules.sources([name])[name]))
    try:
        if not options.dry_run:
            writing.write_new(path, text.encode())
    except FileExistsError:
        return Done(f"{style.name(path)} is there already: left as it is.\n", failed=True)
    except OSError as error:
        return Done(f"{style.name(path)} cannot be written: {error.strerror}\n", failed=True)
    wrote = "Would write" if options.dry_run else "Wrote"
    end = f"Take '{name}' out of 'packs:', if it stands there; 'doit check' tests the rules.\n"
    return Done(f"{wrote} {style.name(path)}.\n{end}")


def as_rules(text: str) -> str:
    """Return the text of a pack as that of a rule file: without name and marks, and with the layout as a comment.

    Only one rule file may have a layout. A user without another one uncomments it.
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
    """Read names, one on each line.

    Raises:
        OptionError: the file cannot be read.
    """
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return [line for line in file.read().split("\n") if line]
    except OSError as error:
        raise OptionError(f"names={path} cannot be read: {error.strerror}") from None


def tell_names(options: Options, style: Style, names: Sequence[str]) -> Done:
    """Show how the packs read each name."""
    from ckptrules.run.json_file import write_data  # not above: nothing else needs it

    packs = all_packs()
    rows = [verdict(name, packs) for name in names]
    faults = write_data(options, rows, style)
    cells = [(style.name(row["name"]), row["kind"], _fields(row["fields"]), ", ".join(row["packs"])) for row in rows]
    known = sum(row["kind"] != "unknown" for row in rows)
    text = table(("name", "kind", "fields", "packs"), cells) + f"{count_of(len(rows), 'name')}, {known} known\n"
    return Done("".join([text, *faults.values()]), failed=bool(faults) or not known)


def verdict(name: str, packs: Sequence[Pack]) -> dict[str, Any]:
    """Return, as data, how all packs together read a name without a directory: kind, numbers, and the packs.

    A pack that ignores the name counts only if no other one claims it. The pack of last resort counts only if the
    others do not know the name.
    """
    claims = [(pack, claim) for pack in packs if (claim := _claim(name, pack))]
    claims = [pair for pair in claims if pair[0].name != LAST_RESORT] or claims
    claims = [pair for pair in claims if pair[1].kind != "ignored"] or claims
    joined = claim_of_packs(claims)
    kind = _kind(joined) if joined else "unknown"
    fields = numbers_told(joined.fields) if joined and kind != "ambiguous" else None
    return {"name": name, "kind": kind, "fields": fields or None, "packs": [pack.name for pack, _ in claims]}


def _claim(name: str, pack: Pack) -> Claim | None:
    """Return the claim of one pack on a name; None if it does not know the name, or is too slow for it."""
    try:
        claim = own_claim(name, pack.rules)
    except SlowRuleError:
        return None
    return None if claim.kind == "unrecognised" else claim


def _kind(claim: Claim) -> str:
    return POINTER if claim.reason.id == POINTER else claim.kind


def _fields(fields: Mapping[str, int] | None) -> str:
    return " ".join(f"{key} {value}" for key, value in (fields or {}).items())
