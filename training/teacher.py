"""What the dense model says of every training text: computed once, kept on disk for a run that is resumed, or for all
runs with the same dense model and texts.

N texts, C classes, L layers, D hidden size.
"""

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from sparsebert.errors import CheckpointError
from training.batching import EncodedSplits, collate, plan_evaluation
from training.distillation import TeacherAnswers
from training.faults import disk_errors
from training.modeling import SparseBertForSequenceClassification

logger = logging.getLogger(__name__)

BATCH_SIZE = 64
PART_BATCHES = 64  # what a killed run loses at most
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
    work: Path,
    *,
    with_states: bool,
) -> TeacherAnswers:
    """Logits, and the first token's state after each layer in half precision when asked for; `path` is the cache.

    What is done of an unfinished cache lies in the folder `work`, from where a killed run goes on. Of runs side by side
    that share a cache one asks and the others wait.
    Raises CheckpointError when the cache cannot be read.
    """
    if accelerator.is_main_process and not _has(path, with_states):
        with _alone(path):
            if not _has(path, with_states):
                _make(teacher.to(accelerator.device).eval(), splits, accelerator, path, work, with_states)
    accelerator.wait_for_everyone()
    tensors = _read(path)
    return TeacherAnswers(tensors["logits_NC"], tensors["states_LND"] if with_states else None)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """While the block runs no other run computes `path`; the lock goes when its process ends, however it does."""
    lock = FileLock(path.with_suffix(".lock"))
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            logger.info("another run asks the same teacher; waiting for its answers (%s)", path)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _make(
    teacher: SparseBertForSequenceClassification,
    splits: EncodedSplits,
    accelerator: Accelerator,
    path: Path,
    work: Path,
    with_states: bool,
) -> None:
    lengths = [len(example.token_ids) for example in splits.train]
    plan = list(plan_evaluation(lengths, BATCH_SIZE))
    parts: list[Path] = []
    kind = "states" if with_states else "logits"
    with tqdm(total=len(lengths), desc="teacher", unit="text", disable=None) as bar:
        for start in range(0, len(plan), PART_BATCHES):
            batches = plan[start : start + PART_BATCHES]
            parts.append(work / f"{path.stem}.{kind}-{start}.part")
            if not parts[-1].exists():
                _write(_ask(teacher, splits, accelerator, batches, with_states), parts[-1])
            bar.update(sum(map(len, batches)))
    answers = [_read(part) for part in parts]
    order_N = torch.argsort(torch.tensor([index for indices_B in plan for index in indices_B]))
    whole = {name: torch.cat([answer[name] for answer in answers])[order_N] for name in answers[0]}
    if with_states:
        whole["states_LND"] = whole.pop("states_NLD").transpose(0, 1).contiguous()
    _write(whole, path)
    for part in parts:
        part.unlink()


@torch.inference_mode()
def _ask(
    teacher: SparseBertForSequenceClassification,
    splits: EncodedSplits,
    accelerator: Accelerator,
    batches: Sequence[list[int]],
    with_states: bool,
) -> dict[str, Tensor]:
    """What is said of the texts of `batches`, in their order."""
    logits, states = [], []
    with accelerator.autocast():
        for indices_B in batches:
            batch = collate(splits.train, indices_B, splits.pad_id).to(accelerator.device)
            output = teacher(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                token_type_ids=batch.token_type_ids,
                output_hidden_states=with_states,
            )
            logits.append(output.logits.float().cpu())
            if with_states:
                states_BLD = torch.stack([state[:, 0] for state in output.hidden_states[1:]], dim=1)
                states.append(states_BLD.half().cpu())
    answers = {"logits_NC": torch.cat(logits)}
    return answers | {"states_NLD": torch.cat(states)} if with_states else answers


def _write(tensors: dict[str, Tensor], path: Path) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}")  # runs side by side may share the cache
    with disk_errors(path, part=part):
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
