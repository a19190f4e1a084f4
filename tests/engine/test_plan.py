"""Golden plans: ``plans/*.yaml`` say in readable lines what must be planned for a listing; laws hold over all of them."""

from __future__ import annotations

import functools
import os.path
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from ckptrules.engine.actions import Action, Plan, Problem
from ckptrules.engine.checkpoints import Evidence, Mention
from ckptrules.engine.entries import Entry, Listing, OutsideLink
from ckptrules.engine.facts import FileFacts, facts_in, joined
from ckptrules.engine.names.naming import named, reader
from ckptrules.engine.names.sorting import sort_entries
from ckptrules.engine.plan import make_plan
from ckptrules.engine.pointers import Index
from ckptrules.engine.policy.retention import assignment, pick_policy, with_line
from ckptrules.engine.ruleset import Reason, RuleError, RuleSet, needed_inside
from ckptrules.engine.shapes import Keys, ListOf, MapOf, Number, Text
from ckptrules.engine.tree import of_one
from ckptrules.engine.whole.wholeness import fitted, unwhole
from ckptrules.outputs.facts import documents, names_of
from ckptrules.outputs.pointers import pointer_files
from ckptrules.rules.shape import Value, read_yaml
from tests.conftest import ROOT
from tests.support.forking import shared_rules
from tests.support.tables import every

RULES = {f"rules/{path.name}": path.read_text(encoding="utf-8") for path in (ROOT / "rules").glob("*.yaml")}
DIRECTORY = "/outputs/ocr/checkpoints"
ENTRY = re.compile(
    r"(?:(?P<size>\d+)|(?P<kind>directory) (?P<sum>\d+)(?: with (?P<with>\S+(?:, \S+)*))?|other|(?P<link>link|dangling) -> (?P<text>.+?))(?: @ (?P<mtime>\S+))?",
)
CASES = ListOf(
    "The cases of one theme.",
    Keys(
        "A listing and what must be planned for it.",
        {
            "name": Text("A sentence."),
            "rules": MapOf("Rule files that are added to the default ones, or replace one.", Text("The content.")),
            "listing": MapOf(
                "What lies in the directory.",
                Text(
                    "SIZE, directory SIZE (with PATH, PATH), other, link -> TEXT or dangling -> TEXT; with @ MTIME in seconds, or as 2025-10-26T02:30+01",
                    lambda text: "" if ENTRY.fullmatch(text) else f"'{text}' is no entry",
                ),
            ),
            "options": Keys(
                "As on the command line, and the time in seconds.",
                {
                    "delete_old": Number("", 0),
                    "keep_min_epoch": Number("", 0),
                    "keep_last": Number("", 1),
                    "policy": Text(""),
                    "on_conflict": Text(""),
                    "verified": ListOf("What was verified; verified=1 is given.", Text("a name")),
                    "now": Number("", 0),
                    "zone": Number("Hours ahead of UTC.", 0),
                },
            ),
            "same": MapOf("Names with one number have one content.", Number("", 0)),
            "in_use": MapOf("Names that are in use, and why.", Text("")),
            "links": MapOf("Links elsewhere, DIRECTORY/NAME: what they lead to here.", Text("")),
            "pointers": MapOf("What stands in pointer files, which lie in the directory as well.", Text("")),
            "files": MapOf("What stands in files that know more, by the path from the directory.", Text("")),
            "pins": MapOf("What is pinned, and what for.", Text("")),
            "plan": ListOf("The lines of the plan.", Text("")),
        },
        ("name", "plan"),
    ),
)


@dataclass(frozen=True, eq=False)
class Case:
    """A golden plan, as its file has it; equal to itself only, so that what is made of it can be remembered."""

    name: str
    plan: list[str]
    listing: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    rules: dict[str, str] = field(default_factory=dict)
    same: dict[str, int] = field(default_factory=dict)
    in_use: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    pointers: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    pins: dict[str, str] = field(default_factory=dict)


def read_cases(text: str, file: str) -> Iterator[Case]:
    """Read a file of cases with the reader of the rule files: it refuses what it does not know."""
    faults: list[Any] = []
    cases = read_yaml(text, file, CASES, faults)
    if cases is None or faults:
        raise RuleError(faults)
    return (Case(**plain(case)) for case in cases.data)


def plain(value: Value) -> Any:
    if isinstance(value.data, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value.data] if isinstance(value.data, list) else value.data


