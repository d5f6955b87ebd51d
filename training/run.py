"""A whole run: load, fine-tune dense, prune while distilling, leave a masked checkpoint after each stage.

Knows nothing about the command line. A run that was killed goes on where it was when it is started again;
a stage that is finished is not repeated.
"""

import importlib.metadata
import logging
import platform
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from sparsebert.checkpoint import RunRecord, evenly_spaced, read_run
from sparsebert.errors import CheckpointError, ConfigError
from sparsebert.manifest import Task
from sparsebert.masks import MaskSet
from training.backbone import model_digest, resolve_backbone
from training.checkpoint import MaskedCheckpoint, load_checkpoint, save_checkpoint
from training.config import TrainConfig
from training.data import TextData, load_data
from training.distillation import DistillationObjective, LabelObjective, Objective
from training.encoding import encode, load_tokenizer
from training.evaluation import predict_logits
from training.geometry import geometry_of
from training.importance.gradient import GradientImportance
from training.loading import load_dense
from training.loop import EncodedSplits, LoopConfig, StageLoop
from training.masking import Gates
from training.modeling import SparseBertForSequenceClassification
from training.pruner import Pruner, masked_geometry
from training.selection import check_sparsity
from training.snapshot import SnapshotFile

logger = logging.getLogger(__name__)

Stage = Literal["dense", "sparse"]
WORK_FOLDER = ".work"
CALIBRATION_EXAMPLES = 2048  # what pruning without training wants; export takes a few of them
VERSIONED = ("torch", "transformers", "accelerate", "numpy")


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """Where the checkpoints are and what they scored on the validation split."""

    checkpoints: dict[str, Path]
    accuracies: dict[str, float]


