"""What is a tokenised text, and how do several become one padded batch?

Pure; knows nothing about tokenizers, queues or models. B texts of a batch, S tokens of the longest one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

INPUT_NAMES = ("input_ids", "attention_mask", "token_type_ids")
OUTPUT_NAME = "logits"
IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """The ids of one text or pair, special tokens included.

    `num_tokens_full` is the length before truncation; `empty` says that a text has no token of its own.
    """

    input_ids: tuple[int, ...]
    token_type_ids: tuple[int, ...]
    num_tokens_full: int
    empty: bool = False

    @property
    def num_tokens(self) -> int:
        return len(self.input_ids)

    @property
    def truncated(self) -> bool:
        return self.num_tokens_full > self.num_tokens


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedBatch:
    """The three inputs of the graph; rows are padded with zeros on the right."""

    input_ids_BS: IntArray
    attention_mask_BS: IntArray
    token_type_ids_BS: IntArray

    @property
    def num_items(self) -> int:
        return len(self.input_ids_BS)


def pad(encodings: Sequence[Encoding]) -> EncodedBatch:
    """One batch of all `encodings`, in order, padded to the longest."""
    shape = (len(encodings), max(encoding.num_tokens for encoding in encodings))
    batch = EncodedBatch(
        input_ids_BS=np.zeros(shape, np.int64),
        attention_mask_BS=np.zeros(shape, np.int64),
        token_type_ids_BS=np.zeros(shape, np.int64),
    )
    for row, encoding in enumerate(encodings):
        batch.input_ids_BS[row, : encoding.num_tokens] = encoding.input_ids
        batch.attention_mask_BS[row, : encoding.num_tokens] = 1
        batch.token_type_ids_BS[row, : encoding.num_tokens] = encoding.token_type_ids
    return batch
