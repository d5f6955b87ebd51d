"""What a masked checkpoint holds besides weights: the run that made it and examples to judge and calibrate by.

A masked checkpoint is a Hugging Face folder with `masks.safetensors`, `run.json`, `examples.jsonl` (the
validation split), `calibration.jsonl` (some training texts: by all of them a model is pruned without training, by a
few of them export chooses the ranges of integers) and `predictions.safetensors` (what the model answers for every
split that it is judged on).
Knows nothing about PyTorch; `training.checkpoint` reads and writes the weights.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from sparsebert.errors import CheckpointError
from sparsebert.geometry import Geometry
from sparsebert.manifest import Task

MASKS_FILE = "masks.safetensors"
RUN_FILE = "run.json"
EXAMPLES_FILE = "examples.jsonl"
CALIBRATION_FILE = "calibration.jsonl"
PREDICTIONS_FILE = "predictions.safetensors"
CHECKPOINT_FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    MASKS_FILE,
    RUN_FILE,
    EXAMPLES_FILE,
    CALIBRATION_FILE,
)


T = TypeVar("T")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Example(_Record):
    """One labelled text or pair of texts; `label` indexes the run's labels."""

    text: str
    text_pair: str | None = None
    label: int


class EvaluationPoint(_Record):
    """Accuracy on the validation split after `step` optimiser steps, with the training loss since the last point."""

    step: int
    accuracy: float
    training_loss: float
    encoder_sparsity: float


class LossPoint(_Record):
    """The mean training loss over the steps since the point before (20, or since an evaluation), and the share removed.

    Both after `step` optimiser steps.
    """

    step: int
    training_loss: float
    encoder_sparsity: float


class Metrics(_Record):
    """What a checkpoint scored on one split, and how it compares with the dense model on the same texts.

    `difference` is the accuracy less the dense model's, [`difference_low`, `difference_high`] its paired 95% interval.
    """

    num_examples: int
    accuracy: float
    f1: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None


class PruningEvent(_Record):
    """One change of the masks: how many units left and came back, per layer."""

    step: int
    target_sparsity: float
    encoder_sparsity: float
    heads_left_L: tuple[int, ...]
    heads_returned_L: tuple[int, ...]
    neurons_left_L: tuple[int, ...]
    neurons_returned_L: tuple[int, ...]


class RunRecord(_Record):
    """How a masked checkpoint came to be, and what it scored.

    `accuracy` is that of the validation split in `metrics`, which has every split that was judged, in full precision.
    `removed_share` is counted as the budget was: parameters, multiply-accumulates or time. `evaluations` are those
    of training, in its own arithmetic, and `losses` what it was like between them. `weight_sparsity` is the share of
    the encoder's matrices that a baseline set to 0, weight by weight: it makes nothing smaller or faster.
    `cpu_s` is what steps and repair took of all CPU cores in the process that wrote this (evaluation and saving are in
    `duration_s` alone); None where it was not measured.
    `missed_budget` says why what is left is more than 1% off what was asked for; empty when it is not.
    """

    schema_version: Literal[2] = 2
    stage: Literal["dense", "sparse", "baseline"]
    model: str
    task: Task
    labels: tuple[str, ...]
    data: str
    num_train: int
    num_validation: int
    max_length: int
    seed: int
    config: dict[str, object]
    dense_geometry: Geometry
    encoder_sparsity: float
    accuracy: float
    duration_s: float
    cpu_s: float | None = None
    evaluations: tuple[EvaluationPoint, ...]
    losses: tuple[LossPoint, ...] = ()
    events: tuple[PruningEvent, ...]
    versions: dict[str, str]
    metrics: dict[str, Metrics]
    removed_share: float
    truncated_texts: int
    weight_sparsity: float = 0.0
    missed_budget: str = ""


def read_run(checkpoint: Path) -> RunRecord:
    """Read `run.json`. Raises CheckpointError when it is missing or malformed."""
    path = checkpoint / RUN_FILE
    try:
        return RunRecord.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CheckpointError(
            f"{checkpoint} is not a masked checkpoint ({RUN_FILE} cannot be read); give a folder that "
            "'sparsebert train' wrote, such as runs/demo/sparse"
        ) from error
    except ValidationError as error:
        raise CheckpointError(
            f"{path} is malformed, or of another version of SparseBERT ({error.errors()[0]['msg']}); "
            "train again with another --output, or delete its folder first"
        ) from error


def read_examples(
    checkpoint: Path, name: str = EXAMPLES_FILE, labels: Sequence[str] | None = None
) -> tuple[Example, ...]:
    """Read a file of examples: the validation split, or some of the training split (`CALIBRATION_FILE`).

    Raises CheckpointError when it is missing, malformed or empty, or has a label that is none of `labels`.
    """
    path = checkpoint / name
    try:
        # Lines of bytes: a text may hold U+2028 or U+0085, at which `str.splitlines` would break it.
        examples = tuple(Example.model_validate_json(line) for line in path.read_bytes().splitlines())
    except (OSError, ValidationError) as error:
        raise CheckpointError(f"{path} cannot be read as examples; train again or copy the whole folder") from error
    if not examples:
        raise CheckpointError(f"{path} has no example in it; copy the whole folder again, or train again")
    strange = [] if labels is None else [one.label for one in examples if not 0 <= one.label < len(labels)]
    if labels is not None and strange:
        raise CheckpointError(
            f"{path} has the label {strange[0]}, and {RUN_FILE} names {len(labels)} labels, counted from 0; copy the "
            "whole folder again, or train again"
        )
    return examples


def evenly_spaced(examples: Sequence[T], count: int) -> tuple[T, ...]:
    """`count` of the examples, evenly spaced and in their order, or all of them when there are no more."""
    if len(examples) <= count:
        return tuple(examples)
    return tuple(examples[step * len(examples) // count] for step in range(count))


def write_examples(checkpoint: Path, examples: Iterable[Example], name: str = EXAMPLES_FILE) -> None:
    """Write a file of examples, one a line."""
    text = "".join(example.model_dump_json() + "\n" for example in examples)
    (checkpoint / name).write_text(text, encoding="utf-8")
