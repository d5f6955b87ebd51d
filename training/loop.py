"""One stage of training: steps, evaluation, pruning, snapshots.

Knows nothing about files of data, checkpoints or what the stage is for. B texts, C classes.
"""

import logging
import math
import random
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor
from tqdm import tqdm

from sparsebert.checkpoint import EvaluationPoint, LossPoint
from sparsebert.errors import ConfigError, TrainingError
from training.batching import EncodedSplits, collate, plan_epoch
from training.distillation import Answer, Objective
from training.evaluation import accuracy, predict_logits
from training.modeling import SparseBertForSequenceClassification
from training.optimizer import NoOptimizer, new_optimizer
from training.ranges import check_epochs, check_learning_rate
from training.schedule import learning_rate_factor
from training.sharding import micro_batches
from training.snapshot import SnapshotFile, random_state, set_random_state
from training.sparsifier import Sparsifier, Unpruned
from training.tracking import Track, track_nothing

logger = logging.getLogger(__name__)

CHECK_EVERY_STEPS = 20  # how often the loss is read back from the device


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How one stage optimises; `epochs` may be a fraction, `accumulation` micro-batches make a batch.

    The first `frozen_layers` layers, and with them the embeddings, stay as they are.
    """

    epochs: float
    batch_size: int = 32
    accumulation: int = 1
    learning_rate: float = 5e-5
    weight_decay: float = 0.01
    warmup_share: float = 0.1
    max_gradient_norm: float = 1.0
    train_embeddings: bool = True
    frozen_layers: int = 0
    dropout: float = 0.1

    def __post_init__(self) -> None:
        check_epochs(self.epochs)
        check_learning_rate(self.learning_rate)
        if self.batch_size < 1:
            raise ConfigError(f"--batch-size is {self.batch_size}; it must be at least 1")
        if not 1 <= self.accumulation <= self.batch_size:
            raise ConfigError(f"--accumulation is {self.accumulation}; it must be from 1 to the batch size")
        if self.frozen_layers < 0:
            raise ConfigError(f"--freeze-layers is {self.frozen_layers}; it must be at least 0")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"--dropout is {self.dropout}; it must be at least 0 and below 1")


class StageLoop:
    """Trains `model` for one stage; `run` may be called again after a kill and ends with the same numbers.

    `pruner` removes parts of the model meanwhile; None: nothing is removed. The state that decides the numbers is the
    step, the weights, the optimiser, torch's generators and the pruner; all of it is in the snapshot. The order of
    batches follows from `seed`, the stage and the epoch alone.
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
        seed: int,
        pruner: Sparsifier | None = None,
        track: Track = track_nothing,
        clock_s: Callable[[], float] = time.monotonic,
        cpu_clock_s: Callable[[], float] = time.process_time,
    ) -> None:
        self.evaluations: list[EvaluationPoint] = []
        self.losses: list[LossPoint] = []
        self.duration_s = 0.0
        self.cpu_s = 0.0  # of the steps alone
        self._name = name
        self._data = data
        self._objective = objective
        self._config = config
        self._accelerator, self._snapshot, self._seed = accelerator, snapshot, seed
        self._pruner: Sparsifier = Unpruned(model) if pruner is None else pruner
        self._track = track
        self._clock_s, self._cpu_clock_s = clock_s, cpu_clock_s
        self._lengths = [len(example.token_ids) for example in data.train]
        self._steps_per_epoch = -(-len(data.train) // config.batch_size)
        self._num_steps = max(1, round(self._steps_per_epoch * config.epochs)) if config.epochs else 0
        self._step = 0
        self._loss_sum = torch.zeros((), device=accelerator.device)
        self._loss_steps = 0
        self._read_loss_sum = 0.0  # of the steps since the last evaluation whose loss was read back
        self._read_steps = 0
        model.set_dropout(config.dropout)
        if accelerator.device.type == "cpu":
            model.set_attn_implementation("eager")  # its backward pass is faster than SDPA's there (docs/results.md)
        self._pruner.to(accelerator.device)
        self._plain = model
        accelerator.ddp_handler = DistributedDataParallelKwargs(find_unused_parameters=self._pruner.may_skip_blocks)
        optimizer = new_optimizer(
            model, config.learning_rate, config.weight_decay, config.train_embeddings,
            self._pruner.parameter_groups(self._num_steps), frozen_layers=config.frozen_layers,
        ) if objective.teaches else NoOptimizer(model)  # fmt: skip
        self._model: Any = accelerator.prepare_model(model, evaluation_mode=not objective.teaches)
        self._optimizer: Any = accelerator.prepare(optimizer)

    @property
    def num_steps(self) -> int:
        """The optimiser steps of the whole stage."""
        return self._num_steps

    def run(self) -> None:
        """Train to the end; after the last step the model is evaluated."""
        torch.manual_seed(self._seed + self._accelerator.process_index)
        self._restore()
        started_s = self._clock_s() - self.duration_s
        bar = tqdm(
            total=self._num_steps, initial=self._step, desc=self._name, unit="step",
            disable=None if self._accelerator.is_main_process else True,
        )  # fmt: skip
        with bar:
            if self._lacks_point():
                self._look(bar)
            while self._step < self._num_steps:
                epoch, done = divmod(self._step, self._steps_per_epoch)
                plan = plan_epoch(self._lengths, self._config.batch_size, self._epoch_rng(epoch))
                for indices_B in plan[done : self._num_steps - self._step + done]:
                    began_s = self._cpu_clock_s()
                    self._train_step(indices_B)
                    self.cpu_s += self._cpu_clock_s() - began_s
                    self.duration_s = self._clock_s() - started_s
                    bar.update()
                    self._after_step(bar)
        self.duration_s = self._clock_s() - started_s

    def _train_step(self, indices_B: list[int]) -> None:
        """One optimiser step, over micro-batches and processes."""
        self._model.train(self._objective.teaches)
        factor = learning_rate_factor(self._step, self._num_steps, self._config.warmup_share)
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak_lr"] * (1.0 if group.get("constant") else factor)
        accelerator = self._accelerator
        micro = micro_batches(
            indices_B, accelerator.process_index, accelerator.num_processes, self._config.accumulation
        )
        for number, (own_B, weight) in enumerate(micro, start=1):
            synchronised = nullcontext() if number == len(micro) else accelerator.no_sync(self._model)
            with synchronised:
                loss = self._loss(own_B) * weight
                accelerator.backward(loss)
            self._loss_sum += loss.detach()
        scaler = accelerator.scaler
        scale = 1.0 if scaler is None else scaler.get_scale()
        num_texts = sum(len(own_B) for own_B, weight in micro if weight)
        self._pruner.after_backward(self._step, self._num_steps, scale, num_texts)
        if self._objective.teaches:
            accelerator.clip_grad_norm_(self._model.parameters(), self._config.max_gradient_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._loss_steps += 1
        self._step += 1

    def _loss(self, indices_B: list[int]) -> Tensor:
        batch = collate(self._data.train, indices_B, self._data.pad_id).to(self._accelerator.device)
        output = self._model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            token_type_ids=batch.token_type_ids,
            gates=self._pruner.unit_gates(len(indices_B)),
            output_hidden_states=self._objective.needs_states,
        )
        states = None if output.hidden_states is None else [state[:, 0] for state in output.hidden_states[1:]]
        return self._objective.loss(Answer(output.logits, states), batch.labels_B, indices_B, self._pruner.alive_L())

    def _after_step(self, bar: "tqdm[Any]") -> None:
        if self._ends_an_epoch():
            self._read_loss()
            self._save()  # before the evaluation, which may take long: a kill inside it costs no step
            self._look(bar)
        elif self._step % CHECK_EVERY_STEPS == 0:
            loss = self._read_loss()
            self.losses.append(
                LossPoint(step=self._step, training_loss=loss, encoder_sparsity=self._pruner.encoder_sparsity)
            )
            self._show(bar, loss)
        if self._snapshot.is_due(self._clock_s()):
            self._save()

    def _ends_an_epoch(self) -> bool:
        return self._step % self._steps_per_epoch == 0 or self._step == self._num_steps

    def _lacks_point(self) -> bool:
        """Whether a killed run ended inside the evaluation of its last step."""
        return self._step > 0 and self._ends_an_epoch() and self._step not in {p.step for p in self.evaluations}

    def _look(self, bar: "tqdm[Any]") -> None:
        self._evaluate()
        self._show(bar, self.evaluations[-1].training_loss)

    def _show(self, bar: "tqdm[Any]", loss: float) -> None:
        removed = self._pruner.encoder_sparsity
        accuracy_text = f"{self.evaluations[-1].accuracy:.1%}" if self.evaluations else "?"
        bar.set_postfix(loss=f"{loss:.3f}", pruned=f"{removed:.0%}", accuracy=accuracy_text)
        values = {f"{self._name}/loss": loss, f"{self._name}/encoder_sparsity": removed}
        self._track(values, self._step)

    def _read_loss(self) -> float:
        """The mean loss since it was last read, over all processes. Raises TrainingError when it is not a number."""
        total, steps = float(self._accelerator.reduce(self._loss_sum, "mean")), self._loss_steps
        if not math.isfinite(total):
            raise self._diverged(total)
        self._loss_sum.zero_()
        self._loss_steps = 0
        self._read_loss_sum += total
        self._read_steps += steps
        return total / max(1, steps)

    def _diverged(self, loss: float) -> TrainingError:
        return TrainingError(
            f"the loss of stage {self._name!r} is {loss} before step {self._step}; nothing of these steps was "
            f"saved. Lower --learning-rate (now {self._config.learning_rate:g}) and run again"
        )

    def _evaluate(self) -> None:
        self._read_loss()
        loss = self._read_loss_sum / max(1, self._read_steps)
        self._read_loss_sum, self._read_steps = 0.0, 0
        with torch.no_grad():
            gates = self._pruner.unit_gates()
        logits_NC = predict_logits(self._plain, self._data.validation, self._data.pad_id, gates)
        point = EvaluationPoint(
            step=self._step,
            accuracy=accuracy(logits_NC, self._data.validation),
            training_loss=loss,
            encoder_sparsity=self._pruner.encoder_sparsity,
        )
        self.evaluations.append(point)
        self._track({f"{self._name}/accuracy": point.accuracy}, self._step)
        logger.info(
            "%s: step %d of %d, loss %.4f, accuracy %.2f%%, %.1f%% %s",
            self._name, self._step, self._num_steps, loss, 100 * point.accuracy, 100 * point.encoder_sparsity,
            self._pruner.told,
        )  # fmt: skip

    def _epoch_rng(self, epoch: int) -> random.Random:
        return random.Random(f"{self._seed}/{self._name}/{epoch}")  # noqa: S311 - the order of batches is no secret

    def _save(self) -> None:
        """In the first process alone: the clocks of others would have them wait for it at other steps."""
        if not self._accelerator.is_main_process:
            return
        if not all(bool(parameter.isfinite().all()) for parameter in self._plain.parameters()):
            raise self._diverged(math.nan)
        scaler = self._accelerator.scaler  # of fp16
        self._snapshot.save(
            {
                "step": self._step,
                "model": self._plain.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "scaler": None if scaler is None else scaler.state_dict(),
                "random": random_state(),
                "pruner": self._pruner.state(),
                "evaluations": [point.model_dump() for point in self.evaluations],
                "losses": [point.model_dump() for point in self.losses],
                "loss_sum": self._loss_sum.cpu(),
                "loss_steps": self._loss_steps,
                "read_loss": (self._read_loss_sum, self._read_steps),
                "duration_s": self.duration_s,
                "cpu_s": self.cpu_s,
            }
        )

    def _restore(self) -> None:
        state = self._snapshot.load()
        if state is None:
            return
        with self._snapshot.being_restored():
            self._take(state)
        logger.info("%s: resumed after step %d of %d", self._name, self._step, self._num_steps)

    def _take(self, state: dict[str, Any]) -> None:
        self._step, self._loss_steps = state["step"], state["loss_steps"]
        self._read_loss_sum, self._read_steps = state["read_loss"]
        self.duration_s, self.cpu_s = state["duration_s"], state["cpu_s"]
        self._plain.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self._accelerator.scaler is not None:
            self._accelerator.scaler.load_state_dict(state["scaler"])
        if self._accelerator.num_processes == 1:
            set_random_state(state["random"])
        else:  # the snapshot holds the first process's generators only
            torch.manual_seed(self._seed + 7919 * self._step + self._accelerator.process_index)
        self._pruner.restore(state["pruner"])
        self.evaluations = [EvaluationPoint.model_validate(point) for point in state["evaluations"]]
        self.losses = [LossPoint.model_validate(point) for point in state["losses"]]
        self._loss_sum.copy_(state["loss_sum"])
