"""What each pruner takes out of a dense BERT. One class a pruner; all are called in the same way.

Every cut goes on from the model of the cut before it, fine-tuned in between. A pruner that has to remember
removed units in a model of full size sets their weights to zero: they stay zero in training, because all
gradients of a unit are products with its own zeros.
"""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from transformers import BertForSequenceClassification

from benchmarks.pruners.judging import as_sparse
from benchmarks.pruners.recovery import autocast
from export.compaction import compact
from sparsebert.geometry import Geometry
from sparsebert.masks import MaskSet
from training.batching import Batch
from training.geometry import geometry_of
from training.importance import UnitScores
from training.modeling import SparseBertConfig
from training.selection import KeepFloor, select_units

TOLERANCE = 0.01  # of encoder sparsity
FLOOR = KeepFloor()
Settings = dict[str, Any]


class Pruner(Protocol):
    """Made for one run."""

    def cut(
        self, model: BertForSequenceClassification, sparsity: float, batches: Sequence[Batch], last: bool
    ) -> nn.Module:
        """The model without so many encoder parameters; after the last cut it has that size, not only zeros."""


class Magnitude:
    """The control: heads and neurons with the smallest mean square weight, over all layers at once."""

    def __init__(self, dense: SparseBertConfig, geometry: Geometry, cuts: int) -> None:  # noqa: ARG002 (protocol)
        self._config, self._geometry = dense, geometry

    def cut(
        self,
        model: BertForSequenceClassification,
        sparsity: float,
        batches: Sequence[Batch],  # noqa: ARG002 (protocol)
        last: bool,
    ) -> nn.Module:
        heads_LH, neurons_LF = zip(*map(self._norms, model.bert.encoder.layer), strict=True)
        scores = UnitScores(np.stack(heads_LH), np.stack(neurons_LF))  # select_units divides by parameters
        masks = select_units(scores, self._geometry, sparsity, FLOOR)
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


class TorchPruning:
    """Torch-Pruning's BasePruner, global, first-order Taylor, whole heads.

    It has ratios of heads and of channels, not a budget; before every step both are found by bisection on what
    its own dry run (`interactive`) would take. `head_bias`: the ratio of heads as a multiple of that of channels.
    A layer of which all units would go it leaves whole, so the best units of every layer get an infinite score;
    they are as many as ours keeps in every layer.
    """

    def __init__(
        self, dense: SparseBertConfig, geometry: Geometry, cuts: int, *, head_bias: float = 1.0, **importance: Any
    ) -> None:
        self._config, self._geometry, self._cuts = dense, geometry, cuts
        self._head_bias, self._importance = head_bias, importance
        self._pruner: Any = None

    def cut(
        self,
        model: BertForSequenceClassification,
        sparsity: float,
        batches: Sequence[Batch],
        last: bool,
    ) -> nn.Module:
        model.requires_grad_(True)
        if self._pruner is None:
            self._pruner = self._new_pruner(model)
        _gradients(model, batches)
        wanted = int((1.0 - sparsity) * self._geometry.encoder_parameters())
        self._find_ratio(_encoder_parameters(model) - wanted)
        self._pruner.step()
        self._resync()
        model.zero_grad()
        left = 1.0 - _encoder_parameters(model) / self._geometry.encoder_parameters()
        if abs(left - sparsity) > TOLERANCE:
            raise ValueError(f"Torch-Pruning reaches an encoder sparsity of {left:.3f} where {sparsity:.3f} was asked")
        return as_sparse(model, self._config) if last else model

    def _new_pruner(self, model: BertForSequenceClassification) -> Any:
        import torch_pruning

        heads = {}
        for layer in model.bert.encoder.layer:
            own = layer.attention.self
            heads |= dict.fromkeys((own.query, own.key, own.value), own.num_attention_heads)
        outputs = [part for layer in model.bert.encoder.layer for part in (layer.attention.output, layer.output)]
        ids = torch.ones(2, 8, dtype=torch.long)
        taylor = torch_pruning.importance.GroupTaylorImportance(**self._importance)

        def importance(group: Any) -> torch.Tensor:
            is_attention = any(dependency.target.module in heads for dependency, _ in group)
            unit, floor = (self._geometry.head_size, FLOOR.heads) if is_attention else (1, FLOOR.neurons)
            scores_UE = taylor(group).clone().view(-1, unit)
            scores_UE[scores_UE.mean(dim=1).topk(floor).indices] = float("inf")
            return scores_UE.flatten()

        return torch_pruning.pruner.BasePruner(
            model,
            example_inputs={"input_ids": ids, "attention_mask": ids},
            importance=importance,
            global_pruning=True,
            pruning_ratio=0.5,  # a step's ratio is set when its turn comes
            head_pruning_ratio=0.5,
            iterative_steps=self._cuts,
            # The hidden size is everyone's: the budget is one of heads and neurons.
            ignored_layers=[model.bert.embeddings, model.bert.pooler, model.classifier, *outputs],
            num_heads=heads,
            prune_num_heads=True,
            prune_head_dims=False,
            in_channel_groups={},  # the defaults are shared by all pruners
            out_channel_groups={},
            output_transform=lambda output: output.logits.sum(),
        )

    def _find_ratio(self, wanted: int) -> None:
        """Set the ratios of the coming step so that it takes as nearly as possible so many parameters."""
        low, high = 0.0, 0.96  # beyond it the floor would go
        best, best_gap = 0.0, float("inf")
        for _ in range(20):
            ratio = (low + high) / 2
            taken = self._would_take(ratio)
            if abs(taken - wanted) < best_gap:
                best, best_gap = ratio, abs(taken - wanted)
            low, high = (ratio, high) if taken < wanted else (low, ratio)
        self._set_ratio(best)

    def _set_ratio(self, ratio: float) -> None:
        step = self._pruner.current_step + 1
        self._pruner.per_step_pruning_ratio[step] = ratio
        self._pruner.per_step_head_pruning_ratio[step] = min(
            1.0 - FLOOR.heads / self._geometry.heads_L[0], self._head_bias * ratio
        )

    def _would_take(self, ratio: float) -> int:
        self._set_ratio(ratio)
        step = self._pruner.current_step
        taken = 0
        for group in self._pruner.step(interactive=True):
            for dependency, indices in group:
                module = dependency.target.module
                if isinstance(module, nn.Linear):
                    outwards = self._pruner.DG.is_out_channel_pruning_fn(dependency.handler)
                    taken += len(indices) * (module.in_features + 1 if outwards else module.out_features)
        self._pruner.current_step = step
        self._resync()
        return taken

    def _resync(self) -> None:
        """Its step counts heads down before it knows whether the group may be pruned, and in a dry run too."""
        for projection in self._pruner.num_heads:
            heads = projection.out_features // self._geometry.head_size
            self._pruner.num_heads[projection] = self._pruner.out_channel_groups[projection] = heads


