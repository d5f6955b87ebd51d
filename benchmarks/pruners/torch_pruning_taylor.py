"""Torch-Pruning's BasePruner, global, first-order Taylor, whole heads, to a budget of parameters."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import BertForSequenceClassification, PreTrainedModel

from benchmarks.pruners.cutting import FLOOR, TOLERANCE, encoder_parameters
from benchmarks.pruners.judging import as_sparse
from benchmarks.pruners.recovery import autocast
from sparsebert.geometry import Geometry
from training.batching import Batch
from training.modeling import SparseBertConfig


class TorchPruning:
    """It has ratios of heads and of channels, not a budget; before every step both are found by bisection on what
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
    ) -> PreTrainedModel:
        model.requires_grad_(True)
        if self._pruner is None:
            self._pruner = self._new_pruner(model)
        _gradients(model, batches)
        wanted = int((1.0 - sparsity) * self._geometry.encoder_parameters())
        self._find_ratio(encoder_parameters(model) - wanted)
        self._pruner.step()
        self._resync()
        model.zero_grad()
        left = 1.0 - encoder_parameters(model) / self._geometry.encoder_parameters()
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
