"""`sparsebert baseline`: the command line's words become a configuration, and a baseline of the literature is run.

Knows nothing about how it works.
"""

import argparse
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sparsebert.checkpoint import RunRecord
from sparsebert.errors import ConfigError
from training.config import TrainConfig
from training.flags import add_data, add_dense_training, add_output, add_shares, build_config, no_flags, number
from training.ranges import check_epochs, check_learning_rate
from training.terminal import tidy_terminal
from training.unstructured.methods import METHODS

logger = logging.getLogger(__name__)

NO_SPEED = "ONNX Runtime multiplies by zeros as by any number: this makes nothing smaller or faster"
DESCRIPTION = (
    "Set single weights of the encoder to 0 as a method of the literature does: a ceiling for the accuracy of pruning, "
    f"to compare with 'sparsebert train'. {NO_SPEED}. Writes OUTPUT/dense, or takes it from 'sparsebert train' with "
    "the same flags, and OUTPUT/METHOD-67 for a sparsity of 0.67."
)


def main(arguments: Sequence[str]) -> None:
    """Run `sparsebert baseline` with the words after it."""
    options = build_parser().parse_args(arguments, namespace=no_flags())
    config = baseline_config(options)

    from training.unstructured.stage import run_baseline

    with tidy_terminal():
        records = run_baseline(options.method, config, options.output)
    for name, record in records.items():
        logger.info("%s: %s -> %s", name, _told(record), options.output / name)
    logger.info("%s", NO_SPEED)


def build_parser() -> argparse.ArgumentParser:
    """The flags of `sparsebert baseline`."""
    parser = argparse.ArgumentParser(
        prog="sparsebert baseline",
        description=DESCRIPTION,
        epilog=". ".join(f"{name}: {method.source}" for name, method in METHODS.items()),
    )
    parser.add_argument("method", choices=METHODS, help="how weights are chosen and when they leave")
    add_output(parser)
    add_data(parser.add_argument_group("model and data"))
    group = parser.add_argument_group("how much to prune and how to train on")
    add_shares(group)
    group.add_argument("--retrain-epochs", type=number, metavar="N", help="while pruning (default: that of --epochs)")
    group.add_argument(
        "--retrain-learning-rate", type=number, metavar="LR", help="peak rate (default: that of --learning-rate)"
    )
    add_dense_training(parser.add_argument_group("how to train the dense model"))
    return parser


def baseline_config(options: argparse.Namespace) -> TrainConfig:
    """A run whose pruning stage trains like its dense one, with the given flags. Raises ConfigError."""
    config = build_config(options)
    if METHODS[options.method].start == "backbone" and not config.dense.epochs:
        raise ConfigError(
            f"{options.method} starts from the pretrained model, and with --epochs 0 there is only the dense one; "
            "give --model the pretrained model and --epochs at least 1"
        )
    check_epochs(options.retrain_epochs, "--retrain-epochs")
    check_learning_rate(options.retrain_learning_rate, "--retrain-learning-rate")
    given: dict[str, Any] = {"epochs": options.retrain_epochs, "learning_rate": options.retrain_learning_rate}
    retraining = replace(config.dense, **{name: value for name, value in given.items() if value is not None})
    if not retraining.epochs:
        raise ConfigError("--retrain-epochs is 0; a baseline trains while weights are 0, give it some")
    return replace(config, sparse=retraining)


def _told(record: RunRecord) -> str:
    text = f"accuracy {100 * record.accuracy:.2f}%"
    for split, metrics in record.metrics.items():
        found = (metrics.difference, metrics.difference_low, metrics.difference_high)
        if None not in found:
            points, low, high = (100 * (value or 0.0) for value in found)
            text += f", {split} {points:+.2f} points (95% interval {low:+.2f} to {high:+.2f})"
    return f"{text}, {record.weight_sparsity:.1%} of the encoder's weights are 0"