def run_training(config: TrainConfig, output: Path) -> RunResult:
    """Do the run, writing `output/dense` and, when it prunes, `output/sparse`."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--output {output} cannot be written ({error.strerror}); choose another") from error
    run = _Run(config, output)
    checkpoints: dict[str, Path] = {"dense": run.dense()}
    if config.prunes:
        checkpoints["sparse"] = run.sparse()
    accuracies = {name: read_run(folder).accuracy for name, folder in checkpoints.items()}
    return RunResult(checkpoints=checkpoints, accuracies=accuracies)


def best_precision() -> Literal["bf16", "no"]:
    """bf16 where the processor multiplies it natively, else fp32."""
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if native else "no"


class _Run:
    """What both stages share, loaded when first needed."""

    def __init__(self, config: TrainConfig, output: Path) -> None:
        self._config = config
        self._output = output

    def dense(self) -> Path:
        """Fine-tune the backbone."""
        folder = self._output / "dense"
        if self._is_finished(folder, "dense"):
            return folder
        torch.manual_seed(self._config.seed)  # the classifier that a pretrained encoder lacks is drawn
        labels = dict(enumerate(self._data.labels))
        model = load_dense(
            resolve_backbone(self._config.model), id2label=labels, label2id={name: i for i, name in labels.items()}
        )
        if self._config.prunes:  # told now, not after hours of dense fine-tuning
            pruning = self._config.pruning
            check_sparsity(geometry_of(model), pruning.schedule.final_sparsity, pruning.floor)
        self._train("dense", model, self._config.dense, LabelObjective(), pruner=None)
        return folder

    def sparse(self) -> Path:
        """Prune the dense model while it learns from its dense self."""
        folder = self._output / "sparse"
        if self._is_finished(folder, "sparse"):
            return folder
        teacher = load_checkpoint(self._output / "dense")
        objective = DistillationObjective(self._teacher_logits(teacher), self._config.distillation)
        pruner = Pruner(Gates(teacher.masks), geometry_of(teacher.model), GradientImportance(), self._config.pruning)
        self._train("sparse", teacher.model, self._config.sparse, objective, pruner)
        self._teacher_logits_file().unlink()
        return folder

    def _train(
        self,
        stage: Stage,
        model: SparseBertForSequenceClassification,
        loop_config: LoopConfig,
        objective: Objective,
        pruner: Pruner | None,
    ) -> None:
        data = self._data
        dense = geometry_of(model)
        # An unfinished stage ends with the same numbers at the same precision only.
        unfinished = f"{self._fingerprint(stage)} {self._accelerator.mixed_precision}"
        snapshot = SnapshotFile(self._output / WORK_FOLDER / f"{stage}.pt", unfinished)
        loop = StageLoop(
            name=stage,
            model=model,
            data=self._splits,
            objective=objective,
            config=loop_config,
            accelerator=self._accelerator,
            snapshot=snapshot,
            snapshot_every_steps=self._config.snapshot_every_steps,
            seed=self._config.seed,
            pruner=pruner,
        )
        accuracy = loop.run()
        masks = pruner.gates.masks if pruner else MaskSet.dense(dense.num_layers, dense.heads_L[0], dense.neurons_L[0])
        record = RunRecord(
            stage=stage,
            model=self._config.model,
            task=Task(name=self._config.data.spec.name, pair=data.pair),
            labels=data.labels,
            data=data.source,
            num_train=len(data.train),
            num_validation=len(data.validation),
            max_length=self._config.max_length,
            seed=self._config.seed,
            config=self._config.as_json() | {"fingerprint": self._fingerprint(stage)},
            dense_geometry=dense,
            encoder_sparsity=masked_geometry(dense, masks).encoder_sparsity(dense),
            accuracy=accuracy,
            duration_s=round(loop.duration_s, 3),
            evaluations=tuple(loop.evaluations),
            events=tuple(pruner.events) if pruner else (),
            versions={"python": platform.python_version()} | {n: importlib.metadata.version(n) for n in VERSIONED},
        )
        unwrapped = self._accelerator.unwrap_model(model, keep_fp32_wrapper=False)
        save_checkpoint(
            self._output / stage,
            MaskedCheckpoint(
                model=unwrapped,
                tokenizer=self._tokenizer,
                masks=masks,
                run=record,
                examples=data.validation,
                calibration=evenly_spaced(data.train, CALIBRATION_EXAMPLES),
            ),
        )
        snapshot.delete()
        self._accelerator.free_memory()

    def _is_finished(self, folder: Path, stage: Stage) -> bool:
        """Whether this very stage is done. Raises ConfigError when the folder holds another run's."""
        if not folder.exists():
            return False
        record = read_run(folder)
        if record.config.get("fingerprint") != self._fingerprint(stage):
            raise ConfigError(f"{folder} holds a run with other settings or data; choose another --output or delete it")
        logger.info("%s: already there in %s, accuracy %.2f%%", stage, folder, 100 * record.accuracy)
        return True

    def _fingerprint(self, stage: Stage) -> str:
        return self._config.fingerprint(stage, self._data.digest, self._backbone_digest)

    def _teacher_logits(self, teacher: MaskedCheckpoint) -> Tensor:
        """Logits of the dense model on the training split, computed once and kept for a resumed run."""
        path = self._teacher_logits_file()
        if path.exists():
            try:
                return load_file(path)["logits_NC"]
            except (SafetensorError, KeyError) as error:
                raise CheckpointError(f"{path} cannot be read; delete it and run again") from error
        splits, accelerator = self._splits, self._accelerator
        teacher.model.to(accelerator.device)
        with tqdm(total=len(splits.train), desc="teacher", unit="text", disable=None) as bar, accelerator.autocast():
            logits_NC = predict_logits(teacher.model, splits.train, splits.pad_id, on_batch=bar.update)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"logits_NC": logits_NC}, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)
        return logits_NC

    def _teacher_logits_file(self) -> Path:
        teacher_id = self._fingerprint("dense")[:12]
        return self._output / WORK_FOLDER / f"teacher_logits-{teacher_id}.safetensors"

    @cached_property
    def _backbone_digest(self) -> str:
        return model_digest(resolve_backbone(self._config.model))

    @cached_property
    def _data(self) -> TextData:
        data = load_data(self._config.data)
        logger.info("%s: %d training and %d validation texts", data.source, len(data.train), len(data.validation))
        return data

    @cached_property
    def _splits(self) -> EncodedSplits:
        tokenizer, length = self._tokenizer, self._config.max_length
        return EncodedSplits(
            train=encode(self._data.train, tokenizer, length),
            validation=encode(self._data.validation, tokenizer, length),
            pad_id=tokenizer.pad_token_id,
        )

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(resolve_backbone(self._config.model), self._config.max_length)

    @cached_property
    def _accelerator(self) -> Accelerator:
        accelerator = Accelerator(mixed_precision=best_precision())
        logger.info("training on %s, precision %s", accelerator.device, accelerator.mixed_precision)
        return accelerator
