"""Everything that decides a run's numbers, in one value, and its fingerprint.

Knows nothing about the command line.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sparsebert.errors import ConfigError
from training.data import DataConfig
from training.distillation import DistillationConfig
from training.loop import LoopConfig
from training.pruner import PruningConfig


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A run: fine-tune dense, then prune what came out while it learns from its dense self.

    `sparse` and `pruning` are used together; without pruning the run ends with the dense model.
    """

    model: str
    data: DataConfig
    dense: LoopConfig
    sparse: LoopConfig
    pruning: PruningConfig
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    max_length: int = 128
    seed: int = 0
    snapshot_every_steps: int = 200

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError(f"--seed is {self.seed}; it must be at least 0")
        if self.prunes and not self.sparse.epochs:
            raise ConfigError(
                f"--prune-epochs is 0, but --sparsity is {self.pruning.schedule.final_sparsity}; "
                "give it at least 1, or --sparsity 0 for the dense model alone"
            )

    @property
    def prunes(self) -> bool:
        return self.pruning.schedule.final_sparsity > 0

    def as_json(self) -> dict[str, object]:
        """Plain values, for `run.json`."""
        values: dict[str, object] = json.loads(json.dumps(asdict(self), default=_plain))
        return values

    def fingerprint(self, stage: str, data_digest: str, model_digest: str) -> str:
        """Equal for two runs whose numbers of `stage` must be equal.

        Data and backbone are known by digest, not by place. Versions and kind of machine are not in it.
        """
        values = self.as_json()
        values.pop("snapshot_every_steps")
        values |= {"data": data_digest, "model": model_digest}
        if stage == "dense":
            for later in ("sparse", "pruning", "distillation"):
                values.pop(later)
        return hashlib.sha256(json.dumps([stage, values], sort_keys=True).encode()).hexdigest()


def _plain(value: object) -> str:
    if isinstance(value, Path):
        return str(value.resolve())
    raise TypeError(f"{type(value).__name__} in a configuration")
