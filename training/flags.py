"""The flags of `sparsebert train`, and the configuration that they make of a recipe.

Knows nothing about how training works. A flag that is not given leaves the recipe's value.
"""

import argparse
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from sparsebert.errors import ConfigError
from sparsebert.manifest import Precision
from training.budget import BudgetConfig, LatencyChoice, share_of_speedup
from training.config import ArithmeticName, SearchConfig, TrainConfig
from training.criteria import IMPORTANCE_NAMES
from training.data import DataConfig
from training.ranges import check_epochs, check_learning_rate
from training.recipes import RECIPES
from training.regularization import DEFAULT_STRENGTH
from training.schedule import SHAPES
from training.selection import Scope, SelectionRules
from training.tasks import TASKS
from training.tracking import TRACKERS

DESCRIPTION = (
    "Fine-tune a BERT-family classifier, then prune its heads and FFN neurons while it learns from its dense self. "
    "Writes OUTPUT/dense and OUTPUT/sparse (with several targets OUTPUT/sparse-50, OUTPUT/sparse-67, ...). "
    "A killed run goes on when started again."
)

SEARCHED = (0.5, 0.67, 0.8, 0.9)  # by --max-drop


def build_parser() -> argparse.ArgumentParser:
    """The parser; its groups are those of the help."""
    parser = argparse.ArgumentParser(prog="sparsebert train", description=DESCRIPTION)
    add_output(parser)
    add_data(parser.add_argument_group("model and data"))
    budget = parser.add_argument_group("how much to prune")
    add_budget(budget)
    budget.add_argument(
        "--max-drop", type=number, metavar="POINTS",
        help="find the largest sparsity that loses no more accuracy: walk the targets of --sparsity "
        "(default: 0.5,0.67,0.8,0.9), then halve gaps; the verdicts are in OUTPUT/search.json",
    )  # fmt: skip
    _add_pruning(parser.add_argument_group("how to prune"))
    training = parser.add_argument_group("how to train")
    add_dense_training(training)
    _add_sparse_training(training)
    return parser


def no_flags() -> argparse.Namespace:
    """What is parsed when none of these flags is given, for a command that has some of them only."""
    return build_parser().parse_args(["--output", "."])


def add_output(parser: argparse.ArgumentParser) -> None:
    """Where results go, and which named settings they are made by."""
    parser.add_argument("--output", type=Path, required=True, help="folder for the checkpoints, for example runs/demo")
    parser.add_argument("--recipe", choices=RECIPES, default="standard", help="named settings (default: standard)")


def add_data(group: "argparse._ArgumentGroup") -> None:
    """What is trained on what."""
    group.add_argument(
        "--model",
        help="folder or hub name of a BERT, RoBERTa, DistilBERT or ELECTRA; 'minilm' is the embedded MiniLM (default)",
    )
    group.add_argument("--task", choices=TASKS, help="default: movie-reviews, or custom when --data-dir is given")
    group.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="folder with train and validation files (parquet, csv, tsv, jsonl), or one file",
    )
    group.add_argument("--text-column", action="append", metavar="NAME", help="column of the text; twice for pairs")
    group.add_argument("--label-column", metavar="NAME", help="column of the label")
    group.add_argument("--max-length", type=int, metavar="TOKENS", help="longer texts are cut, and counted")
    group.add_argument(
        "--holdout",
        type=int,
        metavar="N",
        help="training texts that no training sees and every checkpoint is judged on",
    )


def add_shares(group: "argparse._ArgumentGroup") -> None:
    """How much is removed."""
    group.add_argument(
        "--sparsity", type=numbers, metavar="S[,S...]",
        help="shares of the encoder to remove, one checkpoint each, as in 0.5,0.67; 0 stops after dense",
    )  # fmt: skip


def add_budget(group: "argparse._ArgumentGroup") -> None:
    """How much is to leave, in which currency, and what every layer keeps."""
    add_shares(group)
    group.add_argument("--budget", choices=("parameters", "macs"), help="what the shares count (default: parameters)")
    group.add_argument(
        "--target-speedup", type=numbers, metavar="X[,X...]",
        help="instead of --sparsity: how many times faster than dense, by --latency-table",
    )  # fmt: skip
    group.add_argument(
        "--latency-table", type=Path, metavar="FILE", help="made by 'sparsebert latency-table' on the target machine"
    )
    group.add_argument(
        "--latency-at",
        type=_latency_shape,
        metavar="PRECISION:BATCHxTOKENS",
        help="row of the table (default: int8:1x32)",
    )
    group.add_argument("--prune-scope", choices=get_args(Scope), help="one budget for all layers, or the same for each")
    group.add_argument(
        "--min-heads", type=int, metavar="N", help="heads that every layer keeps; 0: its attention may go"
    )
    group.add_argument("--min-neurons", type=int, metavar="N", help="neurons that every layer keeps; 0: its FFN may go")
    group.add_argument("--neuron-multiple", type=int, metavar="N", help="FFN sizes are multiples of N")


