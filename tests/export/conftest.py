"""One small trained run for all export tests."""

from dataclasses import replace
from pathlib import Path

import pytest

from training.budget import BudgetConfig
from training.data import DataConfig
from training.loop import LoopConfig
from training.recipes import demo
from training.run import run_training
from training.selection import KeepFloor, SelectionRules


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
        recovery=LoopConfig(epochs=1, batch_size=8, learning_rate=5e-3),
        pruning=replace(
            recipe.pruning, update_every_steps=4, rules=SelectionRules(floor=KeepFloor(heads=1, neurons=2))
        ),
        budget=BudgetConfig(shares=(0.5,)),
        max_length=16,
        track="none",
    )
    run_training(config, folder)
    return folder
