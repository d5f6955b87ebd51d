"""What the dense model says is asked once, also when runs share it or are killed."""

from dataclasses import replace

import pytest
import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file

import training.teacher
from sparsebert.errors import ConfigError
from training.budget import BudgetConfig
from training.config import TrainConfig
from training.data import DataConfig
from training.loop import LoopConfig
from training.run import run_training


class Killed(BaseException):
    """Stands for a kill: nothing in the code catches it."""


@pytest.fixture
def config(bert_dir, reviews_dir) -> TrainConfig:
    loop = LoopConfig(epochs=1, batch_size=8, learning_rate=1e-2)
    return TrainConfig(
        model=str(bert_dir), data=DataConfig(data_dir=reviews_dir), dense=loop, sparse=loop,
        budget=BudgetConfig(shares=(0.3,)), max_length=16, track="none", arithmetic="fp32",
    )  # fmt: skip


def test_runs_with_one_teacher_ask_it_once(config, tmp_path, monkeypatch):
    cached = replace(config, teacher_cache=tmp_path / "cache")
    run_training(cached, tmp_path / "a")
    (kept,) = (tmp_path / "cache").glob("*.safetensors")
    monkeypatch.setattr("training.teacher._ask", None)  # nobody asks again
    run_training(replace(cached, pruning=replace(cached.pruning, importance="magnitude")), tmp_path / "b")
    assert [*(tmp_path / "cache").glob("*.safetensors")] == [kept]
    assert not [*(tmp_path / "b" / ".work").glob("*")]
    with pytest.raises(TypeError):  # another model is asked itself
        run_training(replace(cached, seed=cached.seed + 1), tmp_path / "c")


def test_runs_side_by_side_wait_for_the_one_that_asks(config, tmp_path, monkeypatch):
    cached = replace(config, teacher_cache=tmp_path / "cache")
    ask, asked = training.teacher._ask, []

    def ask_while_others_wait(*arguments):
        (lock,) = (tmp_path / "cache").glob("*.lock")
        with pytest.raises(Timeout):
            FileLock(lock).acquire(blocking=False)
        asked.append(arguments[3])
        return ask(*arguments)

    monkeypatch.setattr("training.teacher._ask", ask_while_others_wait)
    run_training(cached, tmp_path / "a")
    assert len(asked) == 1
    (lock,) = (tmp_path / "cache").glob("*.lock")
    with FileLock(lock):  # what is there is read without a lock: a cache may be on a disk that cannot be written
        run_training(cached, tmp_path / "b")
    assert len(asked) == 1


@pytest.mark.parametrize("inside", ["", "below"])
def test_a_cache_that_cannot_be_a_folder_is_refused_at_once_and_the_file_stays(config, tmp_path, inside):
    notes = tmp_path / "notes.csv"
    notes.write_text("of the user")
    with pytest.raises(ConfigError, match=r"--teacher-cache .*notes.csv.* cannot be written .*; choose another"):
        run_training(replace(config, teacher_cache=notes / inside), tmp_path / "a")
    assert notes.read_text() == "of the user"
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("states_weight", [0.0, 1.0])
def test_a_teacher_that_was_killed_goes_on(config, tmp_path, monkeypatch, states_weight):
    short = replace(config, distillation=replace(config.distillation, states_weight=states_weight))
    run_training(short, tmp_path / "whole")
    monkeypatch.setattr("training.teacher.PART_BATCHES", 1)
    ask, asked = training.teacher._ask, []

    def ask_twice(*arguments):
        if len(asked) == 1:
            asked.append("killed")
            raise Killed
        asked.append(arguments[3])
        return ask(*arguments)

    monkeypatch.setattr("training.teacher._ask", ask_twice)
    with pytest.raises(Killed):
        run_training(short, tmp_path / "killed")
    run_training(short, tmp_path / "killed")
    batches = [batch for batches in asked if batches != "killed" for batch in batches]
    assert sorted(index for batch in batches for index in batch) == list(range(96))  # each text once
    assert not [*(tmp_path / "killed" / ".work").iterdir()]
    whole, killed = (load_file(tmp_path / name / "sparse" / "model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(whole[key], killed[key]) for key in whole)
