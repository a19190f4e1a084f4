"""Ask on a terminal before bytes are removed for good."""

from __future__ import annotations

import select
import signal
import sys

from ckptrules import stopping

LOOK = 0.2  # seconds


def on_terminal() -> bool:
    """Say whether somebody can read a question and answer it."""
    return bool(sys.stdin and sys.stdin.isatty() and sys.stdout.isatty())


def confirmed(question: str, nothing: str) -> bool:
    """Ask a question that yes or no answers, and return the answer; ``nothing`` says what Ctrl-C came to.

    Raises:
        SystemExit: Ctrl-C or SIGTERM came.
    """
    before = {number: signal.signal(number, signal.default_int_handler) for number in stopping.SIGNALS}
    try:  # else a signal would wait for an answer
        print(f"{question} [y/N] ", end="", flush=True)
        while not select.select([sys.stdin], [], [], LOOK)[0]:  # a signal just before a read would wait for its end
            pass
        return sys.stdin.readline().strip().lower() in ("y", "yes")
    except KeyboardInterrupt:
        print(f"\nStopped: {nothing}.")
        raise SystemExit(stopping.EXIT_CODE) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
