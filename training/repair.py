"""Which weights let a masked model say what the dense one says? Least squares, block by block, without training.

Of each block the output projection is solved anew, so that with the units that are kept, and with the states that
the repaired blocks before it give, the block comes closest to the dense model's output before the LayerNorm. Kwon et
al. 2022 ("A Fast Post-Training Pruning Framework for Transformers", mask tuning) scale each unit by one number; here
its whole column is free, as where one column after the other is removed (Kurtic et al. 2023, "ZipLM").
Knows nothing about how masks were chosen.

Letters: B texts, T tokens, R rows (tokens that count), D hidden size, U inputs of a block's output projection.
"""

import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from sparsebert.masks import BoolArray, MaskSet
from training.batching import EncodedExample, collate, plan_evaluation
from training.blocks import Block, BlockKind, as_factor, blocks_of, embed
from training.least_squares import Correction, LackSums
from training.modeling import SparseBertForSequenceClassification

RIDGE = 1e-2
BATCH_SIZE = 64


@dataclass(frozen=True, kw_only=True)
class BlockRepair:
    """Squared errors of one block's output, as shares of what the block adds, with its weights old and new."""

    layer: int
    kind: BlockKind
    error_before: float
    error_after: float


@dataclass(kw_only=True, eq=False)
class _States:
    """One batch of texts between two blocks, as the dense model sees it and as the repaired one does."""

    mask: Tensor | None
    is_token_BT: Tensor
    dense_BTD: Tensor
    masked_BTD: Tensor


@torch.no_grad()
def repaired(
    model: SparseBertForSequenceClassification,
    masks: MaskSet,
    examples: Sequence[EncodedExample],
    pad_id: int,
    *,
    before: MaskSet | None = None,
    ridge: float = RIDGE,
    on_block: Callable[[], object] = lambda: None,
) -> tuple[SparseBertForSequenceClassification, tuple[BlockRepair, ...]]:
    """A dense-shaped model to be run with `masks`, and what was gained in each block; `model` stays as it is.

    What is to be said again is what `model` says under the masks `before` (None: nothing is pruned). The states of
    all examples are kept, twice tokens * D floats. `on_block` is called after each block.
    """
    new = deepcopy(model).eval()
    before = before or _nothing_pruned(masks)
    batches = [_start(model, examples, indices_B, pad_id) for indices_B in _plan(examples)]
    repairs: list[BlockRepair] = []
    for dense, masked in zip(blocks_of(model), blocks_of(new, masks), strict=True):
        kept_U = masked.kept_U(masks)
        if kept_U.any():
            repairs.append(_repair_block(dense, masked, dense.kept_U(before), kept_U, batches, ridge))
            for states in batches:
                states.masked_BTD = masked.output(_kept_units(masked, kept_U, states), states.masked_BTD)
        elif (before_U := dense.kept_U(before)).any():  # a block without units is identity
            for states in batches:
                _advance_dense(dense, before_U, states)
        on_block()
    return new, tuple(repairs)


def _plan(examples: Sequence[EncodedExample]) -> list[list[int]]:
    return plan_evaluation([len(example.token_ids) for example in examples], BATCH_SIZE)


def _start(
    model: SparseBertForSequenceClassification, examples: Sequence[EncodedExample], indices_B: list[int], pad_id: int
) -> _States:
    batch = collate(examples, indices_B, pad_id).to(next(model.parameters()).device)
    x_BTD, mask = embed(model, batch)
    return _States(mask=mask, is_token_BT=batch.attention_mask.bool(), dense_BTD=x_BTD, masked_BTD=x_BTD)


def _repair_block(
    dense: Block, masked: Block, before_U: BoolArray, kept_U: BoolArray, batches: Sequence[_States], ridge: float
) -> BlockRepair:
    """Change the output projection of `masked`, and bring the dense states one block further."""
    projection = masked.output.dense
    columns = torch.from_numpy(kept_U.nonzero()[0]).to(projection.weight.device)
    sums = LackSums(len(columns), projection.out_features, projection.weight.device)
    added = 0.0
    for states in batches:
        rows_BT = _rows(masked, states.is_token_BT)
        residual_BTD = states.dense_BTD
        wanted_BTD = _advance_dense(dense, before_U, states)
        units_BTU = _kept_units(masked, kept_U, states)
        lack_BTD = wanted_BTD - (projection(units_BTU) + states.masked_BTD)
        sums.add(units_BTU[rows_BT][:, columns], lack_BTD[rows_BT])
        added += float((wanted_BTD - residual_BTD)[rows_BT].double().square().sum())
    correction = sums.solve(ridge)
    _apply(correction, projection, columns)
    return BlockRepair(
        layer=masked.layer,
        kind=masked.kind,
        error_before=correction.error_before / max(added, sys.float_info.min),
        error_after=correction.error_after / max(added, sys.float_info.min),
    )


def _nothing_pruned(masks: MaskSet) -> MaskSet:
    return MaskSet(heads_LH=np.ones_like(masks.heads_LH), neurons_LF=np.ones_like(masks.neurons_LF))


def _advance_dense(dense: Block, before_U: BoolArray, states: _States) -> Tensor:
    """The dense block's output before its LayerNorm [B, T, D]; the states go on behind it."""
    units_BTU = dense.units(states.dense_BTD, states.mask) * as_factor(before_U, states.dense_BTD.device)
    output_BTD = dense.output.dense(units_BTU) + states.dense_BTD
    states.dense_BTD = dense.output.LayerNorm(output_BTD)
    return cast(Tensor, output_BTD)


def _kept_units(masked: Block, kept_U: BoolArray, states: _States) -> Tensor:
    return masked.units(states.masked_BTD, states.mask) * as_factor(kept_U, states.masked_BTD.device)


def _rows(block: Block, is_token_BT: Tensor) -> Tensor:
    """Which tokens the projection is judged by: those whose outputs are read on."""
    if block.is_read_whole:
        return is_token_BT
    first_BT = torch.zeros_like(is_token_BT)
    first_BT[:, 0] = True
    return first_BT


def _apply(correction: Correction, projection: torch.nn.Linear, columns: Tensor) -> None:
    projection.weight[:, columns] += correction.weight_DU.to(projection.weight.dtype)
    projection.bias.add_(correction.bias_D.to(projection.bias.dtype))
