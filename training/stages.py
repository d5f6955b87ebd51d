"""One stage of a run after the other: fine-tune dense; prune to a target and recover. Each leaves a checkpoint.

Knows nothing about the command line or about which targets come in which order. A stage that was killed goes on where
it was when it is asked for again; a stage that is finished is not repeated.
"""

import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from sparsebert.checkpoint import PREDICTIONS_FILE, EvaluationPoint, LossPoint, RunRecord, evenly_spaced, read_run
from sparsebert.errors import ConfigError
from sparsebert.geometry import Geometry
from sparsebert.masks import MaskSet
from training.backbone import resolve_backbone
from training.budget import missed_budget
from training.checkpoint import MaskedCheckpoint, load_checkpoint
from training.compaction import compact, expand
from training.config import TrainConfig
from training.criteria import STANDING
from training.distillation import DistillationObjective, LabelObjective, MarginObjective, Objective
from training.geometry import geometry_of
from training.judging import CALIBRATION_EXAMPLES, Trained, cost_of, save_stage
from training.loading import load_dense
from training.loop import LoopConfig, StageLoop
from training.modeling import SparseBertForSequenceClassification
from training.predictions import known_predictions
from training.pruner import Pruner
from training.repair import repaired
from training.schedule import SparsityRamp
from training.selection import check_share
from training.sparsifier import Sparsifier, Unpruned
from training.teacher import answers_of_teacher
from training.workshop import Workshop

logger = logging.getLogger(__name__)

Point = TypeVar("Point", EvaluationPoint, LossPoint)
DENSE = "dense"


