"""How a masked checkpoint is written and read: a Hugging Face folder with masks, run and examples.

Knows nothing about training. The readable half is `sparsebert.checkpoint`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from sparsebert.checkpoint import (
    CALIBRATION_FILE,
    MASKS_FILE,
    RUN_FILE,
    Example,
    RunRecord,
    read_examples,
    read_run,
    write_examples,
)
from sparsebert.errors import CheckpointError
from sparsebert.files import new_folder
from sparsebert.masks import MaskSet, load_masks, save_masks
from training.faults import disk_errors
from training.geometry import geometry_of
from training.modeling import SparseBertForSequenceClassification
from training.predictions import Answers, write_predictions

LONGEST_REASON = 200


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskedCheckpoint:
    """Everything that export needs; the model is dense and in evaluation mode, `masks` say what to cut.

    `examples` are the validation split, `calibration` some of the training split.
    """

    model: SparseBertForSequenceClassification
    tokenizer: PreTrainedTokenizerBase
    masks: MaskSet
    run: RunRecord
    examples: Sequence[Example]
    calibration: Sequence[Example]


def save_checkpoint(folder: Path, checkpoint: MaskedCheckpoint, predictions: Mapping[str, Answers]) -> None:
    """Write a checkpoint all or nothing, replacing one that is there.

    `predictions` are its answers on each split that it was judged on.
    """
    with disk_errors(folder), new_folder(folder, marker=RUN_FILE, kind="checkpoint") as part:
        checkpoint.model.save_pretrained(part)
        checkpoint.tokenizer.save_pretrained(part)
        save_masks(checkpoint.masks, part / MASKS_FILE)
        write_examples(part, checkpoint.examples)
        write_examples(part, checkpoint.calibration, CALIBRATION_FILE)
        write_predictions(part, predictions)
        (part / RUN_FILE).write_text(checkpoint.run.model_dump_json(indent=2) + "\n", encoding="utf-8")


def load_dense_checkpoint(folder: Path) -> MaskedCheckpoint:
    """Read a checkpoint in which nothing is pruned yet. Raises CheckpointError as `load_checkpoint`, or when it is."""
    checkpoint = load_checkpoint(folder)
    if not (checkpoint.masks.heads_LH.all() and checkpoint.masks.neurons_LF.all()):
        raise CheckpointError(
            f"{folder} is sparse already ({checkpoint.run.encoder_sparsity:.0%} of its encoder parameters removed); "
            "give the dense checkpoint that it came from, such as runs/demo/dense"
        )
    return checkpoint


@contextmanager
def _loading(folder: Path, part: str) -> Iterator[None]:
    """Raises CheckpointError where the block cannot read a part of the checkpoint."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # over damaged files Transformers raises whatever its code stumbles on
        reason = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")[:LONGEST_REASON]
        raise CheckpointError(
            f"{folder} cannot be loaded: its {part} is damaged or incomplete ({reason}); train again or copy the "
            "whole folder"
        ) from error


def load_checkpoint(folder: Path) -> MaskedCheckpoint:
    """Read a checkpoint. Raises CheckpointError when a part is missing, malformed or does not fit the others."""
    run = read_run(folder)  # first: it has the message for a folder that is no checkpoint at all
    masks = load_masks(folder / MASKS_FILE)
    with _loading(folder, "model"):
        model, loaded = SparseBertForSequenceClassification.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True
        )
        geometry = geometry_of(model)
    with _loading(folder, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    other_sizes = {name for name, *_ in loaded["mismatched_keys"]}
    strange = sorted({*loaded["missing_keys"], *loaded["unexpected_keys"], *other_sizes})
    if strange or geometry != run.dense_geometry:
        reason = f"weights such as {strange[0]} do not match" if strange else "its sizes are not those of its run.json"
        raise CheckpointError(f"{folder} holds another model than it was saved with ({reason}); copy the folder again")
    for name, array, sizes in (
        ("heads", masks.heads_LH, geometry.heads_L),
        ("neurons", masks.neurons_LF, geometry.neurons_L),
    ):
        if array.shape != (len(sizes), sizes[0]):
            raise CheckpointError(
                f"{folder} has masks for {array.shape} {name} but a model with {sizes}; copy the folder again"
            )
    return MaskedCheckpoint(
        model=model.eval(),
        tokenizer=tokenizer,
        masks=masks,
        run=run,
        examples=read_examples(folder, labels=run.labels),
        calibration=read_examples(folder, CALIBRATION_FILE, run.labels),
    )
