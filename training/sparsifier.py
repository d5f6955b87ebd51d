"""What does a stage of training ask of whatever removes parts of its model? A protocol, and one that removes nothing.

Knows nothing about how parts are chosen. L layers.
"""

from typing import Any, Protocol

import torch

from training.geometry import geometry_of
from training.modeling import SparseBertForSequenceClassification, UnitGates

PARAMETERS_REMOVED = "of encoder parameters removed"


class Sparsifier(Protocol):
    """Removes parts of a model while `training.loop` trains it."""

    @property
    def may_skip_blocks(self) -> bool:
        """Whether a block may lose all its units; its weights then get no gradients."""

    @property
    def encoder_sparsity(self) -> float:
        """The share of the dense encoder that is gone now; of what, is `told`."""

    @property
    def told(self) -> str:
        """What `encoder_sparsity` is a share of: the words after "50%"."""

    def to(self, device: torch.device) -> None:
        """Move what takes part in the forward pass."""

    def parameter_groups(self, num_steps: int) -> list[dict[str, Any]]:
        """What the optimiser learns besides the model in `num_steps` steps; with "constant", at an unchanging rate."""

    def unit_gates(self, num_texts: int | None = None) -> UnitGates | None:
        """What the model's forward pass is given: gates of its own for each text of a batch, or for all."""

    def alive_L(self) -> list[bool]:
        """Which layers still compute something."""

    def after_backward(self, step: int, num_steps: int, loss_scale: float = 1.0, num_texts: int | None = None) -> None:
        """Called once in each step, between the backward pass and the optimiser's step.

        `num_texts` of this process count in the step's loss; None: all that it computed.
        """

    def state(self) -> dict[str, Any]:
        """What `restore` needs, as tensors and plain values."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a saved state; the model's weights are restored by who owns them."""


class Unpruned:
    """A sparsifier that removes nothing; `removed` is the encoder sparsity of a model that is already smaller."""

    may_skip_blocks = False
    told = PARAMETERS_REMOVED

    def __init__(self, model: SparseBertForSequenceClassification, removed: float = 0.0) -> None:
        self.encoder_sparsity = removed
        self._geometry = geometry_of(model)

    def to(self, device: torch.device) -> None:
        """Nothing to move."""

    def parameter_groups(self, num_steps: int) -> list[dict[str, Any]]:  # noqa: ARG002 (protocol)
        """Nothing to learn."""
        return []

    def unit_gates(self, num_texts: int | None = None) -> None:
        """No gates."""

    def alive_L(self) -> list[bool]:
        """The layers that have a head or a neuron."""
        sizes = zip(self._geometry.heads_L, self._geometry.neurons_L, strict=True)
        return [bool(heads or neurons) for heads, neurons in sizes]

    def after_backward(self, step: int, num_steps: int, loss_scale: float = 1.0, num_texts: int | None = None) -> None:
        """Nothing to do."""

    def state(self) -> dict[str, Any]:
        """Nothing to keep."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing was kept."""
