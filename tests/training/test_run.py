"""A run learns, prunes and records; what is wrong with its words, data or models is told."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sparsebert.checkpoint import read_examples, read_run
from sparsebert.cli import run
from sparsebert.errors import BackboneError, CheckpointError, ConfigError, TrainingError
from sparsebert.masks import load_masks
from training.budget import BudgetConfig
from training.checkpoint import load_checkpoint
from training.compaction import compact
from training.config import TrainConfig
from training.data import DataConfig
from training.run import RunResult, run_training
from training.workshop import Workshop


@pytest.fixture(scope="module")
def config(run_config) -> TrainConfig:
    return run_config


@pytest.fixture(scope="module")
def done(config, tmp_path_factory) -> tuple[RunResult, Path]:
    """A whole run and its folder, which no test changes."""
    folder = tmp_path_factory.mktemp("done")
    return run_training(config, folder), folder


@pytest.fixture
def dense_config(config) -> TrainConfig:
    """One dense epoch of 12 steps, nothing pruned."""
    return replace(config, dense=replace(config.dense, epochs=1), budget=BudgetConfig())


def test_a_run_learns_prunes_and_records(done):
    result, folder = done
    dense, sparse = read_run(folder / "dense"), read_run(folder / "sparse")
    assert result.accuracies == {"dense": dense.accuracy, "sparse": sparse.accuracy}
    assert dense.accuracy >= 0.9
    assert sparse.accuracy >= 0.8
    assert dense.encoder_sparsity == 0.0
    assert 0.5 <= sparse.encoder_sparsity < 0.52
    assert dense.events == ()
    assert sparse.events[-1].encoder_sparsity == sparse.encoder_sparsity
    assert [point.step for point in sparse.evaluations] == [12, 24, 36, 48]  # the last one is the recovery's
    assert sparse.labels == ("no", "yes")
    assert len(read_examples(folder / "sparse")) == 32
    assert sorted(path.name for path in (folder / "sparse").iterdir()) == [
        "calibration.jsonl", "config.json", "examples.jsonl", "masks.safetensors", "model.safetensors", "modeling.py",
        "predictions.safetensors", "run.json", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    assert list((folder / ".work").iterdir()) == []
    assert (
        load_checkpoint(folder / "sparse").masks.kept_heads_L()
        == load_masks(folder / "sparse" / "masks.safetensors").kept_heads_L()
    )


def test_another_seed_draws_another_classifier(config, tmp_path):
    untrained = replace(
        config,
        dense=replace(config.dense, epochs=0.1),
        budget=BudgetConfig(),
    )
    weights = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run_training(replace(untrained, seed=seed), tmp_path / name)
        weights.append(load_file(tmp_path / name / "dense" / "model.safetensors")["classifier.weight"])
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def record_steps(monkeypatch, observe):
    """Call `observe(optimizer)` before every step of AdamW."""
    step = torch.optim.AdamW.step

    def observed(self, *arguments, **named):
        observe(self)
        return step(self, *arguments, **named)

    monkeypatch.setattr(torch.optim.AdamW, "step", observed)


def test_the_learning_rate_warms_up_and_ends_near_zero(dense_config, tmp_path, monkeypatch):
    rates = []
    record_steps(monkeypatch, lambda optimizer: rates.append(optimizer.param_groups[0]["lr"]))
    run_training(replace(dense_config, dense=replace(dense_config.dense, epochs=2, warmup_share=0.25)), tmp_path)
    assert len(rates) == 24
    assert rates[:6] == sorted(rates[:6])
    assert rates[6:] == sorted(rates[6:], reverse=True)
    assert max(rates) == pytest.approx(1e-2, rel=0.2)
    assert rates[-1] < 1e-3


def test_gradients_are_clipped(dense_config, tmp_path, monkeypatch):
    norms = []

    def observe(optimizer):
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norms.append(float(torch.stack([gradient.norm() for gradient in gradients]).norm()))

    record_steps(monkeypatch, observe)
    run_training(replace(dense_config, dense=replace(dense_config.dense, max_gradient_norm=0.01)), tmp_path)
    assert max(norms) == pytest.approx(0.01, rel=1e-3)


def test_texts_with_odd_line_ends_survive(dense_config, reviews_dir, tmp_path):
    data = shutil.copytree(reviews_dir, tmp_path / "data")
    with (data / "validation.csv").open("a", encoding="utf-8") as stream:
        stream.write('"good\u2028film\u0085indeed",yes\n')
    run_training(replace(dense_config, data=DataConfig(data_dir=data)), tmp_path / "run")
    assert read_examples(tmp_path / "run" / "dense")[-1].text == "good\u2028film\u0085indeed"


def test_a_finished_run_is_not_repeated(config, done):
    result, folder = done
    before = (folder / "sparse" / "run.json").stat().st_mtime_ns
    assert run_training(config, folder) == result
    assert (folder / "sparse" / "run.json").stat().st_mtime_ns == before


def test_other_settings_do_not_overwrite_a_run(config, tmp_path):
    small = replace(config, dense=replace(config.dense, epochs=1))
    run_training(replace(small, budget=BudgetConfig()), tmp_path)
    assert not (tmp_path / "sparse").exists()
    told = "holds a run with other settings or data, or of an earlier version of SparseBERT; choose another --output"
    with pytest.raises(ConfigError, match=told):
        run_training(replace(small, seed=5), tmp_path)


def test_data_are_known_by_their_rows_and_not_by_their_place(config, reviews_dir, tmp_path):
    small = replace(config, dense=replace(config.dense, epochs=1), budget=BudgetConfig())
    run_training(small, tmp_path / "run")
    moved = shutil.copytree(reviews_dir, tmp_path / "moved")
    run_training(replace(small, data=DataConfig(data_dir=moved)), tmp_path / "run")
    train = next(moved.glob("train.*"))
    train.write_text(train.read_text() + train.read_text().splitlines()[-1] + "\n")
    with pytest.raises(ConfigError, match="other settings or data"):
        run_training(replace(small, data=DataConfig(data_dir=moved)), tmp_path / "run")


def test_a_nan_stops_the_run_and_is_not_saved(config, bert_dir, tmp_path):
    poisoned = shutil.copytree(bert_dir, tmp_path / "bert")
    weights = load_file(poisoned / "model.safetensors")
    weights["encoder.layer.0.output.dense.bias"][0] = float("nan")
    save_file(weights, poisoned / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TrainingError, match="the loss of stage 'dense' is nan .* Lower --learning-rate"):
        run_training(replace(config, model=str(poisoned)), tmp_path / "run")
    assert list((tmp_path / "run").rglob("*")) == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sparsity", "1.5"], "--sparsity is 1.5; it must be above 0 and below 1, or 0 for the dense model alone"),
        (["--epochs", "-1"], "--epochs is -1"),
        (["--batch-size", "0"], "--batch-size is 0"),
        (["--learning-rate", "7"], "--learning-rate is 7"),
        (["--prune-learning-rate", "-1"], "--prune-learning-rate is -1; it must be above 0 and below 1"),
        (["--prune-epochs", "-2"], "--prune-epochs is -2; it must be at least 0"),
        (["--recovery-epochs", "-2"], "--recovery-epochs is -2; it must be at least 0"),
        (["--prune-epochs", "0"], "--prune-epochs is 0, but there is something to prune"),
        (["--seed", "-4"], "--seed is -4"),
        (["--max-length", "4", "--sparsity", "0.5"], "--max-length is 4; this model takes 8 to 32 tokens"),
        (
            ["--sparsity", "0.99", "--min-heads", "1"],
            "removing 99.0% of the encoder's parameters is not possible: every layer keeps at least 1 heads and",
        ),
        (["--sparsity", "0.8,0.5"], "the targets 0.8, 0.5 must rise"),
        (["--sparsity", "0.50001,0.50002"], "two targets are so near to each other that they would have one folder"),
        (
            ["--target-speedup", "3"],
            "--target-speedup needs --latency-table FILE, made with 'sparsebert latency-table'",
        ),
        (["--target-speedup", "1", "--latency-table", "t"], "--target-speedup is 1; it must be above 1"),
        (["--target-speedup", "2", "--latency-table", "nowhere.json"], "nowhere.json cannot be read; make it with"),
        (["--holdout", "90"], "--holdout 90 is more than half of the 96 training texts"),
        (["--importance", "gate"], "--importance gate needs gates that are learned: add --regularizer l1 or l0"),
        (["--precision", "fp16"], "--precision fp16 needs a GPU"),
        (["--precision", "fp16", "--importance", "margin"], "--importance margin trains nothing: add --precision bf16"),
        (["--max-drop", "-1"], "--max-drop is -1"),
        (["--accumulation", "9", "--batch-size", "8"], "--accumulation is 9; it must be from 1 to the batch size"),
    ],
)
def test_bad_flags_are_one_clear_line(bert_dir, reviews_dir, tmp_path, capsys, flags, message):
    words = ["train", "--model", str(bert_dir), "--data-dir", str(reviews_dir), "--output", str(tmp_path)]
    words += ["--epochs", "1", "--prune-epochs", "1", "--max-length", "16"]
    assert run([*words, *flags]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert message in errors[-1]
    assert not (tmp_path / "dense").exists()
    assert errors[-1].startswith("sparsebert train: ")


@pytest.mark.parametrize("flag", ["--epochs", "--warmup", "--temperature", "--max-drop", "--sparsity"])
@pytest.mark.parametrize("value", ["nan", "inf", "much"])
def test_a_flag_takes_finite_numbers_only(tmp_path, capsys, flag, value):
    assert run(["train", "--output", str(tmp_path), flag, value]) == 2
    assert f"{flag}: '{value}' is not a number" in capsys.readouterr().err


def test_a_model_that_nobody_has_is_told(config, tmp_path):
    with pytest.raises(
        BackboneError, match="--model no-such/model cannot be loaded: .* use --model minilm or a folder"
    ):
        run_training(replace(config, model="no-such/model"), tmp_path)


@pytest.mark.parametrize("weights", [b"", None])
def test_a_model_without_readable_weights_is_told(config, bert_dir, tmp_path, weights):
    folder = shutil.copytree(bert_dir, tmp_path / "bert")
    if weights is None:
        (folder / "model.safetensors").unlink()
    else:
        (folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(BackboneError, match=f"--model {folder} cannot be loaded"):
        run_training(replace(config, model=str(folder)), tmp_path / "run")


def test_a_model_that_was_cut_unevenly_is_told(config, done, tmp_path):
    _, folder = done
    checkpoint = load_checkpoint(folder / "sparse")
    compact(checkpoint.model, checkpoint.masks).save_pretrained(tmp_path / "hf")
    checkpoint.tokenizer.save_pretrained(tmp_path / "hf")
    with pytest.raises(BackboneError, match="is cut already and its layers differ in size"):
        run_training(replace(config, model=str(tmp_path / "hf")), tmp_path / "again")


def test_changed_weights_are_another_run(dense_config, bert_dir, tmp_path):
    folder = shutil.copytree(bert_dir, tmp_path / "bert")
    config = replace(dense_config, model=str(folder))
    run_training(config, tmp_path / "run")
    weights = {name: tensor + 1 for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match="other settings or data"):
        run_training(config, tmp_path / "run")


def test_an_output_that_cannot_be_written_is_told(config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written .* choose another"):
        run_training(config, tmp_path / "file" / "run")


def test_a_model_that_learned_nothing_is_told(dense_config, tmp_path, caplog):
    run_training(replace(dense_config, dense=replace(dense_config.dense, epochs=0.1, learning_rate=1e-9)), tmp_path)
    cure = r"it has learned nothing\. Lower the learning rate, or train for longer$"
    assert re.search(f"dense answers '(no|yes)' to each of 32 texts: {cure}", caplog.text, re.MULTILINE)


def test_folders_that_are_there_but_not_ours_are_told_before_the_work(config, tmp_path):
    with pytest.raises(ConfigError, match=r"/proc/teacher-answers cannot be written .* choose another --teacher-cache"):
        Workshop(replace(config, teacher_cache=Path("/proc")), tmp_path)
    with pytest.raises(ConfigError, match=r"/proc/\.work/snapshot cannot be written .* choose another --output"):
        Workshop(config, Path("/proc"))
    (tmp_path / ".work").symlink_to("/proc")  # the folder itself may be written into
    with pytest.raises(ConfigError, match=r"\.work/snapshot cannot be written .* choose another --output"):
        Workshop(config, tmp_path)


def test_a_damaged_checkpoint_is_told(done, tmp_path):
    folder = shutil.copytree(done[1], tmp_path / "run")
    record = json.loads((folder / "sparse" / "run.json").read_text())
    (folder / "sparse" / "run.json").write_text(json.dumps({**record, "schema_version": 1}))
    with pytest.raises(CheckpointError, match=r"run.json is malformed, or of another version .*another --output, or"):
        load_checkpoint(folder / "sparse")
    (folder / "dense" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_checkpoint(folder / "dense")
