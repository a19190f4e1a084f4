"""Plans as `json=` writes them (schema version 2), made up: of any size, with whatever names a test wants."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

HOUR = 3_600 * 10**9
NOW = 1_764_180_000 * 10**9
KEEP_LAST = {"text": "one of the newest 2", "rule": "rules/retention.yaml:7"}
KEEP_BEST = {"text": "the best by val_loss", "rule": "rules/retention.yaml:8"}
EVERY = {"text": "a multiple of 10000 steps", "rule": "rules/retention.yaml:9"}
GOES = {"text": "not among what policy 'default' keeps", "rule": "rules/retention.yaml:5"}
PROTECTED = {"text": "protected: best.ckpt", "rule": "rules/naming.yaml:4"}
POLICY = {"text": "policy 'default'", "rule": "rules/retention.yaml:4"}
HOSTILE = (
    "<b onmouseover=window.pwned=1>evil</b>.ckpt", "</script><script>window.pwned=1</script>", "a'b.ckpt", 'say "x".ckpt',
    "$(touch pwned).ckpt", "`touch pwned`.ckpt", "a b.ckpt", "-rf.ckpt", "a\nb.ckpt", "rtl\u202eckpt.exe", "stray\udce9.ckpt",
    "a;touch pwned;.ckpt", "tab\there.ckpt", "*?[x].ckpt", "{{ 7*7 }}.ckpt", "\\n&amp;.ckpt",
)  # fmt: skip


def checkpoint(name: str, **given: Any) -> dict[str, Any]:
    """Make the row of a checkpoint that stays, but for what is given."""
    return {
        "name": name, "becomes": None, "state": "stays", "bytes": 0, "files": 1, "time_ns": NOW, "fields": {}, "metrics": {},
        "pack": None, "kind": "format", "protected": False, "pinned": False, "best": False, "last": False, "whole": True,
        "verified": None, "parts": [], "reasons": [], "saves": [],
    } | given  # fmt: skip


def experiment(number: int, many: int, name: str = "") -> dict[str, Any]:
    """Make one experiment with so many checkpoints: the newest two, the best and each tenth stay."""
    name = name or f"exp_{number:04}"
    losses = [2.2 / (1 + 0.15 * i) + 0.06 * math.sin(i * 2.3 + number) + 0.003 * number for i in range(many)]
    best = losses.index(min(losses)) if many else 0
    rows = []
    for i, loss in enumerate(losses):
        why = [KEEP_LAST] * (i >= many - 2) + [KEEP_BEST] * (i == best) + [EVERY] * (i % 10 == 9)
        rows.append(
            checkpoint(
                f"epoch-{i:02}_step-{(i + 1) * 1000:06}.ckpt", state="stays" if why else "goes", bytes=(6 + number % 4) * 10**9 + i,
                time_ns=NOW - (many - i) * HOUR - number * 24 * HOUR, fields={"epoch": i, "step": (i + 1) * 1000},
                metrics={"val_loss": round(loss, 4)}, pack="lightning", best=i == best, last=i == many - 1,
                whole=(i, number % 3) != (4, 1), verified="whole" if i % 4 == 1 else None, reasons=why or [GOES],
                saves=[] if why else [{"key": "keep_last", "value": str(many - i), "rule": KEEP_LAST["rule"]}],
            )
        )  # fmt: skip
    return {
        "experiment": name, "directory": f"{name}/checkpoints", "state": "planned", "policy": POLICY,
        "metric": {"name": "val_loss", "mode": "min"}, "number": "step", "checkpoints": rows, "actions": [], "stays": [],
        "skipped": [], "problems": [], "notes": [], "best_goes": [],
    }  # fmt: skip


def plan(experiments: Sequence[Mapping[str, Any]], **given: Any) -> dict[str, Any]:
    """Make the JSON of a plan with `delete_old=1` from its experiments; the sums are those of the rows."""
    rows = [row for one in experiments for row in one["checkpoints"]]

    def bytes_of(*states: str) -> int:
        return sum(row["bytes"] for row in rows if row["state"] in states)

    protected = sum(row["bytes"] for row in rows if row["protected"] and row["state"] == "stays")
    going = [row for row in rows if row["state"] == "goes"]
    problems = sum(len(one["problems"]) for one in experiments)
    return {
        "schema_version": 2, "version": "0.1.0", "command": "plan", "selected": [], "dry_run": True, "run": None, "started_ns": NOW,
        "when": "2026-11-26 18:40:00 +0000", "who": "ada", "host": "node7", "refused": None, "policy": None, "takes_back": None, "outputs_dir": "outputs",
        "options": {"delete_old": True}, "does_it": "doit migrate delete_old=1",
        "rules": {"files": ["rules/naming.yaml", "rules/retention.yaml"], "naming_digest": "5f0c2a9d1b77", "lines": [
            {"key": "keep_last", "value": "2", "policy": "default", "rule": "rules/retention.yaml:7", "keeps": 28, "alone": 14, "bytes_alone": 10**11},
            {"key": "keep_best", "value": "1 by val_loss", "policy": "default", "rule": "rules/retention.yaml:8", "keeps": 14, "alone": 9, "bytes_alone": 6 * 10**10},
            {"key": "keep_every", "value": "10000 steps", "policy": "default", "rule": "rules/retention.yaml:9", "keeps": 90, "alone": 70, "bytes_alone": 5 * 10**11},
            {"key": "keep_within", "value": "1d", "policy": "default", "rule": "rules/retention.yaml:10", "keeps": 0, "alone": 0, "bytes_alone": 0},
        ]},
        "space": {
            "protected": protected, "kept": bytes_of("stays") - protected, "goes": bytes_of("goes"), "undecided": bytes_of("undecided"),
            "trash": 412 * 10**9, "trash_until": "2026-12-03 09:00 +0000", "same_twice": 38 * 10**9,
            "disk_free": 620 * 10**9, "disk_total": 8 * 10**12,
        },
        "what_if": [
            {"policy": "default", "keep_last": None, "bytes_deleted": bytes_of("goes"), "deleted": len(going), "current": True, "command": "doit plan delete_old=1"},
            {"policy": "finished", "keep_last": None, "bytes_deleted": int(bytes_of("goes") * 1.12), "deleted": len(going) + 40, "current": False, "command": "doit plan delete_old=1 policy=finished"},
            *({"policy": None, "keep_last": n, "bytes_deleted": int(bytes_of("goes", "stays") * (1 - n / 70)), "deleted": len(rows) - n * len(experiments), "current": False, "command": f"doit plan delete_old=1 keep_last={n}"} for n in (1, 2, 3, 5)),
        ],
        "history": [
            {"run": "2026-11-20T09-12-44-migrate-1c", "command": "migrate delete_old=1", "started_ns": NOW - 150 * HOUR, "when": "2026-11-20 09:12:44 +0000", "who": "ada", "host": "node7", "renamed": 12, "deleted": 60, "bytes_deleted": 412 * 10**9, "state": "done", "taken_back": False, "undo_until": "2026-11-27 09:12 +0000", "undo": "doit undo run=2026-11-20T09-12-44-migrate-1c"},
            {"run": "2026-11-11T17-01-02-migrate-77", "command": "migrate delete_old=1", "started_ns": NOW - 360 * HOUR, "when": "2026-11-11 17:01:02 +0000", "who": "ada", "host": "node7", "renamed": 0, "deleted": 5, "bytes_deleted": 90 * 10**9, "state": "taken back", "taken_back": True, "undo_until": None, "undo": None},
            {"run": "2026-11-02T08-00-00-migrate-0a", "command": "migrate delete_old=1", "started_ns": NOW - 580 * HOUR, "when": "2026-11-02 08:00:00 +0000", "who": "ada", "host": "node7", "renamed": 300, "deleted": 200, "bytes_deleted": 1_300 * 10**9, "state": "done", "taken_back": False, "undo_until": None, "undo": None},
        ],
        "summary": {
            "experiments": len(experiments), "up_to_date": 0, "renamed": 0, "deleted": len(going), "relinked": 0, "restored": 0,
            "kept": len(rows) - len(going), "skipped": sum(len(one["skipped"]) for one in experiments), "problems": problems,
            "bytes_deleted": bytes_of("goes"), "bytes_kept": bytes_of("stays"), "states": 0, "links": 0, "leftovers": 0, "ignored": 0, "rewritten": 0,
        },
        "experiments": list(experiments),
    } | given  # fmt: skip


def sample() -> dict[str, Any]:
    """Make the plan that shows all there is to show: hostile names, a problem, an unread name, a tree without metrics."""
    found = [experiment(i, 70) for i in range(12)]
    first = found[0]
    first["checkpoints"] += [
        checkpoint(
            "best.ckpt", bytes=6 * 10**9, protected=True, kind="protected", last=True, reasons=[PROTECTED], pinned=True
        )
    ]
    evil = experiment(12, 0, '<img src=x onerror="window.pwned=1">')
    evil["checkpoints"] = [
        checkpoint(
            name, state=("goes", "stays")[i % 2], bytes=(i + 1) * 10**8, reasons=[GOES], time_ns=NOW - (20 - i) * HOUR
        )
        for i, name in enumerate(HOSTILE)
    ]
    evil["metric"] = evil["number"] = None
    stuck = experiment(13, 20, "a_very_long_experiment_name-" * 5 + "end")
    for row in stuck["checkpoints"][3:5]:
        row["state"] = "undecided"
    stuck["problems"] = [{
        "id": "same_target", "names": [row["name"] for row in stuck["checkpoints"][3:5]], "text": "both would become epoch-03_step-004000.ckpt",
        "hint": "say which stays: 'doit migrate on_conflict=keep_newest'", "remarks": ["older", "newer"],
    }]  # fmt: skip
    stuck["skipped"] = [{
        "name": "weird-checkpoint-77-of-me.ckpt", "kind": "unrecognised", "bytes": 3 * 10**9, "time_ns": NOW, "reasons": [{"text": "no rule reads it", "rule": None}],
        "draft": "  - id: weird\n    match: 'weird-checkpoint-(?P<number>\\d+)-of-me\\.ckpt'\n    examples: {weird-checkpoint-77-of-me.ckpt: {number: 77}}",
    }]  # fmt: skip
    return plan([*found, evil, stuck])
