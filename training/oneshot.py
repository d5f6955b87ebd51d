"""From a dense checkpoint to a sparse one in minutes, without training: score, select, repair.

Scores are gate gradients of the dense model over a few thousand training texts (`training.fisher`), the selection is
that of a run, and least squares make up for what was lost (`training.repair`).
Knows nothing about the command line.
"""

import importlib.metadata
import json
import logging
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from sparsebert.checkpoint import PREDICTIONS_FILE, RUN_FILE, Metrics, PruningEvent, RunRecord
from sparsebert.errors import CheckpointError, ConfigError
from sparsebert.files import check_replaceable, check_writable
from sparsebert.geometry import Geometry
from sparsebert.masks import MaskSet
from training.batching import EncodedExample
from training.budget import BudgetConfig, missed_budget
from training.checkpoint import MaskedCheckpoint, save_checkpoint
from training.evaluation import accuracy
from training.fisher import gate_fisher
from training.geometry import geometry_of
from training.importance import UnitScores
from training.metrics import judge, one_answer
from training.modeling import SparseBertForSequenceClassification
from training.opening import OpenedCheckpoint, draw, open_dense
from training.predictions import Answers, known_predictions
from training.pruner import mask_change, masked_geometry
from training.repair import RIDGE, BlockRepair, repaired
from training.selection import SelectionRules, check_share, select_units
from training.tasks import find_task

logger = logging.getLogger(__name__)

VALIDATION = "validation"
VERSIONED = ("torch", "transformers", "numpy")


@dataclass(frozen=True, kw_only=True)
class OneShotConfig:
    """How much to remove, and by how many of the training texts that the checkpoint holds."""

    budget: BudgetConfig
    num_examples: int = 2048
    seed: int = 0
    ridge: float = RIDGE
    rules: SelectionRules = field(default_factory=SelectionRules)

    def __post_init__(self) -> None:
        if len(self.budget.shares) != 1:
            raise ConfigError(f"one share can be removed, not {len(self.budget.shares)}")
        if self.num_examples < 1:
            raise ConfigError(f"--examples is {self.num_examples}; it must be at least 1")
        if self.seed < 0:
            raise ConfigError(f"--seed is {self.seed}; it must be at least 0")
        if self.ridge <= 0:
            raise ConfigError(f"the ridge is {self.ridge}; it must be above 0")

    @property
    def share(self) -> float:
        """What is to be removed of the budget's cost."""
        return self.budget.shares[0]


@dataclass(frozen=True, kw_only=True)
class OneShotAccuracies:
    """Accuracy on the validation split: of the dense model, of the masked one, and of that after the repair."""

    dense: float
    selected: float
    repaired: float


def prune(
    folder: Path, output: Path, config: OneShotConfig, clock_s: Callable[[], float] = time.monotonic
) -> OneShotAccuracies:
    """Write the sparse checkpoint `output`, replacing one that is there; when anything fails nothing is written.

    Raises CheckpointError for a `folder` that is no dense checkpoint, BudgetError for a sparsity that cannot be met,
    ConfigError when `output` is something else or cannot be written.
    """
    started_s = clock_s()
    if output.resolve() == folder.resolve():
        raise ConfigError(f"--output {output} is the dense checkpoint itself; choose another folder")
    check_replaceable(output, marker=RUN_FILE, kind="checkpoint")  # told now, not after minutes
    check_writable(output)
    opened = open_dense(folder)
    geometry = geometry_of(opened.model)
    cost = config.budget.cost_model(opened.checkpoint.run.max_length, geometry)
    check_share(geometry, config.share, config.rules, cost)
    examples = _training_texts(opened, config)
    validation = opened.encode(opened.checkpoint.examples)
    dense_NC = _dense_logits(folder, opened, validation)
    masks = select_units(_scores(opened, examples), geometry, config.share, config.rules, cost)
    selected_NC = opened.logits(opened.model, masks, validation, "selection")
    model, repairs = _repair(opened, masks, examples, config)
    logits_NC = opened.logits(model, masks, validation, "repair")
    _warn_of_one_answer(opened.checkpoint, dense_NC, logits_NC)
    accuracies = OneShotAccuracies(
        dense=accuracy(dense_NC, validation),
        selected=accuracy(selected_NC, validation),
        repaired=accuracy(logits_NC, validation),
    )
    with_f1 = find_task(opened.checkpoint.run.task.name).f1
    metrics = judge(logits_NC, opened.checkpoint.examples, with_f1=with_f1, dense_logits_NC=dense_NC)
    made = _describe(config, len(examples), accuracies, repairs)
    record = _record(opened.checkpoint, masks, config, made, metrics, clock_s() - started_s)
    if record.missed_budget:
        logger.warning("%s", record.missed_budget)
    _save(output, opened.checkpoint, model, masks, record, Answers(asked=validation, logits_NC=logits_NC))
    return accuracies


