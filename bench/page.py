"""Measures how large the page is and how soon Chromium shows it; prints the best of several runs, never a verdict.

``python -m bench.page --rounds 5``, in this folder. Needs Chromium and the extra ``browser``. The time is
that from asking for the file to the list of checkpoints standing there, by the browser's own clock.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from pathlib import Path

from ckptrules.report.page.drawing import draw
from tests.support.browsing import LACKS, browser, opened
from tests.support.page_data import experiment, plan

TREES = ((10, 100), (100, 100), (1000, 100))  # experiments, and checkpoints in each
MEGABYTE = 10**6
WATCH = """new MutationObserver(() => {
  if (document.documentElement.classList.contains("ready")) window.readyAt ??= performance.now();
}).observe(document, {attributes: true, subtree: true});"""


def main() -> None:
    """Print a line a size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    if LACKS:
        sys.exit(LACKS)
    with tempfile.TemporaryDirectory() as place, browser() as chromium:
        print(f"{platform.machine()}, Python {platform.python_version()}, Chromium {chromium.version}")
        for experiments, each in TREES:
            data = plan([experiment(number, each) for number in range(experiments)])
            begun = time.perf_counter()
            text = draw(data)
            drawn = time.perf_counter() - begun
            file = Path(place, "checkpoints.html")
            file.write_text(text, encoding="utf-8")
            times = []
            for _ in range(rounds):
                with opened(chromium, file, before=WATCH) as one:
                    times.append(one.page.evaluate("window.readyAt") / 1000)
            shown = f"drawn in {drawn:.2f} s  shown in {min(times):.2f} s (best of {rounds})"
            print(f"{experiments * each:7,} checkpoints  {len(text.encode()) / MEGABYTE:6.3f} MB  {shown}")


if __name__ == "__main__":
    main()
