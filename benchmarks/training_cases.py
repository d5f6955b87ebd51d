"""What does a step of training cost: in our loop, in the Hugging Face Trainer, and bare?

Each case trains a model of its own over the same batches. Knows nothing about what is compared with what.
"""

import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from sparsebert.masks import MaskSet
from training.batching import Batch, EncodedExample, EncodedSplits, collate, plan_epoch
from training.costs import ParameterCost
from training.criteria import STANDING, ImportanceName
from training.distillation import (
    DistillationConfig,
    DistillationObjective,
    LabelObjective,
    MarginObjective,
    Objective,
    TeacherAnswers,
)
from training.geometry import geometry_of
from training.loading import load_dense
from training.loop import LoopConfig, StageLoop
from training.modeling import SparseBertForSequenceClassification
from training.pruner import Pruner, PruningConfig
from training.regularization import RegularizerConfig
from training.schedule import RampConfig, SparsityRamp
from training.snapshot import SnapshotFile

WARM_STEPS = 3  # of each run, not counted
SHARE = 0.67
Seconds = float


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all cases train: the first texts of a data set, one epoch of `steps` batches."""

    model: str
    texts: list[EncodedExample]
    tokenizer: PreTrainedTokenizerBase
    batch_size: int
    rounds: int

    @property
    def steps(self) -> int:
        return len(self.texts) // self.batch_size

    def new_model(self) -> SparseBertForSequenceClassification:
        torch.manual_seed(0)
        return load_dense(self.model)

    def rounds_of(self, cases: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
        """What each case returns, round by round; the first case changes with the round."""
        names = list(cases)
        values: dict[str, list[float]] = {name: [] for name in names}
        for turn in range(self.rounds):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                values[name].append(cases[name]())
        return values


class Stopwatch(SnapshotFile):
    """In the place of a snapshot: asked after each step whether it is due, it notes the time and saves nothing."""

    def __init__(self) -> None:
        super().__init__(Path("never-written"), "", 0.0)
        self.times_s: list[float] = []

    def is_due(self, now_s: float) -> bool:
        self.times_s.append(now_s)
        return False

    def save(self, state: dict[str, Any]) -> None:
        """Forget it."""


class Tokens:
    """Counts the tokens of each batch that an objective is asked about."""

    def __init__(self, objective: Objective, texts: list[EncodedExample]) -> None:
        self.needs_states, self.teaches = objective.needs_states, objective.teaches
        self.counts: list[int] = []
        self._objective = objective
        self._texts = texts

    def loss(self, *arguments: Any) -> Tensor:
        self.counts.append(sum(len(self._texts[index].token_ids) for index in arguments[2]))
        return self._objective.loss(*arguments)


def run_ours(bench: Bench, precision: str, importance: ImportanceName | None = None) -> tuple[Seconds, float]:
    """Seconds of a step and tokens a second of our loop; dense, or pruning by `importance`."""
    accelerator = fresh_accelerator(precision)
    model, watch, pruner = bench.new_model(), Stopwatch(), None
    objective: Objective = LabelObjective()
    if importance is not None:
        pruner = new_pruner(model, importance)
        answers = TeacherAnswers(torch.randn(len(bench.texts), 2))  # any logits cost the same
        distillation = DistillationConfig()
        objective = DistillationObjective(answers, distillation)
        if importance == STANDING:
            objective = MarginObjective(distillation.temperature)
    tokens = Tokens(objective, bench.texts)
    StageLoop(
        name="speed", model=model, data=EncodedSplits(train=bench.texts, validation=bench.texts[:1], pad_id=0),
        objective=tokens, config=LoopConfig(epochs=1, batch_size=bench.batch_size), accelerator=accelerator,
        snapshot=watch, seed=0, pruner=pruner, clock_s=time.perf_counter,
    ).run()  # fmt: skip
    return speed(watch.times_s, tokens.counts)


def fresh_accelerator(precision: str) -> Accelerator:
    """An accelerator that knows nothing of the last case's precision."""
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(mixed_precision=precision)


