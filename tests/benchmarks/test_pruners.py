import pytest
import torch

from benchmarks.pruners.recovery import Budget, Recovery
from training.distillation import LabelObjective
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
