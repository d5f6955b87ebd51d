"""What did a checkpoint answer on every judged split, and would it answer the same now?

Each split's answers are signed with what they follow from: the model's files and the tokens that it was asked.
Knows nothing about how answers are made. N texts, C classes.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from sparsebert.checkpoint import MASKS_FILE, PREDICTIONS_FILE
from sparsebert.errors import CheckpointError
from training.batching import EncodedExample

MODEL_FILES = ("config.json", "model.safetensors", MASKS_FILE)


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """What was asked, and the logits [N, C] that came, in its order."""

    asked: Sequence[EncodedExample]
    logits_NC: Tensor


def write_predictions(folder: Path, splits: Mapping[str, Answers]) -> None:
    """Write the answers of the model that is in `folder` already."""
    model = _model_digest(folder)
    logits = {name: answers.logits_NC.contiguous() for name, answers in splits.items()}
    signatures = {name: _signature(model, answers.asked) for name, answers in splits.items()}
    save_file(logits, folder / PREDICTIONS_FILE, metadata=signatures)


def read_predictions(folder: Path) -> dict[str, Tensor]:
    """The logits [N, C] of a checkpoint for each split that it was judged on.

    Raises CheckpointError when they cannot be read.
    """
    try:
        tensors: dict[str, Tensor] = load_file(folder / PREDICTIONS_FILE)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder / PREDICTIONS_FILE} cannot be read; train again or copy the whole folder"
        ) from error
    return tensors


def known_predictions(folder: Path, splits: Mapping[str, Sequence[EncodedExample]]) -> dict[str, Tensor]:
    """The logits [N, C] of those `splits` that the model in `folder`, as it is now, was asked with these very tokens.

    None of a folder that holds no answers, or unsigned ones. Raises CheckpointError when they cannot be read.
    """
    if not (folder / PREDICTIONS_FILE).is_file():
        return {}
    logits, signatures = read_predictions(folder), _read_signatures(folder)
    model = _model_digest(folder)
    return {name: logits[name] for name, asked in splits.items() if signatures.get(name) == _signature(model, asked)}


def _read_signatures(folder: Path) -> dict[str, str]:
    with safe_open(folder / PREDICTIONS_FILE, framework="pt") as stream:
        return stream.metadata() or {}


def _model_digest(folder: Path) -> str:
    sha256 = hashlib.sha256()
    for path in (folder / name for name in MODEL_FILES if (folder / name).is_file()):
        with path.open("rb") as stream:
            sha256.update(path.name.encode() + hashlib.file_digest(stream, "sha256").digest())
    return sha256.hexdigest()


def _signature(model: str, asked: Sequence[EncodedExample]) -> str:
    sha256 = hashlib.sha256(model.encode())
    for example in asked:
        sha256.update(json.dumps([example.token_ids, example.segments]).encode())
    return sha256.hexdigest()
