"""The recipes' way, killed anywhere, with a repair besides: scores, one cut, repair, recovery."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from killing import killed_after
from sparsebert.checkpoint import read_run
from training.budget import BudgetConfig
from training.config import TrainConfig
from training.data import DataConfig
from training.loop import LoopConfig
from training.recipes import AT_ONCE
from training.run import run_training


@pytest.fixture(scope="module")
def config(bert_dir, reviews_dir) -> TrainConfig:
    loop = LoopConfig(epochs=2, batch_size=8, learning_rate=5e-3)
    repaired = replace(AT_ONCE, repair=True)
    return TrainConfig(
        model=str(bert_dir), data=DataConfig(data_dir=reviews_dir), dense=replace(loop, learning_rate=1e-2),
        sparse=replace(loop, epochs=1), recovery=loop, pruning=repaired, max_length=16,
        budget=BudgetConfig(shares=(0.4, 0.6)), track="none", arithmetic="fp32",
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory) -> Path:
    """A run that nobody killed."""
    folder = tmp_path_factory.mktemp("whole")
    run_training(config, folder)
    return folder


# 24 dense steps, then for each target 12 that score, the cut and 24 of recovery
@pytest.mark.parametrize("num_steps", [30, 36, 50, 80, 96])
def test_one_cut_killed_anywhere_ends_with_the_same_weights(config, whole, tmp_path, num_steps):
    with killed_after(num_steps):
        run_training(config, tmp_path)
    run_training(config, tmp_path)
    for stage in ("sparse-40", "sparse-60"):
        one, other = (load_file(run / stage / "model.safetensors") for run in (whole, tmp_path))
        assert all(torch.equal(one[key], other[key]) for key in one)
        assert len(read_run(tmp_path / stage).events) == 1
        assert read_run(tmp_path / stage).events == read_run(whole / stage).events
