"""How is a model run block by block: which units a block makes of its input, and what its output makes of them?

Knows nothing about why one would stop between two blocks.

Letters: B texts, T tokens, D hidden size, U inputs of a block's output projection (the context of all heads, or
the activations of all neurons), C classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor

from sparsebert.masks import BoolArray, MaskSet
from training.batching import Batch
from training.modeling import SparseBertForSequenceClassification, SparseBertLayer, SparseOutput

BlockKind = Literal["attention", "ffn"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """One attention or FFN block; `is_read_whole` is False where only the first token of its output is read on.

    The pooler reads the first token, so of the last attention's output and of all that follows no other counts.
    """

    layer: int
    kind: BlockKind
    unit_width: int
    is_read_whole: bool
    units: Callable[[Tensor, Tensor | None], Tensor]
    output: SparseOutput

    def kept_U(self, masks: MaskSet) -> BoolArray:
        """Which inputs of the output projection stay, head by head or neuron by neuron."""
        units = masks.heads_LH if self.kind == "attention" else masks.neurons_LF
        return np.repeat(units[self.layer], self.unit_width)


def blocks_of(model: SparseBertForSequenceClassification, masks: MaskSet | None = None) -> tuple[Block, ...]:
    """All blocks in the order in which they are run; with `masks`, what is read on is what the masked model reads.

    Raises ValueError for a model that has lost a block.
    """
    layers = [cast(SparseBertLayer, layer) for layer in model.bert.encoder.layer]
    last = len(layers) - 1 if masks is None else max(np.flatnonzero(masks.heads_LH.any(axis=1)).tolist(), default=-1)
    pairs = (_blocks_of_layer(model, layer, index, index < last) for index, layer in enumerate(layers))
    return tuple(block for pair in pairs for block in pair)


def _blocks_of_layer(
    model: SparseBertForSequenceClassification, layer: SparseBertLayer, index: int, is_read_whole: bool
) -> tuple[Block, Block]:
    attention, intermediate, output = layer.attention, layer.intermediate, layer.output
    if attention is None or intermediate is None or output is None:
        raise ValueError(f"layer {index} has lost a block")
    return (
        Block(
            layer=index,
            kind="attention",
            unit_width=model.config.head_size,
            is_read_whole=is_read_whole,
            units=attention.self,
            output=attention.output,
        ),
        Block(
            layer=index,
            kind="ffn",
            unit_width=1,
            is_read_whole=is_read_whole,
            units=lambda x_BTD, _mask: cast(Tensor, intermediate(x_BTD)),
            output=output,
        ),
    )


def embed(model: SparseBertForSequenceClassification, batch: Batch) -> tuple[Tensor, Tensor | None]:
    """What the first block is given: states [B, T, D] and the attention's mask."""
    return model.bert.embed(batch.input_ids, batch.attention_mask, batch.token_type_ids)


def finish(
    model: SparseBertForSequenceClassification, blocks: Sequence[Block], x_BTD: Tensor, mask: Tensor | None
) -> Tensor:
    """Logits [B, C] of states on which only `blocks`, the last ones of the model, are still to be run."""
    for block in blocks:
        units_BTU, x_BTD = read_on(block, block.units(x_BTD, mask), x_BTD)
        x_BTD = block.output(units_BTU, x_BTD)
    return cast(Tensor, model.classifier(model.bert.pooler(x_BTD)))


def read_on(block: Block, units_BTU: Tensor, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
    """Units and states of the tokens that count in what follows: all of them, or the first of each text."""
    return (units_BTU, x_BTD) if block.is_read_whole else (units_BTU[:, :1], x_BTD[:, :1])


def as_factor(kept_U: BoolArray, device: torch.device) -> Tensor:
    """Zeros and ones to multiply units by."""
    return torch.from_numpy(kept_U).to(device, torch.float32)
