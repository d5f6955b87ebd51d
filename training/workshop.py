"""What all stages of one run share: data, tokens, devices, snapshots; loaded when it is first needed.

Knows nothing about what a stage does.
"""

import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from sparsebert.checkpoint import RUN_FILE, Example, read_run
from sparsebert.errors import ConfigError
from sparsebert.files import check_writable
from training.backbone import model_digest, resolve_backbone
from training.batching import EncodedExample, EncodedSplits
from training.config import TrainConfig
from training.data import HOLDOUT, TextData, load_data
from training.encoding import EncodedSplit, encode, load_tokenizer
from training.masking import Reduce, unchanged
from training.modeling import SparseBertForSequenceClassification
from training.precision import make_accelerator
from training.snapshot import SnapshotFile
from training.teacher import CACHE_PREFIX, cache_name
from training.tracking import Track, start_tracking

logger = logging.getLogger(__name__)

WORK_FOLDER = ".work"
VALIDATION = "validation"


class Workshop:
    """One run's configuration, folder and tools. Makes the folders; raises ConfigError when it cannot."""

    def __init__(self, config: TrainConfig, output: Path) -> None:
        if config.teacher_cache is not None:
            _make_folder("--teacher-cache", config.teacher_cache, f"{CACHE_PREFIX}answers")
        _make_folder("--output", output, f"{WORK_FOLDER}/snapshot")
        self.config = config
        self.output = output

    @cached_property
    def data(self) -> TextData:
        """All texts and labels."""
        data = load_data(self.config.data)
        logger.info("%s: %d training and %d validation texts", data.source, len(data.train), len(data.validation))
        self._compare_holdout(data)
        return data

    def _compare_holdout(self, data: TextData) -> None:
        """Tell when the model to start from was trained on texts of the holdout."""
        folder = Path(resolve_backbone(self.config.model))
        if HOLDOUT not in data.others or not (folder / RUN_FILE).is_file():
            return
        theirs = read_run(folder).config.get("data")
        kept = theirs.get("holdout", 0) if isinstance(theirs, dict) else 0
        if kept < self.config.data.holdout:
            logger.warning(
                "%s was trained with --holdout %d, so it has seen texts of this one (%d): what it scores there says "
                "nothing about new texts; train it again with --holdout %d",
                folder, kept, self.config.data.holdout, self.config.data.holdout,
            )  # fmt: skip

    @cached_property
    def judged(self) -> dict[str, tuple[Example, ...]]:
        """The splits on which every checkpoint is judged."""
        return {VALIDATION: self.data.validation, **self.data.others}

    @cached_property
    def splits(self) -> EncodedSplits:
        """Token ids of what is trained on and looked at while training."""
        train, validation = self._encode(self.data.train), self._encode(self.data.validation)
        self._others = {name: self._encode(split) for name, split in self.data.others.items()}
        self.truncated_texts = sum(split.truncated for split in (train, validation, *self._others.values()))
        if self.truncated_texts:
            logger.warning(
                "%d texts have more than %d tokens and were cut; --max-length takes longer ones",
                self.truncated_texts, self.config.max_length,
            )  # fmt: skip
        return EncodedSplits(train=train.examples, validation=validation.examples, pad_id=self.tokenizer.pad_token_id)

    @cached_property
    def judged_tokens(self) -> dict[str, list[EncodedExample]]:
        """Token ids of `judged`."""
        validation = list(self.splits.validation)
        return {VALIDATION: validation, **{name: split.examples for name, split in self._others.items()}}

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(resolve_backbone(self.config.model), self.config.max_length)

    @cached_property
    def accelerator(self) -> Accelerator:
        return make_accelerator(self.config, self.output)

    @cached_property
    def track(self) -> Track:
        return start_tracking(self.accelerator, self.config.track, self.config.as_json())

    @property
    def reduce(self) -> Reduce:
        """The mean of a tensor over all processes."""
        return unchanged if self.accelerator.num_processes == 1 else self._mean_over_processes

    def _mean_over_processes(self, tensor: Tensor) -> Tensor:
        mean: Tensor = self.accelerator.reduce(tensor.to(self.accelerator.device), "mean")
        return mean.to(tensor.device)

    def unwrapped(self, model: SparseBertForSequenceClassification) -> SparseBertForSequenceClassification:
        """The model as it was before accelerate prepared it, on the CPU."""
        plain: SparseBertForSequenceClassification = self.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
        plain.to("cpu")
        return plain

    def fingerprint(self, stage: str) -> str:
        """Equal for two runs whose numbers of `stage` must be equal."""
        return self.config.fingerprint(stage, self.data.digest, self._backbone_digest)

    @cached_property
    def _backbone_digest(self) -> str:
        return model_digest(resolve_backbone(self.config.model))

    @property
    def work(self) -> Path:
        """What only an unfinished run needs."""
        return self.output / WORK_FOLDER

    def snapshot(self, name: str, fingerprint: str) -> SnapshotFile:
        """Where an unfinished stage is kept; it ends with the same numbers at the same precision only."""
        unfinished = f"{fingerprint} {self.accelerator.mixed_precision}"
        return SnapshotFile(self._snapshot_path(name), unfinished, self.config.snapshot_every_s)

    def forget(self, *names: str) -> None:
        """Remove the snapshots of finished stages."""
        if self.accelerator.is_main_process:
            for name in names:
                self._snapshot_path(name).unlink(missing_ok=True)

    def teacher_file(self, dense: Path) -> Path:
        """Where the answers of the model in `dense` are kept: until this run ends, or for other runs too."""
        folder = self.config.teacher_cache or self.work
        arithmetic = str(self.accelerator.mixed_precision)
        return folder / cache_name(dense / "model.safetensors", self.data.digest, self.config.max_length, arithmetic)

    def close(self) -> None:
        """Remove what only an unfinished run needs, and end tracking."""
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            for path in self.work.glob(f"{CACHE_PREFIX}*"):
                path.unlink()
        self.accelerator.end_training()

    def _snapshot_path(self, name: str) -> Path:
        return self.work / f"{name}.pt"

    def _encode(self, examples: Sequence[Example]) -> EncodedSplit:
        return encode(examples, self.tokenizer, self.config.max_length)


def _make_folder(flag: str, folder: Path, file: str) -> None:
    """Make it where it is not, and see that it takes a file: one that is there may be another's."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{flag} {folder} cannot be written ({error.strerror}); choose another") from error
    check_writable(folder / file, flag)
