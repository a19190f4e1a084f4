"""The real command on real checkpoints: every one must load, and training must go on.

One tree is trained on the spot with the Lightning at hand; the other, in ``outputs/``, was
written once by Lightning 2.6.6, and reading it takes PyTorch alone.
"""

import hashlib
import importlib.util
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

NEEDS = "needs PyTorch and Lightning: pip install -e '.[real]'"
torch = pytest.importorskip("torch", reason=NEEDS)

# What Lightning and PyTorch warn of while they train is theirs to mend, and changes with
# each of their releases: it must not fail a test of ours where warnings are errors.
pytestmark = pytest.mark.filterwarnings("ignore")

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
COMMITTED = HERE / "outputs"
EXPERIMENTS = ["doubled_prefix", "lightning_default", "underscores"]
EARLY = {"epoch-02_step-000012.ckpt", "epoch-05_step-000024.ckpt", "epoch-08_step-000036.ckpt"}
LATE = {"epoch-11_step-000048.ckpt", "epoch-14_step-000060.ckpt"}
SPECIAL = {"best-val_loss-0.2268.ckpt", "last.ckpt"}
BEST_EPOCH, LAST_EPOCH = 5, 14


def migrate(base: Path, *options: str) -> None:
    """Run the command on ``base/outputs``, as a user does."""
    command = [sys.executable, "-m", "doit", "-f", str(ROOT / "dodo.py"), "-d", str(base)]
    command += ["migrate", f"rules_dir={ROOT / 'rules'}", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def checkpoints(outputs: Path, experiment: str) -> list[Path]:
    """Return everything in an experiment's checkpoint directory, known to us or not."""
    return sorted((outputs / experiment / "checkpoints").iterdir())


def layout(outputs: Path) -> dict[str, str]:
    """Map each name in the three experiments to where it links, or to nothing if a file."""
    return {
        path.relative_to(outputs).as_posix(): str(path.readlink()) if path.is_symlink() else ""
        for experiment in EXPERIMENTS
        for path in checkpoints(outputs, experiment)
    }


def contents(*directories: Path) -> Counter[tuple[str, int]]:
    """Count the files below by content and time of change; symbolic links do not count."""
    return Counter(
        (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for directory in directories
        for path in directory.rglob("*")
        if path.is_file() and not path.is_symlink()
    )


def load_all(outputs: Path, experiment: str) -> dict[str, dict[str, Any]]:
    """Load an experiment's checkpoints, refusing any code in them, by name."""
    return {path.name: torch.load(path, weights_only=True) for path in checkpoints(outputs, experiment)}


def check_loaded(loaded: dict[str, dict[str, Any]]) -> None:
    """Compare what each checkpoint holds with what its name says."""
    for name, checkpoint in loaded.items():
        assert checkpoint["state_dict"].keys() == {"layer.weight", "layer.bias"}
        if numbers := re.fullmatch(r"epoch-(\d+)_step-(\d+)\.ckpt", name):
            said = [int(number) for number in numbers.groups()]
            assert [checkpoint["epoch"], checkpoint["global_step"]] == said, name
    assert loaded["best-val_loss-0.2268.ckpt"]["epoch"] == BEST_EPOCH
    assert loaded["last.ckpt"]["epoch"] == LAST_EPOCH


@pytest.fixture(scope="session")
def maker() -> ModuleType:
    """Import ``make_outputs.py``, or skip the test where there is no Lightning."""
    pytest.importorskip("lightning", reason=NEEDS)
    spec = importlib.util.spec_from_file_location("make_outputs", HERE / "make_outputs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def fresh(maker: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train the three experiments once for the whole session."""
    outputs: Path = tmp_path_factory.mktemp("fresh") / "outputs"
    for experiment in EXPERIMENTS:
        maker.train(outputs, experiment, maker.EPOCHS)
    return outputs


@pytest.fixture(scope="module", params=["fresh", "committed"])
def source(request: pytest.FixtureRequest) -> Path:
    """Return the trained tree, then the committed one; no test writes to either."""
    if request.param == "committed":
        return COMMITTED
    outputs: Path = request.getfixturevalue("fresh")
    return outputs


@pytest.fixture(scope="module", params=[[], ["delete_old=1"]], ids=["rename", "clean"])
def migrated(
    request: pytest.FixtureRequest, source: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, set[str]]:
    """Migrate a copy of the source; return it, and the names that are to be left of it."""
    base = tmp_path_factory.mktemp("migrated")
    shutil.copytree(source, base / "outputs", symlinks=True)
    migrate(base, *request.param)
    return base / "outputs", SPECIAL | LATE | (set() if request.param else EARLY)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_checkpoint_loads_and_is_what_its_name_says(migrated: tuple[Path, set[str]], experiment: str) -> None:
    """The best checkpoint is from epoch 5, and still stays when early epochs go."""
    outputs, names = migrated
    loaded = load_all(outputs, experiment)
    assert loaded.keys() == names
    check_loaded(loaded)


def test_no_byte_and_no_time_of_a_checkpoint_changes(source: Path, migrated: tuple[Path, set[str]]) -> None:
    """What is no longer in its place is in the trash, as it was."""
    outputs, names = migrated
    before = contents(source)
    in_place = contents(*(outputs / experiment for experiment in EXPERIMENTS))
    gone = before - in_place
    assert in_place <= before
    assert gone <= contents(outputs / ".ckptrules" / "trash")
    assert gone.total() == len(EXPERIMENTS) * len(EARLY - names)


def test_the_link_called_last_follows_its_file(migrated: tuple[Path, set[str]]) -> None:
    """It stays a link beside its file; the other two experiments never had one."""
    outputs, _ = migrated
    links = {name: target for name, target in layout(outputs).items() if target}
    assert links == {"underscores/checkpoints/last.ckpt": "epoch-14_step-000060.ckpt"}


def test_lightning_still_names_files_as_in_the_committed_tree(fresh: Path) -> None:
    """When this fails, Lightning has changed its naming: look at the rules first."""
    assert layout(fresh) == layout(COMMITTED)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize(("start", "epochs_run"), [("epoch-11_step-000048.ckpt", [12, 13, 14]), ("last", [15, 16])])
def test_training_goes_on_as_if_nothing_had_been_renamed(
    maker: ModuleType, tmp_path: Path, experiment: str, start: str, epochs_run: list[int]
) -> None:
    """Trained in place, since a checkpoint holds absolute paths that Lightning goes by.

    The epochs run are the proof: after a silent new start from epoch 0, the final epoch,
    step and weights would all be the same.
    """
    max_epochs = epochs_run[-1] + 1
    unbroken = maker.train(tmp_path / "unbroken", experiment, max_epochs)
    maker.train(tmp_path / "outputs", experiment, maker.EPOCHS)
    migrate(tmp_path)
    if start != "last":
        start = str(tmp_path / "outputs" / experiment / "checkpoints" / start)
    resumed = maker.train(tmp_path / "outputs", experiment, max_epochs, start)
    assert resumed.lightning_module.epochs_run == epochs_run
    assert resumed.current_epoch == max_epochs
    assert resumed.global_step == max_epochs * maker.STEPS_PER_EPOCH
    torch.testing.assert_close(resumed.lightning_module.state_dict(), unbroken.lightning_module.state_dict())
    best = resumed.checkpoint_callbacks[1].best_model_path
    assert Path(best).name == "best-val_loss-0.2268.ckpt"
    assert Path(best).is_file()
