"""When to score, when to prune, and what left or came back: masks over a run.

Knows nothing about optimisers or data. L layers, H heads, F neurons.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from sparsebert.checkpoint import PruningEvent
from sparsebert.errors import ConfigError
from sparsebert.geometry import Geometry
from sparsebert.masks import BoolArray, MaskSet
from training.importance import Importance, RunningScores, UnitScores
from training.masking import Gates
from training.schedule import CubicSchedule, SparsitySchedule
from training.selection import KeepFloor, check_sparsity, select_units


@dataclass(frozen=True, kw_only=True)
class PruningConfig:
    """How much to prune, how fast, and how scores are averaged."""

    schedule: CubicSchedule
    update_every_steps: int = 20
    score_decay: float = 0.95
    floor: KeepFloor = field(default_factory=KeepFloor)

    def __post_init__(self) -> None:
        if self.update_every_steps < 1:
            raise ConfigError(f"masks are updated every {self.update_every_steps} steps; it must be at least 1")
        if not 0.0 <= self.score_decay < 1.0:
            raise ConfigError(f"the decay of scores is {self.score_decay}; it must be at least 0 and below 1")


class Pruner:
    """Moves the masks of `gates` along a schedule; after the last change they stay as they are.

    Call `after_backward` once in each step, between the backward pass and the optimiser's step.
    Raises BudgetError when the schedule's final sparsity cannot be met.
    """

    def __init__(self, gates: Gates, dense: Geometry, importance: Importance, config: PruningConfig) -> None:
        self.gates = gates
        self.events: list[PruningEvent] = []
        check_sparsity(dense, config.schedule.final_sparsity, config.floor)
        self._dense = dense
        self._importance = importance
        self._config = config
        self._schedule: SparsitySchedule = config.schedule
        self._scores = RunningScores(config.score_decay)
        self._finished = False

    @property
    def encoder_sparsity(self) -> float:
        """The share of encoder parameters that the masks remove now."""
        return masked_geometry(self._dense, self.gates.masks).encoder_sparsity(self._dense)

    def after_backward(self, step: int, num_steps: int) -> None:
        """Take this step's scores in; change the masks when the schedule says so."""
        if self._finished:
            return
        self._scores.observe(self._importance.score(self.gates))
        frozen = self._schedule.is_frozen(step + 1, num_steps) or step + 1 == num_steps
        if frozen or (step + 1) % self._config.update_every_steps == 0:
            self._update(step + 1, num_steps)
        if frozen:
            self._finish()

    def _update(self, step: int, num_steps: int) -> None:
        scores = self._scores.average
        target = self._schedule.sparsity(step, num_steps)
        if scores is None or target == 0.0:
            return
        old, new = self.gates.masks, select_units(scores, self._dense, target, self._config.floor)
        self.gates.set_masks(new)
        if not new.equals(old):
            self.events.append(mask_change(old, new, step, target, self.encoder_sparsity))

    def _finish(self) -> None:
        self._finished = True
        self.gates.requires_grad_(False)  # the structure is final: no more scoring to pay for

    def state(self) -> dict[str, Any]:
        """What `restore` needs, as tensors and plain values."""
        total, weight = self._scores.state()
        masks = self.gates.masks
        return {
            "heads_LH": torch.from_numpy(masks.heads_LH),
            "neurons_LF": torch.from_numpy(masks.neurons_LF),
            "scores": None if total is None else tuple(torch.from_numpy(array) for array in total),
            "weight": weight,
            "finished": self._finished,
            "events": [event.model_dump() for event in self.events],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a saved state."""
        self.gates.set_masks(MaskSet(heads_LH=state["heads_LH"].numpy(), neurons_LF=state["neurons_LF"].numpy()))
        scores = state["scores"]
        self._scores.restore(
            None if scores is None else UnitScores(*(array.numpy() for array in scores)), state["weight"]
        )
        self.events = [PruningEvent.model_validate(event) for event in state["events"]]
        if state["finished"]:
            self._finish()


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


def _count_L(changed: BoolArray) -> tuple[int, ...]:
    return tuple(int(count) for count in np.asarray(changed).sum(axis=1))
