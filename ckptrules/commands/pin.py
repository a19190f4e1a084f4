"""`doit pin`: pin checkpoints, so that they are never deleted; a pin follows every rename."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial

from ckptrules.engine.names.sorting import sort_entries
from ckptrules.engine.pins import Pin
from ckptrules.engine.spelling import closest
from ckptrules.outputs.listing import scan
from ckptrules.report.style import Style, few
from ckptrules.rules.pins import change_pins
from ckptrules.rules.shipped import pins_file
from ckptrules.run import finding, pinning
from ckptrules.run.hints import quoted
from ckptrules.run.options import Common, OptionError, option, some_text
from ckptrules.run.outcome import FAULTS, Done, Prepared
from ckptrules.run.session import Session
from ckptrules.storage.reading import why_of


def one_line(text: str) -> str:
    """Read a text of one line."""
    if not (text.strip() and text.isprintable()):
        raise ValueError("some words in one line")
    return text


class Options(Common, takes="wait"):
    """The options of `doit pin`."""

    changes = True
    name: str | None = option(None, some_text, "the checkpoint to pin: its name, a shell pattern, or a path")
    note: str | None = option(None, one_line, "what it is kept for")


def prepare(session: Session, options: Options) -> Prepared:
    """Find the checkpoints to pin."""
    folder = os.path.dirname(pins_file(options.rules_dir))
    if not os.path.isdir(folder):
        fact = f"there is no folder '{folder}', where {pins_file(options.rules_dir)} would be"
        raise OptionError(fact, "'ckptrules init' writes it, with rules to edit", place="")
    pins_before = {pinned.path: pinned.pin for pinned in pinning.all_pinned(session, options)}
    found = {pin.path: pin for pin in sorted(checkpoints(session, options), key=lambda pin: pin.path.split("/"))}
    pins = [
        found[path]._replace(note=options.note or (pins_before[path].note if path in pins_before else ""))
        for path in chosen("pin", options.name, found, options.outputs_dir)
    ]
    renewed = {path for pin in pins for path in (pin.path, pins_before.get(pin.path, pin).path)}

    def change(before: Iterable[Pin]) -> list[Pin]:
        return [*(pin for pin in before if pin.path not in renewed), *pins]

    return Prepared(partial(write, options, session.style(options), "Pinned", pins, change))


def write(
    options: Common, style: Style, done: str, pins: Sequence[Pin], change: Callable[[tuple[Pin, ...]], list[Pin]]
) -> Done:
    """Change the file of pins, unless this is a dry run, and report the pins; ``done`` is the verb in the past."""
    verb = f"Would {done.lower().replace('pinned', 'pin')}" if options.dry_run else done
    if not options.dry_run:
        try:
            change_pins(options.rules_dir, change)
        except OSError as error:
            text = f"{style.name(pins_file(options.rules_dir))} cannot be written: {why_of(error)}\n"
            return Done(f"Nothing was changed: {text}", failed=True)
    lines = [f"{verb}: {style.name(pin.path)}{f' ({style.name(pin.note)})' * bool(pin.note)}\n" for pin in pins]
    return Done("".join(lines))


def checkpoints(session: Session, options: Common) -> Iterator[Pin]:
    """Yield a pin for each checkpoint, and each part of one, in all directories that can be read."""
    for found in finding.find(session, options):
        try:
            listing = scan(options.outputs_dir, found)
            kinds = sort_entries(finding.rules_of(session, options, found.directory), listing)
        except FAULTS:
            continue
        names = {name for one in kinds.every for name in one.names}
        for entry in (entry for entry in listing.entries if entry.name in names):
            yield Pin(os.path.join(found.directory, entry.name), entry.size, entry.mtime_ns)


def chosen(command: str, wanted: str | None, paths: Mapping[str, Pin], outputs_dir: str) -> list[str]:
    """Return the paths below ``outputs_dir`` of this name or path, or all that a shell pattern fits.

    Raises:
        OptionError: there is none, or a name is that of several.
    """
    if wanted is None:
        raise OptionError(f"{command} needs a name", "name=PATH, or name='epoch-0*'")
    wanted = wanted.rstrip("/") or wanted  # a shell completes the path of a folder with a slash
    found = [path for path in paths if wanted in (path, os.path.basename(path)) or _is(wanted, path, outputs_dir)]
    if len({paths[path] for path in found}) > 1:
        hint = f"say which: {few([f'name={quoted(path)}' for path in found], 5)}"
        raise OptionError(f"{len(found)} are called '{wanted}'", hint)
    found = found or [
        path for path in paths if fnmatchcase(path, wanted) or fnmatchcase(os.path.basename(path), wanted)
    ]
    if not found:
        near = closest(os.path.basename(wanted), sorted(map(os.path.basename, paths)))
        other = "'doit pins' lists those that there are" if command == "unpin" else "'doit plan verbose=1' lists all"
        what = "pin" if command == "unpin" else "checkpoint"
        raise OptionError(f"no {what} '{wanted}'", near or other)
    return found


def _is(wanted: str, path: str, outputs_dir: str) -> bool:
    """Say whether a path from the current folder leads to a path below ``outputs_dir``."""
    directory, name = os.path.split(os.path.join(outputs_dir, path))
    folder, last = os.path.split(wanted)
    return bool(folder) and last == name and os.path.realpath(folder) == os.path.realpath(directory)
