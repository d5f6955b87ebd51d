import argparse
import math
from dataclasses import asdict
from types import SimpleNamespace

import pytest
import torch

from benchmarks.pruners.judging import mean_divergence
from benchmarks.pruners.peers import Ours, _config, _recovery, _runs
from benchmarks.pruners.recovery import Budget, Recovery
from training.distillation import DistillationConfig, LabelObjective
from training.loop import LoopConfig


def a_recovery(budget):
    return Recovery(None, LabelObjective(), LoopConfig(epochs=1), budget, seed=0)


def test_a_budget_is_steps_or_cpu_seconds():
    for words in ({}, {"steps": 1, "cpu_s": 1.0}):
        with pytest.raises(ValueError, match="give steps or CPU seconds"):
            Budget(**words)


def test_what_scoring_took_is_gone_from_the_recovery():
    recovery = a_recovery(Budget(cpu_s=60.0))
    recovery.cpu_s += 60.0
    recovery.train(torch.nn.Linear(1, 1), 1.0)  # without batches a step would fail
    assert (recovery.steps, recovery.cpu_s) == (0, 60.0)


def recovering(learning_rate, **others):
    recovery = asdict(LoopConfig(epochs=1, learning_rate=learning_rate, **others))
    return {"recovery": recovery, "distillation": asdict(DistillationConfig())}


def test_a_peer_recovers_with_the_settings_of_the_checkpoint_that_it_is_held_against():
    bench = SimpleNamespace(digest="0", checkpoint=SimpleNamespace(run=SimpleNamespace(config=recovering(1e-4))))
    ours = {(0.5, 0): Ours(cpu_s=60.0, config=recovering(3e-4)), (0.8, 0): Ours(cpu_s=90.0, config=recovering(2e-4))}
    options = argparse.Namespace(
        sparsities=[0.5, 0.8], seeds=[0], pruners=["magnitude"], cuts=[1], cut_share=0.4, objectives=["distilled"],
        learning_rates=None, steps=None, cpu_seconds=None, score_texts=512, holdout_texts=4000, threads=1,
    )  # fmt: skip
    runs = list(_runs(bench, options, ours))
    assert [(run.cpu_s, run.learning_rate) for run in runs] == [(60.0, 3e-4), (90.0, 2e-4)]
    assert [_recovery(_config(bench, ours, 0.8, seed)).learning_rate for seed in (0, 1)] == [2e-4, 1e-4]
    options.learning_rates = [5e-5]
    assert [run.learning_rate for run in _runs(bench, options, ours)] == [5e-5, 5e-5]
    frozen = {key: Ours(cpu_s=one.cpu_s, config=recovering(3e-4, train_embeddings=False)) for key, one in ours.items()}
    assert list(_runs(bench, options, frozen)) != list(_runs(bench, options, ours))  # no result is taken for another's


def test_divergence_is_from_the_dense_models_answers():
    dense, other = torch.tensor([[0.0, math.log(3)], [1.0, 1.0]]), torch.tensor([[0.0, 0.0], [5.0, 5.0]])
    divergence = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)  # of the first text; the second has none
    assert mean_divergence(dense, other) == pytest.approx(divergence / 2)
    assert mean_divergence(other, dense) == pytest.approx((0.5 * math.log(2) + 0.5 * math.log(0.5 / 0.75)) / 2)
