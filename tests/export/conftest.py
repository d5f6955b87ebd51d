"""One small trained run for all export tests."""

from dataclasses import replace
from pathlib import Path

import pytest

from training.data import DataConfig
from training.loop import LoopConfig
from training.recipes import demo
from training.run import run_training
from training.schedule import CubicSchedule
from training.selection import KeepFloor


@pytest.fixture(scope="session")
def run_dir(bert_dir: Path, reviews_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    recipe = demo()
    config = replace(
        recipe,
        model=str(bert_dir),
        data=DataConfig(data_dir=reviews_dir),
        dense=LoopConfig(epochs=8, batch_size=8, learning_rate=1e-2),
        sparse=LoopConfig(epochs=2, batch_size=8, learning_rate=5e-3),
        pruning=replace(
            recipe.pruning,
            schedule=CubicSchedule(final_sparsity=0.5),
            update_every_steps=4,
            floor=KeepFloor(heads=1, neurons=2),
        ),
        max_length=16,
    )
    run_training(config, folder)
    return folder