def _dense_logits(folder: Path, opened: OpenedCheckpoint, validation: Sequence[EncodedExample]) -> Tensor:
    """[N, C], those that lie beside the model where it has given them already."""
    try:
        known_NC = known_predictions(folder, {VALIDATION: validation}).get(VALIDATION)
    except CheckpointError as error:
        logger.warning("%s; the dense model is asked again", error)
        known_NC = None
    if known_NC is None:
        return opened.logits(opened.model, opened.checkpoint.masks, validation, "dense")
    logger.info("dense: the answers to these texts are known, %s has them", folder / PREDICTIONS_FILE)
    return known_NC


def _warn_of_one_answer(dense: MaskedCheckpoint, dense_NC: Tensor, logits_NC: Tensor) -> None:
    examples, labels = dense.examples, dense.run.labels
    if told := one_answer(dense_NC, examples, labels):
        logger.warning("the dense model %s: it has learned nothing that pruning could keep. Train it again", told)
    elif told := one_answer(logits_NC, examples, labels):
        logger.warning("the pruned model %s: it has lost what was learned. Remove less, or prune while training", told)


def _training_texts(opened: OpenedCheckpoint, config: OneShotConfig) -> list[EncodedExample]:
    held = opened.checkpoint.calibration
    if len(held) < config.num_examples:
        logger.info(
            "the checkpoint holds %d training texts, fewer than %d: all are used", len(held), config.num_examples
        )
    return opened.encode(draw(held, config.num_examples, config.seed))


def _scores(opened: OpenedCheckpoint, examples: Sequence[EncodedExample]) -> UnitScores:
    with tqdm(total=len(examples), desc="scoring", unit="text", disable=None) as bar:
        return gate_fisher(opened.model, examples, opened.pad_id, on_batch=bar.update)


def _repair(
    opened: OpenedCheckpoint, masks: MaskSet, examples: Sequence[EncodedExample], config: OneShotConfig
) -> tuple[SparseBertForSequenceClassification, tuple[BlockRepair, ...]]:
    with tqdm(total=2 * masks.num_layers, desc="repairing", unit="block", disable=None) as bar:
        return repaired(opened.model, masks, examples, opened.pad_id, ridge=config.ridge, on_block=bar.update)


def _describe(
    config: OneShotConfig, num_examples: int, accuracies: OneShotAccuracies, repairs: Sequence[BlockRepair]
) -> dict[str, object]:
    """How the checkpoint was made, for its `run.json`."""
    return {
        "made_by": "sparsebert prune",
        **json.loads(json.dumps(asdict(config), default=str)),
        "num_examples": num_examples,
        "accuracies": asdict(accuracies),
        "repairs": [asdict(repair) for repair in repairs],
    }


def _record(
    dense: MaskedCheckpoint,
    masks: MaskSet,
    config: OneShotConfig,
    made: dict[str, object],
    metrics: Metrics,
    duration_s: float,
) -> RunRecord:
    geometry = geometry_of(dense.model)
    removed = masked_geometry(geometry, masks).encoder_sparsity(geometry)
    cost = config.budget.cost_model(dense.run.max_length, geometry)
    removed_share = 1.0 - cost.cost(masked_geometry(geometry, masks)) / cost.cost(geometry)
    return RunRecord(
        **dense.run.model_dump(
            include={
                "model",
                "task",
                "labels",
                "data",
                "num_train",
                "num_validation",
                "max_length",
                "truncated_texts",
            }
        ),
        stage="sparse",
        seed=config.seed,
        config=made | {"dense": dense.run.config},
        dense_geometry=geometry,
        encoder_sparsity=removed,
        removed_share=removed_share,
        missed_budget=missed_budget(removed_share, config.share),
        accuracy=metrics.accuracy,
        metrics={VALIDATION: metrics},
        duration_s=round(duration_s, 3),
        evaluations=(),  # of optimiser steps, and there was none
        events=(_event(geometry, dense.masks, masks, config),),
        versions={"python": platform.python_version()} | {n: importlib.metadata.version(n) for n in VERSIONED},
    )


def _event(geometry: Geometry, old: MaskSet, new: MaskSet, config: OneShotConfig) -> PruningEvent:
    reached = masked_geometry(geometry, new).encoder_sparsity(geometry)
    return mask_change(old, new, step=0, target=config.share, reached=reached)


def _save(
    output: Path,
    dense: MaskedCheckpoint,
    model: SparseBertForSequenceClassification,
    masks: MaskSet,
    record: RunRecord,
    answers: Answers,
) -> None:
    save_checkpoint(
        output,
        MaskedCheckpoint(
            model=model.to("cpu"),
            tokenizer=dense.tokenizer,
            masks=masks,
            run=record,
            examples=dense.examples,
            calibration=dense.calibration,
        ),
        {VALIDATION: answers},
    )
