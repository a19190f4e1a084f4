"""The picture of the page in the README, which ``python -m tests.whole.test_page_picture`` takes, is of this page.

With a folder behind it, it puts all pictures there that are looked at before a release: light, dark, on a phone, on paper.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ckptrules.report.page.drawing import draw
from tests.conftest import ROOT, default
from tests.support.browsing import browser, opened

PICTURE = ROOT / "docs/images/page.png"
NOTE = ROOT / "docs/images/page.sha256"
PARTS = [ROOT / "ckptrules/report/page" / name for name in ("page.html.j2", "page.css", "page.js")]
GIGABYTE = 10**9
RULES = r"""
formats:
  - id: with-loss
    match: 'epoch=(?P<epoch>\d+)-step=(?P<step>\d+)-val_loss=(?P<val_loss>\d+\.\d+)\.ckpt'
    examples: {epoch=3-step=4000-val_loss=0.5231.ckpt: {epoch: 3, step: 4000, val_loss: 0.5231}}
retention:
  tidy:
    keep_last: 2
    keep_best: {metric: val_loss, mode: min, count: 1}
    keep_every_epochs: 10
    keep_at_least: 1
"""
TREES = (("vit-large", 36, 3.66), ("unet-128", 28, 1.2), ("resnet50-aug", 21, 0.31))  # epochs, GB a checkpoint
POLICY = "policy=tidy"


def digest() -> str:
    """Return what the page is drawn by, as a hash: the template, the style and the script."""
    return hashlib.sha256(b"".join(part.read_bytes() for part in PARTS)).hexdigest()


def make(outputs: Path, now: float, part: slice) -> None:
    """Make a part of the checkpoints, with a loss in their names. Behind the first byte are holes; all zeros is broken."""
    for number, (experiment, epochs, size) in enumerate(TREES):
        folder = outputs / experiment / "checkpoints"
        folder.mkdir(parents=True, exist_ok=True)
        for epoch in [*range(epochs)][part]:
            loss = 0.42 + 1.9 / (1 + 0.3 * epoch) + 0.05 * math.sin(epoch * 1.7 + number) + 0.003 * max(0, epoch - 20)
            file = folder / f"epoch={epoch}-step={(epoch + 1) * 1250}-val_loss={loss:.4f}.ckpt"
            file.write_bytes(b"\x01")
            os.truncate(file, int(size * GIGABYTE) + epoch)
            at = now - (epochs - epoch) * 2700 - number * 90_000
            os.utime(file, (at, at))


def data(folder: Path) -> dict[str, Any]:
    """Make the tree in a folder, clean it up half way, and return the plan for the rest; nothing tells of this machine."""

    def doit(*words: str) -> None:
        subprocess.run([sys.executable, "-m", "doit", *words], cwd=folder, env=default() | {"TZ": "UTC"}, check=True)

    shutil.copy(ROOT / "dodo.py", folder)
    shutil.copytree(ROOT / "rules", folder / "rules")
    (folder / "rules/mine.yaml").write_text(RULES, encoding="utf-8")
    outputs, now = folder / "outputs", time.time()
    make(outputs, now, slice(6))
    doit("migrate", "delete_old=1", POLICY)
    make(outputs, now, slice(6, None))
    for experiment, _, _ in TREES:
        link = outputs / experiment / "checkpoints" / "last.ckpt"
        newest = max(link.parent.glob("epoch=*"), key=lambda path: path.stat().st_mtime)
        link.symlink_to(newest.name)
    (outputs / "unet-128/checkpoints/notes from friday.ckpt").write_bytes(b"weights")
    doit("pin", "name=epoch=20-step=26250*", "note=of the paper")
    doit("page", POLICY, "json=page.json")
    found: dict[str, Any] = json.loads((folder / "page.json").read_text(encoding="utf-8"))
    found |= {"who": "ada", "host": "node7"}
    found["space"] |= {"disk_free": 41 * GIGABYTE, "disk_total": 1000 * GIGABYTE}
    for run in found["history"]:
        run |= {"who": "ada", "host": "node7"}
    return found


def take(pictures: Path | None) -> None:
    """Take the picture of the README, or all that are looked at."""
    sizes: dict[str, tuple[int, dict[str, Any]]] = {
        "light": (1280, {}), "dark": (1280, {"color_scheme": "dark"}), "tablet": (768, {}),
        "phone": (390, {}), "phone-dark": (390, {"color_scheme": "dark"}), "paper": (794, {"media": "print"}),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as place, browser() as chromium:
        file = Path(place, "checkpoints.html")
        (folder := Path(place, "project")).mkdir()
        file.write_text(draw(data(folder)), encoding="utf-8")
        if pictures is None:
            with opened(chromium, file, width=1100, height=1090) as one:
                one.page.locator("summary.row").first.click()
                one.page.mouse.move(0, 0)
                PICTURE.parent.mkdir(exist_ok=True)
                one.page.screenshot(path=PICTURE)
            NOTE.write_text(f"{digest()}\n", encoding="utf-8")
            return
        pictures.mkdir(exist_ok=True)
        for name, (width, settings) in sizes.items():
            media = settings.pop("media", None)
            with opened(chromium, file, width=width, **settings) as one:
                one.page.emulate_media(media=media)
                one.page.locator("summary.row").first.click()
                one.page.screenshot(path=pictures / f"{name}.png", full_page=True)


def test_the_picture_is_of_the_page_as_it_is() -> None:
    assert PICTURE.read_bytes().startswith(b"\x89PNG")
    assert PICTURE.stat().st_size < 150_000
    assert NOTE.read_text(encoding="utf-8").strip() == digest(), (
        "python -m tests.whole.test_page_picture takes it again"
    )
    assert "](docs/images/page.png)" in (ROOT / "README.md").read_text(encoding="utf-8")


if __name__ == "__main__":
    take(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
