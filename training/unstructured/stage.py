"""One baseline as a stage of a run: what it starts from, trained while single weights are held at 0, judged and saved.

Knows nothing about the command line.
"""

import hashlib
import logging
from pathlib import Path

import torch

from sparsebert.checkpoint import RunRecord, read_run
from sparsebert.errors import ConfigError
from sparsebert.masks import MaskSet
from training.checkpoint import load_checkpoint
from training.config import TrainConfig
from training.faults import memory_errors
from training.geometry import geometry_of
from training.judging import Trained, save_stage
from training.modeling import SparseBertForSequenceClassification
from training.stages import Stages, is_finished
from training.unstructured.methods import METHODS, MethodName
from training.unstructured.pruner import WeightPruner

logger = logging.getLogger(__name__)

FEW_CUTS = 3  # fewer are no ramp


def run_baseline(method: MethodName, config: TrainConfig, output: Path) -> dict[str, RunRecord]:
    """Do `method` for every share of the budget, each alone; `config.sparse` is its training. Returns what came out.

    The dense stage is that of `sparsebert train` and is used when it is there; it teaches the baselines too.
    Raises ConfigError with several processes.
    """
    with memory_errors():
        return _run(method, config, Stages(config, output))


def _run(method: MethodName, config: TrainConfig, stages: Stages) -> dict[str, RunRecord]:
    if stages.shop.accelerator.num_processes > 1:
        raise ConfigError("baselines run in one process; start 'sparsebert baseline' without 'accelerate launch'")
    output, names = stages.shop.output, {f"{method}-{100 * share:.4g}": share for share in config.budget.shares}
    for name, share in names.items():
        stages.check_stage(name, _fingerprint(stages, method, name, share))  # told now, not after the ones before it
    dense = stages.dense()
    records = {dense.name: read_run(dense)}
    for name, share in names.items():
        _train(stages, method, name, share)
        records[name] = read_run(output / name)
    stages.finish()
    return records


def _fingerprint(stages: Stages, method: MethodName, name: str, share: float) -> str:
    """Another after a change of what the method does."""
    words = f"{stages.shop.fingerprint(name)} {share:.6f} {method} {METHODS[method].rule}"
    return hashlib.sha256(words.encode()).hexdigest()


def _train(stages: Stages, method: MethodName, name: str, share: float) -> None:
    shop, folder, fingerprint = stages.shop, stages.shop.output / name, _fingerprint(stages, method, name, share)
    if is_finished(folder, fingerprint):
        return
    model = _start(stages, method)
    geometry = geometry_of(model)
    pruner = WeightPruner(model, METHODS[method], share)
    loop = stages.loop(name, model, stages.config.sparse, stages.distilled(), fingerprint, pruner)
    _warn_of_few_cuts(name, pruner, loop.num_steps)
    loop.run()
    pruner.settle()
    trained = Trained(
        masks=MaskSet.dense(geometry.num_layers, geometry.heads_L[0], geometry.neurons_L[0]),
        duration_s=loop.duration_s, cpu_s=loop.cpu_s, evaluations=loop.evaluations, losses=loop.losses,
        weight_sparsity=_zeros(model),
    )  # fmt: skip
    save_stage(shop, folder, model, trained, stage="baseline", fingerprint=fingerprint)
    shop.forget(name)


def _warn_of_few_cuts(name: str, pruner: WeightPruner, num_steps: int) -> None:
    cuts = pruner.cuts(num_steps)
    if 0 < len(cuts) < FEW_CUTS:
        logger.warning(
            "%s: %d steps are few, weights leave after step %s alone; give more --retrain-epochs",
            name, num_steps, " and ".join(map(str, cuts)),
        )  # fmt: skip


def _start(stages: Stages, method: MethodName) -> SparseBertForSequenceClassification:
    if METHODS[method].start == "backbone":
        return stages.backbone()
    return load_checkpoint(stages.dense()).model


def _zeros(model: SparseBertForSequenceClassification) -> float:
    """The share of the encoder's matrices that is 0, counted in what is saved."""
    matrices = [module.weight for module in model.bert.encoder.modules() if isinstance(module, torch.nn.Linear)]
    return sum(int((matrix == 0).sum()) for matrix in matrices) / sum(matrix.numel() for matrix in matrices)
