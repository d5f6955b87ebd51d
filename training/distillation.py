"""What the student learns from: labels, and the logits and states of the dense teacher.

Knows nothing about masks or data files. B texts, N texts of the training split, C classes, L layers, D hidden size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from sparsebert.errors import ConfigError


class Answer(NamedTuple):
    """What the student says of a batch: logits, and the first token's state after each layer when asked for."""

    logits_BC: Tensor
    states_LBD: Sequence[Tensor] | None = None


class TeacherAnswers(NamedTuple):
    """What the teacher said of the whole training split, on the CPU."""

    logits_NC: Tensor
    states_LND: Tensor | None = None


class Objective(Protocol):
    """A loss over one batch; `indices_B` are the positions of the batch's texts in the training split.

    `teaches`: whether weights are to follow its gradients; if not, only gates get any.
    """

    needs_states: bool
    teaches: bool

    def loss(self, answer: Answer, labels_B: Tensor, indices_B: list[int], alive_L: Sequence[bool]) -> Tensor:
        """A scalar, mean over the batch, float32; `alive_L` says which layers of the student still compute."""


class LabelObjective:
    """Mean cross-entropy with the labels."""

    needs_states = False
    teaches = True

    def loss(self, answer: Answer, labels_B: Tensor, indices_B: list[int], alive_L: Sequence[bool]) -> Tensor:  # noqa: ARG002 (protocol)
        return functional.cross_entropy(answer.logits_BC.float(), labels_B)


@dataclass(frozen=True, kw_only=True)
class DistillationConfig:
    """How much of the loss is the teacher's, how soft its answers are, and how much its states weigh beside it."""

    temperature: float = 2.0
    teacher_share: float = 0.8
    states_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ConfigError(f"--temperature is {self.temperature}; it must be above 0")
        if not 0.0 <= self.teacher_share <= 1.0:
            raise ConfigError(f"--teacher-share is {self.teacher_share}; it must be between 0 and 1")
        if self.states_weight < 0:
            raise ConfigError(f"--states-weight is {self.states_weight}; it must be at least 0")


class DistillationObjective:
    """share * T² * KL(teacher || student) + (1 - share) * cross-entropy + weight * MSE of states, means over the batch.

    Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", section 2; T² keeps the two gradients
    of one size. States are those of the first token, from which the classifier reads (Sun et al. 2019, "Patient
    Knowledge Distillation", section 3.2, without its normalisation), after the layers that `compared_layers` names.
    """

    teaches = True

    def __init__(self, teacher: TeacherAnswers, config: DistillationConfig) -> None:
        self.needs_states = config.states_weight > 0
        self._teacher = teacher
        self._config = config

    def loss(self, answer: Answer, labels_B: Tensor, indices_B: list[int], alive_L: Sequence[bool]) -> Tensor:
        temperature, share = self._config.temperature, self._config.teacher_share
        logits_BC, rows_B = answer.logits_BC.float(), torch.tensor(indices_B)
        teacher_BC = self._teacher.logits_NC[rows_B].to(logits_BC.device)
        divergence = functional.kl_div(
            functional.log_softmax(logits_BC / temperature, dim=-1),
            functional.log_softmax(teacher_BC / temperature, dim=-1),
            reduction="batchmean",
            log_target=True,
        )
        loss = share * temperature**2 * divergence + (1.0 - share) * functional.cross_entropy(logits_BC, labels_B)
        if answer.states_LBD is None or self._teacher.states_LND is None:
            return loss
        return loss + self._config.states_weight * _states_error(
            answer.states_LBD, self._teacher.states_LND[:, rows_B], compared_layers(alive_L)
        )


class MarginObjective:
    """Its gradient is that of sqrt(p (1 - p)) * margin, mean over the batch; its value the cross-entropy with labels.

    The margin is by how much the best logit is ahead of the second best, p = sigmoid(margin / T), held constant: how
    open the answer is. The square of such a gradient is a diagonal entry of the generalised Gauss-Newton matrix of
    the distillation loss at temperature T, where student and teacher agree (Martens 2020, "New Insights and
    Perspectives on the Natural Gradient Method", section 8); exact for two classes, and between the two best of
    more. The loss with labels has hardly a gradient where a trained model is right and sure, so that a few texts,
    wrong or mislabelled, would judge all units.
    """

    needs_states = False
    teaches = False

    def __init__(self, temperature: float) -> None:
        self._temperature = temperature

    def loss(self, answer: Answer, labels_B: Tensor, indices_B: list[int], alive_L: Sequence[bool]) -> Tensor:  # noqa: ARG002 (protocol)
        logits_BC = answer.logits_BC.float()
        best_B, second_B = logits_BC.topk(2, dim=-1).values.unbind(dim=-1)
        margin_B = best_B - second_B
        sure_B = torch.sigmoid(margin_B.detach() / self._temperature)
        felt = ((sure_B * (1.0 - sure_B)).sqrt() * margin_B).mean()
        return functional.cross_entropy(logits_BC.detach(), labels_B) + felt - felt.detach()


def compared_layers(alive_L: Sequence[bool]) -> list[int]:
    """After which layers student and teacher are compared: those before a layer that computes, and the last.

    Layers that are gone hand on what they got, so the last that computes answers for all that are gone after it, and
    is held to the teacher's deepest of them; the monotone matching of CoFi (Xia et al. 2022, section 3.2) without a
    search.
    """
    last = len(alive_L) - 1
    return [layer for layer in range(len(alive_L)) if layer == last or alive_L[layer + 1]]


def _states_error(student_LBD: Sequence[Tensor], teacher_LBD: Tensor, layers: Sequence[int]) -> Tensor:
    errors = [
        functional.mse_loss(student_LBD[layer].float(), teacher_LBD[layer].to(student_LBD[layer].device).float())
        for layer in layers
    ]
    return torch.stack(errors).mean()
