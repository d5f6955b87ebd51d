"""How masks act on a model: gates whose value is the mask and whose gradient reaches pruned units too.

Knows nothing about which units are good. L layers, H heads, F neurons.
"""

import torch
from torch import Tensor, nn

from sparsebert.masks import BoolArray, MaskSet
from training.modeling import UnitGates


def fixed_gates(masks: MaskSet, device: torch.device | str = "cpu") -> UnitGates:
    """Gates without gradients: the masked model at inference."""
    heads_LH = torch.from_numpy(masks.heads_LH).to(device, torch.float32)
    neurons_LF = torch.from_numpy(masks.neurons_LF).to(device, torch.float32)
    return UnitGates(heads_LH, neurons_LF, _any_kept_L(masks.heads_LH), _any_kept_L(masks.neurons_LF))


class Gates(nn.Module):
    """Trainable gates g with value z = g + stop_gradient(mask - g).

    The straight-through form (Bengio et al. 2013, section 4): the forward value is exactly the mask while
    ∂loss/∂g = ∂loss/∂z, also where the mask is 0, so pruned units go on being scored and can come back.
    """

    def __init__(self, masks: MaskSet) -> None:
        super().__init__()
        self.heads_LH = nn.Parameter(torch.ones(masks.heads_LH.shape))
        self.neurons_LF = nn.Parameter(torch.ones(masks.neurons_LF.shape))
        self._masks = masks

    @property
    def masks(self) -> MaskSet:
        return self._masks

    def set_masks(self, masks: MaskSet) -> None:
        """Replace the masks; shapes must stay."""
        if masks.heads_LH.shape != self._masks.heads_LH.shape or masks.neurons_LF.shape != self._masks.neurons_LF.shape:
            raise ValueError("masks of another shape")
        self._masks = masks

    def forward(self) -> UnitGates:
        """The gates of this step, with gradients."""
        fixed = fixed_gates(self._masks, self.heads_LH.device)
        return fixed._replace(
            heads_LH=_straight_through(self.heads_LH, fixed.heads_LH),
            neurons_LF=_straight_through(self.neurons_LF, fixed.neurons_LF),
        )


def _straight_through(gate: Tensor, mask: Tensor) -> Tensor:
    return gate + (mask - gate).detach()


def _any_kept_L(kept: BoolArray) -> tuple[bool, ...]:
    return tuple(bool(row.any()) for row in kept)
