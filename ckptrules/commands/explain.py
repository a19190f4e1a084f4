"""`doit explain`: what happens to a checkpoint with ``delete_old=1``, by which rules, and what would save it."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, NamedTuple

from ckptrules.engine.actions import DELETES, Action, Plan
from ckptrules.engine.checkpoints import Claim, numbers_told
from ckptrules.engine.entries import EntryKind, Listing, in_part_folder
from ckptrules.engine.measures import and_more
from ckptrules.engine.names.comparing import first_middle_last, in_words
from ckptrules.engine.names.drafting import draft
from ckptrules.engine.names.metrics import mode_of
from ckptrules.engine.names.naming import SlowRuleError, claim
from ckptrules.engine.names.sorting import HOLDING
from ckptrules.engine.ruleset import PolicyLine, Reason, RuleSet
from ckptrules.engine.spelling import closest
from ckptrules.outputs.scouting import look_into
from ckptrules.report.checkpoints import line_as_data, reason_as_data
from ckptrules.report.style import Style
from ckptrules.run import deciding, jobs, whole_tree
from ckptrules.run.options import OptionError, Planning, option, some_text
from ckptrules.run.outcome import FAULTS, Done, Prepared
from ckptrules.run.session import Session

WIDTH = 13
FEW = 5  # metrics in a line


class Explained(NamedTuple):
    """The explanation of one name.

    Args:
        named_by: the rule that knows the name.
        fields: what the rule reads from the name.
        becomes: the new name, if it gets one.
        stays: None if the rules leave the name to a person.
        saves: the policy lines that would save it.
        metrics: the metrics in sidecars and facts.
        keep_name: what a rename would break.
        parts: the other files of the checkpoint of this name.
        pack: the pack that knows the name, and what picked the pack.
        draft: the lines of a format, if no rule knows the name.
        inside: the numbers inside the checkpoint, if it was opened.
    """

    directory: str
    name: str
    named_by: Reason
    fields: dict[str, str]
    becomes: str
    stays: bool | None
    why: tuple[Reason, ...]
    saves: tuple[PolicyLine, ...]
    policy: Reason | None
    metrics: Mapping[str, str] = {}
    keep_name: str = ""
    parts: tuple[str, ...] = ()
    pack: str = ""
    draft: tuple[str, ...] = ()
    inside: str = ""


class Options(Planning, takes="experiments json policy keep_min_epoch keep_last"):
    """The options of `doit explain`."""

    name: str | None = option(None, some_text, "the names to explain: a shell pattern, or a path")


def prepare(session: Session, options: Options) -> Prepared:
    """Choose the experiments, and the job for each."""
    if options.name is None:
        raise OptionError("explain needs a name", "name='epoch-0*', or name=PATH")
    options = options.but(delete_old=True, dry_run=True)
    job, pairs = jobs.jobs_of(session, "explain", options)
    return Prepared(partial(show, session, options, job, pairs), [found.experiment for _, found in pairs])


def show(session: Session, options: Options, job: jobs.Job, pairs: jobs.OwnJobs) -> Done:
    """Explain every name that is asked for."""
    found: list[Explained] = []
    names: list[str] = []
    for own, directory in whole_tree.with_tree(session, job, pairs)[0]:
        plan, listing = deciding.decided_of(own, directory)[:2]
        names += [entry.name for entry in listing.entries]
        wanted = asked_names(options, listing)
        metrics = known_metrics(own, listing) if wanted else {}
        kinds = {entry.name: entry.kind for entry in listing.entries}
        plans = plan_of_each(plan, wanted)
        explained = [explain(own.rules, listing.directory, plans[name], name, kinds[name]) for name in wanted]
        inside = known_inside(options.outputs_dir, listing, explained)
        found += [one._replace(metrics=metrics.get(one.name, {}), inside=inside.get(one.name, "")) for one in explained]
    if not found:
        hint = closest(os.path.basename(str(options.name)), sorted(names)) or "'doit plan verbose=1' lists all"
        fact = f"Nothing is called '{job.style.name(str(options.name))}'.\n    hint: {job.style.name(hint)}\n"
        passed_over = jobs.uncovered(session, "explain", options)
        return Done(fact + f"{passed_over}\n" * bool(passed_over), failed=True)
    texts, faults = (block(one, job.style) for one in found), dict[str, str]()
    if options.json:
        from ckptrules.run.json_file import head_of, write_data  # not above: only a JSON file needs it

        data = {**head_of(job.header), "explained": [as_data(one) for one in found]}
        faults = write_data(options, data, job.style)
    text = "\n".join(["By 'doit migrate delete_old=1'; nothing was changed.\n", *texts, *faults.values()])
    return Done(text, failed=bool(faults))


def asked_names(options: Options, listing: Listing) -> list[str]:
    """Return the names of a directory that the option ``name`` asks for: by pattern, or by path."""
    wanted = str(options.name).rstrip("/")  # a shell completes the path of a folder with a slash
    names = sorted(entry.name for entry in listing.entries)
    if "/" not in wanted:
        return [name for name in names if fnmatchcase(in_part_folder(name)[1], wanted)]
    folder, base = os.path.split(wanted)
    directory = os.path.realpath(os.path.join(options.outputs_dir, listing.directory))
    folders = folder, os.path.join(options.outputs_dir, folder)
    inner = [os.path.relpath(os.path.realpath(path), directory) for path in folders]
    in_folder = [name for name in names if (in_part_folder(name)[0] or ".") in inner]
    exact = [name for name in in_folder if in_part_folder(name)[1] == base]  # a name may have `*` or `[` in it
    fitting = exact or [name for name in in_folder if fnmatchcase(in_part_folder(name)[1], base)]
    return fitting or [name for name in names if fnmatchcase(os.path.join(listing.directory, name), wanted)]


def known_metrics(job: jobs.Job, listing: Listing) -> Mapping[str, Mapping[str, str]]:
    """Return the metrics in files; none if a file cannot be read, for which the plan has a problem."""
    try:
        return deciding.all_metrics(job, listing).metrics
    except FAULTS:
        return {}


def known_inside(outputs_dir: str, listing: Listing, explained: Sequence[Explained]) -> dict[str, str]:
    """Return the numbers inside the first, middle and last of the explained checkpoints; open no other."""
    folders = {entry.name: entry.kind == "directory" for entry in listing.entries if entry.kind in HOLDING}
    asked = [one for one in explained if numbers_told(one.fields) and one.name in folders]
    return {
        one.name: in_words(one.fields, look_into(outputs_dir, listing.directory, one.name, folder=folders[one.name]))
        for one in first_middle_last(asked)
    }


# --- pure ------------------------------------------------------------------------------------------------------------


def plan_of_each(plan: Plan, names: Iterable[str]) -> dict[str, Plan]:
    """Return for each name the plan with only its own rows; all skipped names stay, as a draft depends on them."""

    def by_name(rows: Iterable[Any]) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = defaultdict(list)
        for row in rows:
            for name in row.names:
                found[name].append(row)
        return found

    every = [by_name(rows) for rows in (plan.problems, plan.actions, plan.kept)]
    rows = {name: [tuple(found.get(name, ())) for found in every] for name in names}
    return {
        name: plan._replace(problems=problems, actions=actions, kept=kept)
        for name, (problems, actions, kept) in rows.items()
    }


def explain(rules: RuleSet, directory: str, plan: Plan, name: str, kind: EntryKind) -> Explained:
    """Explain a name by its rows of the plan (`plan_of_each`)."""
    keep_name = ""
    try:
        claimed = claim(in_part_folder(name)[1], rules, folder=None if kind == "link" else kind == "directory")
        named_by, fields = claimed.reason, dict(claimed.fields)
        keep_name = claimed.rule.keep_name if claimed.rule else ""
    except SlowRuleError as slow:
        named_by, fields = Reason(f"{slow.rule.called} needs too long for it", slow.rule.place), {}
        claimed = Claim("ambiguous", named_by)
    one = Explained(directory, name, named_by, fields, "", None, (), (), plan.policy, keep_name=keep_name)
    one = one._replace(pack=_pack_of(claimed, rules))
    if plan.problems:
        texts = [text for row in plan.problems for text in (row.text, *[f"hint: {row.hint}"] * bool(row.hint))]
        return one._replace(why=tuple(map(Reason, texts)))
    if action := next((action for action in plan.actions if not action.directory), None):
        return _explain_action(one, action)
    if plan.kept:
        row = plan.kept[0]
        goes_along = () if row.name == name else (Reason(f"is a part of {row.name}"),)
        why = (*goes_along, *(reason for reason in row.reasons if reason != named_by))
        return one._replace(stays=True, why=why, parts=() if goes_along else row.with_it)
    why = tuple(row.reason for row in plan.skipped if row.name == name and row.reason != named_by)
    why = why or (Reason("it is no checkpoint"),) * (claimed.kind == "ignored")
    if claimed.kind != "unrecognised" or why:
        return one._replace(why=why)
    others = [in_part_folder(row.name)[1] for row in plan.skipped]
    return one._replace(draft=tuple(draft(in_part_folder(name)[1], others, folder=kind == "directory")))


def _explain_action(one: Explained, action: Action) -> Explained:
    """Explain a name that an action changes, alone or with its checkpoint."""
    name = one.name
    if action.follows:
        what, leads = ("link", "point to") if action.kind == "relink" else ("pointer file", "name")
        texts = [f"a {what} is never deleted", f"will {leads} {action.to}, as {action.follows} is renamed"]
        return one._replace(stays=True, why=tuple(map(Reason, texts)))
    parts = action.names[1 : action.parts + 1]
    belongs = f"{'is a part of' if name in parts else 'belongs to'} {action.name}"
    goes_along = () if action.name == name else (Reason(belongs),)
    why = (*goes_along, *(reason for reason in action.reasons if reason != one.named_by))
    to = action.to if action.name == name else dict(action.with_it)[name]
    parts = () if goes_along else parts
    return one._replace(becomes=to, stays=action.kind not in DELETES, why=why, saves=action.saves, parts=parts)


def _pack_of(claimed: Claim, rules: RuleSet) -> str:
    """Return the pack that knows a name, and the evidence that picked the pack here."""
    pack = rules.pack_of(claimed.reason)
    return f"{pack.name}, known by {pack.evidence}" if pack and pack.evidence else ""


def block(one: Explained, style: Style) -> str:
    """Write one explanation as text, in aligned lines."""
    verdict, colour = {True: ("stays", "green"), False: ("goes", "red"), None: ("left alone", "yellow")}[one.stays]
    rows: list[tuple[str, str, str]] = [("named by", *_text_and_place(one.named_by, style))]
    facts = {
        "fields": ", ".join(_field_texts(one.fields)),
        "inside": one.inside,
        "pack": one.pack,
        "files": _some_files(one) if one.parts else "",
        "keeps name": one.keep_name,
        "metrics": _few_metrics(one.metrics),
        "becomes": one.becomes if one.becomes != one.name else "",
    }
    rows += [(label, style.name(text), "") for label, text in facts.items() if text]
    reasons = one.why or (Reason("the rules say nothing of it" if one.stays is None else "it is protected"),)
    rows += [(verdict if not number else "", *_text_and_place(reason, style)) for number, reason in enumerate(reasons)]
    rows += [
        ("to save it" if not number else "or", f"{line.key}: {line.value}", line.place.file_line if line.place else "")
        for number, line in enumerate(one.saves)
    ]
    if one.stays is not None and one.policy:
        rows.append(("policy", *_text_and_place(one.policy, style)))
    width = max((len(text) for _, text, place in rows if place), default=0)
    if style.width and WIDTH + width + max(len(place) for *_, place in rows) + 4 > style.width:
        width = 0  # no column of places: it would begin beyond the end of the line
    lines = []
    for label, text, place in rows:
        shown = label.ljust(WIDTH)
        shown = style.paint(shown, colour) if label == verdict else shown
        lines.append(f"  {shown}{text.ljust(width)}  {style.paint(place, 'dim') if place else ''}".rstrip())
    if one.draft:
        lines.append("  If it is a checkpoint, these lines in a file of rules/ make it one; 'doit check' tests them:")
        lines += [f"    {style.name(line)}" for line in one.draft]
    return "\n".join([style.paint(style.name(f"{one.directory}/{one.name}"), "bold"), *lines, ""])


def _field_texts(fields: Mapping[str, str]) -> Iterator[str]:
    """Yield the fields of a name as text; not ``metrics`` with a ``=``, as each of its values is a field of its own."""
    for key, value in fields.items():
        if value and not (key == "metrics" and "=" in value):
            yield f"{key} {value}"


def _some_files(one: Explained) -> str:
    """Write the first files of a checkpoint, and how many it has."""
    names = [one.name, *one.parts]
    return f"{len(names)}: {and_more(names, FEW)}"


def _few_metrics(metrics: Mapping[str, str]) -> str:
    """Write the first metrics: before others those whose names are known, and of these those of a validation."""
    keys = sorted(metrics, key=lambda key: (not mode_of(key), "val" not in key.lower()))
    more = f", and {len(keys) - FEW} more" if len(keys) > FEW else ""
    return ", ".join(f"{key} {metrics[key]}" for key in keys[:FEW]) + more


def as_data(one: Explained) -> dict[str, Any]:
    """Return the JSON form of an explanation."""
    return {
        **one._asdict(),
        "named_by": reason_as_data(one.named_by),
        "why": [reason_as_data(reason) for reason in one.why],
        "saves": [*map(line_as_data, one.saves)],
        "policy": reason_as_data(one.policy) if one.policy else None,
    }


def _text_and_place(reason: Reason, style: Style) -> tuple[str, str]:
    return style.name(reason.text), reason.place.file_line if reason.place else ""
