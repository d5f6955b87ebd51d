"""What drives units to zero while the model learns: L1, L0 and group lasso, each with the gates that it needs.

Knows nothing about scores, schedules or data. L layers, H heads, F neurons.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from sparsebert.errors import ConfigError
from sparsebert.geometry import Geometry, head_parameters, neuron_parameters
from sparsebert.masks import MaskSet
from training.costs import CostModel, ParameterCost
from training.hard_concrete import HardConcreteGates
from training.masking import Gates, LearnedGates, fixed_gates
from training.modeling import SparseBertForSequenceClassification
from training.units import head_weight_norms_LH, neuron_weight_norms_LF

RegularizerName = Literal["none", "l1", "l0", "group-lasso"]
# Of L0, over all pruning steps: how far a logarithm of alpha and the multiplier can go. A gate goes from open to shut
# in about 6, and a step of Adam is at most its rate, so that gates arrive in few steps as in many.
GATE_TRAVEL = 20.0
MULTIPLIER_TRAVEL = 5.0
CURVATURE = 300.0  # of its quadratic term
BETAS = (0.5, 0.999)  # of Adam; a longer momentum than two steps runs past the target where there are few
MISSED_SHARE = 0.05  # so far from the target gates have not learned what the cut takes
DEFAULT_STRENGTH: dict[RegularizerName, float] = {"none": 0.0, "l1": 1e-4, "l0": 1.0, "group-lasso": 3e-5}


@dataclass(frozen=True, kw_only=True)
class RegularizerConfig:
    """Which one, how strong (None: its default), and the peak rate at which the gates of L1 learn."""

    name: RegularizerName = "none"
    strength: float | None = None
    gate_learning_rate: float = 0.02

    def __post_init__(self) -> None:
        if self.name not in DEFAULT_STRENGTH:
            raise ConfigError(f"--regularizer {self.name!r} is unknown; choose from {', '.join(DEFAULT_STRENGTH)}")
        if self.strength is not None and self.strength <= 0:
            raise ConfigError(f"--regularizer-strength is {self.strength:g}; it must be above 0")

    @property
    def weight(self) -> float:
        return DEFAULT_STRENGTH[self.name] if self.strength is None else self.strength


class Regularizer(Protocol):
    """A penalty on the loss, and what it learns itself."""

    def penalty(self, model: SparseBertForSequenceClassification, share: float) -> Tensor | None:
        """A scalar to add to the loss, given the share of the encoder to have removed by now."""

    def multipliers(self) -> list[nn.Parameter]:
        """Lagrange multipliers, to be learned by gradient ascent."""

    def parameter_groups(self, num_steps: float) -> list[dict[str, Any]]:
        """What the optimiser learns besides the model in `num_steps` steps: gates by descent, multipliers by ascent."""

    def missed(self, share: float) -> str:
        """What to tell when gates are far from the `share` that is cut now; empty: nothing."""

    def to(self, device: torch.device) -> None:
        """Move what it learns."""


class NoRegularizer:
    """No penalty."""

    def penalty(self, model: SparseBertForSequenceClassification, share: float) -> Tensor | None:  # noqa: ARG002
        return None

    def multipliers(self) -> list[nn.Parameter]:
        return []

    def parameter_groups(self, num_steps: float) -> list[dict[str, Any]]:  # noqa: ARG002
        return []

    def missed(self, share: float) -> str:  # noqa: ARG002
        return ""

    def to(self, device: torch.device) -> None:
        """Nothing to move."""


class GateL1(NoRegularizer):
    """strength * Σ |g| * cost, the cost of a unit in neurons' parameters (Liu et al. 2017, "Network Slimming")."""

    def __init__(self, gates: LearnedGates, dense: Geometry, strength: float, learning_rate: float) -> None:
        self._gates = gates
        self._head_cost = _head_cost(dense)
        self._strength = strength
        self._learning_rate = learning_rate

    def penalty(self, model: SparseBertForSequenceClassification, share: float) -> Tensor:  # noqa: ARG002
        return self._strength * (
            self._head_cost * self._gates.heads_LH.abs().sum() + self._gates.neurons_LF.abs().sum()
        )

    def parameter_groups(self, num_steps: float) -> list[dict[str, Any]]:  # noqa: ARG002
        return [_group(self._gates.parameters(), self._learning_rate)]


class GroupLasso(NoRegularizer):
    """strength * Σ sqrt(size) * ||W||₂ over the weights of each unit (Yuan and Lin 2006; Wen et al. 2016).

    Size is the number of weights of the unit.
    """

    def __init__(self, dense: Geometry, strength: float) -> None:
        self._strength = strength
        self._head_size = (4.0 * dense.head_size * dense.hidden_size) ** 0.5
        self._neuron_size = (2.0 * dense.hidden_size) ** 0.5

    def penalty(self, model: SparseBertForSequenceClassification, share: float) -> Tensor:  # noqa: ARG002
        heads, neurons = head_weight_norms_LH(model).sum(), neuron_weight_norms_LF(model).sum()
        penalty: Tensor = self._strength * (self._head_size * heads + self._neuron_size * neurons)
        return penalty