class Stages:
    """The stages of one run in one folder."""

    def __init__(self, config: TrainConfig, output: Path) -> None:
        self.config = config
        self.shop = Workshop(config, output)

    def check_folders(self) -> None:
        """Told now, not after hours: another run's checkpoint or unfinished work where a stage will have its own.

        Raises ConfigError or CheckpointError.
        """
        before, initial = self.shop.fingerprint(DENSE), 0.0
        self.check_stage(DENSE, before)
        for share in self.config.budget.shares:
            name = self.config.target_name(share)
            before = self._chained(name, before, initial, share)
            self.check_stage(name, before, _recovery(name))
            initial = share

    def check_stage(self, name: str, fingerprint: str, *later: str) -> None:
        """Raises ConfigError or CheckpointError when stage `name`, with the `later` loops of it, is another run's."""
        if check_folder(self.shop.output / name, fingerprint) is None:
            for loop in (name, *later):
                self.shop.snapshot(loop, fingerprint).check()

    def backbone(self) -> SparseBertForSequenceClassification:
        """What dense fine-tuning starts from; the classifier that a pretrained encoder lacks is drawn by the seed."""
        torch.manual_seed(self.config.seed)
        labels = dict(enumerate(self.shop.data.labels))
        return load_dense(
            resolve_backbone(self.config.model),
            whole=self.config.dense.epochs == 0,
            id2label=labels,
            label2id={name: i for i, name in labels.items()},
        )

    def dense(self) -> Path:
        """Fine-tune the backbone."""
        folder, fingerprint = self.shop.output / DENSE, self.shop.fingerprint(DENSE)
        if is_finished(folder, fingerprint):
            self._check_targets(read_run(folder).dense_geometry)
            return folder
        model = self.backbone()
        geometry = geometry_of(model)
        self._check_targets(geometry)  # told now, not after hours of dense fine-tuning
        loop = self.loop(DENSE, model, self.config.dense, LabelObjective(), fingerprint)
        loop.run()
        masks = MaskSet.dense(geometry.num_layers, geometry.heads_L[0], geometry.neurons_L[0])
        trained = Trained(
            masks=masks, duration_s=loop.duration_s, cpu_s=loop.cpu_s, evaluations=loop.evaluations, losses=loop.losses,
            known=self._known(),
        )  # fmt: skip
        save_stage(self.shop, folder, model, trained, stage="dense", fingerprint=fingerprint)
        self.shop.forget(DENSE)
        return folder

    def _known(self) -> dict[str, Tensor]:
        """What a model that is taken as it is has answered before."""
        if self.config.dense.epochs:
            return {}
        folder = Path(resolve_backbone(self.config.model))
        known = known_predictions(folder, self.shop.judged_tokens)
        for name in known:
            logger.info("%s: the answers to these texts are known, %s has them", name, folder / PREDICTIONS_FILE)
        return known

    def sparse(self, name: str, start: Path, initial: float, share: float) -> Path:
        """Prune what is in `start` from the share `initial` to `share`, recover it, and leave it in OUTPUT/`name`."""
        folder = self.shop.output / name
        fingerprint = self._chained(name, read_run(start).config["fingerprint"], initial, share)
        if is_finished(folder, fingerprint):
            return folder
        before, (judged, learned) = load_checkpoint(start), self._objectives()
        ramp = SparsityRamp(initial=initial, final=share, config=self.config.pruning.ramp)
        trained = self._prune(name, before, ramp, judged, fingerprint)
        trained = self._recover(name, before.model, trained, learned, fingerprint)
        save_stage(self.shop, folder, before.model, trained, stage="sparse", fingerprint=fingerprint)
        self.shop.forget(name, _recovery(name))
        return folder

    def finish(self) -> None:
        """Remove what only an unfinished run needs."""
        self.shop.close()

    def _chained(self, name: str, before: object, initial: float, share: float) -> str:
        """The fingerprint of a stage that starts from the one with the fingerprint `before`."""
        parts = (self.shop.fingerprint(name), before, f"{initial:.6f}", f"{share:.6f}")
        return hashlib.sha256(" ".join(map(str, parts)).encode()).hexdigest()

    def _objectives(self) -> tuple[Objective, Objective]:
        """By what units are judged, and what is learned in recovery; the teacher is asked only if anything learns."""
        if self.config.pruning.importance != STANDING:
            learned = self.distilled()
            return learned, learned
        margin = MarginObjective(self.config.distillation.temperature)
        return margin, self.distilled() if self.config.recovery.epochs else margin

    def distilled(self) -> DistillationObjective:
        """What a student learns: the labels and the answers of this run's dense model."""
        config, dense = self.config.distillation, self.shop.output / DENSE
        answers = answers_of_teacher(
            load_checkpoint(dense).model, self.shop.splits, self.shop.accelerator, self.shop.teacher_file(dense),
            self.shop.work, with_states=config.states_weight > 0,
        )  # fmt: skip
        return DistillationObjective(answers, config)

    def _prune(
        self, name: str, before: MaskedCheckpoint, ramp: SparsityRamp, objective: Objective, fingerprint: str
    ) -> Trained:
        dense = geometry_of(before.model)
        pruner = Pruner(
            before.model, before.masks, dense, self.config.pruning, ramp, cost_of(self.shop, dense),
            seed=self.config.seed, reduce=self.shop.reduce,
        )  # fmt: skip
        loop = self.loop(name, before.model, self.config.sparse, objective, fingerprint, pruner)
        loop.run()
        changed_last, began_s, began_cpu_s = pruner.masks_before(loop.num_steps), time.monotonic(), time.process_time()
        if self.config.pruning.repair and changed_last is not None:
            self._repair(before.model, changed_last, pruner.gates.masks)
        missed = missed_budget(pruner.removed_share, ramp.final, pruner.what_binds())
        if missed and not self.config.pruning.reactivation:
            missed += "; units that left could not return (--no-reactivation)"
        if missed:
            logger.warning("%s: %s", name, missed)
        return Trained(
            masks=pruner.gates.masks,
            duration_s=loop.duration_s + time.monotonic() - began_s,
            cpu_s=loop.cpu_s + time.process_time() - began_cpu_s,
            evaluations=loop.evaluations,
            losses=loop.losses,
            events=pruner.events,
            missed_budget=missed,
        )

    def _repair(self, model: SparseBertForSequenceClassification, before: MaskSet, masks: MaskSet) -> None:
        """Let what is left say what was said before the masks changed last."""
        splits = self.shop.splits
        plain = self.shop.unwrapped(model)
        plain.to(self.shop.accelerator.device).eval()  # what it says, without the noise of dropout
        texts = evenly_spaced(splits.train, CALIBRATION_EXAMPLES)
        hidden = None if self.shop.accelerator.is_main_process else True
        with tqdm(total=2 * masks.num_layers, desc="repairing", unit="block", disable=hidden) as bar:
            new, _ = repaired(plain, masks, texts, splits.pad_id, before=before, on_block=bar.update)
        plain.load_state_dict(new.state_dict())

    def _recover(
        self,
        name: str,
        model: SparseBertForSequenceClassification,
        pruned: Trained,
        objective: Objective,
        fingerprint: str,
    ) -> Trained:
        """Fine-tune the smaller model, then write its weights back into the masked one."""
        if not self.config.recovery.epochs:
            return pruned
        plain = self.shop.unwrapped(model)
        small = compact(plain, pruned.masks)
        removed = geometry_of(small).encoder_sparsity(geometry_of(plain))
        loop = self.loop(_recovery(name), small, self.config.recovery, objective, fingerprint, Unpruned(small, removed))
        loop.run()
        expand(self.shop.unwrapped(small), pruned.masks, plain)
        offset = pruned.evaluations[-1].step
        return replace(
            pruned,
            duration_s=pruned.duration_s + loop.duration_s,
            cpu_s=pruned.cpu_s + loop.cpu_s,
            evaluations=[*pruned.evaluations, *_later(loop.evaluations, offset)],
            losses=[*pruned.losses, *_later(loop.losses, offset)],
        )

    def loop(
        self,
        name: str,
        model: SparseBertForSequenceClassification,
        config: LoopConfig,
        objective: Objective,
        fingerprint: str,
        pruner: Sparsifier | None = None,
    ) -> StageLoop:
        """The training of stage `name`, which can be killed and goes on."""
        return StageLoop(
            name=name,
            model=model,
            data=self.shop.splits,
            objective=objective,
            config=config,
            accelerator=self.shop.accelerator,
            snapshot=self.shop.snapshot(name, fingerprint),
            seed=self.config.seed,
            pruner=pruner,
            track=self.shop.track,
        )

    def _check_targets(self, dense: Geometry) -> None:
        if self.config.prunes and self.config.recovery.frozen_layers >= dense.num_layers:
            raise ConfigError(
                f"--freeze-layers {self.config.recovery.frozen_layers} leaves none of the model's {dense.num_layers} "
                "layers to recover; give less"
            )
        for share in self.config.budget.shares:
            check_share(dense, share, self.config.pruning.rules, cost_of(self.shop, dense))


def _later(points: Sequence[Point], offset: int) -> list[Point]:
    return [point.model_copy(update={"step": point.step + offset}) for point in points]


def is_finished(folder: Path, fingerprint: str) -> bool:
    """Whether this very stage is done. Raises ConfigError when the folder holds another run's."""
    record = check_folder(folder, fingerprint)
    if record is None:
        return False
    logger.info("%s: already there in %s, accuracy %.2f%%", folder.name, folder, 100 * record.accuracy)
    return True


def check_folder(folder: Path, fingerprint: str) -> RunRecord | None:
    """What is there of this very stage, None when nothing is. Raises ConfigError when it is another run's."""
    if not folder.exists():
        return None
    record = read_run(folder)
    if record.config.get("fingerprint") != fingerprint:
        raise ConfigError(
            f"{folder} holds a run with other settings or data, or of an earlier version of SparseBERT; "
            "choose another --output or delete it"
        )
    return record


def _recovery(name: str) -> str:
    return f"{name}-recovery"
