"""A `ModelCheckpoint` that saves files under the names of the rules. Extra: ``ckptrules[lightning]``.

Written after ``lightning/pytorch/callbacks/model_checkpoint.py`` of Lightning 2.6, and tried with it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ckptrules.engine.names.naming import claim, fits, named, stem_of
from ckptrules.engine.names.templates import TemplateError, render
from ckptrules.engine.ruleset import Rule
from ckptrules.rules.load import load_rules
from ckptrules.rules.shipped import rule_texts
from ckptrules.storage import writing

try:
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.utilities import rank_zero_warn
except ImportError:
    try:
        from pytorch_lightning.callbacks import ModelCheckpoint
        from pytorch_lightning.utilities import rank_zero_warn
    except ImportError:
        raise ImportError("ckptrules.lightning needs Lightning: pip install 'ckptrules[lightning]'") from None

SIDECAR = ".metadata.json"
OURS = ("filename", "auto_insert_metric_name", "enable_version_counter")


class RulesCheckpoint(ModelCheckpoint):  # type: ignore[misc] # not installed where types are checked
    """Saves checkpoints under the names of the target format, each with a sidecar of epoch, step and metrics.

    No name gets a version. A file of another run under the same name is renamed first, to ``<name>.replaced-<time>``,
    which no rule knows and nothing deletes. On resume, old paths in the state of this callback, or of a plain
    `ModelCheckpoint` with the same settings, are replaced by those that the rules give the files.

    Args:
        dirpath: where to save; as in `ModelCheckpoint`.
        best: whether names are ``best-<metric>-<value>.ckpt``, which the rules must protect; needs ``monitor``.
        rules_dir: the folder of the rule files; by default ``rules``, or the rules of the package if there is none.
        options: all others of `ModelCheckpoint`, but for the names: ``filename``, ``auto_insert_metric_name`` and
            ``enable_version_counter``.

    Raises:
        RuleError: the rules are invalid.
        ValueError: the options contradict each other, or the rules would not know the names.
    """

    def __init__(
        self, dirpath: str | os.PathLike[str] | None = None, *, best: bool = False, rules_dir: str | None = None,
        **options: Any,
    ) -> None:  # fmt: skip
        for name in OURS:
            if name in options:
                raise ValueError(f"RulesCheckpoint takes its names from the rules: leave '{name}' out")
        super().__init__(dirpath, auto_insert_metric_name=False, enable_version_counter=False, **options)
        if best and self.monitor is None:
            raise ValueError("RulesCheckpoint(best=True) needs monitor='...': the metric to go by")
        self._rules = load_rules(rule_texts(rules_dir))
        self._best = best
        self._mine: set[str] = set()
        self._name({"epoch": 0, "step": 0, **({self.monitor: 0.5} if self.monitor else {})})

    @property
    def state_key(self) -> str:
        """The key of a plain `ModelCheckpoint` with these settings, so that each can load the other's state."""
        return str(super().state_key).replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """As in `ModelCheckpoint`.

        Raises:
            ValueError: ``dirpath`` is no local folder.
        """
        super().setup(trainer, pl_module, stage)
        if "://" in str(self.dirpath):
            raise ValueError(f"RulesCheckpoint saves to local folders only, not to {self.dirpath}")

    def format_checkpoint_name(
        self, metrics: dict[str, Any], filename: str | None = None, ver: int | None = None, prefix: str | None = None
    ) -> str:
        """Return the path of a checkpoint with these metrics, which have ``epoch`` and ``step``."""
        if filename is not None or ver is not None or prefix is not None:
            return str(super().format_checkpoint_name(metrics, filename, ver, prefix))
        return os.path.join(self.dirpath or "", self._name(metrics))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, with the paths that its files have now."""
        state = dict(state_dict)
        for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
            if state.get(key):
                state[key] = self._path_now(state[key])
        if state.get("best_k_models"):
            state["best_k_models"] = {self._path_now(path): score for path, score in state["best_k_models"].items()}
        super().load_state_dict(state)
        self._mine |= {*self.best_k_models, self.best_model_path, self.last_model_path}

    def _save_checkpoint(self, trainer: Any, filepath: str) -> None:
        if trainer.is_global_zero and filepath not in self._mine:
            other = writing.set_aside(filepath, _sidecar_of(filepath))
            if other:
                rank_zero_warn(f"{filepath} was there already, and not of this run: it is now {other}")
        trainer.strategy.barrier()
        self._mine.add(filepath)
        super()._save_checkpoint(trainer, filepath)
        if trainer.is_global_zero:
            writing.write_file(_sidecar_of(filepath), _metadata(trainer))

    def _remove_checkpoint(self, trainer: Any, filepath: str) -> None:
        super()._remove_checkpoint(trainer, filepath)
        if trainer.is_global_zero:
            writing.remove_sidecar(_sidecar_of(filepath))

    @property
    def _target(self) -> Rule:
        if not self._rules.targets:
            raise ValueError(f"{self._rules.files[0]}: there is no target, by which a checkpoint could be named")
        return self._rules.targets[0]

    def _name(self, metrics: Mapping[str, Any]) -> str:
        """Return the name for an epoch, a step and the monitored metric, if there is one."""
        epoch, step = int(metrics["epoch"]), int(metrics["step"])
        metric = re.sub(r"\W", "_", self.monitor or "")
        value = f"{float(metrics[self.monitor]):.4f}" if self.monitor in metrics else ""
        if self._best:
            name = self._best_name(metric, float(metrics[str(self.monitor)]))
            if claim(name, self._rules).kind != "protected":
                raise ValueError(f"'{name}' is not protected by the rules: add 'best-*.ckpt' to 'protected'")
            return name
        return self._periodic(str(epoch), str(step), metric, value)

    def _best_name(self, metric: str, value: float) -> str:
        """Return a name that no other kept checkpoint has: with more digits if the value is equal in four."""
        names = [f"best-{metric}-{value:.{4 + more}f}.ckpt" for more in range(len(self.best_k_models) + 1)]
        free = (name for name in names if os.path.join(self.dirpath or "", name) not in self.best_k_models)
        return next(free, names[-1])

    def _periodic(self, epoch: str, step: str, metric: str, value: str) -> str:
        try:
            name = render(self._target.template, {"epoch": epoch, "step": step, "metric": metric, "value": value})
        except TemplateError as error:
            place = self._target.place
            raise ValueError(f"{place}: target.template cannot name an epoch and a step alone: {error}") from None
        wanted = {"epoch": epoch, "step": step}
        with_metric = f"{stem_of(name)}_{metric}-{value}{name[len(stem_of(name)) :]}"
        if value and self._reads_back(with_metric, {**wanted, "metric": metric, "value": value}):
            return with_metric
        if not self._reads_back(name, wanted):
            raise ValueError(f"{self._target.place}: target.match does not read '{name}' back")
        return name

    def _reads_back(self, name: str, wanted: Mapping[str, str]) -> bool:
        found = fits(self._target, name) or {}
        return claim(name, self._rules).kind == "target" and all(
            key in found and float(found[key]) == float(value)
            if key in ("epoch", "step", "value")
            else found.get(key) == value
            for key, value in wanted.items()
        )

    def _path_now(self, path: str) -> str:
        """Return the path that a checkpoint has now, if it was renamed."""
        folder, name = os.path.split(path)
        read = named(name, self._rules)
        now = os.path.join(folder, read.target)
        moved = read.claim.kind == "legacy" and read.target and (os.path.islink(path) or not os.path.exists(path))
        return now if moved and os.path.exists(now) else path


def _sidecar_of(path: str) -> str:
    folder, name = os.path.split(path)
    return os.path.join(folder, stem_of(name) + SIDECAR)


def _metadata(trainer: Any) -> str:
    metrics = {str(name): float(value) for name, value in trainer.callback_metrics.items()}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    row = {"epoch": trainer.current_epoch, "step": trainer.global_step, "metrics": metrics, "time": now}
    return json.dumps(row, indent=1) + "\n"
