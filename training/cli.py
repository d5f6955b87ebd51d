"""`sparsebert train`: the command line's words become a configuration, and the run is started.

Knows nothing about how training works.
"""

import argparse
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from training.config import TrainConfig
from training.data import DataConfig
from training.recipes import RECIPES
from training.tasks import TASKS
from training.terminal import tidy_terminal

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> None:
    """Run `sparsebert train` with the words after it."""
    options = build_parser().parse_args(arguments)
    config = build_config(options)

    from training.run import run_training

    with tidy_terminal():
        result = run_training(config, options.output)
    for name, folder in result.checkpoints.items():
        logger.info("%s: accuracy %.2f%% -> %s", name, 100 * result.accuracies[name], folder)
    logger.info("next: sparsebert export %s --output models/NAME/VARIANT", list(result.checkpoints.values())[-1])


def build_parser() -> argparse.ArgumentParser:
    """The flags of `sparsebert train`; a flag that is not given leaves the recipe's value."""
    parser = argparse.ArgumentParser(
        prog="sparsebert train",
        description="Fine-tune a BERT-family classifier, then prune its heads and FFN neurons while it learns from "
        "its dense self. Writes OUTPUT/dense and OUTPUT/sparse. A killed run goes on when started again.",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the checkpoints, for example runs/demo")
    parser.add_argument("--recipe", choices=RECIPES, default="standard", help="named settings (default: standard)")
    parser.add_argument(
        "--model",
        help="folder or hub name of a BERT, RoBERTa, DistilBERT or ELECTRA; 'minilm' is the embedded MiniLM (default)",
    )
    parser.add_argument("--task", choices=TASKS, help="default: movie-reviews, or custom when --data-dir is given")
    parser.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="folder with train and validation files (parquet, csv, tsv, jsonl), or one file",
    )
    parser.add_argument("--text-column", action="append", metavar="NAME", help="column of the text; twice for pairs")
    parser.add_argument("--label-column", metavar="NAME", help="column of the label")
    parser.add_argument(
        "--sparsity", type=float, metavar="S", help="share of encoder parameters to remove; 0 stops after dense"
    )
    parser.add_argument(
        "--epochs", type=int, metavar="N", help="epochs of dense fine-tuning; 0 takes the model as it is"
    )
    parser.add_argument("--prune-epochs", type=int, metavar="N", help="epochs of pruning and recovery")
    parser.add_argument("--batch-size", type=int, metavar="N", help="texts in a batch, in both stages")
    parser.add_argument("--learning-rate", type=float, metavar="LR", help="peak learning rate, in both stages")
    parser.add_argument("--max-length", type=int, metavar="TOKENS", help="longer texts are cut")
    parser.add_argument("--seed", type=int, metavar="N", help="same seed, same machine, same numbers")
    return parser


def build_config(options: argparse.Namespace) -> TrainConfig:
    """The recipe with the given flags in it. Raises ConfigError for a value out of range."""
    recipe = RECIPES[options.recipe]()
    loop = _given(batch_size=options.batch_size, learning_rate=options.learning_rate)
    schedule = replace(recipe.pruning.schedule, **_given(final_sparsity=options.sparsity))
    texts = None if options.text_column is None else tuple(options.text_column)
    return replace(
        recipe,
        data=DataConfig(
            task=options.task, data_dir=options.data_dir, text_columns=texts, label_column=options.label_column
        ),
        dense=replace(recipe.dense, **loop, **_given(epochs=options.epochs)),
        sparse=replace(recipe.sparse, **loop, **_given(epochs=options.prune_epochs)),
        pruning=replace(recipe.pruning, schedule=schedule),
        **_given(model=options.model, max_length=options.max_length, seed=options.seed),
    )


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
