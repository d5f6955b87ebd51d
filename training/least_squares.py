"""Which change of a linear layer makes up best for what its outputs lack? Least squares from sums over rows.

Pure arithmetic; knows nothing about models.

Letters: R rows, U inputs, D outputs.
"""

from typing import NamedTuple

import torch
from torch import Tensor

ROUNDING = 1e-10


class Correction(NamedTuple):
    """What to add to a linear layer's weight [D, U] and bias [D], and the squared errors without and with it."""

    weight_DU: Tensor
    bias_D: Tensor
    error_before: float
    error_after: float


class LackSums:
    """Sums over rows of inputs and of what the layer's outputs lack, in 64-bit floats; rows come batch by batch."""

    def __init__(self, num_inputs: int, num_outputs: int, device: torch.device | str = "cpu") -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        self._rows = 0
        self._inputs_U, self._lacks_D = zeros(num_inputs), zeros(num_outputs)
        self._gram_UU, self._cross_UD = zeros(num_inputs, num_inputs), zeros(num_inputs, num_outputs)
        self._squares = zeros()

    def add(self, inputs_RU: Tensor, lacks_RD: Tensor) -> None:
        """Take rows in: what the layer is given, and what its outputs should be beyond what they are."""
        inputs_RU, lacks_RD = inputs_RU.double(), lacks_RD.double()
        self._rows += len(inputs_RU)
        self._inputs_U += inputs_RU.sum(dim=0)
        self._lacks_D += lacks_RD.sum(dim=0)
        self._gram_UU.addmm_(inputs_RU.T, inputs_RU)
        self._cross_UD.addmm_(inputs_RU.T, lacks_RD)
        self._squares += lacks_RD.square().sum()

    def solve(self, ridge: float) -> Correction:
        """The change that minimises squared error + ridge * m * |weight change|², m the mean variance sum of an input.

        The bias is free, the weight is drawn to where it was; so the error never grows, and nothing changes where
        nothing is lacking. Raises ValueError without rows or for a `ridge` that is not above 0.
        """
        if not self._rows or ridge <= 0:
            raise ValueError(f"{self._rows} rows and a ridge of {ridge}; both must be above 0")
        mean_U, mean_D = self._inputs_U / self._rows, self._lacks_D / self._rows
        gram_UU = self._gram_UU - self._rows * torch.outer(mean_U, mean_U)
        cross_UD = self._cross_UD - self._rows * torch.outer(mean_U, mean_D)
        # Inputs that never vary have a variance of rounding errors; what is drawn is then drawn a little.
        least = ROUNDING * self._gram_UU.diagonal().mean() + torch.finfo(torch.float64).tiny
        penalty = torch.maximum(ridge * gram_UU.diagonal().mean(), least)
        damped_UU = gram_UU + penalty * torch.eye(len(mean_U), dtype=gram_UU.dtype, device=gram_UU.device)
        change_UD = torch.cholesky_solve(cross_UD, torch.linalg.cholesky(damped_UU))
        free = self._squares - self._rows * mean_D.square().sum()  # with the best bias alone
        after = free - 2 * (change_UD * cross_UD).sum() + (change_UD * (gram_UU @ change_UD)).sum()
        return Correction(
            weight_DU=change_UD.T.contiguous(),
            bias_D=mean_D - mean_U @ change_UD,
            error_before=float(self._squares),
            error_after=max(0.0, float(after)),
        )
