import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from sparsebert.checkpoint import Example, read_run
from sparsebert.cli import run
from sparsebert.errors import CheckpointError, ConfigError
from training.budget import BudgetConfig
from training.checkpoint import load_checkpoint
from training.encoding import encode
from training.evaluation import accuracy, predict_logits
from training.masking import fixed_gates
from training.oneshot import OneShotConfig, prune
from training.opening import OpenedCheckpoint, draw
from training.predictions import Answers, write_predictions
from training.selection import KeepFloor, SelectionRules

RULES = SelectionRules(floor=KeepFloor(heads=1, neurons=2))


@pytest.fixture
def config():
    return OneShotConfig(budget=BudgetConfig(shares=(0.5,)), num_examples=80, rules=RULES)


def test_a_dense_checkpoint_becomes_a_sparse_one(dense_dir, sparse_dir, tmp_path, config):
    ticks = iter((10.0, 12.5))
    accuracies = prune(dense_dir, tmp_path / "sparse", config, lambda: next(ticks))
    dense, sparse = load_checkpoint(dense_dir), load_checkpoint(tmp_path / "sparse")
    validation = encode(sparse.examples, sparse.tokenizer, 16).examples
    logits_NC = predict_logits(sparse.model, validation, 0, fixed_gates(sparse.masks))
    assert accuracy(logits_NC, validation) == accuracies.repaired == sparse.run.accuracy
    assert accuracies.dense >= 0.9
    assert accuracies.repaired >= 0.8
    record = sparse.run
    assert record.stage == "sparse"
    assert 0.5 <= record.encoder_sparsity < 0.53
    assert record.duration_s == 2.5
    assert record.evaluations == ()
    assert len(record.events) == 1
    assert record.events[0].encoder_sparsity == record.encoder_sparsity
    made = record.config
    assert {name: made[name] for name in ("made_by", "num_examples", "seed")} == {
        "made_by": "sparsebert prune", "num_examples": 80, "seed": 0,
    }  # fmt: skip
    assert made["accuracies"]["selected"] == accuracies.selected
    assert len(made["repairs"]) == 6
    assert made["dense"] == dense.run.config
    assert sparse.examples == dense.examples
    assert sparse.calibration == dense.calibration
    names = {path.name for path in (sparse_dir).iterdir()}
    assert {path.name for path in (tmp_path / "sparse").iterdir()} == names


