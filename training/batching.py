"""Which texts share a training batch, and how a batch is padded.

Knows nothing about models. B texts, T tokens.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

BUCKET_BATCHES = 50  # large enough that padding nearly vanishes, small enough that batches stay random


@dataclass(frozen=True, slots=True)
class EncodedExample:
    """Token ids of one text or pair, the segment of each token, and the label."""

    token_ids: list[int]
    segments: list[int]
    label: int


@dataclass(frozen=True, kw_only=True)
class EncodedSplits:
    """Tokenised training and validation examples."""

    train: Sequence[EncodedExample]
    validation: Sequence[EncodedExample]
    pad_id: int


class Batch(NamedTuple):
    """Padded tensors [B, T], labels [B], and where the texts stand in the split."""

    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor
    labels_B: Tensor
    indices_B: list[int]

    def to(self, device: torch.device) -> "Batch":
        ids, mask, types, labels_B = (tensor.to(device, non_blocking=True) for tensor in self[:4])
        return Batch(ids, mask, types, labels_B, self.indices_B)


def plan_epoch(lengths: Sequence[int], batch_size: int, rng: random.Random) -> list[list[int]]:
    """A random partition of all positions into batches of similar length; every position appears once."""
    order = list(range(len(lengths)))
    rng.shuffle(order)
    bucket = batch_size * BUCKET_BATCHES
    batches: list[list[int]] = []
    for start in range(0, len(order), bucket):
        batches += _slices(sorted(order[start : start + bucket], key=lengths.__getitem__), batch_size)
    rng.shuffle(batches)
    return batches


def plan_evaluation(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """All positions in batches by length, longest last."""
    return _slices(sorted(range(len(lengths)), key=lengths.__getitem__), batch_size)


def collate(examples: Sequence[EncodedExample], indices_B: list[int], pad_id: int) -> Batch:
    """Pad the chosen examples to the longest of them."""
    chosen = [examples[index] for index in indices_B]
    shape = (len(chosen), max(len(example.token_ids) for example in chosen))
    input_ids = torch.full(shape, pad_id, dtype=torch.long)
    attention_mask, token_type_ids = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    for row, example in enumerate(chosen):
        length = len(example.token_ids)
        input_ids[row, :length] = torch.tensor(example.token_ids)
        token_type_ids[row, :length] = torch.tensor(example.segments)
        attention_mask[row, :length] = 1
    labels_B = torch.tensor([example.label for example in chosen])
    return Batch(input_ids, attention_mask, token_type_ids, labels_B, indices_B)


def _slices(order: list[int], size: int) -> list[list[int]]:
    return [order[start : start + size] for start in range(0, len(order), size)]
