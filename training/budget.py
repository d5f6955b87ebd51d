"""How much is to leave, and in which currency it is counted: parameters, multiply-accumulates, or measured time.

Knows nothing about training. A share is the part of the dense encoder's cost that is removed.
"""

from dataclasses import dataclass
from pathlib import Path

from sparsebert.errors import BundleError, ConfigError
from sparsebert.geometry import Geometry
from sparsebert.latency import read_latency_table
from sparsebert.manifest import Precision
from training.costs import CostModel, CostName, LatencyCost, MacCost, ParameterCost

TOLERANCE = 0.01  # of what is to be left
COST_NAMES: tuple[CostName, ...] = ("parameters", "macs", "latency")


@dataclass(frozen=True, kw_only=True)
class LatencyChoice:
    """Which row of which table: the precision, batch and length at which the model is to be fast."""

    table: Path
    precision: Precision = "int8"
    batch: int = 1
    tokens: int = 32


@dataclass(frozen=True, kw_only=True)
class BudgetConfig:
    """The shares of the encoder to remove, from small to large, one checkpoint each; none: the dense model alone."""

    shares: tuple[float, ...] = ()
    cost: CostName = "parameters"
    latency: LatencyChoice | None = None

    def __post_init__(self) -> None:
        for share in self.shares:
            if not 0.0 < share < 1.0:
                raise ConfigError(
                    f"--sparsity is {share:g}; it must be above 0 and below 1, or 0 for the dense model alone"
                )
        if list(self.shares) != sorted(set(self.shares)):
            raise ConfigError(f"the targets {', '.join(f'{share:g}' for share in self.shares)} must rise")
        if len(self.shares) > 1 and len({self.stage_name(share) for share in self.shares}) < len(self.shares):
            raise ConfigError("two targets are so near to each other that they would have one folder; leave one out")
        if self.cost not in COST_NAMES:
            raise ConfigError(f"--budget {self.cost!r} is unknown; choose from {', '.join(COST_NAMES)}")
        if (self.cost == "latency") != (self.latency is not None):
            raise ConfigError(
                "a budget of time needs a table measured where the model will run: "
                "--target-speedup 3.0 --latency-table FILE (made with 'sparsebert latency-table')"
            )

    def cost_model(self, max_length: int, dense: Geometry) -> CostModel:
        """The currency. Raises ConfigError when the table is missing or was not made for such a model."""
        if self.latency is None:
            return MacCost(max_length) if self.cost == "macs" else ParameterCost()
        return _latency_cost(self.latency, dense)

    def stage_name(self, share: float) -> str:
        """The folder of a target: `sparse` when there is one, `sparse-67` or `sparse-3x` when there are several."""
        return "sparse" if len(self.shares) == 1 else self.share_name(share)

    def share_name(self, share: float) -> str:
        """The folder of a share that may be one of several."""
        return f"sparse-{1 / (1 - share):.3g}x" if self.cost == "latency" else f"sparse-{100 * share:.4g}"

    def more_than(self, share: float) -> str:
        """The flag that asks for more than `share`."""
        if self.cost == "latency":
            return f"--target-speedup above {1 / (1 - share):.3g}"
        return f"--sparsity above {share:g}"


def missed_budget(reached: float, asked: float, reason: str = "") -> str:
    """What to tell when what is left is more than 1% off; empty when the budget is met. Both are shares removed.

    Without another `reason` it is what the selection of units by their scores came to.
    """
    unused = (reached - asked) / (1 - asked)
    if abs(unused) <= TOLERANCE:
        return ""
    reason = reason or f"the most valuable whole units that were found leave {unused:.1%} of the budget unused"
    return f"{100 * reached:.2f}% are removed instead of {100 * asked:.2f}%: {reason}"


def share_of_speedup(speedup: float) -> float:
    """The share of the time that must go for a model to be `speedup` times faster. Raises ConfigError at 1 or below."""
    if speedup <= 1:
        raise ConfigError(f"--target-speedup is {speedup:g}; it must be above 1")
    return 1.0 - 1.0 / speedup


def _latency_cost(choice: LatencyChoice, dense: Geometry) -> CostModel:
    try:
        table = read_latency_table(choice.table)
        cost = LatencyCost(table.find(choice.precision, choice.batch, choice.tokens))
        if (table.hidden_size, table.head_size) != (dense.hidden_size, dense.head_size):
            raise ValueError(
                f"it was measured for a hidden size of {table.hidden_size} and heads of {table.head_size}, and this "
                f"model has {dense.hidden_size} and {dense.head_size}"
            )
        if table.embedding_size != dense.embedding_size:
            raise ValueError(
                f"it was measured for embeddings of {table.embedding_size or table.hidden_size}, and those of this "
                f"model have {dense.embedding_size or dense.hidden_size}"
            )
        cost.cost(dense)
    except BundleError as error:  # it names the cure itself
        raise ConfigError(f"--latency-table: {error}") from error
    except ValueError as error:
        raise ConfigError(
            f"--latency-table {choice.table}: {error}; make one with 'sparsebert latency-table'"
        ) from error
    return cost
