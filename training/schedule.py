"""How a quantity moves over a run: the sparsity asked for at a step, and the learning rate.

Pure arithmetic; knows nothing about models.
"""

from dataclasses import dataclass
from typing import Protocol

from sparsebert.errors import ConfigError


class SparsitySchedule(Protocol):
    """The sparsity to reach at a step; never falls, and stays put once the tail has begun."""

    def sparsity(self, step: int, num_steps: int) -> float:
        """Target sparsity in [0, 1) after `step` of `num_steps` steps."""

    def is_frozen(self, step: int, num_steps: int) -> bool:
        """Whether the structure may no longer change."""


@dataclass(frozen=True, kw_only=True)
class CubicSchedule:
    """s(t) = final * (1 - (1 - p)^3), where p goes from 0 to 1 between warm-up and tail.

    Zhu and Gupta 2017, "To prune, or not to prune", equation 1, with an initial sparsity of 0.
    """

    final_sparsity: float
    warmup_share: float = 0.05
    frozen_share: float = 0.4

    def __post_init__(self) -> None:
        if not 0.0 <= self.final_sparsity < 1.0:
            raise ConfigError(f"--sparsity is {self.final_sparsity}; it must be at least 0 and below 1")
        if self.warmup_share < 0 or self.frozen_share < 0 or self.warmup_share + self.frozen_share >= 1:
            raise ConfigError(
                f"warm-up ({self.warmup_share}) and frozen tail ({self.frozen_share}) are shares of the run; "
                "both must be at least 0 and together below 1"
            )

    def sparsity(self, step: int, num_steps: int) -> float:
        """Target sparsity after `step` of `num_steps` steps."""
        start, end = self.warmup_share * num_steps, (1.0 - self.frozen_share) * num_steps
        progress = min(1.0, max(0.0, (step - start) / (end - start)))
        return self.final_sparsity * (1.0 - (1.0 - progress) ** 3)

    def is_frozen(self, step: int, num_steps: int) -> bool:
        """True in the last `frozen_share` of the run."""
        return step >= (1.0 - self.frozen_share) * num_steps


def learning_rate_factor(step: int, num_steps: int, warmup_share: float) -> float:
    """Linear warm-up from 0 to 1, then linear decay to 0 at the last step; in (0, 1] for 0 <= step < num_steps."""
    warmup = warmup_share * num_steps
    rising = (step + 1) / warmup if warmup > 0 else 1.0
    falling = (num_steps - step) / (num_steps - warmup)
    return min(1.0, rising, falling)
