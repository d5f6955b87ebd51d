"""Every criterion, regulariser, budget and switch goes the whole way on a tiny model."""

import json
import resource
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sparsebert.checkpoint import read_run
from sparsebert.cli import run
from sparsebert.errors import BackboneError, CheckpointError
from sparsebert.inspect import describe, render
from sparsebert.latency import Curve, LatencyTable, ShapeLatency
from training.budget import BudgetConfig
from training.checkpoint import load_checkpoint, save_checkpoint
from training.compaction import compact
from training.config import SearchConfig, TrainConfig
from training.data import DataConfig
from training.encoding import encode
from training.evaluation import predict_logits
from training.flags import build_config, build_parser
from training.loop import LoopConfig
from training.predictions import read_predictions
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
        "--importance margin --schedule one-shot",
        "--schedule one-shot --repair",
        "--importance movement --no-reactivation",
        "--importance random --schedule sigmoid",
        "--importance gate --regularizer l1",
        "--importance gate --regularizer l0",
        "--regularizer group-lasso --regularizer-strength 1e-5",
        "--regularizer l1 --states-weight 1 --neuron-multiple 4",
        "--budget macs --accumulation 2",
        "--precision bf16",
        "--prune-scope layer --min-heads 1 --min-neurons 2",
    ],
)
def test_each_setting_ends_on_budget(config, tmp_path, words):
    torch.seed()
    assert run([*flags_of(config, tmp_path), *words.split(), "--sparsity", "0.5"]) == 0
    record = read_run(tmp_path / "sparse")
    # a neuron is 1 in 50 here, a head 1 in 20, a layer's share is rounded for each layer
    assert 0.5 <= record.removed_share < (0.6 if "layer" in words else 0.54)
    if not {"movement", "random", "l0"} & set(words.split()):  # a few steps are not enough for those
        assert record.accuracy > 0.6
    assert record.events
    if "--no-reactivation" in words:
        assert sum(sum(event.neurons_returned_L) + sum(event.heads_returned_L) for event in record.events) == 0


def test_margins_judge_the_model_as_it_stands_and_ask_no_teacher(config, tmp_path, monkeypatch):
    def asked(*_: object, **__: object) -> None:
        pytest.fail("nothing learns, so nobody needs the teacher")

    monkeypatch.setattr("training.stages.answers_of_teacher", asked)
    words = ["--importance", "margin", "--sparsity", "0.5", "--recovery-epochs", "0"]
    assert run([*flags_of(config, tmp_path), *words]) == 0
    dense, sparse = (load_checkpoint(folder).model.state_dict() for folder in (tmp_path / "dense", tmp_path / "sparse"))
    assert all(torch.equal(value, sparse[name]) for name, value in dense.items())
    assert read_run(tmp_path / "sparse").encoder_sparsity == pytest.approx(0.5, abs=0.04)


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


def test_another_runs_checkpoint_is_told_before_the_targets_before_it_are_trained(config, tmp_path, capsys):
    words = flags_of(config, tmp_path)
    assert run([*words, "--sparsity", "0.4,0.5"]) == 0
    shutil.rmtree(tmp_path / "sparse-40")
    assert run([*words, "--sparsity", "0.3,0.5"]) == 1
    assert "sparse-50 holds a run with other settings or data" in capsys.readouterr().err
    assert not (tmp_path / "sparse-30").exists()


def test_activations_of_blocks_that_are_gone_are_not_missed(config, tmp_path):
    words = ["--importance", "activation", "--min-heads", "0", "--min-neurons", "0", "--sparsity", "0.85,0.92"]
    assert run([*flags_of(config, tmp_path), *words]) == 0
    first, second = (load_checkpoint(tmp_path / name).masks for name in ("sparse-85", "sparse-92"))
    assert 0 in (*first.kept_heads_L(), *first.kept_neurons_L())
    assert second.heads_LH.sum() + second.neurons_LF.sum() < first.heads_LH.sum() + first.neurons_LF.sum()


def test_a_budget_that_is_missed_says_why(config, tmp_path, caplog):
    words = ["--sparsity", "0.6", "--neuron-multiple", "24", "--min-heads", "1", "--no-reactivation"]
    assert run([*flags_of(config, tmp_path), *words]) == 0
    told = read_run(tmp_path / "sparse").missed_budget
    assert "are removed instead of 60.00%: the most valuable whole units that were found leave " in told
    assert told.endswith("units that left could not return (--no-reactivation)")
    assert told in caplog.text
    assert told in render(describe(tmp_path / "sparse"))


def test_what_is_saved_is_what_was_judged(config, tmp_path):
    run_training(config, tmp_path)
    checkpoint = load_checkpoint(tmp_path / "sparse")
    small = compact(checkpoint.model, checkpoint.masks)
    split = encode(checkpoint.examples, checkpoint.tokenizer, 16).examples
    assert torch.allclose(
        predict_logits(small, split, 0), read_predictions(tmp_path / "sparse")["validation"], atol=1e-5
    )


