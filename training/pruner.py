"""When to score, when to prune, and what left or came back: masks over a run.

Knows nothing about optimisers or data. L layers, H heads, F neurons.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsebert.checkpoint import PruningEvent
from sparsebert.errors import ConfigError
from sparsebert.geometry import Geometry, head_parameters, neuron_parameters
from sparsebert.masks import BoolArray, MaskSet
from training.costs import CostModel
from training.criteria import STANDING, ImportanceName, check_importance, make_importance
from training.importance import Importance, RunningScores, Signals, UnitScores, balanced
from training.masking import Reduce, unchanged
from training.modeling import SparseBertForSequenceClassification, UnitGates
from training.regularization import RegularizerConfig, make_gates, make_regularizer
from training.schedule import RampConfig, SparsityRamp
from training.selection import SelectionRules, check_share, select_units
from training.sparsifier import PARAMETERS_REMOVED
from training.units import scale_units

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PruningConfig:
    """By what units are judged, how fast and by which rules they leave, and whether they may come back.

    `repair`: when masks change in the last step, the weights that are left are solved anew (`training.repair`).
    """

    importance: ImportanceName = "gradient"
    ramp: RampConfig = field(default_factory=RampConfig)
    rules: SelectionRules = field(default_factory=SelectionRules)
    regularizer: RegularizerConfig = field(default_factory=RegularizerConfig)
    reactivation: bool = True
    repair: bool = False
    update_every_steps: int = 20
    score_decay: float = 0.95

    def __post_init__(self) -> None:
        check_importance(self.importance)
        if self.importance == "gate" and self.regularizer.name not in ("l1", "l0"):
            raise ConfigError("--importance gate needs gates that are learned: add --regularizer l1 or l0")
        self._check_standing()
        if self.update_every_steps < 1:
            raise ConfigError(f"masks are updated every {self.update_every_steps} steps; it must be at least 1")
        if not 0.0 <= self.score_decay < 1.0:
            raise ConfigError(f"the decay of scores is {self.score_decay}; it must be at least 0 and below 1")

    def _check_standing(self) -> None:
        """What only training gives a meaning to needs a criterion that lets the model train."""
        needs = []
        if self.ramp.shape != "one-shot":
            needs.append(f"--schedule {self.ramp.shape}")
        if self.regularizer.name != "none":
            needs.append(f"--regularizer {self.regularizer.name}")
        if self.ramp.frozen_share:
            needs.append(f"--frozen {self.ramp.frozen_share:g}")
        if self.importance == STANDING and needs:
            raise ConfigError(
                f"{' and '.join(needs)} would have the model train before recovery, and --importance {STANDING} "
                "judges one that stands still: leave it out, or add --importance gradient"
            )


class Pruner:
    """Moves the masks of `gates` along `ramp`; after the last change they stay as they are.

    Call `after_backward` once in each step, between the backward pass and the optimiser's step. `reduce` averages a
    tensor over processes, so that scores and masks are the same in all of them.
    Raises BudgetError when the ramp's end cannot be met.
    """

    def __init__(
        self,
        model: SparseBertForSequenceClassification,
        masks: MaskSet,
        dense: Geometry,
        config: PruningConfig,
        ramp: SparsityRamp,
        cost: CostModel,
        importance: Importance | None = None,
        seed: int = 0,
        reduce: Reduce = unchanged,
    ) -> None:
        self.gates = make_gates(config.regularizer.name, masks)
        self.events: list[PruningEvent] = []
        check_share(dense, ramp.final, config.rules, cost)
        self._model = model
        self._dense = dense
        self._config = config
        self._ramp = ramp
        self._cost = cost
        self._reduce = reduce
        self._importance = importance or make_importance(config.importance, seed)
        self._scores = RunningScores(None if self._importance.accumulates else config.score_decay)
        self._regularizer = make_regularizer(config.regularizer, self.gates, dense, cost)
        self._finished = False
        self._changed_at, self._before = -1, masks
        self._importance.attach(model)

    told = PARAMETERS_REMOVED

    @property
    def may_skip_blocks(self) -> bool:
        """Whether a block may lose all its units; its weights then get no gradients."""
        floor, masks = self._config.rules.floor, self.gates.masks
        sizes = (floor.heads, floor.neurons, *masks.kept_heads_L(), *masks.kept_neurons_L())
        return not all(sizes)

    @property
    def encoder_sparsity(self) -> float:
        """The share of encoder parameters that the masks remove now."""
        return masked_geometry(self._dense, self.gates.masks).encoder_sparsity(self._dense)

    @property
    def removed_share(self) -> float:
        """The share of the cost that the masks remove now; of parameters, the encoder sparsity."""
        return 1.0 - self._cost.cost(masked_geometry(self._dense, self.gates.masks)) / self._cost.cost(self._dense)

    def to(self, device: torch.device) -> None:
        """Move the gates and what drives them."""
        self.gates.to(device)
        self._regularizer.to(device)

    def unit_gates(self, num_texts: int | None = None) -> UnitGates:
        """What the units of each of `num_texts` texts, or of all texts, are multiplied by."""
        gates: UnitGates = self.gates(num_texts)
        return gates

    def alive_L(self) -> list[bool]:
        """The layers that have a head or a neuron."""
        masks = self.gates.masks
        sizes = zip(masks.kept_heads_L(), masks.kept_neurons_L(), strict=True)
        return [bool(heads or neurons) for heads, neurons in sizes]

    def parameter_groups(self, num_steps: int) -> list[dict[str, Any]]:
        """What the optimiser learns besides the model: gates by descent, multipliers by ascent."""
        return self._regularizer.parameter_groups(max(1.0, self._ramp.steps_to_prune(num_steps)))

    def after_backward(self, step: int, num_steps: int, loss_scale: float = 1.0, num_texts: int | None = None) -> None:
        """Take this step's scores in, add the regulariser's gradients; change the masks when the schedule says so.

        See `Gates.backward` for `num_texts`.
        """
        if self._finished:
            return
        gradients = self.gates.backward(loss_scale, self._reduce, num_texts)
        self._regularize(self._ramp.pull(step, num_steps), loss_scale)
        signals = Signals(self._model, *gradients, self.gates.openness())
        scores = _averaged(self._importance.score(signals), self._reduce)
        if all(np.isfinite(kind).all() for kind in scores):  # else fp16 overflowed, and the optimiser skips the step
            self._scores.observe(scores)
        frozen = self._ramp.is_frozen(step + 1, num_steps) or step + 1 == num_steps
        if frozen or (step + 1) % self._config.update_every_steps == 0:
            self._update(step + 1, num_steps)
        if frozen:
            self._finish()

    def _regularize(self, share: float, loss_scale: float) -> None:
        penalty = self._regularizer.penalty(self._model, share)
        if penalty is not None:
            torch.autograd.backward(penalty * loss_scale)

    def _update(self, step: int, num_steps: int) -> None:
        scores, share = self._scores.current, self._ramp.share(step, num_steps)
        if scores is None or share <= self._ramp.initial:
            return
        if not self._importance.adds_up:
            size, hidden = self._dense.head_size, self._dense.hidden_size
            scores = balanced(scores, head_parameters(size, hidden), neuron_parameters(hidden))
        old = self.gates.masks
        available = self.gates.available if self._config.reactivation else old
        new = select_units(scores, self._dense, share, self._config.rules, self._cost, available)
        self.gates.set_masks(new)
        if not new.equals(old):
            self._changed_at, self._before = step, old
            self.events.append(mask_change(old, new, step, share, self.encoder_sparsity))

    def _finish(self) -> None:
        """The structure is final: learned gates go into the weights, and there is no more scoring to pay for."""
        self._finished = True
        missed = self._regularizer.missed(self._ramp.final)
        if missed:
            logger.warning("%s", missed)
        if list(self.gates.parameters()):
            scale_units(self._model, *self.gates.values())
        self.gates.fix()
        self._importance.detach()

    def what_binds(self) -> str:
        """Why the masks are not near the ramp's end, if the selection of units is not why; else empty."""
        if self._scores.current is None:
            return "no step gave scores that are numbers; lower --prune-learning-rate, or give --precision bf16 or fp32"
        return ""

    def masks_before(self, num_steps: int) -> MaskSet | None:
        """The masks before the last change, when that was made in the last of `num_steps` steps; else None."""
        return self._before if self._changed_at == num_steps else None

    def state(self) -> dict[str, Any]:
        """What `restore` needs, as tensors and plain values."""
        scores = self._scores.state()
        return {
            "masks": _as_tensors(self.gates.masks),
            "before": _as_tensors(self._before),
            "changed_at": self._changed_at,
            "scores": None if scores["sum"] is None else [torch.from_numpy(array) for array in scores["sum"]],
            "weight": scores["weight"],
            "gates": self.gates.state_dict(),
            "multipliers": [value.detach() for value in self._regularizer.multipliers()],
            "finished": self._finished,
            "events": [event.model_dump() for event in self.events],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a saved state; the model's weights are restored by who owns them."""
        self.gates.set_masks(_as_masks(state["masks"]))
        self._before, self._changed_at = _as_masks(state["before"]), state["changed_at"]
        scores = state["scores"]
        self._scores.restore(
            {
                "sum": None if scores is None else UnitScores(*(array.numpy() for array in scores)),
                "weight": state["weight"],
            }
        )
        self.gates.load_state_dict(state["gates"])
        with torch.no_grad():
            for parameter, value in zip(self._regularizer.multipliers(), state["multipliers"], strict=True):
                parameter.copy_(value)
        self.events = [PruningEvent.model_validate(event) for event in state["events"]]
        if state["finished"]:
            self._finished = True
            self.gates.fix()
            self._importance.detach()


def _as_tensors(masks: MaskSet) -> list[Tensor]:
    return [torch.from_numpy(masks.heads_LH), torch.from_numpy(masks.neurons_LF)]


def _as_masks(tensors: Sequence[Tensor]) -> MaskSet:
    return MaskSet(heads_LH=tensors[0].numpy(), neurons_LF=tensors[1].numpy())


def masked_geometry(dense: Geometry, masks: MaskSet) -> Geometry:
    """The geometry that is left when masked units are cut out."""
    return dense.model_copy(update={"heads_L": masks.kept_heads_L(), "neurons_L": masks.kept_neurons_L()})


def mask_change(old: MaskSet, new: MaskSet, step: int, target: float, reached: float) -> PruningEvent:
    """What one update of the masks did, layer by layer."""
    return PruningEvent(
        step=step,
        target_sparsity=target,
        encoder_sparsity=reached,
        heads_left_L=_count_L(old.heads_LH & ~new.heads_LH),
        heads_returned_L=_count_L(new.heads_LH & ~old.heads_LH),
        neurons_left_L=_count_L(old.neurons_LF & ~new.neurons_LF),
        neurons_returned_L=_count_L(new.neurons_LF & ~old.neurons_LF),
    )


def _averaged(scores: UnitScores, reduce: Reduce) -> UnitScores:
    """Scores may rest on what one process alone saw, activations for example."""
    if reduce is unchanged:
        return scores
    return UnitScores(*(reduce(torch.from_numpy(array)).numpy() for array in scores))


def _count_L(changed: BoolArray) -> tuple[int, ...]:
    return tuple(int(count) for count in np.asarray(changed).sum(axis=1))
