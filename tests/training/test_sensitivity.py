from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional

from sparsebert.cli import run
from sparsebert.masks import MaskSet
from sparsebert.sensitivity import Quality, read_sensitivity
from training.batching import EncodedExample
from training.checkpoint import load_checkpoint
from training.encoding import encode
from training.evaluation import accuracy, predict_logits
from training.fisher import gate_fisher
from training.importance import UnitScores
from training.loading import load_dense
from training.masking import fixed_gates
from training.sensitivity import count_models, count_removed, measure, without_least

RNG = np.random.default_rng(5)
EXAMPLES = [
    EncodedExample([2, *RNG.integers(5, 23, n).tolist(), 3], [0] * (n + 2), int(n % 2)) for n in RNG.integers(1, 14, 30)
]


def expected(model, masks, examples):
    logits_NC = predict_logits(model, examples, 0, fixed_gates(masks))
    labels_N = torch.tensor([example.label for example in examples])
    loss = float(functional.cross_entropy(logits_NC.double(), labels_N))
    return pytest.approx((loss, accuracy(logits_NC, examples)), abs=1e-5)


def as_pair(quality: Quality):
    return quality.loss, quality.accuracy


def test_each_removal_is_the_masked_model(bert_dir):
    torch.manual_seed(0)
    model = load_dense(str(bert_dir))
    scores = UnitScores(np.ones((3, 4)), np.tile(np.arange(24.0), (3, 1)))
    seen = []
    measured = measure(model, EXAMPLES, 0, scores, (0.25, 1.0), seen.append)
    assert sum(seen) == 30 * count_models(3, 4, (0.25, 1.0)) == 30 * 25
    assert as_pair(measured.dense) == expected(model, MaskSet.dense(3, 4, 24), EXAMPLES)
    for index, layer in enumerate(measured.layers):
        for head, quality in enumerate(layer.without_head):
            masks = MaskSet.dense(3, 4, 24)
            masks.heads_LH[index, head] = False
            assert as_pair(quality) == expected(model, masks, EXAMPLES)
        masks = MaskSet.dense(3, 4, 24)
        masks.heads_LH[index] = False
        assert as_pair(layer.without_attention) == expected(model, masks, EXAMPLES)
        for removed, neurons in zip(layer.without_neurons, (6, 24), strict=True):
            masks = MaskSet.dense(3, 4, 24)
            masks.neurons_LF[index, :neurons] = False
            assert removed.neurons == neurons
            assert as_pair(removed.without) == expected(model, masks, EXAMPLES)
        assert layer.without_ffn == layer.without_neurons[1].without


@pytest.mark.parametrize(("share", "removed"), [(0.001, 1), (0.25, 6), (0.5, 12), (1.0, 24)])
def test_a_share_is_at_least_one_neuron(share, removed):
    assert count_removed(share, 24) == removed


def test_the_least_important_go_first():
    assert without_least(np.array([3.0, 1.0, 2.0, 1.0]), 2).tolist() == [True, False, True, False]
    kept = [without_least(np.array([3.0, 1.0, 2.0, 1.0]), count) for count in range(5)]
    assert all((small <= large).all() for large, small in pairwise(kept))


def test_the_command_writes_and_tells(dense_dir, tmp_path, capsys):
    path = tmp_path / "s.json"
    assert run(["sensitivity", str(dense_dir), "--output", str(path), "--shares", "0.5,1"]) == 0
    record = read_sensitivity(path)
    assert "costliest block: " in capsys.readouterr().out
    assert (record.num_examples, record.num_scored, len(record.layers)) == (32, 96, 3)
    assert [removed.share for removed in record.layers[0].without_neurons] == [0.5, 1.0]
    checkpoint = load_checkpoint(dense_dir)
    validation, training = (
        encode(part, checkpoint.tokenizer, 16).examples for part in (checkpoint.examples, checkpoint.calibration)
    )
    masks = MaskSet.dense(3, 4, 24)
    masks.neurons_LF[1] = without_least(gate_fisher(checkpoint.model, training, 0).neurons_LF[1], 12)
    assert as_pair(record.layers[1].without_neurons[0].without) == expected(checkpoint.model, masks, validation)


def test_fewer_examples_and_the_usual_shares(dense_dir, tmp_path):
    path = tmp_path / "s.json"
    assert run(["sensitivity", str(dense_dir), "--output", str(path), "--examples", "5"]) == 0
    record = read_sensitivity(path)
    assert record.num_examples == 5
    assert [removed.neurons for removed in record.layers[0].without_neurons] == [6, 12, 18, 24]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--examples", "0"], "--examples is 0; it must be at least 1"),
        (["--shares", "0.5,0"], "shares must be different, above 0 and at most 1"),
        (["--shares", "0.5,0.5"], "shares must be different, above 0 and at most 1"),
        (["--output", "/proc/s.json"], "/proc/s.json cannot be written"),
        (
            ["--output", "nowhere/s.json"],
            "nowhere/s.json is in a folder that does not exist; make nowhere first",
        ),
    ],
)
def test_bad_flags_are_one_clear_line(dense_dir, tmp_path, capsys, words, message):
    assert run(["sensitivity", str(dense_dir), "--output", str(tmp_path / "s.json"), *words]) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_share_that_is_no_number_is_a_usage_error(dense_dir, tmp_path, capsys):
    words = ["sensitivity", str(dense_dir), "--output", str(tmp_path / "s.json"), "--shares", "half"]
    assert run(words) == 2
    error = capsys.readouterr().err
    assert "usage: sparsebert sensitivity" in error
    assert "--shares: 'half' is not a number or a list of them" in error


def test_the_table_is_told_also_when_the_record_cannot_be_written(dense_dir, tmp_path, capsys, monkeypatch):
    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("training.sensitivity_cli.write_whole", full)
    words = ["sensitivity", str(dense_dir), "--output", str(tmp_path / "s.json"), "--examples", "2", "--shares", "1"]
    assert run(words) == 1
    told = capsys.readouterr()
    assert "costliest block: " in told.out
    assert "No space left on device" in told.err


def test_a_sparse_checkpoint_is_told(sparse_dir, tmp_path, capsys):
    assert run(["sensitivity", str(sparse_dir), "--output", str(tmp_path / "s.json")]) == 1
    assert "sparse is sparse already" in capsys.readouterr().err
