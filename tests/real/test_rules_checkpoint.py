"""Runs that are saved by our callback: names, sidecars, rotation, and going on after a migration."""

import json
import re
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.real.test_protocol_validation import doit
from tests.real.test_real_checkpoints import NEEDS, maker  # noqa: F401 - a fixture

torch = pytest.importorskip("torch", reason=NEEDS)
pytest.importorskip("lightning", reason=NEEDS)
pytestmark = pytest.mark.filterwarnings("ignore")

import lightning as L  # noqa: E402
from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402

from ckptrules.engine.ruleset import RuleError  # noqa: E402
from ckptrules.lightning import RulesCheckpoint  # noqa: E402
from tests.real.runs import train  # noqa: E402

NAMES = {
    "all": ["epoch-00_step-000004.ckpt", "epoch-01_step-000008.ckpt", "epoch-02_step-000012.ckpt"],
    "top 2": ["epoch-01_step-000008_val_loss-", "epoch-02_step-000012_val_loss-"],
    "best": ["best-val_loss-"],
}


def folder_of(base: Path) -> Path:
    """Return the checkpoint directory of the one experiment."""
    return base / "outputs" / "one" / "checkpoints"


def checkpoints(base: Path) -> list[str]:
    """Return the names of the checkpoints."""
    return sorted(path.name for path in folder_of(base).iterdir() if path.suffix == ".ckpt")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"save_top_k": -1}, NAMES["all"]),
        ({"save_top_k": -1, "save_last": True}, [*NAMES["all"], "last.ckpt"]),
        ({"save_top_k": -1, "save_last": "link"}, [*NAMES["all"], "last.ckpt"]),
        ({"save_top_k": 2, "monitor": "val_loss"}, NAMES["top 2"]),
        ({"save_top_k": 1, "monitor": "val_loss", "best": True}, NAMES["best"]),
    ],
)
def test_runs_are_born_in_the_target_format(
    maker: ModuleType,  # noqa: F811
    tmp_path: Path,
    options: dict[str, Any],
    expected: list[str],
) -> None:
    """Nothing is left to rename, each has its sidecar, and no sidecar is left over."""
    train(maker, [RulesCheckpoint(folder_of(tmp_path), **options)], 3)
    names = checkpoints(tmp_path)
    assert len(names) == len(expected)
    assert all(name.startswith(start) for name, start in zip(names, expected, strict=True)), names
    for name in names:
        path = folder_of(tmp_path) / name
        if path.is_symlink():
            assert not (folder_of(tmp_path) / "last.metadata.json").exists()
            continue
        inside = torch.load(path, weights_only=True)
        told = json.loads(path.with_name(f"{name.removesuffix('.ckpt')}.metadata.json").read_text())
        assert (told["epoch"], told["step"]) == (inside["epoch"], inside["global_step"])
        assert list(told["metrics"]) == ["val_loss"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", told["time"])
        if match := re.search(r"val_loss-([\d.]+)\.ckpt", name):
            assert float(match[1]) == pytest.approx(told["metrics"]["val_loss"], abs=1e-4)
    sidecars = [path for path in folder_of(tmp_path).iterdir() if path.name.endswith(".metadata.json")]
    assert len(sidecars) == sum(not (folder_of(tmp_path) / name).is_symlink() for name in names)
    assert "renamed     0" in doit(tmp_path, "migrate")
    doit(tmp_path, "verify")


def test_what_stands_under_a_name_already_is_set_aside_and_not_lost(maker: ModuleType, tmp_path: Path) -> None:  # noqa: F811
    """Two runs in one directory; Lightning alone would write over it, or make a -v1."""
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            train(maker, [RulesCheckpoint(folder_of(tmp_path), save_top_k=-1, save_last=True)], 2)
    expected = ["epoch-00_step-000004.ckpt", "epoch-01_step-000008.ckpt", "last.ckpt"]
    assert checkpoints(tmp_path) == expected
    aside = sorted(path.name for path in folder_of(tmp_path).iterdir() if ".replaced-" in path.name)
    of_them = [name.removesuffix(".ckpt") + ".metadata.json" for name in expected]
    assert [name.partition(".replaced-")[0] for name in aside] == sorted(expected + of_them)
    weights = [folder_of(tmp_path) / name for name in aside if ".metadata.json" not in name]
    assert all(torch.load(path, weights_only=True)["state_dict"] for path in weights)


@pytest.mark.parametrize("before", ["plain", "rules"])
def test_a_resume_after_a_migration_rotates_the_right_files_and_finds_best_and_last(
    maker: ModuleType,  # noqa: F811
    tmp_path: Path,
    before: str,
) -> None:
    """The state holds the old paths, of a plain callback or of ours under other rules; it is read through the rules."""
    options: dict[str, Any] = {"monitor": "val_loss", "save_top_k": 2, "save_last": True}
    whole = train(maker, [RulesCheckpoint(folder_of(tmp_path / "whole"), **options)], 6)
    base = tmp_path / "broken"
    base.mkdir()
    folder = folder_of(base)
    plain = ModelCheckpoint(folder, **options) if before == "plain" else RulesCheckpoint(folder, **options)
    first = train(maker, [plain], 4)
    (folder / "other.ckpt").write_bytes(b"somebody else's")
    doit(base, "migrate")
    ours = RulesCheckpoint(folder, **options)
    resumed = train(maker, [ours], 6, "last")
    assert first.losses + resumed.losses == whole.losses
    weights = [trained.trainer.lightning_module.state_dict() for trained in (whole, resumed)]
    torch.testing.assert_close(*weights)
    assert checkpoints(base) == sorted([*checkpoints(tmp_path / "whole"), "other.ckpt"])
    assert Path(ours.best_model_path).is_file()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert resumed.trainer.test(maker.Line(), resumed.loader, ckpt_path="best", verbose=False)
        assert resumed.trainer.test(maker.Line(), resumed.loader, ckpt_path="last", verbose=False)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"filename": "x"}, "leave 'filename' out"),
        ({"enable_version_counter": True}, "leave 'enable_version_counter' out"),
        ({"best": True}, "needs monitor="),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], told: str) -> None:
    """Before any training."""
    with pytest.raises(ValueError, match=told):
        RulesCheckpoint("x", **options)


