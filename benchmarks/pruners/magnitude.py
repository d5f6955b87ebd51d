"""The control: heads and neurons with the smallest mean square weight, over all layers at once."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from transformers import BertForSequenceClassification, PreTrainedModel

from benchmarks.pruners.cutting import FLOOR
from benchmarks.pruners.judging import as_sparse
from sparsebert.geometry import Geometry
from sparsebert.masks import MaskSet
from training.batching import Batch
from training.compaction import compact
from training.importance import UnitScores
from training.modeling import SparseBertConfig
from training.selection import SelectionRules, select_units


class Magnitude:
    """It takes a budget of parameters as it is, by the code that ours selects with."""

    def __init__(self, dense: SparseBertConfig, geometry: Geometry, cuts: int) -> None:  # noqa: ARG002 (protocol)
        self._config, self._geometry = dense, geometry

    def cut(
        self,
        model: BertForSequenceClassification,
        sparsity: float,
        batches: Sequence[Batch],  # noqa: ARG002 (protocol)
        last: bool,
    ) -> PreTrainedModel:
        heads_LH, neurons_LF = zip(*map(self._norms, model.bert.encoder.layer), strict=True)
        scores = UnitScores(np.stack(heads_LH), np.stack(neurons_LF))  # select_units divides by parameters
        masks = select_units(scores, self._geometry, sparsity, SelectionRules(floor=FLOOR))
        if last:
            return compact(as_sparse(model, self._config), masks)
        _zero(model, masks, self._geometry.head_size)
        return model

    @torch.no_grad()
    def _norms(self, layer: nn.Module) -> tuple[np.ndarray, np.ndarray]:
        """Sums of squares, for each head and for each neuron."""
        own, attention_out = layer.attention.self, layer.attention.output.dense
        rows = sum(_rows(projection) for projection in (own.query, own.key, own.value))
        heads_H = (rows + attention_out.weight.square().sum(dim=0)).view(-1, self._geometry.head_size).sum(dim=1)
        neurons_F = _rows(layer.intermediate.dense) + layer.output.dense.weight.square().sum(dim=0)
        return heads_H.double().numpy(), neurons_F.double().numpy()


@torch.no_grad()
def _rows(projection: nn.Linear) -> torch.Tensor:
    return projection.weight.square().sum(dim=1) + projection.bias.square()


@torch.no_grad()
def _zero(model: BertForSequenceClassification, masks: MaskSet, head_size: int) -> None:
    for layer, heads_H, neurons_F in zip(model.bert.encoder.layer, masks.heads_LH, masks.neurons_LF, strict=True):
        own = layer.attention.self
        units = torch.from_numpy(np.repeat(heads_H, head_size)).float()
        neurons = torch.from_numpy(neurons_F).float()
        for projection, kept in (
            *((one, units) for one in (own.query, own.key, own.value)), (layer.intermediate.dense, neurons),
        ):  # fmt: skip
            projection.weight.mul_(kept[:, None])
            projection.bias.mul_(kept)
        layer.attention.output.dense.weight.mul_(units)
        layer.output.dense.weight.mul_(neurons)
