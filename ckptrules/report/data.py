"""Plans and runs → JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ckptrules.engine.values import Plan, Reason
from ckptrules.report.text import Tally

SCHEMA_VERSION = 1


def plan_as_data(plan: Plan, state: str) -> dict[str, Any]:
    """Turn one plan into the JSON form that ``docs/json.md`` describes."""
    return {
        "experiment": plan.experiment,
        "directory": plan.directory,
        "state": state,
        "actions": [
            {
                "action": action.kind,
                "name": action.name,
                "to": action.to or None,
                "directory": action.directory or plan.directory,
                "with_it": [{"name": name, "to": to or None} for name, to in action.with_it],
                "parts": action.parts,
                "bytes": action.size,
                "reasons": [reason_as_data(reason) for reason in action.reasons],
                "leaves_link": action.leaves_link,
                "saves": [
                    {"key": line.key, "value": str(line.value), "rule": line.place.file_line if line.place else None}
                    for line in action.saves
                ],
            }
            for action in plan.actions
        ],
        "kept": [
            {
                "name": row.name,
                "with_it": list(row.with_it),
                "bytes": row.size,
                "reasons": [reason_as_data(reason) for reason in row.reasons],
            }
            for row in plan.kept
        ],
        "skipped": [
            {"name": row.name, "kind": row.kind, "reasons": [reason_as_data(row.reason)]} for row in plan.skipped
        ],
        "problems": [
            {
                "id": problem.id,
                "names": list(problem.names),
                "text": problem.text,
                "hint": problem.hint or None,
                "remarks": list(problem.remarks),
            }
            for problem in plan.problems
        ],
        "notes": [reason_as_data(note) for note in plan.notes],
        "policy": reason_as_data(plan.policy) if plan.policy else None,
    }


def run_as_data(header: Mapping[str, Any], experiments: Iterable[Mapping[str, Any]], total: Tally) -> dict[str, Any]:
    """Turn a whole run into the JSON form that ``docs/json.md`` describes."""
    return {
        "schema_version": SCHEMA_VERSION,
        **header,
        "summary": total._asdict(),
        "experiments": sorted(experiments, key=lambda experiment: str(experiment["directory"])),
    }


def reason_as_data(reason: Reason) -> dict[str, Any]:
    """Turn a reason into the JSON form."""
    return {"text": reason.text, "rule": reason.place.file_line if reason.place else None}
