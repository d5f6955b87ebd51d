"""The curves that a run leaves for TensorBoard."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sparsebert.checkpoint import read_run
from training.budget import BudgetConfig
from training.config import TrainConfig
from training.data import DataConfig
from training.loop import LoopConfig
from training.pruner import PruningConfig
from training.run import run_training
from training.selection import KeepFloor, SelectionRules
from training.snapshot import SnapshotFile


@pytest.fixture
def config(bert_dir, reviews_dir) -> TrainConfig:
    """24 dense steps, then 24 that prune; a snapshot after each."""
    return TrainConfig(
        model=str(bert_dir),
        data=DataConfig(data_dir=reviews_dir),
        dense=LoopConfig(epochs=2, batch_size=8, learning_rate=1e-2),
        sparse=LoopConfig(epochs=2, batch_size=8, learning_rate=5e-3),
        pruning=PruningConfig(update_every_steps=4, rules=SelectionRules(floor=KeepFloor(heads=1, neurons=2))),
        budget=BudgetConfig(shares=(0.5,)),
        max_length=16,
        snapshot_every_s=0.0,
        track="tensorboard",
    )


class Killed(BaseException):
    """Stands for a kill."""


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values of every scalar in a folder of event files."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_a_killed_run_goes_on_with_its_curves(config, tmp_path, monkeypatch):
    save, saves = SnapshotFile.save, []

    def save_and_die(self, state):
        save(self, state)
        saves.append(state["step"])
        if len(saves) == 32:  # the sixth step that prunes
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(SnapshotFile, "save", save_and_die)
        with pytest.raises(Killed):
            run_training(config, tmp_path)
    before = curves(tmp_path / "logs" / "sparsebert")
    run_training(config, tmp_path)
    found = curves(tmp_path / "logs" / "sparsebert")
    assert {tag: [step for step, _ in points] for tag, points in found.items() if "/" in tag} == {
        "dense/loss": [12, 20, 24], "dense/encoder_sparsity": [12, 20, 24], "dense/accuracy": [12, 24],
        "sparse/loss": [12, 20, 24], "sparse/encoder_sparsity": [12, 20, 24], "sparse/accuracy": [12, 24],
    }  # fmt: skip
    assert {tag: found[tag] for tag in before} == before
    for stage in ("dense", "sparse"):
        points = read_run(tmp_path / stage).evaluations
        for kind, values in (
            ("accuracy", [point.accuracy for point in points]),
            ("loss", [point.training_loss for point in points]),
            ("encoder_sparsity", [point.encoder_sparsity for point in points]),
        ):
            tracked = [value for step, value in found[f"{stage}/{kind}"] if step != 20]
            assert tracked == pytest.approx(values, rel=1e-6)
    assert found["sparse/encoder_sparsity"][-1][1] >= 0.5
