"""What did a stage come to? Its checkpoint, judged in full precision on every split, and how it was made.

Knows nothing about training.
"""

import importlib.metadata
import logging
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch import Tensor

from sparsebert.checkpoint import EvaluationPoint, LossPoint, Metrics, PruningEvent, RunRecord, evenly_spaced
from sparsebert.geometry import Geometry
from sparsebert.manifest import Task
from sparsebert.masks import MaskSet
from training.batching import EncodedExample
from training.checkpoint import MaskedCheckpoint, save_checkpoint
from training.compaction import compact
from training.costs import CostModel
from training.evaluation import predict_logits
from training.geometry import geometry_of
from training.metrics import judge, one_answer
from training.modeling import SparseBertForSequenceClassification
from training.predictions import Answers, read_predictions
from training.pruner import masked_geometry
from training.workshop import VALIDATION, Workshop

logger = logging.getLogger(__name__)

StageName = Literal["dense", "sparse", "baseline"]
CALIBRATION_EXAMPLES = 2048  # what pruning without training wants; export takes a few of them
VERSIONED = ("torch", "transformers", "accelerate", "numpy")
LOST = "it has learned nothing, or lost it. Lower the learning rate, train for longer, or remove less"
CURES: Mapping[StageName, str] = {  # of a stage that gives one answer to everything
    "dense": "it has learned nothing. Lower the learning rate, or train for longer",
    "sparse": LOST,
    "baseline": LOST,
}


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What the loops of a stage left besides the weights; `weight_sparsity` counts single weights that are 0.

    `known` are logits [N, C] of judged splits that need not be computed.
    """

    masks: MaskSet
    duration_s: float
    cpu_s: float
    evaluations: Sequence[EvaluationPoint]
    losses: Sequence[LossPoint] = ()
    events: Sequence[PruningEvent] = ()
    weight_sparsity: float = 0.0
    missed_budget: str = ""
    known: Mapping[str, Tensor] = field(default_factory=dict)


def save_stage(
    shop: Workshop,
    folder: Path,
    model: SparseBertForSequenceClassification,
    trained: Trained,
    *,
    stage: StageName,
    fingerprint: str,
) -> None:
    """Judge `model` and write its checkpoint to `folder`; the first process does it, the others wait."""
    accelerator = shop.accelerator
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        model = shop.unwrapped(model)
        dense_folder = None if stage == "dense" else folder.parent / "dense"
        answers, metrics = _judge(shop, compact(model, trained.masks), trained.known, dense_folder)
        if told := one_answer(answers[VALIDATION].logits_NC, shop.data.validation, shop.data.labels):
            logger.warning("%s %s: %s", folder.name, told, CURES[stage])
        checkpoint = MaskedCheckpoint(
            model=model,
            tokenizer=shop.tokenizer,
            masks=trained.masks,
            run=_record(shop, geometry_of(model), trained, metrics, stage, fingerprint),
            examples=shop.data.validation,
            calibration=evenly_spaced(shop.data.train, CALIBRATION_EXAMPLES),
        )
        save_checkpoint(folder, checkpoint, answers)
    accelerator.wait_for_everyone()
    accelerator.free_memory()


def cost_of(shop: Workshop, dense: Geometry) -> CostModel:
    """The currency of the run's budget."""
    return shop.config.budget.cost_model(shop.config.max_length, dense)


def _judge(
    shop: Workshop, small: SparseBertForSequenceClassification, known: Mapping[str, Tensor], dense: Path | None
) -> tuple[dict[str, Answers], dict[str, Metrics]]:
    """Answers and scores of every judged split, beside those of the checkpoint `dense` when there is one."""
    small = small.to(shop.accelerator.device)
    base = {} if dense is None else read_predictions(dense)
    answers = {
        name: Answers(asked=split, logits_NC=_logits(small, split, shop.splits.pad_id, known.get(name)))
        for name, split in shop.judged_tokens.items()
    }
    metrics = {
        name: judge(one.logits_NC, shop.judged[name], with_f1=shop.config.data.spec.f1, dense_logits_NC=base.get(name))
        for name, one in answers.items()
    }
    return answers, metrics


def _logits(
    small: SparseBertForSequenceClassification, split: Sequence[EncodedExample], pad_id: int, known_NC: Tensor | None
) -> Tensor:
    return predict_logits(small, split, pad_id) if known_NC is None else known_NC


def _record(
    shop: Workshop,
    dense: Geometry,
    trained: Trained,
    metrics: dict[str, Metrics],
    stage: StageName,
    fingerprint: str,
) -> RunRecord:
    config, data = shop.config, shop.data
    kept, cost = masked_geometry(dense, trained.masks), cost_of(shop, dense)
    return RunRecord(
        stage=stage,
        model=config.model,
        task=Task(name=config.data.spec.name, pair=data.pair),
        labels=data.labels,
        data=data.source,
        num_train=len(data.train),
        num_validation=len(data.validation),
        max_length=config.max_length,
        seed=config.seed,
        config=config.as_json() | {"fingerprint": fingerprint},
        dense_geometry=dense,
        encoder_sparsity=kept.encoder_sparsity(dense),
        weight_sparsity=trained.weight_sparsity,
        missed_budget=trained.missed_budget,
        removed_share=1.0 - cost.cost(kept) / cost.cost(dense),
        accuracy=metrics[VALIDATION].accuracy,
        duration_s=round(trained.duration_s, 3),
        cpu_s=round(trained.cpu_s, 3),
        evaluations=tuple(trained.evaluations),
        losses=tuple(trained.losses),
        events=tuple(trained.events),
        versions={"python": platform.python_version()} | {n: importlib.metadata.version(n) for n in VERSIONED},
        metrics=metrics,
        truncated_texts=shop.truncated_texts,
    )
