"""A callback of the Trainer that runs `doit after` after each save. Extra: ``ckptrules[huggingface]``.

Written after ``transformers/trainer.py`` and ``trainer_callback.py`` of transformers 5.24, and tried with it.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

from ckptrules.rules.load import load_rules
from ckptrules.rules.shipped import rule_texts

try:
    from transformers import TrainerCallback
except ImportError:
    missing = "ckptrules.huggingface needs transformers: pip install 'ckptrules[huggingface]'"
    raise ImportError(missing) from None

LONGEST = 600  # seconds that the training waits; the next cleanup finishes one that was ended then
log = logging.getLogger(__name__)


class RulesCallback(TrainerCallback):  # type: ignore[misc] # not installed where types are checked
    """Runs `doit after` in a process of its own when the Trainer has saved a checkpoint; on the main process only.

    The checkpoint just saved, the best, and the one that the run was resumed from stay. If a cleanup fails, a warning
    is logged, and the training goes on.

    Args:
        delete_old: whether to delete what the policy does not keep; else checkpoints are only renamed, if the rules say
            so.
        policy: the name of the retention policy.
        outputs_dir: the folder that holds ``args.output_dir``; by default that in the rules, or ``outputs``.
        rules_dir: the folder of the rule files; by default ``rules``, or the rules of the package if there is none.
        wait: seconds to wait for another run of ckptrules.

    Raises:
        RuleError: the rules are invalid.
        ValueError: the rules have no such policy.
    """

    def __init__(
        self, *, delete_old: bool = False, policy: str = "default", outputs_dir: str | None = None,
        rules_dir: str | None = None, wait: int = 10,
    ) -> None:  # fmt: skip
        rules = load_rules(rule_texts(rules_dir))
        if delete_old and policy not in rules.policies:
            raise ValueError(f"unknown policy '{policy}'; there are: {', '.join(rules.policies) or 'none'}")
        folders = {"outputs_dir": outputs_dir or rules.outputs_dir or "outputs", "rules_dir": rules_dir}
        self._words = [f"{name}={os.path.abspath(path)}" for name, path in folders.items() if path]
        self._words += [f"wait={wait}", "quiet=1", *([f"policy={policy}", "delete_old=1"] if delete_old else [])]
        self._folder = os.getcwd()
        self._resumed = ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - the Trainer passes them
        """Note the checkpoint that the run is resumed from; the Trainer has read the step in it."""
        by_step = [_saved_at(args, state)] if state.global_step else []
        given = getattr(args, "resume_from_checkpoint", None)
        self._resumed = _first_there([*by_step, *([given] if isinstance(given, str) else [])])

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - the Trainer passes them
        """Clean up beside the checkpoint that was just saved."""
        if not state.is_world_process_zero:
            return
        best = state.best_model_checkpoint or ""  # the path when it was saved; the folder may have moved
        named = {
            "path": _saved_at(args, state),
            "resumed": _first_there([self._resumed]),
            "best": _first_there([os.path.join(args.output_dir, os.path.basename(best)), best]) if best else "",
        }
        if problems := self._clean_up([f"{name}={path}" for name, path in named.items() if path]):
            log.warning("nothing is lost, but the cleanup after %s has left problems:\n%s", named["path"], problems)

    def _clean_up(self, words: Iterable[str]) -> str:
        """Run `doit after`; return what went wrong, or an empty text."""
        command = [sys.executable, "-P", "-m", "ckptrules", "after", *self._words, *words]
        try:
            done = subprocess.run(  # noqa: S603 - our own command
                command, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True, errors="backslashreplace", timeout=LONGEST, check=False,
            )  # fmt: skip
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            return str(error)
        return done.stdout.strip() or f"exit code {done.returncode}" if done.returncode else ""


def _saved_at(args: Any, state: Any) -> str:
    """Return the path to which the Trainer saves at this step."""
    return os.path.abspath(os.path.join(args.output_dir, f"checkpoint-{state.global_step}"))


def _first_there(paths: Iterable[str]) -> str:
    """Return the first path that exists, as an absolute one; an empty text if none does."""
    return next((os.path.abspath(path) for path in paths if os.path.lexists(path)), "")
