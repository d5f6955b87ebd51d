"""What the dense model says of every training text: computed once, kept on disk for a run that is resumed, or for all
runs with the same dense model and texts.

N texts, C classes, L layers, D hidden size.
"""

import hashlib
import os
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from sparsebert.errors import CheckpointError
from training.batching import collate, plan_evaluation
from training.distillation import TeacherAnswers
from training.faults import disk_errors, memory_errors
from training.loop import EncodedSplits
from training.modeling import SparseBertForSequenceClassification

BATCH_SIZE = 64
CACHE_PREFIX = "teacher-"


def cache_name(weights: Path, data_digest: str, max_length: int, arithmetic: str) -> str:
    """The file for what the model of these `weights` says of these texts, whatever else a run's settings are."""
    with weights.open("rb") as stream:
        model = hashlib.file_digest(stream, "sha256").hexdigest()
    key = hashlib.sha256(f"{model} {data_digest} {max_length} {arithmetic}".encode()).hexdigest()
    return f"{CACHE_PREFIX}{key[:16]}.safetensors"


def answers_of_teacher(
    teacher: SparseBertForSequenceClassification,
    splits: EncodedSplits,
    accelerator: Accelerator,
    path: Path,
    *,
    with_states: bool,
) -> TeacherAnswers:
    """Logits, and the first token's state after each layer in half precision when asked for; `path` is the cache.

    Raises CheckpointError when the cache cannot be read.
    """
    if accelerator.is_main_process and not _has(path, with_states):
        answers = _compute(teacher.to(accelerator.device).eval(), splits, accelerator, with_states)
        _write(answers, path)
    accelerator.wait_for_everyone()
    tensors = _read(path)
    return TeacherAnswers(tensors["logits_NC"], tensors["states_LND"] if with_states else None)


@torch.inference_mode()
def _compute(
    teacher: SparseBertForSequenceClassification, splits: EncodedSplits, accelerator: Accelerator, with_states: bool
) -> TeacherAnswers:
    rows: dict[int, Tensor] = {}
    states: dict[int, Tensor] = {}
    lengths = [len(example.token_ids) for example in splits.train]
    with tqdm(total=len(lengths), desc="teacher", unit="text", disable=None) as bar, accelerator.autocast():
        for indices_B in plan_evaluation(lengths, BATCH_SIZE):
            batch = collate(splits.train, indices_B, splits.pad_id).to(accelerator.device)
            with memory_errors():
                output = teacher(
                    input_ids=batch.input_ids,
                    attention_mask=batch.attention_mask,
                    token_type_ids=batch.token_type_ids,
                    output_hidden_states=with_states,
                )
            rows |= dict(zip(indices_B, output.logits.float().cpu(), strict=True))
            if with_states:
                states_BLD = torch.stack([state[:, 0] for state in output.hidden_states[1:]], dim=1)
                states |= dict(zip(indices_B, states_BLD.half().cpu(), strict=True))
            bar.update(len(indices_B))
    order = range(len(lengths))
    logits_NC = torch.stack([rows[index] for index in order])
    return TeacherAnswers(logits_NC, torch.stack([states[index] for index in order], dim=1) if with_states else None)


def _write(answers: TeacherAnswers, path: Path) -> None:
    tensors = {"logits_NC": answers.logits_NC}
    if answers.states_LND is not None:
        tensors["states_LND"] = answers.states_LND.contiguous()
    part = path.with_suffix(f".{os.getpid()}.part")  # runs side by side may share the cache
    with disk_errors(part):
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, part)
        part.replace(path)


def _has(path: Path, with_states: bool) -> bool:
    return path.exists() and (not with_states or "states_LND" in _read(path))


def _read(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
        tensors["logits_NC"]
    except (SafetensorError, KeyError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read; delete it and run again") from error
    return tensors
