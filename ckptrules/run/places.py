"""Where a command may work and write: refused before anything is done."""

from __future__ import annotations

import os

from ckptrules.engine.spelling import nearest
from ckptrules.rules.shipped import RULES_DIR
from ckptrules.run.hints import quoted
from ckptrules.run.options import Common, OptionError, a_file, a_page, is_page


def outputs_dir(options: Common) -> None:
    """Refuse an ``outputs_dir`` that is no directory or cannot be listed.

    Raises:
        OptionError: with the hint what to do.
    """
    try:
        with os.scandir(options.outputs_dir):
            pass
    except OSError as error:
        near = near_folder(options.outputs_dir) if isinstance(error, FileNotFoundError) else ""
        hint = near and f"did you mean outputs_dir={quoted(near)}?"
        hint = hint or "name the folder of the experiments with outputs_dir=PATH"
        raise OptionError(os.strerror(error.errno or 0), hint, f"outputs_dir '{options.outputs_dir}'") from None


def near_folder(path: str) -> str:
    """Return the folder that a path may mean whose last part is mistyped, or an empty text."""
    above, name = os.path.split(os.path.normpath(path))
    try:
        with os.scandir(above or os.curdir) as entries:
            near = nearest(name, (entry.name for entry in entries if entry.is_dir()))
    except OSError:
        return ""
    return near and os.path.join(above, near)


def is_inside(path: str, folder: str) -> bool:
    """Say whether a path is a folder or lies in it, wherever links lead."""
    path, folder = os.path.realpath(path), os.path.realpath(folder)
    return os.path.commonpath([path, folder]) == folder


def refuse_report_place(options: Common) -> None:
    """Refuse to write a report where it could take the place of a checkpoint, a rule file or a device.

    Raises:
        OptionError: there is no place for a file.
    """
    files = [name for name, option in options.known().items() if option.read in (a_file, a_page)]
    places = [(name, path) for name in files if (path := getattr(options, name))]
    for name, path in places:
        real = os.path.realpath(path)
        fact = ""
        if not os.path.isdir(os.path.dirname(real)):
            fact = "there is no such folder to write in"
        elif os.path.exists(real) and not os.path.isfile(real):
            fact = "is no file"
        elif options.known()[name].read is a_page and not is_page(real):
            fact = f"leads to '{real}', which is no page"
        # where we stand among the outputs, a page lies beside dodo.py: it takes no checkpoint's place
        beside = os.path.dirname(real) == os.path.realpath(os.curdir) and options.known()[name].read is a_page
        for folder in (options.outputs_dir, options.rules_dir or RULES_DIR):
            if is_inside(real, folder) and not (beside and folder == options.outputs_dir):
                fact = f"would be written into '{folder}', among what it tells of"
                fact += f"\n    hint: write it elsewhere, such as {name}=/tmp/{os.path.basename(path)}"
        if fact:
            raise OptionError(f"{name}={path}: {fact}")