def read_entry(name: str, text: str) -> Entry:
    match = ENTRY.fullmatch(text)
    assert match
    said = match.groupdict()
    mtime_ns = seconds(said["mtime"] or "0") * 1_000_000_000
    if said["link"]:
        path = os.path.normpath(os.path.join(DIRECTORY, os.path.dirname(name), said["text"]))
        sibling = path.removeprefix(f"{DIRECTORY}/") if path.startswith(f"{DIRECTORY}/") else None
        return Entry(name, "link", 0, mtime_ns, said["text"], sibling, said["link"] == "dangling")
    size = said["size"] or said["sum"]
    return Entry(name, "other" if size is None else "directory" if said["kind"] else "file", int(size or 0), mtime_ns)


def seconds(text: str) -> int:
    return int(text) if text.isdigit() else round(datetime.fromisoformat(text).timestamp())


def entries(case: Case) -> list[Entry]:
    return [read_entry(name, text) for name, text in case.listing.items()] + [
        Entry(name, "file", len(content), 0) for name, content in case.pointers.items()
    ]


@functools.cache
def rules_of(case: Case) -> RuleSet:
    return shared_rules(RULES | case.rules)


@functools.cache
def golden(case: Case) -> Plan:
    return plan(case, entries(case))


def plan(case: Case, listed: Iterable[Entry]) -> Plan:
    rules = rules_of(case)
    policy = pick_policy(rules, assignment(rules, "ocr"), case.options.get("policy", "default"))
    assert policy
    if (count := case.options.get("keep_last")) is not None:
        policy = with_line(policy, "keep_last", count, "min_epoch", "min_step")
    if (limit := case.options.get("keep_min_epoch")) is not None:
        policy = with_line(policy, "min_epoch", limit)
    listing = Listing("ocr", "ocr/checkpoints", tuple(listed))
    links = tuple(outside_link(path, sibling) for path, sibling in case.links.items())
    verified = case.options.get("verified")
    now_ns = case.options.get("now", 0) * 1_000_000_000
    facts = joined(list(what_files_tell(case, listing, rules)), names_of(listing, rules), listing)
    evidence = Evidence(
        case.same,
        links,
        case.in_use,
        None if verified is None else frozenset(verified),
        now_ns,
        metrics=facts.metrics,
        times=facts.times,
        pointers={**facts.pointers, **dict(what_pointers_say(case, listing, rules))},
        inside=inside(case, rules),
        zone=timezone(timedelta(hours=case.options.get("zone", 0))),
    )
    evidence = evidence._replace(pins={name: Reason(f"pinned: {note}") for name, note in case.pins.items()})
    on_conflict = case.options.get("on_conflict", "report")
    if case.options.get("delete_old"):
        evidence = evidence._replace(tree=of_one(rules, listing, policy, on_conflict, evidence))
    return make_plan(rules, listing, policy if case.options.get("delete_old") else None, on_conflict, evidence)


def what_pointers_say(case: Case, listing: Listing, rules: RuleSet) -> Iterator[tuple[str, tuple[Mention, ...]]]:
    read = reader(rules)
    for name, protects in pointer_files(listing, rules).items():
        others = [entry.name for entry in listing.entries if entry.name != name]
        content = case.pointers[name].encode()
        if said := Index(others, lambda name: read(name, None).claim.fields).mentioned(content, protects=protects):
            yield name, said


def inside(case: Case, rules: RuleSet) -> dict[str, frozenset[str]]:
    """Say which patterns of a format something in a directory fits."""
    found = {}
    for name, text in case.listing.items():
        match = ENTRY.fullmatch(text)
        if match and match["kind"]:
            patterns = needed_inside(named(name, rules, folder=True).claim.rule)
            found[name] = fitted(patterns, (match["with"] or "").split(", "))
    return found


def what_files_tell(case: Case, listing: Listing, rules: RuleSet) -> Iterator[FileFacts]:
    names = names_of(listing, rules)
    for fact in rules.facts:
        for path, content in sorted(case.files.items()):
            owner = path.partition("/")[0] if fact.within else ""
            if path == f"{owner}/{fact.file}".lstrip("/"):
                notes: list[str] = []
                yield facts_in(fact, path, owner, documents(path, content.encode(), notes.append), names)
                assert not notes


def outside_link(path: str, sibling: str) -> OutsideLink:
    directory, name = os.path.split(path)
    return OutsideLink(directory, Entry(name, "link", 0, 0, f"../ocr/checkpoints/{sibling}", sibling))


