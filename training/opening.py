"""A dense checkpoint made ready to be measured: the model where it is fastest, its texts as token ids.

Knows nothing about what is measured.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from sparsebert.checkpoint import Example
from sparsebert.masks import MaskSet
from training.batching import EncodedExample
from training.checkpoint import MaskedCheckpoint, load_dense_checkpoint
from training.encoding import encode
from training.evaluation import predict_logits
from training.masking import fixed_gates
from training.modeling import SparseBertForSequenceClassification


@dataclass(frozen=True, kw_only=True, eq=False)
class OpenedCheckpoint:
    """The checkpoint, with its model on `device`."""

    checkpoint: MaskedCheckpoint
    device: torch.device

    @property
    def model(self) -> SparseBertForSequenceClassification:
        return self.checkpoint.model

    @property
    def pad_id(self) -> int:
        return int(self.checkpoint.tokenizer.pad_token_id)

    def encode(self, examples: Sequence[Example]) -> list[EncodedExample]:
        """Token ids, cut as in training."""
        return encode(examples, self.checkpoint.tokenizer, self.checkpoint.run.max_length).examples

    def logits(
        self, model: SparseBertForSequenceClassification, masks: MaskSet, examples: Sequence[EncodedExample], name: str
    ) -> Tensor:
        """What `model` under `masks` says of `examples`, [N, C], with a progress bar."""
        gates = fixed_gates(masks, self.device)
        with tqdm(total=len(examples), desc=f"judging {name}", unit="text", disable=None) as bar:
            return predict_logits(model, examples, self.pad_id, gates, on_batch=bar.update)


def open_dense(folder: Path) -> OpenedCheckpoint:
    """Read a checkpoint in which nothing is pruned yet. Raises CheckpointError when it is none, or sparse already."""
    checkpoint = load_dense_checkpoint(folder)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    checkpoint.model.to(device)
    return OpenedCheckpoint(checkpoint=checkpoint, device=device)


def draw(examples: Sequence[Example], count: int, seed: int) -> list[Example]:
    """`count` of the examples, in their order, or all of them when there are no more."""
    if len(examples) <= count:
        return list(examples)
    rng = random.Random(seed)  # noqa: S311 - which examples are taken is no secret
    return [examples[index] for index in sorted(rng.sample(range(len(examples)), count))]