def _add_pruning(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--importance", choices=IMPORTANCE_NAMES, help="by what units are judged")
    group.add_argument("--schedule", choices=SHAPES, help="how the sparsity rises")
    group.add_argument("--warmup", type=number, metavar="SHARE", help="share of pruning before the sparsity rises")
    group.add_argument("--frozen", type=number, metavar="SHARE", help="share of pruning in which masks stand still")
    group.add_argument("--update-every", type=int, metavar="STEPS", help="steps between changes of the masks")
    group.add_argument("--score-decay", type=number, metavar="D", help="running average of scores: 0 none, near 1 long")
    group.add_argument(
        "--reactivation", action=argparse.BooleanOptionalAction, default=None, help="whether pruned units may come back"
    )
    group.add_argument(
        "--repair", action=argparse.BooleanOptionalAction, default=None,
        help="whether the weights that are left are solved anew when masks change in the last step (one-shot)",
    )  # fmt: skip
    group.add_argument("--regularizer", choices=DEFAULT_STRENGTH, help="what drives units to zero besides")
    group.add_argument("--regularizer-strength", type=number, metavar="W", help="its weight in the loss")
    group.add_argument("--temperature", type=number, metavar="T", help="of the dense teacher's answers, and of margins")
    group.add_argument(
        "--teacher-share", type=number, metavar="W", help="how much of the loss is the teacher's, 0 to 1"
    )
    group.add_argument(
        "--states-weight", type=number, metavar="W", help="weight of the teacher's hidden states; 0: none"
    )
    group.add_argument(
        "--teacher-cache", type=Path, metavar="DIR",
        help="keep the teacher's answers here for other runs (default: in OUTPUT, until the run ends)",
    )  # fmt: skip


def _add_sparse_training(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--prune-epochs", type=number, metavar="N", help="in which units leave, for each target")
    group.add_argument("--recovery-epochs", type=number, metavar="N", help="of the smaller model, for each target")
    group.add_argument("--prune-learning-rate", type=number, metavar="LR", help="peak rate of pruning and recovery")
    group.add_argument(
        "--freeze-layers", type=int, metavar="N",
        help="recovery leaves the embeddings and the first N layers as they are (faster)",
    )  # fmt: skip


def add_dense_training(group: "argparse._ArgumentGroup") -> None:
    """How the dense model is fine-tuned, in which arithmetic, and where the curves go."""
    group.add_argument("--epochs", type=number, metavar="N", help="of dense fine-tuning; 0 takes the model as it is")
    group.add_argument("--batch-size", type=int, metavar="N", help="texts in a batch, over all processes")
    group.add_argument("--accumulation", type=int, metavar="N", help="micro-batches that make a batch; saves memory")
    group.add_argument("--learning-rate", type=number, metavar="LR", help="peak learning rate of dense fine-tuning")
    group.add_argument("--dropout", type=number, metavar="P", help="in dense fine-tuning")
    group.add_argument(
        "--train-embeddings",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="or keep them as they are (faster)",
    )
    group.add_argument("--precision", choices=get_args(ArithmeticName), help="default: bf16 where it is native")
    group.add_argument("--track", choices=TRACKERS, help="where the curves go (default: tensorboard, OUTPUT/logs)")
    group.add_argument("--seed", type=int, metavar="N", help="same seed, same machine, same numbers")


def build_config(options: argparse.Namespace) -> TrainConfig:
    """The recipe with the given flags in it. Raises ConfigError for a value out of range."""
    recipe = RECIPES[options.recipe]()
    check_epochs(options.prune_epochs, "--prune-epochs")
    check_epochs(options.recovery_epochs, "--recovery-epochs")
    check_learning_rate(options.prune_learning_rate, "--prune-learning-rate")
    texts = None if options.text_column is None else tuple(options.text_column)
    shared = _given(
        batch_size=options.batch_size, accumulation=options.accumulation, train_embeddings=options.train_embeddings
    )
    pruned = shared | _given(learning_rate=options.prune_learning_rate)
    dense = shared | _given(learning_rate=options.learning_rate, dropout=options.dropout, epochs=options.epochs)
    return replace(
        recipe,
        data=DataConfig(
            task=options.task, data_dir=options.data_dir, text_columns=texts, label_column=options.label_column,
            **_given(holdout=options.holdout),
        ),
        dense=replace(recipe.dense, **dense),
        sparse=replace(recipe.sparse, **pruned, **_given(epochs=options.prune_epochs)),
        recovery=replace(
            recipe.recovery, **pruned, **_given(epochs=options.recovery_epochs, frozen_layers=options.freeze_layers)
        ),
        pruning=_pruning(recipe, options),
        budget=build_budget(recipe.budget, options),
        search=_search(options),
        distillation=replace(
            recipe.distillation,
            **_given(
                temperature=options.temperature,
                teacher_share=options.teacher_share,
                states_weight=options.states_weight,
            ),
        ),
        **_given(
            model=options.model, max_length=options.max_length, seed=options.seed, arithmetic=options.precision,
            track=options.track, teacher_cache=options.teacher_cache,
        ),
    )  # fmt: skip


def _pruning(recipe: TrainConfig, options: argparse.Namespace) -> Any:
    pruning = recipe.pruning
    return replace(
        pruning,
        ramp=replace(
            pruning.ramp,
            **_given(shape=options.schedule, warmup_share=options.warmup, frozen_share=options.frozen),
        ),
        rules=build_rules(pruning.rules, options),
        regularizer=replace(
            pruning.regularizer, **_given(name=options.regularizer, strength=options.regularizer_strength)
        ),
        **_given(
            importance=options.importance, reactivation=options.reactivation,
            repair=options.repair, update_every_steps=options.update_every,
            score_decay=options.score_decay,
        ),
    )  # fmt: skip


def build_rules(rules: SelectionRules, options: argparse.Namespace) -> SelectionRules:
    """`rules` with the given flags in them. Raises ConfigError for a value out of range."""
    floor = replace(rules.floor, **_given(heads=options.min_heads, neurons=options.min_neurons))
    return replace(rules, floor=floor, **_given(neuron_multiple=options.neuron_multiple, scope=options.prune_scope))


def build_budget(budget: BudgetConfig, options: argparse.Namespace) -> BudgetConfig:
    """`budget` with the given flags in it. Raises ConfigError for a value out of range or flags that exclude others."""
    if options.sparsity == (0.0,):  # whatever else is asked for
        return BudgetConfig()
    if options.target_speedup is not None:
        if options.sparsity is not None or options.budget is not None:
            raise ConfigError("give either --target-speedup or --sparsity, not both")
        if options.latency_table is None:
            raise ConfigError("--target-speedup needs --latency-table FILE, made with 'sparsebert latency-table'")
        choice = LatencyChoice(table=options.latency_table, **(options.latency_at or {}))
        shares = tuple(share_of_speedup(speedup) for speedup in options.target_speedup)
        return BudgetConfig(shares=shares, cost="latency", latency=choice)
    if options.latency_table is not None or options.latency_at is not None:
        raise ConfigError("--latency-table is used with --target-speedup only")
    shares = SEARCHED if options.sparsity is None and options.max_drop is not None else options.sparsity
    return replace(budget, **_given(shares=shares, cost=options.budget))


def _search(options: argparse.Namespace) -> SearchConfig | None:
    if options.max_drop is None or options.sparsity == (0.0,):
        return None
    return SearchConfig(max_drop=options.max_drop)


def number(word: str) -> float:
    """A flag's value: any number but infinity and NaN."""
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{word!r} is not a number")
    return value


def numbers(words: str) -> tuple[float, ...]:
    """A flag's value: numbers with commas between them."""
    try:
        return tuple(number(word) for word in words.split(","))
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{words!r} is not a number or a list of them, as in 0.5,0.67") from error


def _latency_shape(words: str) -> dict[str, Any]:
    precision, _, shape = words.partition(":")
    batch, _, tokens = shape.partition("x")
    if precision not in get_args(Precision) or not (batch.isdecimal() and tokens.isdecimal()):
        raise argparse.ArgumentTypeError(f"{words!r} is not of the form int8:8x32")
    return {"precision": precision, "batch": int(batch), "tokens": int(tokens)}


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