def lines(plan: Plan) -> list[str]:
    """Write a plan as the case files have it."""
    return [
        *(f"{act.kind} {whole(act)} ({because(act.reasons)})" for act in plan.actions),
        *(f"keep {' + '.join([row.name, *row.with_it])} ({because(row.reasons)})" for row in plan.kept),
        *(f"skip {row.name} ({row.reason.text})" for row in plan.skipped),
        *(f"problem {row.id}: {remarked(row)} ({row.text})" for row in plan.problems),
        *(f"note {note.text}" for note in plan.notes),
    ]


def whole(action: Action) -> str:
    with_it = "".join(f" + {name}{to and f' -> {to}'}" for name, to in action.with_it)
    return f"{os.path.join(action.directory, action.name)}{action.to and f' -> {action.to}'}{with_it}"


def remarked(problem: Problem) -> str:
    marks = problem.remarks or ("",) * len(problem.names)
    return ", ".join(name + (f" [{mark}]" if mark else "") for name, mark in zip(problem.names, marks, strict=True))


def because(reasons: Iterable[Reason]) -> str:
    return "; ".join(reason.text for reason in reasons)


FILES = sorted((ROOT / "tests/cases/plans").glob("*.yaml"))
READ = [
    (f"{file.stem}: {case.name}", case)
    for file in FILES
    for case in read_cases(file.read_text(encoding="utf-8"), f"plans/{file.name}")
]
GOLDEN = dict(READ)
LINE_OF_REASON: Mapping[str, str | None] = {
    r"(?:legacy rule|format) '(.+)'$": r"id: \1",
    r"is not whole: .+|it alone shows what .+ lacks$": "id: |complete: |template: ",
    r"is a part of .+$": None,
    r"protected by '(.+)'$": r"\1",
    r"already in the target format$": "template: ",
    r"(epoch|step) (?:<|>=) (\d+)$": r"min_\1: \2",
    r"no (epoch|step) in its name$": r"min_\1: |keep_last: |keep_every_\1s: ",
    r"no time in its name$": "keep_last: ",
    r"(keep_at_least: \d+) ": r"\1|mine:|best_and_last:|floor:",
    r"no checkpoint that stays is verified \(verified=1\)$": None,
    r"not protected$": "keep: protected",
    r"the policy keeps all$": "keep: all",
    r"newest \d of (\d)|not of the newest (\d)$": "keep_last: ",
    r"(epoch|step) \d+ is (?:a|no) multiple of (\d+)$": r"keep_every_\1s: \2|keep_every_\1s: {every: \2",
    r"(epoch|step) \d+ (?:is (?:one of|none of|nearest to|not the nearest to)|belongs to none of) ": r"keep_every_\1s: {",
    r"its time lies ahead$": "keep_daily: ",
    r"(?:no )?(hmean|loss|score|acc|WER|eval_loss|val_loss|bbox/AP|mean_accuracy|eval_top1|metrics/mAP50) .*(?:best|its name)|its (?:loss) is no number": r"keep_best: {metric: |keep_best: [{metric: |- {metric: ",
    r".*(hour|week|month|year) \d": r"keep_\1ly: ",
    r".*day \d": "keep_daily: ",
    r".* (?:not )?within (\d+[a-z]+)": r"keep_within: \1",
    r"(?:fits|does not fit) in the budget of (\w+)": r"budget: {total: \1",
    r"tells no \w+, and the order of the budget does not end": "budget: {total",
    r"(?:fits|does not fit) in (\w+)": r"max_total_size: \1",
    r".+ points to it( and is in conflict)?$|.+ is renamed$|link to .+$": None,
    r".+ names it(, and could not follow to .+)?$": None,
    r"(lost the name .+ to|belongs to|in conflict over) .+$": None,
    r"is open for writing( \(.+\))?$|changed .+ ago|pinned: .+": None,
    r"is not finished, as .+ says$": "unfinished: ",
    r"nothing like .+ was saved since$|it shows what .+ may lack$": None,
    r"no rule reads .+, which may belong to it$": "id: |template: ",
    r"leftover, .+ goes after (\d+[a-z]+)$": "after: ",
}
every_golden_plan = every(GOLDEN)


@every_golden_plan
def test_the_plan_is_the_golden_one(case: Case) -> None:
    assert lines(golden(case)) == case.plan


@every_golden_plan
def test_the_order_of_the_entries_changes_nothing(case: Case) -> None:
    listed = entries(case)
    half = len(listed) // 2
    orders = [listed[::-1], sorted(listed), listed[half:] + listed[:half]]
    assert [plan(case, order) for order in orders] == [golden(case)] * len(orders)


