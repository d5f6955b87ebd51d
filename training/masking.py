"""How masks act on a model: gates whose value is masked and whose gradient reaches pruned units too.

Knows nothing about which units are good. L layers, H heads, F neurons.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sparsebert.masks import BoolArray, MaskSet
from training.importance import FloatArray, UnitScores
from training.modeling import UnitGates

Reduce = Callable[[Tensor], Tensor]


def unchanged(tensor: Tensor) -> Tensor:
    """The average over one process."""
    return tensor


class GateGradients(NamedTuple):
    """Of each text's own loss, the means over the texts of a step: ∂loss/∂z, |g ∂loss/∂z|, (g ∂loss/∂z)²."""

    mean: UnitScores
    absolute: UnitScores
    squares: UnitScores


def fixed_gates(masks: MaskSet, device: torch.device | str = "cpu", blocks: MaskSet | None = None) -> UnitGates:
    """Gates without gradients: the masked model at inference. Blocks empty in `blocks` (`masks`) are skipped."""
    heads_LH = torch.from_numpy(masks.heads_LH).to(device, torch.float32)
    neurons_LF = torch.from_numpy(masks.neurons_LF).to(device, torch.float32)
    blocks = blocks or masks
    return UnitGates(heads_LH, neurons_LF, _there_L(blocks.heads_LH), _there_L(blocks.neurons_LF))


class Gates(nn.Module):
    """Gates of value z = mask * g with g = 1, and ∂loss/∂g = ∂loss/∂z also where the mask is 0.

    The straight-through form (Bengio et al. 2013, section 4): pruned units go on being scored and can come back. Until
    `fix`, blocks that lose all units are computed all the same, or their units could not be scored; then they are
    skipped, LayerNorm included. Blocks without units in the beginning stay away; their units are not `available`.

    Subclasses learn g; see `_draw`.
    """

    def __init__(self, masks: MaskSet) -> None:
        super().__init__()
        self.masks = masks
        self.available = _of_blocks_with_units(masks)
        self.fixed = False
        self.register_buffer("device_of", torch.zeros(()), persistent=False)
        self._drawn: tuple[Tensor, Tensor] | None = None
        self._leaves: list[tuple[Tensor, Tensor]] = []

    def forward(self, num_texts: int | None = None) -> UnitGates:
        """The gates of one (micro-)batch; after all of a step's, call `backward` once.

        With `num_texts` each text has gates of its own, [L, B, 1, H] and [L, B, 1, F], so that its gradient is known.
        """
        if self.fixed:
            return fixed_gates(self.masks, self.device)
        masks = fixed_gates(self.masks, self.device, self.available)
        self._drawn = self._drawn or self._draw()
        heads, neurons = (gate.detach() * mask for gate, mask in zip(self._drawn, masks[:2], strict=True))
        if num_texts is None:
            self._drawn = None
            return masks._replace(heads_LH=heads, neurons_LF=neurons)
        leaves = _for_each_text(heads, num_texts), _for_each_text(neurons, num_texts)
        self._leaves.append(leaves)
        return masks._replace(heads_LH=leaves[0], neurons_LF=leaves[1])

    def backward(
        self, loss_scale: float = 1.0, reduce: Reduce = unchanged, num_texts: int | None = None
    ) -> GateGradients:
        """What the backward passes of a step left, whose loss is the mean over its texts; passed on to what makes g.

        `loss_scale` is what the loss was multiplied by (it stays in what is passed on); `reduce` averages a tensor
        over processes. `num_texts` of this process count in the loss; None: all that have gates.
        """
        drawn, leaves = self._drawn, self._leaves
        self._drawn, self._leaves = None, []
        if drawn is None:
            raise ValueError("gates were not used since their last backward pass")
        kinds = []
        for gate, values in zip(drawn, zip(*leaves, strict=True), strict=True):
            own_LBU = torch.cat([_gradient(value) for value in values], dim=1)[:, :, 0] / loss_scale
            own_sum = own_LBU.sum(dim=1)
            if gate.requires_grad:
                torch.autograd.backward(gate, own_sum * loss_scale)
            counted = own_LBU.shape[1] if num_texts is None else num_texts
            felt_LBU = own_LBU * gate.detach()[:, None]
            # 1 / a text's share in the loss is the mean number of texts of a process
            squares = reduce(felt_LBU.square().sum(dim=1)) * reduce(torch.tensor(float(counted)))
            kinds.append((reduce(own_sum), reduce(felt_LBU.abs().sum(dim=1)), squares))
        for parameter in self.parameters():  # each process may have drawn other gates
            parameter.grad = None if parameter.grad is None else reduce(parameter.grad)
        heads, neurons = kinds
        return GateGradients(*(UnitScores(_array(h), _array(n)) for h, n in zip(heads, neurons, strict=True)))

    def set_masks(self, masks: MaskSet) -> None:
        """Replace the masks; shapes must stay."""
        if masks.heads_LH.shape != self.masks.heads_LH.shape or masks.neurons_LF.shape != self.masks.neurons_LF.shape:
            raise ValueError("masks of another shape")
        self.masks = masks

    def fix(self) -> None:
        """The structure is final: from now on values are masks, without gradients, and empty blocks are skipped."""
        self.requires_grad_(False)
        self.fixed, self._drawn, self._leaves = True, None, []

    def values(self) -> tuple[Tensor, Tensor]:
        """What each unit is multiplied by at inference, masks aside, [L, H] and [L, F]."""
        shapes = self.masks.heads_LH.shape, self.masks.neurons_LF.shape
        return torch.ones(shapes[0], device=self.device), torch.ones(shapes[1], device=self.device)

    def openness(self) -> UnitScores:
        """How open each gate has become by itself, masks aside."""
        return UnitScores(*(_array(value.detach().abs()) for value in self.values()))

    @property
    def device(self) -> torch.device:
        """Where the gates are."""
        device_of: Tensor = self.get_buffer("device_of")
        return device_of.device

    def _draw(self) -> tuple[Tensor, Tensor]:
        """G of this step, with gradients where it is learned."""
        return self.values()


class LearnedGates(Gates):
    """Gates whose g is learned, from 1 on (Liu et al. 2017, "Network Slimming", section 3)."""

    def __init__(self, masks: MaskSet) -> None:
        super().__init__(masks)
        self.heads_LH = nn.Parameter(torch.ones(masks.heads_LH.shape))
        self.neurons_LF = nn.Parameter(torch.ones(masks.neurons_LF.shape))

    def values(self) -> tuple[Tensor, Tensor]:
        return self.heads_LH.detach(), self.neurons_LF.detach()

    def _draw(self) -> tuple[Tensor, Tensor]:
        return self.heads_LH, self.neurons_LF


def _for_each_text(gate_LU: Tensor, num_texts: int) -> Tensor:
    """[L, U] as a leaf of [L, B, 1, U]."""
    return gate_LU[:, None, None].repeat(1, num_texts, 1, 1).requires_grad_()


def _gradient(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def _array(tensor: Tensor) -> FloatArray:
    array: FloatArray = tensor.detach().double().cpu().numpy()
    return array


def _there_L(kept: BoolArray) -> tuple[bool, ...]:
    return tuple(bool(row.any()) for row in kept)


def _of_blocks_with_units(masks: MaskSet) -> MaskSet:
    """All units of the blocks in which any is kept."""
    heads_LH, neurons_LF = (
        np.broadcast_to(kept.any(axis=1, keepdims=True), kept.shape).copy()
        for kept in (masks.heads_LH, masks.neurons_LF)
    )
    return MaskSet(heads_LH=heads_LH, neurons_LF=neurons_LF)
