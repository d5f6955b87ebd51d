"""A killed run goes on where it was, with the same numbers; one that cannot go on is told in words."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from killing import killed_after
from sparsebert.checkpoint import read_run
from sparsebert.errors import CheckpointError
from sparsebert.masks import load_masks
from training.budget import BudgetConfig
from training.config import TrainConfig
from training.run import run_training
from training.snapshot import SnapshotFile


@pytest.fixture(scope="module")
def config(run_config) -> TrainConfig:
    """24 dense steps, 36 that prune, 12 of recovery."""
    return replace(run_config, dense=replace(run_config.dense, epochs=2))


def numbers(folder: Path) -> tuple[object, ...]:
    record = read_run(folder)
    return record.evaluations, record.losses, record.events, load_masks(folder / "masks.safetensors").kept_neurons_L()


@pytest.fixture(scope="module")
def whole_run(config, tmp_path_factory) -> Path:
    """A run that nobody killed."""
    torch.seed()  # whatever was drawn before must not matter
    folder = tmp_path_factory.mktemp("whole")
    run_training(config, folder)
    return folder


@pytest.mark.parametrize("num_steps", [1, 17, 25, 42, 60, 62])
def test_a_killed_run_ends_with_the_same_numbers(config, whole_run, tmp_path, num_steps):
    torch.seed()
    with killed_after(num_steps):
        run_training(config, tmp_path / "killed")
    torch.seed()
    run_training(config, tmp_path / "killed")
    for stage in ("dense", "sparse"):
        assert numbers(tmp_path / "killed" / stage) == numbers(whole_run / stage)
        whole, killed = (load_file(run / stage / "model.safetensors") for run in (whole_run, tmp_path / "killed"))
        assert all(torch.equal(whole[key], killed[key]) for key in whole)


def test_an_unfinished_run_with_other_settings_is_told(config, tmp_path):
    with killed_after(1):
        run_training(config, tmp_path)
    with pytest.raises(CheckpointError, match="unfinished run with other settings"):
        run_training(replace(config, seed=9), tmp_path)


def test_unfinished_work_that_will_not_do_is_told_before_the_targets_before_it_are_trained(config, tmp_path):
    """A target put before the one that was killed: that one starts from another model now."""
    family = replace(config, budget=BudgetConfig(shares=(0.3, 0.6)))
    with killed_after(24 + 36 + 12 + 1):  # one step into the second target
        run_training(family, tmp_path)
    with pytest.raises(CheckpointError, match="unfinished run with other settings"):
        run_training(replace(family, budget=BudgetConfig(shares=(0.3, 0.45, 0.6))), tmp_path)
    assert not (tmp_path / "sparse-45").exists()
    assert [path.name for path in (tmp_path / ".work").glob("*.pt")] == ["sparse-60.pt"]
    run_training(family, tmp_path)
    assert (tmp_path / "sparse-60").exists()


@pytest.mark.parametrize(("num_steps", "name"), [(1, "dense.pt"), (26, "teacher-*.safetensors")])
def test_damaged_work_is_told(config, tmp_path, num_steps, name):
    with killed_after(num_steps):
        run_training(config, tmp_path)
    (path,) = (tmp_path / ".work").glob(name)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(CheckpointError, match="cannot be read; delete it"):
        run_training(config, tmp_path)


def test_a_snapshot_of_something_else_is_told(tmp_path):
    torch.save([1, 2], tmp_path / "dense.pt")
    with pytest.raises(CheckpointError, match="cannot be read; delete it"):
        SnapshotFile(tmp_path / "dense.pt", "fingerprint", 60.0).load()


@pytest.fixture(scope="module")
def unfinished(config, tmp_path_factory) -> Path:
    """A run that was killed while it pruned."""
    folder = tmp_path_factory.mktemp("unfinished")
    with killed_after(37):
        run_training(config, folder)
    return folder


@pytest.mark.parametrize(
    "differ",
    [
        lambda state: state.pop("read_loss"),
        lambda state: state["pruner"].pop("masks"),
        lambda state: state["evaluations"][0].pop("accuracy"),
        lambda state: state["optimizer"]["param_groups"].pop(),
    ],
    ids=["a value", "one of the pruner", "one of an evaluation", "the optimiser's groups"],
)
def test_a_snapshot_of_another_version_is_told(config, unfinished, differ):
    path = unfinished / ".work" / "sparse.pt"
    before = path.read_bytes()
    saved = torch.load(path, weights_only=True)
    differ(saved["state"])
    torch.save(saved, path)
    told = f"{unfinished}/.work holds an unfinished run of another version of SparseBERT; finish it with that one, "
    with pytest.raises(CheckpointError) as raised:
        run_training(config, unfinished)
    assert str(raised.value) == f"{told}choose another --output, or delete it"
    path.write_bytes(before)