class TextPruner:
    """TextPruner's TransformerPruner with its own importance scores.

    It takes average numbers of heads and neurons in a layer, not a budget: heads are a share of the dense ones
    (`head_bias` as with Torch-Pruning), and neurons fill what is left of the budget.
    """

    def __init__(
        self,
        dense: SparseBertConfig,
        geometry: Geometry,
        cuts: int,
        *,
        head_bias: float = 1.0,
        rounds: int = 8,
        **settings: Any,
    ) -> None:
        self._config, self._geometry = dense, geometry
        self._rounds, self._head_bias = max(1, rounds // cuts), head_bias
        self._settings = {"ffn_even_masking": False, "head_even_masking": False} | settings

    def cut(
        self,
        model: BertForSequenceClassification,
        sparsity: float,
        batches: Sequence[Batch],
        last: bool,
    ) -> nn.Module:
        import textpruner

        model.requires_grad_(True)
        heads, neurons = self._sizes(sparsity)
        names = ("input_ids", "attention_mask", "token_type_ids", "labels")
        inputs = [dict(zip(names, batch[:4], strict=True)) for batch in batches]
        config = textpruner.TransformerPruningConfig(
            target_num_of_heads=heads, target_ffn_size=neurons, pruning_method="iterative", n_iters=self._rounds,
            **self._settings,
        )  # fmt: skip
        # Its copy for the logits is in half precision, which autocast on a CPU does not take.
        precision = nullcontext() if config.use_logits else autocast()
        with tempfile.TemporaryDirectory() as folder, precision:
            place = textpruner.GeneralConfig(use_device="cpu", output_dir=folder)
            pruner = textpruner.TransformerPruner(model, config, place)
            # Transformers v5 has no `prune_heads`. TextPruner's own function that cuts rows by a mask is the same.
            model.bert.prune_heads = lambda _heads: pruner.reorder_attention_heads(pruner.head_mask)
            pruner.prune(inputs, keep_shape=not last, save_model=False)
            del model.bert.prune_heads
        model.zero_grad()
        return as_sparse(model, self._config) if last else model

    def _sizes(self, sparsity: float) -> tuple[int, int]:
        """Heads and neurons in the average layer; at least one head."""
        dense = self._geometry
        heads = max(1, round(dense.heads_L[0] * (1.0 - min(1.0, self._head_bias * sparsity))))
        gaps = {}
        for neurons in range(1, dense.neurons_L[0] + 1):
            update = {"heads_L": (heads,) * dense.num_layers, "neurons_L": (neurons,) * dense.num_layers}
            gaps[neurons] = abs(dense.model_copy(update=update).encoder_sparsity(dense) - sparsity)
        neurons = min(gaps, key=gaps.__getitem__)
        if gaps[neurons] > TOLERANCE:
            raise ValueError(f"with {heads} heads in a layer no encoder sparsity of {sparsity:.3f} can be had")
        return heads, neurons


PRUNERS: dict[str, tuple[Callable[..., Pruner], Settings]] = {
    "magnitude": (Magnitude, {}),
    "torch-pruning": (TorchPruning, {}),
    "torch-pruning:unnormalised": (TorchPruning, {"normalizer": None}),
    "torch-pruning:multivariable": (TorchPruning, {"multivariable": True}),
    "torch-pruning:more-heads": (TorchPruning, {"head_bias": 0.85}),
    "textpruner": (TextPruner, {}),
    "textpruner:even": (TextPruner, {"ffn_even_masking": True, "head_even_masking": True}),
    "textpruner:even-ffn": (TextPruner, {"ffn_even_masking": True}),
    "textpruner:head-first": (TextPruner, {"pruning_order": "head-first"}),
    "textpruner:logits": (TextPruner, {"use_logits": True}),
    "textpruner:more-heads": (TextPruner, {"head_bias": 0.85}),
}


def new_pruner(name: str, model: BertForSequenceClassification, like: SparseBertConfig, cuts: int) -> Pruner:
    kind, settings = PRUNERS[name]
    return kind(like, geometry_of(as_sparse(model, like)), cuts, **settings)


def _encoder_parameters(model: BertForSequenceClassification) -> int:
    return sum(weight.numel() for weight in model.bert.encoder.parameters())


def _gradients(model: BertForSequenceClassification, batches: Sequence[Batch]) -> None:
    """Of the sum of all batches' losses, as Torch-Pruning's examples do."""
    model.eval()
    model.zero_grad()
    for batch in batches:
        with autocast():
            logits_BC = model(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, token_type_ids=batch.token_type_ids
            ).logits
        nn.functional.cross_entropy(logits_BC.float(), batch.labels_B).backward()


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
