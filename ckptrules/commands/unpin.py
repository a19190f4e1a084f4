"""`doit unpin`: what is pinned no more is judged by the policy again."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from ckptrules.commands.pin import chosen, write
from ckptrules.engine.pins import Pin
from ckptrules.run import pinning
from ckptrules.run.options import WAIT, Common, option, some_text
from ckptrules.run.outcome import Prepared
from ckptrules.run.session import Session


class Options(Common):
    """The options of `doit unpin`."""

    changes = True
    name: str | None = option(None, some_text, "the checkpoint that is pinned: its name, a shell pattern, or a path")
    wait: int = WAIT


def prepare(session: Session, options: Options) -> Prepared:
    """Find out what is to be pinned no more; it may be there or not."""
    every = pinning.all_pinned(session, options)
    found = {one.path: one.pin for one in every}
    found |= {one.path: one.pin for one in every if one.pin.path == one.path}  # of two by one name, this is meant
    paths = chosen("unpin", options.name, found, options.outputs_dir)
    gone = {found[path].path for path in paths}

    def change(before: Iterable[Pin]) -> list[Pin]:
        return [pin for pin in before if pin.path not in gone]

    pins = [pin._replace(path=path) for pin, path in {found[path]: path for path in paths}.items()]
    return Prepared(partial(write, options, session.style(options), "Unpinned", pins, change))
