"""What do loss and accuracy become when one head, a share of one FFN or one whole block is taken from a dense model?

Each batch of texts is run through the dense model once; from each block on, every change of that block is run to the
end from the state before it. So a change costs the layers above it, and one batch's states are all that is held.
Knows nothing about files.

Letters: B texts, T tokens, D hidden size, U inputs of a block's output projection, F neurons, C classes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sparsebert.masks import BoolArray
from sparsebert.sensitivity import LayerSensitivity, Quality, RemovedShare
from training.batching import EncodedExample, collate, plan_evaluation
from training.blocks import Block, as_factor, blocks_of, embed, finish, read_on
from training.importance import FloatArray, UnitScores
from training.modeling import SparseBertForSequenceClassification

BATCH_SIZE = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class Removal:
    """A change of one block; `kept_U` is None when the whole block goes, which makes it identity."""

    name: str
    kept_U: BoolArray | None


class _Tally:
    """Sums over examples for one model."""

    def __init__(self) -> None:
        self._loss = 0.0
        self._right = 0
        self._count = 0

    def add(self, logits_BC: Tensor, labels_B: Tensor) -> None:
        self._loss += float(functional.cross_entropy(logits_BC.double(), labels_B, reduction="sum"))
        self._right += int((logits_BC.argmax(dim=-1) == labels_B).sum())
        self._count += len(labels_B)

    def quality(self) -> Quality:
        return Quality(loss=self._loss / self._count, accuracy=self._right / self._count)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The dense model, and the model without each part, layer by layer."""

    dense: Quality
    layers: tuple[LayerSensitivity, ...]


def count_models(num_layers: int, num_heads: int, shares: Sequence[float]) -> int:
    """How many models `measure` runs: the dense one and one for each removal."""
    return 1 + num_layers * (num_heads + len(shares) + 2)


@torch.inference_mode()
def measure(
    model: SparseBertForSequenceClassification,
    examples: Sequence[EncodedExample],
    pad_id: int,
    scores: UnitScores,
    shares: Sequence[float],
    on_texts: Callable[[int], object] = lambda _count: None,
) -> Measured:
    """Run every removal on all `examples`; `scores` say which neurons matter least.

    `on_texts` is called with the number of texts that one more model has answered.
    """
    blocks = blocks_of(model)
    removals = [list(_removals(block, scores, shares)) for block in blocks]
    dense = _Tally()
    tallies = [{removal.name: _Tally() for removal in of_block} for of_block in removals]
    device = next(model.parameters()).device
    for indices_B in plan_evaluation([len(example.token_ids) for example in examples], BATCH_SIZE):
        batch = collate(examples, indices_B, pad_id).to(device)
        x_BTD, mask = embed(model, batch)
        for index, block in enumerate(blocks):
            units_BTU, x_BTD = read_on(block, block.units(x_BTD, mask), x_BTD)
            for removal in removals[index]:
                changed_BTD = _without(block, removal, units_BTU, x_BTD)
                logits_BC = finish(model, blocks[index + 1 :], changed_BTD, mask)
                tallies[index][removal.name].add(logits_BC, batch.labels_B)
                on_texts(len(indices_B))
            x_BTD = block.output(units_BTU, x_BTD)
        dense.add(finish(model, (), x_BTD, mask), batch.labels_B)
        on_texts(len(indices_B))
    found = [{name: tally.quality() for name, tally in of_block.items()} for of_block in tallies]
    pairs = zip(found[::2], found[1::2], strict=True)
    num_neurons = scores.neurons_LF.shape[1]
    return Measured(dense=dense.quality(), layers=tuple(_layer(*pair, shares, num_neurons) for pair in pairs))


def _removals(block: Block, scores: UnitScores, shares: Sequence[float]) -> Iterator[Removal]:
    """All that is tried on one block; what keeps no unit is the whole block's removal."""
    yield Removal(name="block", kept_U=None)
    if block.kind == "attention":
        num_heads = scores.heads_LH.shape[1]
        for head in range(num_heads):
            kept_H = np.arange(num_heads) != head
            yield Removal(name=str(head), kept_U=np.repeat(kept_H, block.unit_width) if kept_H.any() else None)
        return
    neurons_F = scores.neurons_LF[block.layer]
    for share in shares:
        kept_F = without_least(neurons_F, count_removed(share, len(neurons_F)))
        yield Removal(name=str(share), kept_U=kept_F if kept_F.any() else None)


def count_removed(share: float, num_neurons: int) -> int:
    """How many neurons a share of them is, at least one."""
    return max(1, round(share * num_neurons))


def without_least(scores_F: FloatArray, count: int) -> BoolArray:
    """Keep all but the `count` units with the smallest scores; of equal ones the first goes first."""
    kept_F = np.ones(len(scores_F), bool)
    kept_F[np.argsort(scores_F, kind="stable")[:count]] = False
    return kept_F


def _without(block: Block, removal: Removal, units_BTU: Tensor, x_BTD: Tensor) -> Tensor:
    if removal.kept_U is None:
        return x_BTD
    return cast(Tensor, block.output(units_BTU * as_factor(removal.kept_U, units_BTU.device), x_BTD))


def _layer(
    attention: dict[str, Quality], ffn: dict[str, Quality], shares: Sequence[float], num_neurons: int
) -> LayerSensitivity:
    return LayerSensitivity(
        without_head=tuple(quality for name, quality in attention.items() if name != "block"),
        without_neurons=tuple(
            RemovedShare(share=share, neurons=count_removed(share, num_neurons), without=ffn[str(share)])
            for share in shares
        ),
        without_attention=attention["block"],
        without_ffn=ffn["block"],
    )
