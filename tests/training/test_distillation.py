import math

import pytest
import torch

from sparsebert.errors import ConfigError
from training.distillation import DistillationConfig, DistillationObjective, LabelObjective

LABELS = torch.tensor([0])


def test_label_objective_is_cross_entropy():
    loss = LabelObjective().loss(torch.tensor([[0.0, math.log(3)]]), LABELS, [0])
    assert float(loss) == pytest.approx(math.log(4))


def test_distillation_against_a_value_made_by_hand():
    teacher = torch.tensor([[9.0, 9.0], [0.0, 2 * math.log(3)]])  # text 1 at T = 2: 1/4, 3/4
    objective = DistillationObjective(teacher, DistillationConfig(temperature=2.0, teacher_share=0.5))
    loss = objective.loss(torch.tensor([[0.0, 0.0]]), LABELS, [1])
    divergence = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert float(loss) == pytest.approx(0.5 * 4 * divergence + 0.5 * math.log(2))


def test_an_equal_student_has_nothing_to_learn_from_the_teacher():
    logits = torch.tensor([[1.0, -2.0, 0.5]])
    objective = DistillationObjective(logits, DistillationConfig(teacher_share=1.0))
    assert float(objective.loss(logits, LABELS, [0])) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("values", [{"temperature": 0.0}, {"teacher_share": 1.5}])
def test_impossible_values_are_refused(values):
    with pytest.raises(ConfigError):
        DistillationConfig(**values)