def test_rules_that_cannot_name_its_files_are_refused(tmp_path: Path) -> None:
    """Before any training, with the place of the rule."""
    rules = tmp_path / "rules.yaml"
    text = "layout: ['*/checkpoints']\ntarget: {template: '{{ epoch }}-{{ run }}.ckpt', match: '(?P<epoch>\\d+)-(?P<run>\\w+)\\.ckpt', examples: [3-a.ckpt]}\n"
    rules.write_text(text)
    with pytest.raises(ValueError, match=r"rules\.yaml:2:9: target\.template cannot name an epoch and a step alone"):
        RulesCheckpoint("x", rules_dir=str(tmp_path))
    rules.write_text(text.replace("layout", "layuot"))
    with pytest.raises(RuleError, match="did you mean 'layout'"):
        RulesCheckpoint("x", rules_dir=str(tmp_path))


def test_of_equal_values_each_of_the_best_keeps_a_file_of_its_own(tmp_path: Path) -> None:
    """What was equal in four digits was written over the better one, and the third was removed all the same."""
    values = [0.50001, 0.6, 0.50004, 0.50004]
    best = RulesCheckpoint(tmp_path, monitor="val_loss", save_top_k=3, best=True)
    score = iter(values)

    class Told(L.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
            self.log("val_loss", torch.tensor(next(score), dtype=torch.float64))
            return self.layer(batch[0]).sum()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(1, 1)))
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=4, callbacks=[best], logger=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Told(), data)
    names = sorted(path.name for path in tmp_path.glob("*.ckpt"))
    assert names == [f"best-val_loss-{value}.ckpt" for value in ("0.5000", "0.50004", "0.500040")]
    assert [torch.load(tmp_path / name, weights_only=True)["epoch"] for name in names] == [0, 2, 3]
    assert Path(best.best_model_path).name == names[0]
