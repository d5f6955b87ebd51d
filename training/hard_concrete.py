"""Gates that are switched on and off at random while they learn how often they should be on: L0 regularisation.

Louizos et al. 2018, "Learning Sparse Neural Networks through L0 Regularization", section 2.2. Knows nothing about
budgets. L layers, H heads, F neurons.
"""

import math

import torch
from torch import Tensor, nn

from sparsebert.masks import BoolArray, MaskSet
from training.importance import UnitScores
from training.masking import Gates

TEMPERATURE = 2.0 / 3.0  # the paper calls it beta, the limits gamma and zeta
LOW, HIGH = -0.1, 1.1
START = 2.5  # log alpha: nearly always open, as a pretrained model is
GONE = -3.8  # of units that an earlier target removed: open in one draw of ten, so that they can return
EPSILON = 1e-6


class HardConcreteGates(Gates):
    """z = min(1, max(0, s * (HIGH - LOW) + LOW)) with s = sigmoid((log u - log(1 - u) + a) / TEMPERATURE), u uniform.

    a (the logarithm of the paper's alpha) is learned for each unit; under `torch.no_grad` the draw is the median one.
    """

    def __init__(self, masks: MaskSet) -> None:
        super().__init__(masks)
        self.heads_LH = nn.Parameter(_start(masks.heads_LH))
        self.neurons_LF = nn.Parameter(_start(masks.neurons_LF))

    def values(self) -> tuple[Tensor, Tensor]:
        return _stretched(torch.sigmoid(self.heads_LH.detach())), _stretched(torch.sigmoid(self.neurons_LF.detach()))

    def openness(self) -> UnitScores:
        heads_LH, neurons_LF = self.open_probabilities()
        return UnitScores(heads_LH.detach().double().cpu().numpy(), neurons_LF.detach().double().cpu().numpy())

    def open_probabilities(self) -> tuple[Tensor, Tensor]:
        """P(z > 0) of each unit, differentiable (equation 12)."""
        shift = TEMPERATURE * math.log(-LOW / HIGH)
        return torch.sigmoid(self.heads_LH - shift), torch.sigmoid(self.neurons_LF - shift)

    def _draw(self) -> tuple[Tensor, Tensor]:
        if not torch.is_grad_enabled():
            return self.values()
        return _sample(self.heads_LH), _sample(self.neurons_LF)


def _start(kept: BoolArray) -> Tensor:
    return torch.where(torch.from_numpy(kept), START, GONE)


def _sample(log_alpha: Tensor) -> Tensor:
    uniform = torch.rand_like(log_alpha).clamp(EPSILON, 1.0 - EPSILON)
    return _stretched(torch.sigmoid((torch.logit(uniform) + log_alpha) / TEMPERATURE))


def _stretched(concrete: Tensor) -> Tensor:
    return (concrete * (HIGH - LOW) + LOW).clamp(0.0, 1.0)
