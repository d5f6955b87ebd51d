"""How a pruned model is fine-tuned: the optimiser, batches and losses of `sparsebert train`, for any BERT.

One recovery may be interrupted by cuts: what is left of its budget and of its learning rate goes on afterwards.
Knows nothing about pruners.
"""

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedModel

from benchmarks.pruners.judging import Bench
from training.batching import Batch, collate, plan_epoch
from training.distillation import Answer, Objective
from training.loop import LoopConfig
from training.precision import resolve
from training.schedule import learning_rate_factor

RESTART_STEPS = 50  # a cut leaves Adam without averages; the learning rate rises again that long
FINE = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Either steps, or CPU seconds, which cuts take too."""

    steps: int | None = None
    cpu_s: float | None = None

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.cpu_s is None):
            raise ValueError("give steps or CPU seconds")


def autocast() -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=resolve("auto") == "bf16")


class Recovery:
    """Trains on the same budget, batches and learning rate however many models it is given in turn.

    `cpu_s` is what the budget has paid for; who cuts adds to it.
    """

    def __init__(self, bench: Bench, objective: Objective, settings: LoopConfig, budget: Budget, seed: int) -> None:
        self.steps = 0
        self.cpu_s = 0.0
        self._bench, self._objective, self._settings, self._budget = bench, objective, settings, budget
        self._seed = seed
        self._batches = self._endless()
        torch.manual_seed(seed)

    def train(self, model: PreTrainedModel, until: float) -> None:
        """Train `model` until that share of the whole budget is spent."""
        if self._progress() >= until:
            return
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = self._settings.dropout
        model.set_attn_implementation("eager")  # as in our loop: its backward pass is faster on a CPU
        optimizer = self._new_optimizer(model)
        began_s, spent_s = time.process_time(), self.cpu_s
        rising, fresh = RESTART_STEPS if self.steps else 1, 0
        model.train()
        with tqdm(desc="recovery", unit="step", disable=None) as bar:
            while self._progress() < until:
                fresh += 1
                self._step(model, optimizer, min(1.0, fresh / rising))
                self.steps += 1
                self.cpu_s = spent_s + time.process_time() - began_s
                bar.update()
        model.eval()

    def score_batches(self, texts: int, cut: int) -> list[Batch]:
        """Random training batches by which a pruner judges units before its n-th cut."""
        rng = random.Random(f"{self._seed}/score/{cut}")
        examples = rng.sample(self._bench.train, min(texts, len(self._bench.train)))
        plan = plan_epoch([len(example.token_ids) for example in examples], self._settings.batch_size, rng)
        return [collate(examples, indices_B, self._bench.pad_id) for indices_B in plan]

    def _step(self, model: nn.Module, optimizer: torch.optim.Optimizer, restart: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = self._settings.learning_rate * restart * self._factor()
        batch = next(self._batches)
        with autocast():
            logits_BC = model(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, token_type_ids=batch.token_type_ids
            ).logits
        loss = self._objective.loss(Answer(logits_BC), batch.labels_B, batch.indices_B, ())
        loss.backward()
        trained = [weight for group in optimizer.param_groups for weight in group["params"]]
        nn.utils.clip_grad_norm_(trained, self._settings.max_gradient_norm, error_if_nonfinite=True)
        optimizer.step()
        optimizer.zero_grad()

    def _progress(self) -> float:
        if self._budget.steps is not None:
            return self.steps / self._budget.steps
        return self.cpu_s / self._budget.cpu_s

    def _factor(self) -> float:
        if self._budget.steps is not None:
            return learning_rate_factor(self.steps, self._budget.steps, self._settings.warmup_share)
        return learning_rate_factor(int(FINE * min(1.0, self._progress())), FINE, self._settings.warmup_share)

    def _endless(self) -> Iterator[Batch]:
        lengths = [len(example.token_ids) for example in self._bench.train]
        epoch = 0
        while True:
            for indices_B in plan_epoch(lengths, self._settings.batch_size, random.Random(f"{self._seed}/{epoch}")):
                yield collate(self._bench.train, indices_B, self._bench.pad_id)
            epoch += 1

    def _new_optimizer(self, model: PreTrainedModel) -> torch.optim.Optimizer:
        model.requires_grad_(True)
        frozen = self._settings.frozen_layers
        model.bert.embeddings.requires_grad_(self._settings.train_embeddings and not frozen)
        model.bert.encoder.layer[:frozen].requires_grad_(False)
        decayed: list[Tensor] = []
        others: list[Tensor] = []
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                (others if name.endswith("bias") or "LayerNorm" in name else decayed).append(weight)
        groups = [
            {"params": decayed, "weight_decay": self._settings.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self._settings.learning_rate, fused=True)
