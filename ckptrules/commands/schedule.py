"""`doit schedule`: print a line for cron, and units for systemd; install nothing."""

from __future__ import annotations

import os
import shlex
import sys
from functools import partial

from ckptrules.engine.measures import visible
from ckptrules.rules.shipped import TASKS_FILE
from ckptrules.run import jobs
from ckptrules.run.command_line import program
from ckptrules.run.hints import OURS, WHERE_TO
from ckptrules.run.options import Migrating, OptionError
from ckptrules.run.outcome import Done, Prepared
from ckptrules.run.session import Session

WAIT = 600  # seconds
LOG = "ckptrules.log"
PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./=,:+@")
NOT_PASSED_ON = ("verbose", "dry_run", "quiet")


class Options(Migrating):
    """The options of `doit schedule`."""

    believes_state = False


def prepare(session: Session, options: Options) -> Prepared:
    """Make the texts for cron and systemd, after the rules and options are checked."""
    jobs.job_of(session, options, "schedule")
    words, folder = command(options, started(session)), os.getcwd()
    refuse_unwritable(words, folder)
    return Prepared(partial(Done, units(words, folder)))


def refuse_unwritable(words: list[str], folder: str) -> None:
    """Refuse words with control characters, which would break the line for cron or systemd.

    Raises:
        OptionError: with the word.
    """
    for word in (*words, folder):
        if not word.isprintable():
            fact = f"'{visible(word)}' cannot stand in a line for cron or systemd"
            raise OptionError(fact, "give the folder a name without control characters")


def started(session: Session) -> list[str]:
    """Return the words that start this program, with its dodo.py if that is not the one in the current folder."""
    if program()[0] == OURS:
        return [OURS]
    file = str(session.dodo["__file__"])
    return ["doit", *(["-f", file, "-d", os.getcwd()] if file != os.path.abspath(TASKS_FILE) else [])]


def command(options: Options, start: list[str]) -> list[str]:
    """Return the command to run, with the options that were given, and absolute paths.

    With ``-P``, Python imports no module from the current folder.
    """
    typed = {"outputs_dir": options.outputs_dir, **options.typed()}
    typed |= {name: os.path.abspath(typed[name]) for name in WHERE_TO if name in typed}
    given = [f"{name}={text}" for name, text in typed.items() if name not in NOT_PASSED_ON]
    return [sys.executable, "-P", "-m", *start, "migrate", *given, f"wait={WAIT}", "quiet=1"]


def units(words: list[str], folder: str) -> str:
    """Return the texts. ``%`` is escaped: it ends a command for cron, and begins a specifier for systemd."""
    log = os.path.join(folder, LOG)
    line = f"cd {shlex.quote(folder)} && {shlex.join(words)} >> {shlex.quote(log)} 2>&1"
    quoted = " ".join(_systemd(word) for word in words)
    what = "Rename checkpoints" + " and delete what the policy does not keep" * ("delete_old=1" in words)
    return f"""# cron (crontab -e): Sundays at 2 in the morning. Exit code and lock are those of doit.
0 2 * * 0 {line.replace("%", chr(92) + "%")}

# systemd: ~/.config/systemd/user/ckptrules.service
[Unit]
Description={what}

[Service]
Type=oneshot
WorkingDirectory={folder.replace("%", "%%")}
ExecStart={quoted}
StandardOutput=append:{log.replace("%", "%%")}
StandardError=inherit

# systemd: ~/.config/systemd/user/ckptrules.timer, then: systemctl --user enable --now ckptrules.timer
[Unit]
Description={what}, every week

[Timer]
OnCalendar=Sun 02:00
Persistent=true

[Install]
WantedBy=timers.target
"""


def _systemd(word: str) -> str:
    """Quote a word of ExecStart (systemd.service(5), "Command lines")."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if set(escaped) - PLAIN else escaped
