"""TextPruner's TransformerPruner with its own importance scores, to a budget of parameters, on Transformers v5."""

import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from copy import deepcopy
from typing import Any

from transformers import BertForSequenceClassification, PreTrainedModel

from benchmarks.pruners.cutting import TOLERANCE, encoder_parameters
from benchmarks.pruners.judging import as_sparse
from benchmarks.pruners.recovery import autocast
from sparsebert.geometry import Geometry, neuron_parameters
from training.batching import Batch
from training.modeling import SparseBertConfig

RETRIES = 4


class TextPruner:
    """It takes average numbers of heads and neurons in a layer, not a budget: heads are a share of the dense ones
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
    ) -> PreTrainedModel:
        heads, neurons = self._sizes(sparsity)
        for _ in range(RETRIES):
            small = self._prune(deepcopy(model), heads, neurons, batches, keep_shape=not last)
            if not last:
                return small
            over = encoder_parameters(small) - (1.0 - sparsity) * self._geometry.encoder_parameters()
            if abs(over) <= TOLERANCE * self._geometry.encoder_parameters():
                return as_sparse(small, self._config)
            # It gives a layer that has lost all its heads one back; neurons make up for it.
            neurons -= round(over / self._geometry.num_layers / neuron_parameters(self._geometry.hidden_size))
        raise ValueError(f"TextPruner misses an encoder sparsity of {sparsity:.3f} by {over} parameters")

    def _prune(
        self, model: BertForSequenceClassification, heads: int, neurons: int, batches: Sequence[Batch], keep_shape: bool
    ) -> BertForSequenceClassification:
        import textpruner

        model.requires_grad_(True)
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
            pruner.prune(inputs, keep_shape=keep_shape, save_model=False)
            del model.bert.prune_heads
        model.zero_grad()
        return model

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