class GateL0:
    """λ (ŝ - s) + c (ŝ - s)²: the expected share ŝ of the cost that is removed is driven to the schedule's share s.

    The multiplier λ ascends while the gates descend (Wang et al. 2020, "Structured Pruning of Large Language Models",
    section 3.4; Xia et al. 2022, CoFi, section 3.1). They learn c too, which takes thousands of steps to count; a fixed
    one is felt at once (the augmented Lagrangian: Bertsekas 1982, "Constrained Optimization and Lagrange Multiplier
    Methods", chapter 2). Rates are constant, and such that the steps there are suffice. Masks meet the budget exactly
    in any case; so gates agree.
    """

    def __init__(self, gates: HardConcreteGates, dense: Geometry, strength: float, cost: CostModel) -> None:
        self._gates = gates
        self._head_share = _mean_share(dense, cost, "heads_L")
        self._neuron_share = _mean_share(dense, cost, "neurons_L")
        self._strength = strength
        self._multiplier = nn.Parameter(torch.zeros(()))

    def penalty(self, model: SparseBertForSequenceClassification, share: float) -> Tensor:  # noqa: ARG002
        excess = self.expected_share() - share
        penalty: Tensor = self._strength * (self._multiplier * excess + CURVATURE * excess.square())
        return penalty

    def parameter_groups(self, num_steps: float) -> list[dict[str, Any]]:
        gates = _group(self._gates.parameters(), GATE_TRAVEL / num_steps)
        multipliers = _group(self.multipliers(), MULTIPLIER_TRAVEL / num_steps)
        shared: dict[str, Any] = {"constant": True, "betas": BETAS}
        return [gates | shared, multipliers | shared | {"maximize": True}]

    def missed(self, share: float) -> str:
        expected = float(self.expected_share().detach())
        if abs(expected - share) <= MISSED_SHARE:
            return ""
        return (
            f"the gates of L0 expect {100 * expected:.1f}% to be removed and {100 * share:.1f}% are: the cut takes "
            "what they did not choose. Give more --prune-epochs or a larger --regularizer-strength"
        )

    def expected_share(self) -> Tensor:
        """ŝ, the share of the dense encoder's cost in the units that a draw is expected to close, or that are gone."""
        there = fixed_gates(self._gates.available, self._gates.device)
        open_LH, open_LF = self._gates.open_probabilities()
        heads, neurons = (open_LH * there.heads_LH).sum(), (open_LF * there.neurons_LF).sum()
        return self._head_share * (open_LH.numel() - heads) + self._neuron_share * (open_LF.numel() - neurons)

    def multipliers(self) -> list[nn.Parameter]:
        return [self._multiplier]

    def to(self, device: torch.device) -> None:
        """Move the multipliers, in place."""
        for multiplier in self.multipliers():
            multiplier.data = multiplier.to(device)


def make_gates(name: RegularizerName, masks: MaskSet) -> Gates:
    """The gates on which a regulariser acts."""
    match name:
        case "l1":
            return LearnedGates(masks)
        case "l0":
            return HardConcreteGates(masks)
        case _:
            return Gates(masks)


def make_regularizer(
    config: RegularizerConfig, gates: Gates, dense: Geometry, cost: CostModel | None = None
) -> Regularizer:
    """The regulariser of `config` over `gates`, which `make_gates` made; `cost` is that of the budget (parameters)."""
    if isinstance(gates, LearnedGates):
        return GateL1(gates, dense, config.weight, config.gate_learning_rate)
    if isinstance(gates, HardConcreteGates):
        return GateL0(gates, dense, config.weight, cost or ParameterCost())
    return GroupLasso(dense, config.weight) if config.name == "group-lasso" else NoRegularizer()


def _group(parameters: Iterable[nn.Parameter], learning_rate: float) -> dict[str, Any]:
    return {"params": list(parameters), "lr": learning_rate, "peak_lr": learning_rate, "weight_decay": 0.0}


def _mean_share(dense: Geometry, cost: CostModel, kind: Literal["heads_L", "neurons_L"]) -> float:
    """Of the dense encoder's cost, what one unit of this kind takes on average."""
    total = cost.cost(dense)
    units_L: tuple[int, ...] = getattr(dense, kind)
    without = dense.model_copy(update={kind: tuple(0 for _ in units_L)})
    return (total - cost.cost(without)) / total / sum(units_L)


def _head_cost(dense: Geometry) -> float:
    """How many neurons a head costs."""
    return head_parameters(dense.head_size, dense.hidden_size) / neuron_parameters(dense.hidden_size)
