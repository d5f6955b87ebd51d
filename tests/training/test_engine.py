"""Every criterion, regulariser, budget and switch goes the whole way on a tiny model."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sparsebert.checkpoint import read_run
from sparsebert.cli import run
from sparsebert.latency import Curve, LatencyTable, ShapeLatency
from training.budget import BudgetConfig
from training.checkpoint import load_checkpoint, read_predictions
from training.compaction import compact
from training.config import SearchConfig, TrainConfig
from training.data import DataConfig
from training.encoding import encode
from training.evaluation import predict_logits
from training.loop import LoopConfig
from training.pruner import PruningConfig
from training.run import run_training


@pytest.fixture(scope="module")
def config(bert_dir, reviews_dir, tmp_path_factory) -> TrainConfig:
    """From a dense model that is fine-tuned once; two targets are short work."""
    folder = tmp_path_factory.mktemp("engine")
    dense = TrainConfig(
        model=str(bert_dir),
        data=DataConfig(data_dir=reviews_dir, holdout=16),
        dense=LoopConfig(epochs=8, batch_size=16, learning_rate=1e-2),
        sparse=LoopConfig(epochs=1, batch_size=16, learning_rate=5e-3),
        recovery=LoopConfig(epochs=1, batch_size=16, learning_rate=5e-3),
        pruning=PruningConfig(update_every_steps=2),
        max_length=16,
        track="none",
    )
    run_training(dense, folder)
    return replace(
        dense, model=str(folder / "dense"), dense=replace(dense.dense, epochs=0), budget=BudgetConfig(shares=(0.5,))
    )


def flags_of(config: TrainConfig, output: Path) -> list[str]:
    words = ["train", "--model", config.model, "--data-dir", str(config.data.data_dir), "--output", str(output)]
    words += ["--epochs", "0", "--prune-epochs", "2", "--recovery-epochs", "1", "--batch-size", "16"]
    return [*words, "--max-length", "16", "--prune-learning-rate", "0.005", "--update-every", "2", "--track", "none"]


@pytest.mark.parametrize(
    "words",
    [
        "--importance gradient",
        "--importance activation --schedule linear",
        "--importance magnitude --schedule one-shot",
        "--importance movement --no-reactivation",
        "--importance random --schedule sigmoid",
        "--importance gate --regularizer l1",
        "--importance gate --regularizer l0",
        "--regularizer group-lasso --regularizer-strength 1e-5",
        "--regularizer l1 --states-weight 1 --neuron-multiple 4",
        "--budget macs --accumulation 2",
        "--prune-scope layer --min-heads 1 --min-neurons 2",
    ],
)
def test_each_setting_ends_on_budget(config, tmp_path, words):
    torch.seed()
    assert run([*flags_of(config, tmp_path), *words.split(), "--sparsity", "0.5"]) == 0
    record = read_run(tmp_path / "sparse")
    # a neuron is 1 in 50 here, a head 1 in 20, a layer's share is rounded for each layer
    assert 0.5 <= record.removed_share < (0.6 if "layer" in words else 0.54)
    if not {"movement", "random"} & set(words.split()):  # a few steps are not enough for those
        assert record.accuracy > 0.6
    assert record.events
    if "--no-reactivation" in words:
        assert sum(sum(event.neurons_returned_L) + sum(event.heads_returned_L) for event in record.events) == 0


def test_a_family_leaves_a_checkpoint_for_each_target(config, tmp_path):
    assert run([*flags_of(config, tmp_path), "--sparsity", "0.3,0.6", "--holdout", "16"]) == 0
    first, second = (read_run(tmp_path / name) for name in ("sparse-30", "sparse-60"))
    assert 0.3 <= first.encoder_sparsity < 0.34
    assert 0.6 <= second.encoder_sparsity < 0.64
    assert second.events[0].target_sparsity >= 0.3  # it began where the other ended
    assert set(second.metrics) == {"validation", "holdout"}
    assert second.metrics["holdout"].num_examples >= 16
    assert second.metrics["holdout"].difference is not None
    assert not list((tmp_path / ".work").iterdir())
    before = (tmp_path / "sparse-30" / "run.json").stat().st_mtime_ns
    assert run([*flags_of(config, tmp_path), "--sparsity", "0.3,0.6,0.7", "--holdout", "16"]) == 0  # one more target
    assert (tmp_path / "sparse-30" / "run.json").stat().st_mtime_ns == before
    assert (tmp_path / "sparse-70").exists()


def test_what_is_saved_is_what_was_judged(config, tmp_path):
    run_training(config, tmp_path)
    checkpoint = load_checkpoint(tmp_path / "sparse")
    small = compact(checkpoint.model, checkpoint.masks)
    split = encode(checkpoint.examples, checkpoint.tokenizer, 16).examples
    assert torch.allclose(
        predict_logits(small, split, 0), read_predictions(tmp_path / "sparse")["validation"], atol=1e-5
    )


def test_a_speed_up_is_met_by_the_table(config, tmp_path):
    curve = Curve(units=(0, 1, 4), times_ms=(0.0, 1.0, 2.0))
    neurons = Curve(units=(0, 8, 24), times_ms=(0.0, 2.0, 4.0))
    shape = ShapeLatency(
        precision="int8", batch=1, tokens=32, rest_ms=0.5, attention=curve, ffn=neurons, last_attention=curve,
        last_ffn=neurons,
    )  # fmt: skip
    table = LatencyTable(hidden_size=16, head_size=4, threads=1, shapes=(shape,), provenance={})
    (tmp_path / "table.json").write_text(table.model_dump_json())
    words = [*flags_of(config, tmp_path / "run"), "--latency-table", str(tmp_path / "table.json")]
    assert run([*words, "--target-speedup", "2"]) == 0
    record = read_run(tmp_path / "run" / "sparse")
    assert 0.5 <= record.removed_share < 0.55
    other = table.model_copy(update={"hidden_size": 64})
    (tmp_path / "table.json").write_text(other.model_dump_json())
    assert run([*words, "--target-speedup", "3"]) == 1


def test_a_search_ends_with_the_largest_that_is_good_enough(config, tmp_path):
    searching = replace(config, budget=BudgetConfig(shares=(0.3, 0.6)), search=SearchConfig(max_drop=99.0))
    assert run_training(searching, tmp_path).best == "sparse-60"
    assert not (tmp_path / "sparse-80").exists()


def test_texts_that_are_cut_are_counted(config, tmp_path, caplog):
    run_training(replace(config, max_length=8, budget=BudgetConfig()), tmp_path)
    assert read_run(tmp_path / "dense").truncated_texts > 0
    assert "were cut; --max-length takes longer ones" in caplog.text


def test_a_full_disk_leaves_what_was_there(config, tmp_path, monkeypatch, capsys):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("training.snapshot.torch.save", full)
    assert run([*flags_of(config, tmp_path), "--sparsity", "0.5"]) == 1
    assert "No space left on device" in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.rglob("*.part"))
    assert json.loads((tmp_path / "dense" / "run.json").read_text())["stage"] == "dense"