def test_what_the_dense_model_answered_is_not_computed_again(dense_dir, tmp_path, config, caplog, monkeypatch):
    caplog.set_level("INFO")
    signed = shutil.copytree(dense_dir, tmp_path / "signed")
    dense = load_checkpoint(signed)
    validation = encode(dense.examples, dense.tokenizer, 16).examples
    logits_NC = predict_logits(dense.model, validation, 0, fixed_gates(dense.masks))
    write_predictions(signed, {"validation": Answers(asked=validation, logits_NC=-logits_NC)})
    asked, logits = [], OpenedCheckpoint.logits
    monkeypatch.setattr(OpenedCheckpoint, "logits", lambda *words: asked.append(words[-1]) or logits(*words))
    computed, known = (prune(folder, tmp_path / "out", config) for folder in (dense_dir, signed))
    assert asked == ["dense", "selection", "repair", "selection", "repair"]
    assert known.dense == pytest.approx(1 - computed.dense)
    assert f"the answers to these texts are known, {signed / 'predictions.safetensors'} has them" in caplog.text
    (signed / "predictions.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    asked.clear()
    assert prune(signed, tmp_path / "out", config).dense == computed.dense
    assert asked == ["dense", "selection", "repair"]
    assert "predictions.safetensors cannot be read; train again or copy the whole folder; the dense model is asked" in (
        caplog.text
    )


def test_the_same_command_gives_the_same_checkpoint(dense_dir, tmp_path, config):
    for name in ("a", "b"):
        torch.seed()
        prune(dense_dir, tmp_path / name, config)
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("a", "b"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_command_tells_and_export_takes_it(dense_dir, tmp_path, capsys, caplog):
    caplog.set_level("INFO")
    target = tmp_path / "sparse"
    assert run(["prune", str(dense_dir), "--output", str(target), "--sparsity", "0.25"]) == 0
    assert "the checkpoint holds 96 training texts, fewer than 2048: all are used" in caplog.text
    assert f"% -> {target}" in caplog.text
    assert run(["inspect", str(target)]) == 0
    assert "sparse stage" in capsys.readouterr().out
    assert run(["export", str(target), "--output", str(tmp_path / "reviews" / "sparse")]) == 0
    assert run(["export", str(target), "--precision", "int8", "--output", str(tmp_path / "reviews" / "int8")]) == 0


def test_a_failed_run_leaves_what_was_there(dense_dir, sparse_dir, tmp_path, config, monkeypatch):
    target = shutil.copytree(sparse_dir, tmp_path / "sparse")
    before = read_run(target)

    def fail(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("training.checkpoint.save_masks", fail)
    with pytest.raises(CheckpointError, match="No space left .* what was saved before is whole"):
        prune(dense_dir, target, config)
    assert read_run(target) == before
    assert [path.name for path in tmp_path.iterdir()] == ["sparse"]


def test_budgets_and_floors_are_those_of_training(dense_dir, tmp_path):
    words = ["prune", str(dense_dir), "--output", str(tmp_path / "a"), "--sparsity", "0.4", "--budget", "macs"]
    assert run([*words, "--min-heads", "2", "--neuron-multiple", "8"]) == 0
    checkpoint = load_checkpoint(tmp_path / "a")
    assert 0.4 <= checkpoint.run.removed_share < 0.55
    assert checkpoint.run.removed_share != checkpoint.run.encoder_sparsity
    assert min(checkpoint.masks.kept_heads_L()) >= 2
    assert {neurons % 8 for neurons in checkpoint.masks.kept_neurons_L()} == {0}


def test_a_budget_that_is_missed_says_why(dense_dir, tmp_path, caplog):
    words = ["prune", str(dense_dir), "--output", str(tmp_path / "a"), "--sparsity", "0.6", "--min-heads", "1"]
    assert run([*words, "--neuron-multiple", "24"]) == 0
    told = read_run(tmp_path / "a").missed_budget
    assert "are removed instead of 60.00%: the most valuable whole units that were found leave " in told
    assert told in caplog.text


def test_one_answer_to_everything_is_told_with_the_cure(dense_dir, tmp_path, caplog):
    words = ["--output", str(tmp_path / "a"), "--sparsity", "0.98", "--min-heads", "0", "--min-neurons", "0"]
    assert run(["prune", str(dense_dir), *words]) == 0
    told = r"the pruned model answers '(no|yes)' to each of 32 texts: it has lost what was learned\. Remove less"
    assert re.search(told, caplog.text)
    caplog.clear()
    dull = shutil.copytree(dense_dir, tmp_path / "dull")
    weights = load_file(dull / "model.safetensors")
    weights["classifier.bias"] = torch.tensor([1e4, 0.0])
    save_file(weights, dull / "model.safetensors", metadata={"format": "pt"})
    assert run(["prune", str(dull), *words]) == 0
    assert "the dense model answers 'no' to each of 32 texts: it has learned nothing" in caplog.text
    assert "the pruned model answers" not in caplog.text


def test_training_does_not_take_it_for_its_own(dense_dir, tmp_path, config):
    prune(dense_dir, tmp_path / "sparse", config)
    assert "fingerprint" not in read_run(tmp_path / "sparse").config


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sparsity", "0"], "makes one checkpoint: give one --sparsity"),
        (["--sparsity", "0.5,0.67"], "makes one checkpoint: give one --sparsity"),
        (["--sparsity", "1.5"], "--sparsity is 1.5; it must be above 0 and below 1"),
        (["--examples", "0"], "--examples is 0; it must be at least 1"),
        (["--seed", "-1"], "--seed is -1; it must be at least 0"),
    ],
)
def test_bad_flags_are_one_clear_line(dense_dir, tmp_path, capsys, flags, message):
    assert run(["prune", str(dense_dir), "--output", str(tmp_path / "out"), *flags]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_checkpoint_is_told(sparse_dir, tmp_path, capsys):
    for folder, message in (
        (sparse_dir, "sparse is sparse already (0% of its"),
        (tmp_path, "is not a masked checkpoint (run.json cannot be read)"),
    ):
        assert run(["prune", str(folder), "--output", str(tmp_path / "out")]) == 1
        assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["calibration.jsonl", "examples.jsonl"])
def test_a_checkpoint_without_texts_is_told(dense_dir, tmp_path, capsys, name):
    folder = shutil.copytree(dense_dir, tmp_path / "dense")
    (folder / name).write_text("")
    assert run(["prune", str(folder), "--output", str(tmp_path / "out")]) == 1
    assert f"{name} has no example in it; copy the whole folder again" in capsys.readouterr().err


def test_an_output_that_is_something_else_is_told_before_the_work(dense_dir, tmp_path, config):
    with pytest.raises(ConfigError, match="is the dense checkpoint itself"):
        prune(dense_dir, dense_dir, config)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="exists and is no checkpoint"):
        prune(tmp_path / "never-read", tmp_path, config)
    with pytest.raises(ConfigError, match=r"notes.txt/a/b cannot be written \(Not a directory"):
        prune(tmp_path / "never-read", tmp_path / "notes.txt" / "a" / "b", config)


def test_examples_are_drawn_by_the_seed():
    held = [Example(text=str(index), label=0) for index in range(100)]
    first, again, other = ([int(e.text) for e in draw(held, 10, seed)] for seed in (1, 1, 2))
    assert first == again != other
    assert first == sorted({*first})
    assert draw(held, 100, 1) == held
    assert draw(held[:3], 100, 1) == held[:3]
