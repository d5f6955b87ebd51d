"""Which stages a run has: dense, then every target from small to large, or a search for the largest that will do.

Knows nothing about how a stage works or about the command line.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from sparsebert.checkpoint import RunRecord, read_run
from sparsebert.files import write_whole
from training.config import SearchConfig, TrainConfig
from training.faults import memory_errors
from training.search import SEARCH_FILE, SearchRecord, Trial, next_share, pooled_difference
from training.stages import Stages

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """Where the checkpoints are and what they scored on the validation split, in the order of their making.

    `best` is what a search for the largest sparsity found.
    """

    checkpoints: dict[str, Path]
    accuracies: dict[str, float]
    best: str | None = None


def run_training(config: TrainConfig, output: Path) -> RunResult:
    """Do the run, writing `output/dense` and, when it prunes, a folder for each target."""
    with memory_errors():
        checkpoints, best = _run(Stages(config, output), config)
    accuracies = {name: read_run(folder).accuracy for name, folder in checkpoints.items()}
    return RunResult(checkpoints=checkpoints, accuracies=accuracies, best=best)


def _run(stages: Stages, config: TrainConfig) -> tuple[dict[str, Path], str | None]:
    stages.check_folders()
    checkpoints = {"dense": stages.dense()}
    best = None
    if config.search is not None:
        best = _search(stages, config, config.search, checkpoints)
    else:
        _walk(stages, config, checkpoints)
    stages.finish()
    return checkpoints, best


def _walk(stages: Stages, config: TrainConfig, checkpoints: dict[str, Path]) -> None:
    """One target after the other, each starting where the last one ended."""
    start, initial = checkpoints["dense"], 0.0
    for share in config.budget.shares:
        name = config.target_name(share)
        start = checkpoints[name] = stages.sparse(name, start, initial, share)
        initial = share


def _search(stages: Stages, config: TrainConfig, search: SearchConfig, checkpoints: dict[str, Path]) -> str | None:
    """Walk the targets until one loses too much, then halve the gap between the last that passed and that one."""
    start, initial, best = checkpoints["dense"], 0.0, None
    trials: list[Trial] = []
    while (share := next_share(trials, config.budget.shares, search)) is not None:
        name = config.target_name(share)
        folder = checkpoints[name] = stages.sparse(name, start, initial, share)
        record = read_run(folder)
        trial = Trial(share, *(100 * value for value in pooled_difference(record)))
        trials.append(trial)
        logger.info("%s: %s", name, _told(trial, search, record))
        if trial.passes(search):
            start, initial, best = folder, share, name
    shop, found = stages.shop, SearchRecord.of(trials, search, best)
    if shop.accelerator.is_main_process:
        write_whole(shop.output / SEARCH_FILE, found.model_dump_json(indent=2) + "\n")
    logger.info("largest sparsity within %.2f points: %s", search.max_drop, best or "none of those tried")
    if all(trial.passes(search) for trial in trials):
        logger.info("all targets passed: a %s may pass too", config.budget.more_than(trials[-1].share))
    return best


def _told(trial: Trial, search: SearchConfig, record: RunRecord) -> str:
    count = sum(metrics.num_examples for metrics in record.metrics.values())
    verdict = "within" if trial.passes(search) else "more than"
    sure = "" if trial.is_sure(search) else "; with so few texts this may be chance: --holdout gives more"
    return (
        f"{trial.difference:+.2f} points against dense on {count} texts (95% interval {trial.low:+.2f} to "
        f"{trial.high:+.2f}), {verdict} the tolerated loss of {search.max_drop:g}{sure}"
    )
