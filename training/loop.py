"""One stage of training: steps, evaluation, pruning, snapshots.

Knows nothing about files of data, checkpoints or what the stage is for. B texts, C classes.
"""

import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from sparsebert.checkpoint import EvaluationPoint
from sparsebert.errors import ConfigError, TrainingError
from training.batching import Batch, EncodedExample, collate, plan_epoch
from training.distillation import Objective
from training.evaluation import accuracy, predict_logits
from training.modeling import SparseBertForSequenceClassification, UnitGates
from training.pruner import Pruner
from training.schedule import learning_rate_factor
from training.snapshot import SnapshotFile

logger = logging.getLogger(__name__)

CHECK_EVERY_STEPS = 20  # how often the loss is read back from the device


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How one stage optimises."""

    epochs: int
    batch_size: int = 32
    learning_rate: float = 5e-5
    weight_decay: float = 0.01
    warmup_share: float = 0.1
    max_gradient_norm: float = 1.0
    train_embeddings: bool = True
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.epochs < 0:
            raise ConfigError(f"--epochs is {self.epochs}; it must be at least 0")
        if self.batch_size < 1:
            raise ConfigError(f"--batch-size is {self.batch_size}; it must be at least 1")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout is {self.dropout}; it must be at least 0 and below 1")
        if not 0 < self.learning_rate < 1:
            raise ConfigError(f"--learning-rate is {self.learning_rate}; it must be above 0 and below 1")


@dataclass(frozen=True, kw_only=True)
class EncodedSplits:
    """Tokenised training and validation examples."""

    train: Sequence[EncodedExample]
    validation: Sequence[EncodedExample]
    pad_id: int


class StageLoop:
    """Trains `model` for one stage; `run` may be called again after a kill and ends with the same numbers.

    The state that decides the numbers is the step, the weights, the optimiser, torch's generators and the
    pruner; all of it is in the snapshot. The order of batches follows from `seed` and the epoch alone.
    """

    def __init__(
        self,
        *,
        name: str,
        model: SparseBertForSequenceClassification,
        data: EncodedSplits,
        objective: Objective,
        config: LoopConfig,
        accelerator: Accelerator,
        snapshot: SnapshotFile,
        snapshot_every_steps: int,
        seed: int,
        pruner: Pruner | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.evaluations: list[EvaluationPoint] = []
        self.duration_s = 0.0
        self._name = name
        self._data = data
        self._objective = objective
        self._config = config
        self._accelerator = accelerator
        self._snapshot = snapshot
        self._snapshot_every_steps = snapshot_every_steps
        self._seed = seed
        self._pruner = pruner
        self._clock_s = clock_s
        self._lengths = [len(example.token_ids) for example in data.train]
        self._steps_per_epoch = -(-len(data.train) // config.batch_size)
        self._num_steps = self._steps_per_epoch * config.epochs
        self._step = 0
        self._loss_sum = torch.zeros((), device=accelerator.device)
        self._loss_steps = 0
        model.set_dropout(config.dropout)
        if accelerator.device.type == "cpu":
            model.set_attn_implementation("eager")  # its backward pass is faster than SDPA's there (docs/results.md)
        self._model: Any = accelerator.prepare(model)
        if pruner is not None:
            pruner.gates.to(accelerator.device)
        self._optimizer: Any = accelerator.prepare(self._new_optimizer(model))

    def run(self) -> float:
        """Train to the end and return the accuracy on the validation split."""
        torch.manual_seed(self._seed)
        self._restore()
        started_s = self._clock_s() - self.duration_s
        bar = tqdm(total=self._num_steps, initial=self._step, desc=self._name, unit="step", disable=None)
        with bar:
            for epoch in range(self._step // max(1, self._steps_per_epoch), self._config.epochs):
                plan = plan_epoch(self._lengths, self._config.batch_size, self._epoch_rng(epoch))
                for indices_B in plan[self._step - epoch * self._steps_per_epoch :]:
                    self._train_step(collate(self._data.train, indices_B, self._data.pad_id))
                    self.duration_s = self._clock_s() - started_s
                    bar.update()
                    self._after_step(bar)
        if not self._config.epochs:
            self._evaluate()
        self.duration_s = self._clock_s() - started_s
        return self.evaluations[-1].accuracy

    def _train_step(self, batch: Batch) -> None:
        """One optimiser step."""
        self._model.train()
        factor = learning_rate_factor(self._step, self._num_steps, self._config.warmup_share)
        for group in self._optimizer.param_groups:
            group["lr"] = self._config.learning_rate * factor
        moved = batch.to(self._accelerator.device)
        logits_BC: Tensor = self._model(
            input_ids=moved.input_ids,
            attention_mask=moved.attention_mask,
            token_type_ids=moved.token_type_ids,
            gates=self._gates(),
        ).logits
        loss = self._objective.loss(logits_BC, moved.labels_B, moved.indices_B)
        self._accelerator.backward(loss)
        if self._pruner is not None:
            self._pruner.after_backward(self._step, self._num_steps)
        self._accelerator.clip_grad_norm_(self._model.parameters(), self._config.max_gradient_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._loss_sum += loss.detach()
        self._loss_steps += 1
        self._step += 1

    def _after_step(self, bar: "tqdm[Any]") -> None:
        if self._step % CHECK_EVERY_STEPS == 0:
            bar.set_postfix(loss=f"{self._mean_loss():.3f}", pruned=f"{self._sparsity():.0%}")
        if self._step % self._steps_per_epoch == 0:
            self._evaluate()
        if self._step % self._snapshot_every_steps == 0 or self._step % self._steps_per_epoch == 0:
            self._save()

    def _mean_loss(self) -> float:
        """The mean loss since the last evaluation. Raises TrainingError when it is not a number."""
        mean = float(self._loss_sum) / max(1, self._loss_steps)
        if mean != mean or mean in (float("inf"), float("-inf")):
            raise TrainingError(
                f"the loss of stage {self._name!r} is {mean} before step {self._step}; nothing of these steps was "
                f"saved. Lower --learning-rate (now {self._config.learning_rate:g}) and run again"
            )
        return mean

    def _evaluate(self) -> None:
        loss = self._mean_loss()
        with torch.no_grad():
            gates = self._gates()
        logits_NC = predict_logits(self._model, self._data.validation, self._data.pad_id, gates)
        point = EvaluationPoint(
            step=self._step,
            accuracy=accuracy(logits_NC, self._data.validation),
            training_loss=loss,
            encoder_sparsity=self._sparsity(),
        )
        self.evaluations.append(point)
        self._loss_sum.zero_()
        self._loss_steps = 0
        logger.info(
            "%s: step %d of %d, loss %.4f, accuracy %.2f%%, %.1f%% of encoder parameters removed",
            self._name, self._step, self._num_steps, loss, 100 * point.accuracy, 100 * point.encoder_sparsity,
        )  # fmt: skip

    def _epoch_rng(self, epoch: int) -> random.Random:
        return random.Random(f"{self._seed}/{epoch}")  # noqa: S311 - the order of batches is no secret

    def _gates(self) -> UnitGates | None:
        return None if self._pruner is None else self._pruner.gates()

    def _sparsity(self) -> float:
        return 0.0 if self._pruner is None else self._pruner.encoder_sparsity

    def _new_optimizer(self, model: SparseBertForSequenceClassification) -> torch.optim.Optimizer:
        model.bert.embeddings.requires_grad_(self._config.train_embeddings)
        decayed: list[Tensor] = []
        others: list[Tensor] = []
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                (others if name.endswith("bias") or "LayerNorm" in name else decayed).append(parameter)
        groups = [
            {"params": decayed, "weight_decay": self._config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self._config.learning_rate, fused=True)

    def _save(self) -> None:
        self._mean_loss()  # a snapshot never holds weights that a NaN has spoilt
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        self._snapshot.save(
            {
                "step": self._step,
                "model": self._accelerator.unwrap_model(self._model).state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "random": {"cpu": torch.get_rng_state(), "cuda": cuda},
                "pruner": None if self._pruner is None else self._pruner.state(),
                "evaluations": [point.model_dump() for point in self.evaluations],
                "loss_sum": self._loss_sum.cpu(),
                "loss_steps": self._loss_steps,
                "duration_s": self.duration_s,
            }
        )

    def _restore(self) -> None:
        state = self._snapshot.load()
        if state is None:
            return
        self._step, self._loss_steps = state["step"], state["loss_steps"]
        self.duration_s = state["duration_s"]
        self._accelerator.unwrap_model(self._model).load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"]["cpu"])
        if state["random"]["cuda"]:
            torch.cuda.set_rng_state_all(state["random"]["cuda"])
        if self._pruner is not None:
            self._pruner.restore(state["pruner"])
        self.evaluations = [EvaluationPoint.model_validate(point) for point in state["evaluations"]]
        self._loss_sum.copy_(state["loss_sum"])
        logger.info("%s: resumed after step %d of %d", self._name, self._step, self._num_steps)
