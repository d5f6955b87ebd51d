"""How a quantity moves over a run: the share of the encoder to remove at a step, and the learning rate.

Pure arithmetic; knows nothing about models.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sparsebert.errors import ConfigError

ShapeName = Literal["cubic", "sigmoid", "linear", "one-shot"]
SIGMOID_STEEPNESS = 10.0
LEAD = 0.75  # of the way from the warm-up to the tail, after which a regulariser drives at the ramp's end


def _cubic(progress: float) -> float:
    """Zhu and Gupta 2017, "To prune, or not to prune", equation 1."""
    return 1.0 - (1.0 - progress) ** 3


def _sigmoid(progress: float) -> float:
    """A logistic curve, stretched so that it begins at 0 and ends at 1."""
    low, high = _logistic(-SIGMOID_STEEPNESS / 2), _logistic(SIGMOID_STEEPNESS / 2)
    return (_logistic(SIGMOID_STEEPNESS * (progress - 0.5)) - low) / (high - low)


def _logistic(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-value))


def _one_shot(progress: float) -> float:
    """Everything at the end: the masks change once, when the tail begins."""
    return 1.0 if progress >= 1.0 else 0.0


SHAPES: dict[ShapeName, Callable[[float], float]] = {
    "cubic": _cubic,
    "sigmoid": _sigmoid,
    "linear": lambda progress: progress,
    "one-shot": _one_shot,
}


@dataclass(frozen=True, kw_only=True)
class RampConfig:
    """The form of a ramp: nothing during the warm-up, then `shape`, and a frozen tail; shares of the run."""

    shape: ShapeName = "cubic"
    warmup_share: float = 0.05
    frozen_share: float = 0.4

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise ConfigError(f"--schedule {self.shape!r} is unknown; choose from {', '.join(SHAPES)}")
        if self.warmup_share < 0 or self.frozen_share < 0 or self.warmup_share + self.frozen_share >= 1:
            raise ConfigError(
                f"warm-up ({self.warmup_share}) and frozen tail ({self.frozen_share}) are shares of the run; "
                "both must be at least 0 and together below 1"
            )


@dataclass(frozen=True, kw_only=True)
class SparsityRamp:
    """The share to remove, from `initial` to `final`; it never falls, and stays put once the tail has begun."""

    initial: float = 0.0
    final: float
    config: RampConfig

    def __post_init__(self) -> None:
        if not 0.0 <= self.initial <= self.final < 1.0:
            raise ConfigError(
                f"sparsity cannot go from {self.initial} to {self.final}; both must be at least 0 and below 1, rising"
            )

    def share(self, step: int, num_steps: int) -> float:
        """The share to have removed after `step` of `num_steps` steps, in [0, 1)."""
        return self._at(self._progress(step, num_steps), self.config.shape)

    def pull(self, step: int, num_steps: int) -> float:
        """The share that a regulariser drives at: ahead of the ramp, so that gates have closed when masks are cut.

        Under one-shot it is that of a straight line.
        """
        gradual = "linear" if self.config.shape == "one-shot" else self.config.shape
        return self._at(min(1.0, self._progress(step, num_steps) / LEAD), gradual)

    def _progress(self, step: int, num_steps: int) -> float:
        start = self.config.warmup_share * num_steps
        end = self.steps_to_prune(num_steps)
        return min(1.0, max(0.0, (step - start) / (end - start)))

    def _at(self, progress: float, shape: ShapeName) -> float:
        return self.initial + (self.final - self.initial) * SHAPES[shape](progress)

    def steps_to_prune(self, num_steps: int) -> float:
        """How many of `num_steps` steps there are before the tail."""
        return (1.0 - self.config.frozen_share) * num_steps

    def is_frozen(self, step: int, num_steps: int) -> bool:
        """Whether the structure may no longer change."""
        return step >= self.steps_to_prune(num_steps)


def learning_rate_factor(step: int, num_steps: int, warmup_share: float) -> float:
    """Linear warm-up from 0 to 1, then linear decay to 0 at the last step; in (0, 1] for 0 <= step < num_steps."""
    warmup = warmup_share * num_steps
    rising = (step + 1) / warmup if warmup > 0 else 1.0
    falling = (num_steps - step) / (num_steps - warmup)
    return min(1.0, rising, falling)
