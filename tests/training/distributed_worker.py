"""One process of several that train a tiny model together; compares what all of them hold and saves what it found.

torchrun --nproc-per-node 2 distributed_worker.py BERT_FOLDER OUTPUT_FOLDER [WORDS OF sparsebert ...]
"""

import random
import sys
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from sparsebert.cli import run
from sparsebert.masks import MaskSet
from training.batching import EncodedExample, EncodedSplits
from training.budget import BudgetConfig
from training.config import TrainConfig
from training.data import DataConfig
from training.distillation import LabelObjective, MarginObjective, Objective
from training.geometry import geometry_of
from training.loading import load_dense
from training.loop import LoopConfig, StageLoop
from training.modeling import SparseBertForSequenceClassification
from training.pruner import Pruner, PruningConfig
from training.regularization import RegularizerConfig
from training.schedule import RampConfig, SparsityRamp
from training.selection import KeepFloor, SelectionRules
from training.snapshot import SnapshotFile
from training.workshop import Workshop

LOOP = LoopConfig(epochs=2, batch_size=5, accumulation=2, learning_rate=1e-3, dropout=0.0)
RULES = SelectionRules(floor=KeepFloor(heads=0, neurons=0))
PRUNING = PruningConfig(
    ramp=RampConfig(warmup_share=0.1, frozen_share=0.3), rules=RULES, update_every_steps=2,
    regularizer=RegularizerConfig(name="group-lasso"),
)  # fmt: skip
CASES = {
    "fisher": replace(PRUNING, importance="fisher"),
    "gradient": PRUNING,
    "movement, l1": replace(PRUNING, importance="movement", regularizer=RegularizerConfig(name="l1")),
    "gate, l0": replace(PRUNING, importance="gate", regularizer=RegularizerConfig(name="l0")),
    "activation": replace(PRUNING, importance="activation"),
    "margin": PruningConfig(importance="margin", ramp=RampConfig(shape="one-shot", frozen_share=0.0), rules=RULES),
}
OBJECTIVES = {"margin": MarginObjective(2.0)}
NUM_TEXTS = 26  # the last batch has one text, so that one process has none


class Stopped(BaseException):
    """Stands for a kill of all processes."""


class StoppingObjective(LabelObjective):
    """Stops the run at the n-th micro-batch."""

    def __init__(self, calls: int) -> None:
        self._left = calls

    def loss(self, *arguments):
        self._left -= 1
        if not self._left:
            raise Stopped
        return super().loss(*arguments)


class Stage:
    """One stage over `num_texts` random texts, pruning half of the encoder as `pruning` says."""

    def __init__(self, bert: str, folder: Path, pruning: PruningConfig, num_texts: int) -> None:
        self._bert, self._folder, self._pruning = bert, folder, pruning
        self._data = EncodedSplits(train=texts(num_texts, 1), validation=texts(10, 2), pad_id=0)
        self._shop = Workshop(
            TrainConfig(
                model=bert, data=DataConfig(), dense=LOOP, sparse=LOOP, budget=BudgetConfig(shares=(0.5,)),
                arithmetic="fp32", track="none",
            ),
            folder,
        )  # fmt: skip

    @property
    def accelerator(self) -> Accelerator:
        return self._shop.accelerator

    def run(self, objective: Objective | None = None, snapshot: str = "stage") -> dict[str, Tensor]:
        """What the stage leaves: weights, masks, scores and what the pruner learned, each as one row."""
        torch.manual_seed(3)
        model = load_dense(self._bert).double()  # rounding decides nothing then
        dense = geometry_of(model)
        masks = MaskSet.dense(dense.num_layers, dense.heads_L[0], dense.neurons_L[0])
        pruner = Pruner(
            model, masks, dense, self._pruning, SparsityRamp(initial=0.0, final=0.5, config=self._pruning.ramp),
            self._shop.config.budget.cost_model(16, dense), reduce=self._shop.reduce,
        )  # fmt: skip
        StageLoop(
            name="stage", model=model, data=self._data, objective=objective or LabelObjective(), config=LOOP,
            accelerator=self.accelerator, snapshot=SnapshotFile(self._folder / f"{snapshot}.pt", "stage", 0.0),
            seed=0, pruner=pruner,
        ).run()  # fmt: skip
        self.accelerator.wait_for_everyone()
        return left(model, pruner)


def left(model: SparseBertForSequenceClassification, pruner: Pruner) -> dict[str, Tensor]:
    state = pruner.state()
    return {
        "weights": row([value for value in model.state_dict().values() if value.is_floating_point()]),
        "masks": row(state["masks"]),
        "scores": row(state["scores"]),
        "learned": row([torch.zeros(1), *state["gates"].values(), *state["multipliers"]]),
    }


def row(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().double().flatten() for tensor in tensors])


def texts(count: int, seed: int) -> list[EncodedExample]:
    rng = random.Random(seed)
    examples = []
    for index in range(count):
        length = rng.randint(3, 12)
        examples.append(EncodedExample(rng.choices(range(5, 20), k=length), [0] * length, index % 2))
    return examples


def main(bert: str, folder: Path, words: list[str]) -> int:
    found = {}
    for name, pruning in CASES.items():
        stage = Stage(bert, folder, pruning, NUM_TEXTS)
        found[name] = gathered(stage.accelerator, stage.run(OBJECTIVES.get(name), snapshot=name))
    stage = Stage(bert, folder, CASES["fisher"], NUM_TEXTS)
    try:
        stage.run(StoppingObjective(9), snapshot="stopped")
    except Stopped:
        stage.accelerator.wait_for_everyone()
    found["resumed"] = gathered(stage.accelerator, stage.run(snapshot="stopped"))
    if stage.accelerator.is_main_process:
        torch.save(found, folder / "found.pt")
    return run(words)  # the last, for it ends the processes' group


def gathered(accelerator: Accelerator, rows: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each row of every process, one below the other."""
    return {name: accelerator.gather(row[None]) for name, row in rows.items()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]))