def test_a_speed_up_is_met_by_the_table(config, tmp_path, capsys):
    curve = Curve(units=(0, 1, 4), times_ms=(0.0, 1.0, 2.0))
    neurons = Curve(units=(0, 8, 24), times_ms=(0.0, 2.0, 4.0))
    shape = ShapeLatency(
        precision="int8", batch=1, tokens=32, rest_ms=0.5, attention=curve, ffn=neurons, last_attention=curve,
        last_ffn=neurons,
    )  # fmt: skip
    table = LatencyTable(hidden_size=16, head_size=4, threads=1, shapes=(shape,), provenance={})
    (tmp_path / "table.json").write_text(table.model_dump_json())
    measured = ["--latency-table", str(tmp_path / "table.json")]
    assert run([*flags_of(config, tmp_path / "run"), *measured, "--target-speedup", "2"]) == 0
    record = read_run(tmp_path / "run" / "sparse")
    assert 0.5 <= record.removed_share < 0.55
    for update, reason in (
        ({"hidden_size": 64}, "it was measured for a hidden size of 64 and heads of 4, and this model has 16 and 4"),
        ({"embedding_size": 8}, "it was measured for embeddings of 8, and those of this model have 16"),
    ):
        (tmp_path / "table.json").write_text(table.model_copy(update=update).model_dump_json())
        assert run([*flags_of(config, tmp_path / "other"), *measured, "--target-speedup", "3"]) == 1
        assert f"{reason}; make one with 'sparsebert latency-table'" in capsys.readouterr().err


def test_a_search_ends_with_the_largest_that_is_good_enough(config, tmp_path):
    searching = replace(config, budget=BudgetConfig(shares=(0.3, 0.6)), search=SearchConfig(max_drop=99.0))
    assert run_training(searching, tmp_path).best == "sparse-60"
    assert not (tmp_path / "sparse-80").exists()
    found = json.loads((tmp_path / "search.json").read_text())
    assert (found["best"], found["max_drop"]) == ("sparse-60", 99.0)
    assert [(trial["share"], trial["passes"]) for trial in found["trials"]] == [(0.3, True), (0.6, True)]


def test_a_search_may_find_nothing(config, tmp_path):
    random = replace(config.pruning, importance="random")
    hopeless = replace(
        config, pruning=random, recovery=replace(config.recovery, epochs=0), budget=BudgetConfig(shares=(0.95,)),
        search=SearchConfig(max_drop=0.0, resolution=0.99),
    )  # fmt: skip
    assert run_training(hopeless, tmp_path).best is None
    found = json.loads((tmp_path / "search.json").read_text())
    assert found["best"] is None
    assert [(trial["share"], trial["passes"]) for trial in found["trials"]] == [(0.95, False)]


def test_a_search_walks_from_half_to_nine_tenths_unless_told(config, tmp_path):
    options = build_parser().parse_args(["--output", str(tmp_path), "--max-drop", "1"])
    assert build_config(options).budget.shares == (0.5, 0.67, 0.8, 0.9)


def test_a_target_that_cannot_be_met_is_told_before_the_others_are_trained(config, tmp_path, capsys):
    words = flags_of(config, tmp_path)
    assert run([*words, "--sparsity", "0"]) == 0
    assert run([*words, "--sparsity", "0.5,0.99", "--min-heads", "1"]) == 1
    assert "removing 99.0% of the encoder's parameters is not possible" in capsys.readouterr().err
    assert not (tmp_path / "sparse-50").exists()


def test_a_run_out_of_memory_goes_on_with_more_accumulation(config, tmp_path, monkeypatch, capsys):
    words = [*flags_of(config, tmp_path), "--sparsity", "0.5"]

    def no_memory(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("training.stages.compact", no_memory)  # before the recovery
        assert run(words) == 1
    assert "out of memory: split each batch with --accumulation 4 and run again" in capsys.readouterr().err
    assert run([*words, "--accumulation", "4"]) == 0
    assert read_run(tmp_path / "sparse").removed_share >= 0.5


def test_few_texts_are_pruned_too(config, tmp_path):
    little = replace(config.sparse, epochs=0.01)
    run_training(replace(config, sparse=little), tmp_path)
    assert read_run(tmp_path / "sparse").removed_share >= 0.5


def test_a_holdout_that_the_dense_model_has_seen_is_told(config, tmp_path, caplog):
    run_training(replace(config, data=replace(config.data, holdout=24), budget=BudgetConfig()), tmp_path / "a")
    assert "was trained with --holdout 16, so it has seen texts of this one (24)" in caplog.text
    caplog.clear()
    run_training(replace(config, data=replace(config.data, holdout=8), budget=BudgetConfig()), tmp_path / "b")
    assert "has seen texts" not in caplog.text


def test_a_sparse_checkpoint_is_no_dense_model(config, tmp_path, capsys):
    run_training(config, tmp_path)
    again = replace(config, model=str(tmp_path / "sparse"))
    with pytest.raises(BackboneError, match="is sparse already; give the dense checkpoint that it came from"):
        run_training(again, tmp_path / "again")


def test_weights_of_another_model_are_no_checkpoint(config, tmp_path):
    run_training(replace(config, budget=BudgetConfig()), tmp_path)
    weights = tmp_path / "dense" / "model.safetensors"
    renamed = {f"other.{name}": tensor for name, tensor in load_file(weights).items()}
    save_file(renamed, weights, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="holds another model than it was saved with .*do not match"):
        load_checkpoint(tmp_path / "dense")


def test_a_checkpoint_on_a_full_disk_leaves_the_old_one(config, tmp_path):
    checkpoint = load_checkpoint(Path(config.model))
    save_checkpoint(tmp_path / "a", checkpoint, {})
    before = (tmp_path / "a" / "model.safetensors").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(CheckpointError, match="a cannot be written .* what was saved before is whole"):
            save_checkpoint(tmp_path / "a", checkpoint, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


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
