"""The recipes' way, killed anywhere, with a repair besides: scores, one cut, repair, recovery."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from sparsebert.checkpoint import read_run
from training.budget import BudgetConfig
from training.config import TrainConfig
from training.data import DataConfig
from training.loop import LoopConfig
from training.recipes import AT_ONCE
from training.run import run_training
from training.snapshot import SnapshotFile


class Killed(BaseException):
    """Stands for a kill: nothing in the code catches it."""


@pytest.fixture(scope="module")
def config(bert_dir, reviews_dir) -> TrainConfig:
    loop = LoopConfig(epochs=2, batch_size=8, learning_rate=5e-3)
    repaired = replace(AT_ONCE, repair=True)
    return TrainConfig(
        model=str(bert_dir), data=DataConfig(data_dir=reviews_dir), dense=replace(loop, learning_rate=1e-2),
        sparse=replace(loop, epochs=1), recovery=loop, pruning=repaired, max_length=16,
        budget=BudgetConfig(shares=(0.4, 0.6)), track="none", snapshot_every_s=0.0, arithmetic="fp32",
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """An unkilled run, and how many snapshots it made."""
    folder, count = tmp_path_factory.mktemp("whole"), 0
    save = SnapshotFile.save

    def counted(self, state):
        nonlocal count
        count += 1
        save(self, state)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SnapshotFile, "save", counted)
        run_training(config, folder)
    return folder, count


@pytest.mark.parametrize("share", [0.35, 0.5, 0.6, 0.8, 1.0])  # in scores, at the cut, in recovery; of either target
def test_one_cut_killed_anywhere_ends_with_the_same_weights(config, whole, tmp_path, monkeypatch, share):
    folder, count = whole
    save, saves = SnapshotFile.save, iter(range(1, count + 1))

    def save_and_die(self, state):
        save(self, state)
        if next(saves) == round(share * count):
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(SnapshotFile, "save", save_and_die)
        with pytest.raises(Killed):
            run_training(config, tmp_path)
    run_training(config, tmp_path)
    for stage in ("sparse-40", "sparse-60"):
        one, other = (load_file(run / stage / "model.safetensors") for run in (folder, tmp_path))
        assert all(torch.equal(one[key], other[key]) for key in one)
        assert len(read_run(tmp_path / stage).events) == 1
        assert read_run(tmp_path / stage).events == read_run(folder / stage).events