def new_pruner(model: SparseBertForSequenceClassification, importance: ImportanceName) -> Pruner:
    """Units are scored in every step that is counted; masks move but for the criterion that has one cut, at the end."""
    dense = geometry_of(model)
    masks = MaskSet.dense(dense.num_layers, dense.heads_L[0], dense.neurons_L[0])
    ramp = RampConfig(shape="one-shot" if importance == STANDING else "cubic", warmup_share=0.0, frozen_share=0.0)
    learned = RegularizerConfig(name="l1" if importance == "gate" else "none")
    config = PruningConfig(importance=importance, ramp=ramp, regularizer=learned)
    return Pruner(model, masks, dense, config, SparsityRamp(initial=0.0, final=SHARE, config=ramp), ParameterCost())


class StepTimes(TrainerCallback):
    """When each of the Trainer's steps ended."""

    def __init__(self) -> None:
        self.times_s: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.times_s.append(time.perf_counter())


class CountingCollator:
    """The Trainer's default, which notes how many tokens each batch has."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.counts: list[int] = []
        self._pad = DataCollatorWithPadding(tokenizer)

    def __call__(self, features: list[dict[str, Any]]) -> Any:
        batch = self._pad(features)
        self.counts.append(int(batch["attention_mask"].sum()))
        return batch


def run_trainer(bench: Bench) -> tuple[Seconds, float]:
    """Seconds of a step and tokens a second of the Hugging Face Trainer."""
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(bench.model, num_labels=2)
    rows = [
        {"input_ids": text.token_ids, "token_type_ids": text.segments, "attention_mask": [1] * len(text.token_ids),
         "label": text.label}
        for text in bench.texts
    ]  # fmt: skip
    times, collator = StepTimes(), CountingCollator(bench.tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, num_train_epochs=1, per_device_train_batch_size=bench.batch_size, save_strategy="no",
            logging_strategy="no", report_to=[], disable_tqdm=True, seed=0,
            dataloader_pin_memory=torch.cuda.is_available(),
        )  # fmt: skip
        trainer = Trainer(model, arguments, collator, rows, processing_class=bench.tokenizer, callbacks=[times])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return speed(times.times_s, collator.counts)


def speed(times_s: list[float], counts: list[int]) -> tuple[Seconds, float]:
    """Of the steps after the warm ones: `times_s` are their ends, `counts` the tokens of all of them."""
    counted = slice(WARM_STEPS, len(times_s))
    elapsed_s = times_s[-1] - times_s[WARM_STEPS - 1]
    return elapsed_s / len(times_s[counted]), sum(counts[counted]) / elapsed_s


class PlainSteps:
    """Seconds of a step over the same epoch each time, without anything but the steps of the optimiser."""

    def __init__(self, bench: Bench, precision: str, *, compiled: bool) -> None:
        self._bench = bench
        self._half = precision == "bf16"
        model = bench.new_model().train()
        self._device = fresh_accelerator(precision).device
        model.to(self._device)
        if self._device.type == "cpu":
            model.set_attn_implementation("eager")  # as StageLoop does
        self._optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, fused=True)
        self._model: Any = torch.compile(model) if compiled else model

    def __call__(self) -> Seconds:
        began_s = time.perf_counter()
        for batch in self._batches():
            with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._half):
                loss = self._model(*batch[:3], labels=batch.labels_B).loss
            loss.backward()
            self._optimizer.step()
            self._optimizer.zero_grad()
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - began_s) / self._bench.steps

    def _batches(self) -> Iterator[Batch]:
        texts = self._bench.texts
        for indices_B in plan_epoch([len(t.token_ids) for t in texts], self._bench.batch_size, random.Random(0)):
            yield collate(texts, indices_B, 0).to(self._device)
