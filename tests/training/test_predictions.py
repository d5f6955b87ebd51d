"""A dense model that is taken as it is, as at each point of a sweep, is judged once by the same texts and weights."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sparsebert.checkpoint import PREDICTIONS_FILE, read_run
from sparsebert.errors import CheckpointError
from training.budget import BudgetConfig
from training.config import TrainConfig
from training.data import DataConfig
from training.loop import LoopConfig
from training.predictions import read_predictions
from training.run import run_training

MARK = 5.0  # added to an answer, it tells answers that were kept from those that were computed


@pytest.fixture(scope="module")
def judged(bert_dir, reviews_dir, tmp_path_factory) -> TrainConfig:
    """Takes a dense model as it is; the signed answers that lie beside it carry the mark."""
    folder = tmp_path_factory.mktemp("judged")
    config = TrainConfig(
        model=str(bert_dir), data=DataConfig(data_dir=reviews_dir, holdout=16), dense=LoopConfig(epochs=0.1),
        sparse=LoopConfig(epochs=0.1), budget=BudgetConfig(), max_length=16, track="none",
    )  # fmt: skip
    run_training(config, folder)
    dense = folder / "dense"
    rewrite(dense, {name: logits_NC + MARK for name, logits_NC in read_predictions(dense).items()})
    return replace(config, model=str(dense), dense=replace(config.dense, epochs=0))


def rewrite(dense: Path, logits: dict[str, torch.Tensor], *, signed: bool = True) -> None:
    with safe_open(dense / PREDICTIONS_FILE, framework="pt") as stream:
        metadata = stream.metadata()
    save_file(logits, dense / PREDICTIONS_FILE, metadata=metadata if signed else None)


def kept(config: TrainConfig, output: Path) -> dict[str, bool]:
    """Of which splits a run took the answers that were there."""
    run_training(config, output)
    return {name: bool(logits_NC.mean() > MARK / 2) for name, logits_NC in read_predictions(output / "dense").items()}


def copied(config: TrainConfig, tmp_path: Path) -> TrainConfig:
    """The same with a dense model of its own, which a test may change."""
    folder = shutil.copytree(Path(config.model).parent, tmp_path / "copied")
    return replace(config, model=str(folder / "dense"))


def test_the_same_texts_are_not_judged_again(judged, tmp_path, caplog):
    with caplog.at_level("INFO"):
        assert kept(judged, tmp_path) == {"validation": True, "holdout": True}
    assert f"validation: the answers to these texts are known, {judged.model}" in caplog.text
    again, first = read_run(tmp_path / "dense"), read_run(Path(judged.model))
    assert again.metrics == first.metrics
    assert again.evaluations == ()  # nothing was trained


def test_a_point_compares_with_the_answers_that_were_there(judged, tmp_path):
    run_training(replace(judged, budget=BudgetConfig(shares=(0.3,))), tmp_path)
    metrics = read_run(tmp_path / "sparse").metrics["validation"]
    assert metrics.difference == pytest.approx(metrics.accuracy - read_run(Path(judged.model)).accuracy)


def test_changed_texts_are_judged_anew(judged, reviews_dir, tmp_path):
    data = shutil.copytree(reviews_dir, tmp_path / "data")
    text = (data / "validation.csv").read_text()
    (data / "validation.csv").write_text(text.replace("film", "plot"))
    changed = replace(judged, data=replace(judged.data, data_dir=data))
    assert kept(changed, tmp_path / "run") == {"validation": False, "holdout": True}


def test_texts_that_are_cut_elsewhere_are_judged_anew(judged, tmp_path):
    assert kept(replace(judged, max_length=8), tmp_path) == {"validation": False, "holdout": False}


def test_other_labels_of_the_same_texts_are_scored_anew_without_asking(judged, reviews_dir, tmp_path):
    data = shutil.copytree(reviews_dir, tmp_path / "data")
    rows = (data / "validation.csv").read_text().splitlines()
    rows[1:] = [row.replace(",no", ",YES").replace(",yes", ",no").replace("YES", "yes") for row in rows[1:]]
    (data / "validation.csv").write_text("\n".join(rows) + "\n")
    turned = replace(judged, data=replace(judged.data, data_dir=data))
    assert kept(turned, tmp_path / "run") == {"validation": True, "holdout": True}
    first = read_run(Path(judged.model)).accuracy
    assert read_run(tmp_path / "run" / "dense").accuracy == pytest.approx(1 - first)


@pytest.mark.parametrize("epochs", [0, 0.1])
def test_other_weights_are_judged_anew(judged, tmp_path, epochs):
    config = copied(judged, tmp_path)
    if not epochs:
        weights = load_file(Path(config.model) / "model.safetensors")
        weights["classifier.bias"] += 1e-7  # too little to see in the answers
        save_file(weights, Path(config.model) / "model.safetensors", metadata={"format": "pt"})
    trained = replace(config, dense=replace(config.dense, epochs=epochs, learning_rate=1e-9))
    assert kept(trained, tmp_path / "run") == {"validation": False, "holdout": False}


def test_answers_that_nobody_signed_are_not_taken(judged, tmp_path):
    config = copied(judged, tmp_path)
    rewrite(Path(config.model), read_predictions(Path(config.model)), signed=False)
    assert kept(config, tmp_path / "run") == {"validation": False, "holdout": False}


def test_a_model_without_answers_is_judged(judged, tmp_path):
    config = copied(judged, tmp_path)
    (Path(config.model) / PREDICTIONS_FILE).unlink()
    assert kept(config, tmp_path / "run") == {"validation": False, "holdout": False}


def test_answers_that_cannot_be_read_are_told(judged, tmp_path):
    config = copied(judged, tmp_path)
    path = Path(config.model) / PREDICTIONS_FILE
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(CheckpointError, match=r"predictions.safetensors cannot be read; train again or copy the whole"):
        run_training(config, tmp_path / "run")
