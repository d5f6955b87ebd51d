"""`sparsebert sensitivity`: the command line's words become a record in a file and a summary on the screen.

Knows nothing about how parts are removed.
"""

import argparse
import importlib.metadata
import logging
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from sparsebert.checkpoint import evenly_spaced
from sparsebert.errors import ConfigError
from sparsebert.files import check_file_writable, write_whole
from sparsebert.sensitivity import Sensitivity, render
from training.batching import EncodedExample
from training.faults import memory_errors
from training.fisher import gate_fisher
from training.flags import numbers
from training.geometry import geometry_of
from training.importance import UnitScores
from training.opening import OpenedCheckpoint, open_dense
from training.sensitivity import Measured, count_models, measure
from training.terminal import tidy_terminal

logger = logging.getLogger(__name__)

DEFAULT_SHARES = (0.25, 0.5, 0.75, 1.0)
VERSIONED = ("torch", "transformers", "numpy")


@dataclass(frozen=True, kw_only=True)
class SensitivityConfig:
    """On how many validation examples (None: all), and which shares of each FFN are removed."""

    num_examples: int | None = None
    shares: tuple[float, ...] = DEFAULT_SHARES

    def __post_init__(self) -> None:
        if self.num_examples is not None and self.num_examples < 1:
            raise ConfigError(f"--examples is {self.num_examples}; it must be at least 1")
        if not all(0 < share <= 1 for share in self.shares) or len({*self.shares}) < len(self.shares):
            raise ConfigError(f"--shares is {self.shares}; shares must be different, above 0 and at most 1")


def main(arguments: Sequence[str]) -> None:
    """Run `sparsebert sensitivity` with the words after it."""
    options = build_parser().parse_args(arguments)
    config = SensitivityConfig(num_examples=options.examples, shares=tuple(options.shares))
    check_file_writable(options.output, "--output")  # told now, not after minutes
    with tidy_terminal(), memory_errors("close other programs, or use a machine that has more"):
        record = run_sensitivity(options.checkpoint, config)
    sys.stdout.write(render(record))  # first: a disk that is full by now does not take it
    sys.stdout.flush()
    write_whole(options.output, record.model_dump_json(indent=1) + "\n")
    logger.info("-> %s", options.output)


def run_sensitivity(
    folder: Path, config: SensitivityConfig, clock_s: Callable[[], float] = time.monotonic
) -> Sensitivity:
    """Score the neurons on the checkpoint's training texts, then measure on its validation examples.

    Raises CheckpointError for a `folder` that is no dense checkpoint.
    """
    started_s = clock_s()
    opened = open_dense(folder)
    held = opened.checkpoint
    examples = evenly_spaced(held.examples, config.num_examples or len(held.examples))
    measured = _measure(opened, opened.encode(examples), config)
    return Sensitivity(
        model=held.run.model,
        task=held.run.task,
        data=held.run.data,
        num_examples=len(examples),
        num_scored=len(held.calibration),
        geometry=geometry_of(opened.model),
        dense=measured.dense,
        layers=measured.layers,
        duration_s=round(clock_s() - started_s, 3),
        versions={"python": platform.python_version()} | {n: importlib.metadata.version(n) for n in VERSIONED},
    )


def _measure(opened: OpenedCheckpoint, examples: Sequence[EncodedExample], config: SensitivityConfig) -> Measured:
    scores = _scores(opened)
    num_layers, num_heads = scores.heads_LH.shape
    num_models = count_models(num_layers, num_heads, config.shares)
    with tqdm(total=num_models * len(examples), desc=f"{num_models} models", unit="text", disable=None) as bar:
        return measure(opened.model, examples, opened.pad_id, scores, config.shares, bar.update)


def _scores(opened: OpenedCheckpoint) -> UnitScores:
    examples = opened.encode(opened.checkpoint.calibration)
    with tqdm(total=len(examples), desc="scoring", unit="text", disable=None) as bar:
        return gate_fisher(opened.model, examples, opened.pad_id, on_batch=bar.update)


def build_parser() -> argparse.ArgumentParser:
    """The flags of `sparsebert sensitivity`."""
    parser = argparse.ArgumentParser(
        prog="sparsebert sensitivity",
        description="Measure what each head, each share of each layer's FFN and each whole block costs when it alone "
        "is removed from a dense model: loss and accuracy on the checkpoint's validation examples. An FFN loses the "
        "neurons first that matter least by their gate gradients on the checkpoint's training texts. For 6 layers of "
        "12 heads, 103 models, it takes about as long as 45 evaluations of the dense one. Memory: the model, and the "
        "states of one batch of 64 texts.",
    )
    parser.add_argument("checkpoint", type=Path, help="folder that 'sparsebert train' wrote, such as runs/demo/dense")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the record, as JSON")
    parser.add_argument(
        "--examples", type=int, metavar="N", help="validation examples to measure on, evenly spaced (default: all)"
    )
    parser.add_argument(
        "--shares",
        type=numbers,
        default=DEFAULT_SHARES,
        metavar="S,S,...",
        help="shares of each FFN's neurons to remove (default: 0.25,0.5,0.75,1.0)",
    )
    return parser
