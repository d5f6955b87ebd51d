"""What the student learns from: labels, and the logits of the dense teacher.

Knows nothing about masks or data files. B texts, C classes.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from sparsebert.errors import ConfigError


class Objective(Protocol):
    """A loss over one batch; `indices_B` are the positions of the batch's texts in the training split."""

    def loss(self, logits_BC: Tensor, labels_B: Tensor, indices_B: list[int]) -> Tensor:
        """A scalar, mean over the batch, float32."""


class LabelObjective:
    """Mean cross-entropy with the labels."""

    def loss(self, logits_BC: Tensor, labels_B: Tensor, indices_B: list[int]) -> Tensor:  # noqa: ARG002 (protocol)
        return functional.cross_entropy(logits_BC.float(), labels_B)


@dataclass(frozen=True, kw_only=True)
class DistillationConfig:
    """How much of the loss is the teacher's, and how soft its answers are."""

    temperature: float = 2.0
    teacher_share: float = 0.8

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ConfigError(f"distillation temperature is {self.temperature}; it must be above 0")
        if not 0.0 <= self.teacher_share <= 1.0:
            raise ConfigError(f"the teacher's share of the loss is {self.teacher_share}; it must be between 0 and 1")


class DistillationObjective:
    """share * T² * KL(teacher || student) + (1 - share) * cross-entropy, both at mean over the batch.

    Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", section 2; T² keeps the two gradients
    of one size. `teacher_logits_NC` holds the teacher's logits of the whole training split.
    """

    def __init__(self, teacher_logits_NC: Tensor, config: DistillationConfig) -> None:
        self._teacher_logits_NC = teacher_logits_NC
        self._config = config

    def loss(self, logits_BC: Tensor, labels_B: Tensor, indices_B: list[int]) -> Tensor:
        temperature, share = self._config.temperature, self._config.teacher_share
        logits_BC = logits_BC.float()
        teacher_BC = self._teacher_logits_NC[torch.tensor(indices_B)].to(logits_BC.device)
        divergence = functional.kl_div(
            functional.log_softmax(logits_BC / temperature, dim=-1),
            functional.log_softmax(teacher_BC / temperature, dim=-1),
            reduction="batchmean",
            log_target=True,
        )
        return share * temperature**2 * divergence + (1.0 - share) * functional.cross_entropy(logits_BC, labels_B)
