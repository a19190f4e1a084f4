"""`doit unpin`: remove pins, so that the policy judges the checkpoints again."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from ckptrules.commands.pin import chosen, write
from ckptrules.engine.pins import Pin
from ckptrules.run import pinning
from ckptrules.run.options import Common, option, some_text
from ckptrules.run.outcome import Prepared
from ckptrules.run.session import Session


class Options(Common, takes="wait"):
    """The options of `doit unpin`."""

    changes = True
    name: str | None = option(None, some_text, "the checkpoint that is pinned: its name, a shell pattern, or a path")


def prepare(session: Session, options: Options) -> Prepared:
    """Find the pins to remove; their checkpoints may exist or not."""
    every = pinning.all_pinned(session, options)
    found = {pinned.path: pinned.pin for pinned in every}
    in_place = (pinned.pin for pinned in every if pinned.pin.path == pinned.path)
    found |= {pin.path: pin for pin in in_place}  # a pin in its place wins over one that moved there
    paths = chosen("unpin", options.name, found, options.outputs_dir)
    gone = {found[path].path for path in paths}

    def change(before: Iterable[Pin]) -> list[Pin]:
        return [pin for pin in before if pin.path not in gone]

    pins = [pin._replace(path=path) for pin, path in {found[path]: path for path in paths}.items()]
    return Prepared(partial(write, options, session.style(options), "Unpinned", pins, change))
