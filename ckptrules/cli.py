"""The console script ``ckptrules``: the same tasks as the shipped dodo.py, in a folder that has none."""

from __future__ import annotations

import runpy
import sys

from doit.cmd_base import ModuleTaskLoader
from doit.doit_cmd import DoitMain
from doit.exceptions import InvalidDodoFile

from ckptrules import __version__, store
from ckptrules.shipped import shipped, starter_files

REFUSED = 3


def main() -> int:
    """Run ``ckptrules init``, or doit with the shipped tasks."""
    arguments = sys.argv[1:]
    if arguments == ["init"]:
        return init()
    if arguments == ["--version"]:
        print(f"ckptrules {__version__}")
        return 0
    DoitMain.BIN_NAME = "ckptrules"
    try:
        namespace = runpy.run_path(shipped("dodo.py"), run_name="dodo")
    except InvalidDodoFile as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return REFUSED
    return int(DoitMain(ModuleTaskLoader(namespace)).run(arguments))


def init() -> int:
    """Write a dodo.py and a rules folder to edit; overwrite nothing."""
    for path, content in starter_files():
        try:
            store.write_new(path, content)
        except FileExistsError as error:
            if error.filename != path:
                print(f"ERROR: {path} cannot be written: {error.filename} is a file", file=sys.stderr)
                return REFUSED
            print(f"{path} is there already: left as it is")
        except OSError as error:
            print(f"ERROR: {path} cannot be written: {error.strerror}", file=sys.stderr)
            return REFUSED
        else:
            print(f"wrote {path}")
    print("Next: doit check, then doit plan")
    return 0
