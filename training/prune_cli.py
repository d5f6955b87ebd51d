"""`sparsebert prune`: the command line's words become a configuration, and a checkpoint is pruned without training.

Knows nothing about how pruning works.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from sparsebert.errors import ConfigError
from training.budget import BudgetConfig
from training.faults import memory_errors
from training.flags import add_budget, build_budget, build_rules, no_flags
from training.oneshot import OneShotConfig, prune
from training.selection import SelectionRules
from training.terminal import tidy_terminal

logger = logging.getLogger(__name__)

DEFAULT_SPARSITY = 0.5


def main(arguments: Sequence[str]) -> None:
    """Run `sparsebert prune` with the words after it."""
    options = argparse.Namespace(**{**vars(no_flags()), **vars(build_parser().parse_args(arguments))})
    budget = build_budget(BudgetConfig(shares=(DEFAULT_SPARSITY,)), options)
    if len(budget.shares) != 1:
        raise ConfigError("'sparsebert prune' makes one checkpoint: give one --sparsity or --target-speedup above 0")
    config = OneShotConfig(
        budget=budget, num_examples=options.examples, seed=options.seed, rules=build_rules(SelectionRules(), options)
    )
    with tidy_terminal(), memory_errors("use fewer --examples"):
        accuracies = prune(options.checkpoint, options.output, config)
    logger.info(
        "accuracy: dense %.2f%%, after selection %.2f%%, after repair %.2f%% -> %s",
        100 * accuracies.dense, 100 * accuracies.selected, 100 * accuracies.repaired, options.output,
    )  # fmt: skip
    logger.info("next: sparsebert export %s --output models/NAME/VARIANT", options.output)


def build_parser() -> argparse.ArgumentParser:
    """The flags of `sparsebert prune`."""
    parser = argparse.ArgumentParser(
        prog="sparsebert prune",
        description="Prune a dense checkpoint without training, in minutes: score heads and FFN neurons by gate "
        "gradients, keep the best, and solve the remaining weights anew so that they make up for the others. Writes a "
        "checkpoint as 'sparsebert train' does, though not as accurate. The states of all examples are held in memory: "
        "about 8 bytes * hidden size for each of their tokens (2,048 texts of 128 tokens: 0.8 GB for MiniLM, 1.6 GB "
        "for BERT-base).",
    )
    parser.add_argument("checkpoint", type=Path, help="folder that 'sparsebert train' wrote, such as runs/demo/dense")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the sparse checkpoint")
    add_budget(parser.add_argument_group(f"how much to prune (default: --sparsity {DEFAULT_SPARSITY})"))
    parser.add_argument(
        "--examples",
        type=int,
        default=2048,
        metavar="N",
        help="how many of the checkpoint's training texts to use (default: 2048, all that it holds)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="which texts, where the checkpoint holds more (default: 0)"
    )
    return parser
