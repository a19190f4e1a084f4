"""``doit -f bench/dodo.py`` measures; ``doit -f bench/dodo.py measure --experiments 1000`` takes a larger tree."""

import sys
from pathlib import Path

HERE = Path(__file__).parent

DOIT_CONFIG = {"backend": "sqlite3", "dep_file": ":memory:", "verbosity": 2}


def task_measure():
    """Print medians and ratios of ours and of peers on one tree, as a Markdown table"""
    return {
        "actions": [f'"{sys.executable}" "{HERE / "measure.py"}" --experiments %(experiments)s --rounds %(rounds)s'],
        "params": [
            {"name": "experiments", "long": "experiments", "default": "100"},
            {"name": "rounds", "long": "rounds", "default": "5"},
        ],
    }
