"""Everything that decides a run's numbers, in one value, and its fingerprint.

Knows nothing about the command line.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from sparsebert.errors import ConfigError
from training.budget import BudgetConfig
from training.criteria import STANDING
from training.data import DataConfig
from training.distillation import DistillationConfig
from training.loop import LoopConfig
from training.pruner import PruningConfig
from training.tracking import TrackerName

ArithmeticName = Literal["auto", "bf16", "fp16", "fp32"]
# What does not change a number that a run ends with.
WITHOUT_EFFECT = ("snapshot_every_s", "track", "teacher_cache")


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """How the largest sparsity within a tolerated loss is looked for, in points of accuracy.

    `resolution`: the search ends when the largest share that passed and the smallest that failed are this close.
    """

    max_drop: float
    resolution: float = 0.03

    def __post_init__(self) -> None:
        if not 0 <= self.max_drop < 100:
            raise ConfigError(f"--max-drop is {self.max_drop:g}; give points of accuracy, from 0 to 100")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A run: fine-tune dense, then prune what came out while it learns from its dense self, target after target.

    `sparse` is the part of each target in which masks move, `recovery` the one after it, on the smaller model.
    """

    model: str
    data: DataConfig
    dense: LoopConfig
    sparse: LoopConfig
    recovery: LoopConfig = field(default_factory=lambda: LoopConfig(epochs=0))
    pruning: PruningConfig = field(default_factory=PruningConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    search: SearchConfig | None = None
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    max_length: int = 128
    seed: int = 0
    arithmetic: ArithmeticName = "auto"
    snapshot_every_s: float = 60.0
    track: TrackerName = "tensorboard"
    teacher_cache: Path | None = None

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError(f"--seed is {self.seed}; it must be at least 0")
        if self.prunes and not self.sparse.epochs:
            raise ConfigError("--prune-epochs is 0, but there is something to prune; give more, or --sparsity 0")
        if self.dense.frozen_layers or self.sparse.frozen_layers:
            raise ConfigError("layers are frozen in recovery only")
        if self.recovery.frozen_layers and not self.recovery.epochs:
            raise ConfigError(
                f"--freeze-layers {self.recovery.frozen_layers} is for the recovery, and --recovery-epochs is 0; give "
                "it some, or leave the flag out"
            )
        if self.prunes and self.pruning.importance == STANDING and self.arithmetic == "fp16":
            raise ConfigError(
                f"--precision fp16 finds the scale of its gradients by training, and --importance {STANDING} trains "
                "nothing: add --precision bf16 or fp32, or --importance gradient"
            )
        if self.search is not None and not self.budget.shares:
            raise ConfigError(
                "--max-drop walks from one target to the next; give it some, as in --sparsity 0.5,0.67,0.8"
            )

    @property
    def prunes(self) -> bool:
        return bool(self.budget.shares)

    def target_name(self, share: float) -> str:
        """The folder of a target; a search may try others, so that all of its are named by their share."""
        return self.budget.stage_name(share) if self.search is None else self.budget.share_name(share)

    def as_json(self) -> dict[str, Any]:
        """Plain values, for `run.json`."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self), default=_plain))
        return values

    def fingerprint(self, stage: str, data_digest: str, model_digest: str) -> str:
        """Equal for two runs whose numbers of `stage` must be equal.

        Data, backbone and latency table are known by digest, not by place. Versions and kind of machine are not in it.
        Of the targets nothing is in it: a stage that prunes adds its own and the stage that it starts from.
        """
        values = self.as_json()
        for name in (*WITHOUT_EFFECT, "search"):
            values.pop(name)
        values |= {"data": data_digest, "model": model_digest}
        for stage_values in (values["dense"], values["sparse"], values["recovery"]):
            stage_values.pop("accumulation")  # of rounding and dropout only; a run out of memory goes on with more
            if not stage_values["frozen_layers"]:
                stage_values.pop("frozen_layers")  # runs from before it was known are the same
        if stage == "dense":
            for later in ("sparse", "recovery", "pruning", "budget", "distillation"):
                values.pop(later)
            return _sha256([stage, values])
        values["budget"].pop("shares")
        if self.budget.latency is not None:
            values["budget"]["latency"]["table"] = _digest(self.budget.latency.table)
        return _sha256([stage, values])


def _sha256(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "missing"


def _plain(value: object) -> str:
    if isinstance(value, Path):
        return str(value.resolve())
    raise TypeError(f"{type(value).__name__} in a configuration")
