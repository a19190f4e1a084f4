"""Report what a look at a folder without rules has found, and how much the drafted rules would delete."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence

from ckptrules.engine.measures import and_more, count_of, human_size
from ckptrules.engine.names.comparing import Compared
from ckptrules.engine.names.starting import PROTOCOL, Seen, best_by, by_pattern
from ckptrules.engine.ruleset import RuleSet
from ckptrules.outputs.links import Links
from ckptrules.outputs.scouting import MOST_NAMES, Scouted
from ckptrules.report.style import Style, table
from ckptrules.report.text import SharedFiles, Tally, by_file, shared_files, tally
from ckptrules.rules.load import load_rules
from ckptrules.run import deciding, finding, jobs, records
from ckptrules.run.command_line import command_line
from ckptrules.run.options import Planning
from ckptrules.run.session import Session

WIDTH = 80  # columns of the table
MOST_WHAT, MOST_WHERE = 22, 26  # columns of the first two cells
MOST_ROWS = 12
FEW = 3  # folders that are listed


def look_text(found: Scouted, style: Style) -> str:
    """Return the text on how much was looked at, and what was left out."""
    text = f"Looked at {count_of(found.folders, 'folder')}"
    if found.opened:
        text += f"; opened {count_of(found.opened, 'checkpoint')} to compare, ran none of them"
    stopped = f"\nStopped after {MOST_NAMES:,} names: name a folder to have the rest looked at, too." * found.stopped
    closed = "".join(f"\nNot looked into: {style.name(path or os.curdir)}: {why}." for path, why in found.closed[:FEW])
    closed += f"\nNor {count_of(len(found.closed) - FEW, 'further folder')}." * (len(found.closed) > FEW)
    return f"{text}.{stopped}{closed}\n"


def kind_rows(found: Scouted, prefix: str, style: Style) -> list[str]:
    """Return a table of the kinds of checkpoints and their places, each row with its evidence below."""
    rows, evidence = [], []
    for where, alike in _kinds(found, prefix):
        first = alike[0]
        what = (" + " if first.sure else " or ").join(first.packs) or "unknown"
        what = what if first.sure else f"? {what}"
        count, size = sum(seen.checkpoints for seen in alike), sum(seen.size for seen in alike)
        cells = (_cut(style.name(what), MOST_WHAT), _cut(style.name(where), MOST_WHERE))
        rows.append((*cells, str(count), human_size(size) if size else "", "yes" if first.sure else "no"))
        inside = Compared(*map(sum, zip(*(seen.compared for seen in alike), strict=True))).text
        facts = "; ".join(filter(None, (inside, _no_best(alike))))
        room = WIDTH - 4 - len(facts) - 2 * bool(facts)
        text = "; ".join(filter(None, (_cut(style.name(first.evidence), room), facts)))
        evidence.append(f"    {text}")
    if not rows:
        return []
    heading, *lines = table(("what", "where", "checkpoints", "size", "sure?"), rows, right=(2, 3)).splitlines()
    more = [f"  and {len(rows) - MOST_ROWS} more kinds"] * (len(rows) > MOST_ROWS)
    both = [line for pair in zip(lines, evidence, strict=True) for line in pair][: 2 * MOST_ROWS]
    return ["\n".join([heading, *both, *more, ""])]


def _no_best(alike: Sequence[Seen]) -> str:
    """Return a text on how many of these directories tell no metric by which there is a best; empty if all do."""
    asked = [one for one in alike if one.sure and one.numbers and one.packs != (PROTOCOL,)]
    lacks = sum(not best_by(one)[0] for one in asked)
    return "" if not lacks else "no metric" + f" in {lacks} of {len(asked)}" * (lacks < len(asked))


def _kinds(found: Scouted, prefix: str) -> list[tuple[str, list[Seen]]]:
    """Group what was seen by packs, sureness and pattern; a group that is not sure is shown with its first path."""
    kinds: dict[tuple[object, ...], list[Seen]] = {}
    patterns = {one: pattern for pattern, alike in by_pattern(found.seen, prefix).items() for one in alike}
    for one in (*found.seen, *found.strangers):
        inside = one.compared.agrees, one.compared.one_less == one.compared.opened > 0
        kinds.setdefault((one.packs, one.sure, inside, patterns.get(one, one.directory)), []).append(one)
    rows = []
    for alike in kinds.values():
        first = alike[0]
        rows.append((patterns[first] if first.sure else and_more([one.directory or os.curdir for one in alike]), alike))
    return rows


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 14]}...{text[-11:]}"


def savings_text(place: str, texts: Mapping[str, str], keeps: str) -> str:
    """Plan every directory by the drafted rules, and return the text on how much would go."""
    rules = load_rules(texts)
    goes, total, blind = _measured(place, rules)
    would_go = f"{human_size(goes)} of {human_size(total)} would go"
    text = f"If you kept {keeps}, {would_go}; nothing goes unless you ask for it."
    where = f"No metric is known of {count_of(blind, 'experiment')}, so no best is kept"
    text += f" {where}: name one with keep_best, or pin it." * bool(blind)
    return textwrap.fill(text, WIDTH) + "\n"


def _measured(place: str, rules: RuleSet) -> tuple[int, int, int]:
    """Return the bytes that would be deleted, the bytes of all, and the number of experiments with no metric known.

    Only experiments that would lose a checkpoint are counted.
    """
    session = Session(command_line([]), {})
    options = Planning(outputs_dir=place, delete_old=True, dry_run=True)
    finding.go_by(session, options, rules)
    header = {"started_ns": session.started_ns}
    job = jobs.Job(options, rules, Style(), header, Links(place), records.journals_of(session))
    total, links, blind = Tally(), list[SharedFiles](), 0
    for own, found in jobs.own_jobs(session, job):
        plan, listing = deciding.decided_of(own, found)[:2]
        links.append(shared_files(plan, listing.entries))
        total += tally(plan)
        blind += plan.blind
    total = by_file(total, links)
    return total.bytes_deleted, total.bytes_deleted + total.bytes_kept, blind
