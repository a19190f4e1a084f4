"""Tell which files of a folder checkpoint may be its weights. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

NO_WEIGHTS = "no weights: all that is in it stands beside them"
OPTIMIZER = r"(?:distrib_)?optim(?:i[sz]ers?)?(?![a-z])"
BESIDE_WEIGHTS = re.compile(
    rf"{OPTIMIZER}|.*optim_states\.pt$|.*\.pdopt$|(?:lr_)?schedulers?(?![a-z])|(?:cuda_)?rng(?:_states?)?(?![a-z])"
    r"|random_states?(?![a-z])|(?:grad_)?scaler(?![a-z])|(?:data)?loader(?![a-z])|sampler(?![a-z])|train(?:ing|er)?_args"
    r"|train(?:er|ing)_state|custom_checkpoint_\d+\.pkl|meta\.pt$|latest(?:_checkpointed_iteration\.txt)?$|checkpoint$"
    r"|events\.out|_(?:checkpoint_)?metadata|_sharding|(?:tokenizer|spiece|spm)\.model$|.*(?:ckpt|variables).*\.(?:index|meta)$"
    r"|\.|.*\.(?:json|jsonl|txt|md|ya?ml|toml|jinja|py|log|csv|lock)$",
    re.IGNORECASE,
)
"""Names of files that trainers write beside the weights; any other file may be weights."""
NOTHING_WITHOUT = re.compile(rf"{OPTIMIZER}|(?:adapter_)?config\.json$|training_args\.bin$", re.IGNORECASE)
"""Names of files that are written only with weights; a folder without any of these may be meant to have no weights."""
IN_FOLDERS_OF = re.compile(rf"{OPTIMIZER}|\.", re.IGNORECASE)  # no file in such a folder is weights


def may_be_weights(path: str) -> bool:
    """Return whether a file at this path inside a folder checkpoint may be weights: no known name says otherwise."""
    *folders, name = path.split("/")
    return not (BESIDE_WEIGHTS.match(name) or any(IN_FOLDERS_OF.match(folder) for folder in folders))


def lacks_weights(paths: Sequence[str]) -> bool:
    """Return whether a folder has files that are written only with weights, but no file that may be weights."""
    return not any(map(may_be_weights, paths)) and any(NOTHING_WITHOUT.match(path.rpartition("/")[2]) for path in paths)
