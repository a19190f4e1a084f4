"""A real browser: pages opened in Debian's Chromium, driven by playwright (the extra ``browser``)."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
LACKS = (  # why nothing can be shown here
    "playwright is not installed (pip install -e '.[browser]')" if importlib.util.find_spec("playwright") is None
    else "" if CHROMIUM
    else "chromium is not installed (apt-get install chromium)"
)  # fmt: skip


class Opened:
    """A page that is open: what it says in the console, and what it asks for, is noted."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.told: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.told.append(message.text))
        page.on("pageerror", lambda error: self.told.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))

    def tab_to(self, selector: str, most: int = 200) -> None:
        """Press Tab until what has the focus is what the selector means."""
        for _ in range(most):
            self.page.keyboard.press("Tab")
            if self.page.evaluate("wanted => document.activeElement.matches(wanted)", selector):
                return
        raise AssertionError(f"Tab does not lead to {selector}")

    def has(self, selector: str, start: str) -> None:
        """Wait until the text of an element begins in some way."""
        from playwright.sync_api import expect

        expect(self.page.locator(selector)).to_have_text(re.compile(f"^{re.escape(start)}"))

    def copied(self) -> str:
        """Return what is in the clipboard, as soon as something is."""
        self.page.bring_to_front()
        for _ in range(100):
            text: str = self.page.evaluate("navigator.clipboard.readText()")
            if text:
                return text
            self.page.wait_for_timeout(20)
        raise AssertionError("nothing was copied")

    def clear_clipboard(self) -> None:
        """Make sure that what is copied next is not what was copied before."""
        self.page.bring_to_front()
        self.page.evaluate("navigator.clipboard.writeText('')")


@contextmanager
def browser() -> Iterator[Browser]:
    """Start Chromium, without its sandbox where root runs it, as it demands."""
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox"] * (os.geteuid() == 0)
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=flags)


@contextmanager
def opened(
    chromium: Browser, file: Path, width: int = 1280, height: int = 900, before: str = "", **settings: Any
) -> Iterator[Opened]:
    """Open a file in a window of its own, which may read and write the clipboard.

    Args:
        chromium: that shows it.
        file: the page.
        width: of the window, in CSS pixels.
        height: of the window.
        before: a script that runs before those of the page.
        settings: of the window, as playwright has them, such as ``color_scheme="dark"``.
    """
    context = chromium.new_context(viewport={"width": width, "height": height}, **settings)
    context.set_default_timeout(30_000)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    try:
        one = Opened(context.new_page())
        if before:
            one.page.add_init_script(before)
        one.page.goto(file.as_uri())
        if settings.get("java_script_enabled", True):
            one.page.wait_for_selector("html.ready")
        yield one
    finally:
        context.close()
