"""``doit -f bench/dodo.py`` measures; ``doit -f bench/dodo.py measure --experiments 1000`` takes a larger tree."""

import sys
from pathlib import Path

HERE = Path(__file__).parent

DOIT_CONFIG = {"backend": "sqlite3", "dep_file": ":memory:", "verbosity": 2, "default_tasks": ["measure"]}


def task_measure():
    """Print medians and ratios of ours and of peers on one tree, as a Markdown table"""
    return {
        "actions": [f'"{sys.executable}" "{HERE / "measure.py"}" --experiments %(experiments)s --rounds %(rounds)s'],
        "params": [
            {"name": "experiments", "long": "experiments", "default": "100"},
            {"name": "rounds", "long": "rounds", "default": "5"},
        ],
    }


def task_copies():
    """Print ours beside plain tools: backup, verify, archive, undo, first and second run; takes some GB in TMPDIR"""
    return {
        "actions": [
            (
                f'"{sys.executable}" "{HERE / "copies.py"}" --files %(files)s --megabytes %(megabytes)s'
                " --renames %(renames)s --rounds %(rounds)s"
            )
        ],
        "params": [
            {"name": "files", "long": "files", "default": "32"},
            {"name": "megabytes", "long": "megabytes", "default": "64"},
            {"name": "renames", "long": "renames", "default": "100000"},
            {"name": "rounds", "long": "rounds", "default": "5"},
        ],
    }


def task_memory():
    """Print the most memory of each process, with many checkpoints and with a large one; takes some GB in TMPDIR"""
    return {
        "actions": [
            (
                f'"{sys.executable}" "{HERE / "memory.py"}" --experiments %(experiments)s'
                " --checkpoints %(checkpoints)s --gigabytes %(gigabytes)s"
            )
        ],
        "params": [
            {"name": "experiments", "long": "experiments", "default": "10000"},
            {"name": "checkpoints", "long": "checkpoints", "default": "100"},
            {"name": "gigabytes", "long": "gigabytes", "default": "1000"},
        ],
    }


def task_table():
    """Print all that docs/performance.md holds us to, from one run: what `copies` and `memory` print; half an hour"""
    return {"actions": [f'"{sys.executable}" "{HERE / name}"' for name in ("copies.py", "memory.py")]}