@every_golden_plan
def test_every_name_stands_in_the_plan_exactly_once(case: Case) -> None:
    made = golden(case)
    rows: list[Any] = [
        *(act for act in made.actions if not act.directory and act.kind != "repoint"),
        *made.kept,
        *made.skipped,
    ]
    told = [row.name for row in rows] + [name for act in made.actions for name, _ in act.with_it]
    told += [name for row in made.kept for name in row.with_it]
    told += [name for problem in made.problems for name in problem.names if name != made.directory]
    assert Counter(told) == Counter([*case.listing, *case.pointers])


@every_golden_plan
def test_a_reason_points_to_the_line_of_its_rule(case: Case) -> None:
    texts = RULES | case.rules
    made = golden(case)
    rows: list[Any] = [*made.actions, *made.kept]
    assert all(note.place for note in made.notes)
    for reason in (reason for row in rows for reason in row.reasons):
        said = next(match for form in LINE_OF_REASON if (match := re.match(form, reason.text)))
        wanted = LINE_OF_REASON[said.re.pattern]
        if wanted is None or (reason.place is None and {"keep_min_epoch", "keep_last"} & case.options.keys()):
            assert reason.place is None, reason
        else:
            assert reason.place, reason
            line = texts[reason.place.file].splitlines()[reason.place.line - 1]
            assert any(part in line for part in said.expand(wanted).split("|"))


@every_golden_plan
def test_no_checkpoint_is_cut(case: Case) -> None:
    made = golden(case)
    goes = [{act.name, *(name for name, _ in act.with_it)} for act in made.actions if act.kind in ("trash", "rename")]
    found = sort_entries(rules_of(case), Listing("ocr", "ocr/checkpoints", tuple(entries(case))))
    for one in (*found.checkpoints, *found.protected):
        for names in goes:
            assert names.isdisjoint(one.names) or names.issuperset(one.names), one.names


@every_golden_plan
def test_what_is_not_whole_never_makes_another_go(case: Case) -> None:
    made = golden(case)
    rules = rules_of(case)
    listing = Listing("ocr", "ocr/checkpoints", tuple(entries(case)))
    found = sort_entries(rules, listing)
    marked = unwhole(found, listing, rules, Evidence(inside=inside(case, rules)))[0].keys() | case.in_use.keys()
    out = {name for one in (*found.checkpoints, *found.protected) if set(one.names) & marked for name in one.names}
    takes_room = any(limit in text for text in case.rules.values() for limit in ("max_total_size", "budget"))
    in_conflict = any(problem.id in ("same_target", "target_exists") for problem in made.problems)
    if out and not takes_room and not in_conflict:
        without = plan(case, [entry for entry in entries(case) if entry.name not in out])
        assert gone(made) <= gone(without)
        assert gone(made).isdisjoint(out)


def gone(made: Plan) -> set[str]:
    trashed = [act for act in made.actions if act.kind == "trash"]
    return {name for act in trashed for name in (act.name, *(name for name, _ in act.with_it))}


def test_a_leftover_in_which_a_folder_cannot_be_read_has_no_age_and_stays() -> None:
    """What another user was saving there went to the trash by the age of the files that could be read."""
    rules = shared_rules({**RULES, "rules/mine.yaml": "leftovers: {match: 'tmp-*', after: 7d}"})
    hollow = "what cannot be read (Permission denied)"
    listing = Listing("a", "a", (Entry("tmp-5", "directory", 10, 1, hollow=hollow, unread=True),))
    made = make_plan(rules, listing, pick_policy(rules, None, "default"), evidence=Evidence(now_ns=10**18))
    said = [row.reason.text for row in made.skipped]
    assert (made.actions, said) == ((), [f"leftover, but it holds {hollow}"])


def test_case_names_are_unique() -> None:
    assert [name for name, count in Counter(name for name, _ in READ).items() if count > 1] == []


@pytest.mark.parametrize(
    "text",
    [
        "- {name: a, plan: [], lisitng: {}}",
        "- {name: a, listing: {x.ckpt: 1}}",
        "- {name: a, plan: [], listing: {x.ckpt: big}}",
        "- {name: a, plan: [], listing: {x.ckpt: 1, x.ckpt: 2}}",
        "- {name: a, plan: [], options: {delete: 1}}",
        "name: a",
    ],
)
def test_a_case_that_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(RuleError):
        read_cases(text, "case.yaml")
