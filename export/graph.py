"""Which ONNX graph computes a compact SparseBERT: our own, straight from the weights.

The graph is written for ONNX Runtime's CPU kernels: one fused attention operator per layer (whose number of
heads is free, unlike that of the runtime's own fusion), Add + LayerNormalization (measured faster than the
fused SkipLayerNormalization), and in the last layer only the first token, which is all that the pooler reads.
Knows nothing about masks, files or accuracy.

B texts, T tokens, Q = T or 1 query tokens, D hidden size, H heads, E head (or embedding) size, F neurons, C classes.
"""

from typing import Protocol, cast

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import Tensor, nn

from export.builder import MICROSOFT, GraphBuilder
from export.quantization import quantize_columns, quantize_rows
from sparsebert.errors import ExportError
from sparsebert.manifest import Precision, TensorSpec
from training.modeling import SparseBertForSequenceClassification, SparseBertLayer

INPUTS = tuple(
    TensorSpec(name=name, dtype="int64", shape=(-1, -1)) for name in ("input_ids", "attention_mask", "token_type_ids")
)
ACTIVATIONS = {"gelu": "Gelu", "relu": "Relu"}
POOLER_ACTIVATIONS = ACTIVATIONS | {"tanh": "Tanh"}


class Weights(Protocol):
    """How linear layers and embedding tables are stored and computed at one precision."""

    def linear(self, graph: GraphBuilder, name: str, x: str, layer: nn.Linear) -> str:
        """X [..., K] through a linear layer, [..., N], float32."""

    def lookup(self, graph: GraphBuilder, name: str, ids: str, table: Tensor) -> str:
        """Rows of a table, [..., D], float32."""


class Float32Weights:
    """Everything in 32-bit floats."""

    def linear(self, graph: GraphBuilder, name: str, x: str, layer: nn.Linear) -> str:
        product = graph.node("MatMul", x, graph.weight(f"{name}.weight", _array(layer.weight).T))
        return graph.node("Add", product, graph.weight(f"{name}.bias", _array(layer.bias)))

    def lookup(self, graph: GraphBuilder, name: str, ids: str, table: Tensor) -> str:
        return graph.node("Gather", graph.weight(name, _array(table)), ids)


class DynamicInt8Weights:
    """8-bit weights with a scale per output or row; activations get one 8-bit scale per tensor at run time.

    The scale of the activations spans the whole batch, so an answer depends a little on its batch-mates.
    """

    def linear(self, graph: GraphBuilder, name: str, x: str, layer: nn.Linear) -> str:
        weight = quantize_columns(_array(layer.weight).T)
        return graph.node(
            "DynamicQuantizeMatMul",
            x,
            graph.weight(f"{name}.weight", weight.integers),
            graph.weight(f"{name}.scale", weight.scale),
            "",
            graph.weight(f"{name}.bias", _array(layer.bias)),
            domain=MICROSOFT,
        )

    def lookup(self, graph: GraphBuilder, name: str, ids: str, table: Tensor) -> str:
        rows = quantize_rows(_array(table))
        integers = graph.node("Gather", graph.weight(name, rows.integers), ids)
        scale = graph.node("Gather", graph.weight(f"{name}.scale", rows.scale), ids)
        return graph.node("Mul", graph.node("Cast", integers, to=onnx.TensorProto.FLOAT), scale)


WEIGHTS: dict[Precision, Weights] = {"fp32": Float32Weights(), "int8": DynamicInt8Weights()}


def output_specs(num_labels: int) -> tuple[TensorSpec, ...]:
    """What the graph gives."""
    return (TensorSpec(name="logits", dtype="float32", shape=(-1, num_labels)),)


def build_graph(model: SparseBertForSequenceClassification, precision: Precision) -> onnx.ModelProto:
    """The graph of `model` without masks. Raises ExportError for an activation that ONNX has no operator for."""
    if model.config.hidden_act not in ACTIVATIONS:
        raise ExportError(
            f"the activation {model.config.hidden_act!r} cannot be exported; known are {', '.join(ACTIVATIONS)}"
        )
    return _BertGraph(model, WEIGHTS[precision]).build()


class _BertGraph:
    """One use: writes the graph of one model."""

    def __init__(self, model: SparseBertForSequenceClassification, weights: Weights) -> None:
        self._model = model
        self._config = model.config
        self._weights = weights
        self._graph = GraphBuilder()

    def build(self) -> onnx.ModelProto:
        graph = self._graph
        mask = graph.node("Cast", "attention_mask", to=onnx.TensorProto.INT32)
        x_BTD = self._embeddings()
        layers = [cast(SparseBertLayer, layer) for layer in self._model.bert.encoder.layer]
        for index, layer in enumerate(layers):
            x_BTD = self._layer(f"layer.{index}", layer, x_BTD, mask, first_token_only=index == len(layers) - 1)
        first_BD = graph.node("Squeeze", x_BTD, graph.constant([1]))
        pooled_BD = self._linear("pooler", first_BD, self._model.bert.pooler.dense)
        pooled_BD = graph.node(POOLER_ACTIVATIONS[self._config.pooler_activation], pooled_BD)
        graph.rename(self._linear("classifier", pooled_BD, self._model.classifier), "logits")
        free = ("batch", "sequence")
        return graph.model(
            {spec.name: (spec.dtype, free) for spec in INPUTS},
            {"logits": ("float32", ("batch", self._config.num_labels))},
        )

    def _embeddings(self) -> str:
        graph, tables = self._graph, self._model.bert.embeddings
        words = self._weights.lookup(graph, "embeddings.word", "input_ids", tables.word_embeddings.weight)
        types_table = graph.weight("embeddings.token_type", _array(tables.token_type_embeddings.weight))
        types = graph.node("Gather", types_table, "token_type_ids")
        positions_TD = graph.node(
            "Slice",
            graph.weight("embeddings.position", _array(tables.position_embeddings.weight)),
            graph.constant([0]),
            graph.node("Shape", "input_ids", start=1, end=2),
            graph.constant([0]),
        )
        total = graph.node("Add", graph.node("Add", words, types), positions_TD)
        x_BTE = self._layer_norm("embeddings.norm", total, tables.LayerNorm)
        projection = self._model.bert.embeddings_project
        return x_BTE if projection is None else self._linear("embeddings.projection", x_BTE, projection)

    def _layer(self, name: str, layer: SparseBertLayer, x_BTD: str, mask: str, *, first_token_only: bool) -> str:
        """Both blocks of a layer; [B, 1, D] when only the first token is wanted."""
        x_BQD = x_BTD
        if first_token_only:
            x_BQD = self._graph.node("Gather", x_BTD, self._graph.constant([0]), axis=1)
        if layer.attention is not None:
            own, output = layer.attention.self, layer.attention.output
            context = self._graph.node(
                "MultiHeadAttention",
                self._linear(f"{name}.query", x_BQD, own.query),
                self._linear(f"{name}.key", x_BTD, own.key),
                self._linear(f"{name}.value", x_BTD, own.value),
                "",
                mask,
                domain=MICROSOFT,
                num_heads=own.query.out_features // self._config.head_size,
                scale=float(own.scaling),
            )
            x_BQD = self._block_end(f"{name}.attention", context, x_BQD, output.dense, output.LayerNorm)
        if layer.intermediate is not None and layer.output is not None:
            units = self._linear(f"{name}.intermediate", x_BQD, layer.intermediate.dense)
            units = self._graph.node(ACTIVATIONS[self._config.hidden_act], units)
            x_BQD = self._block_end(f"{name}.output", units, x_BQD, layer.output.dense, layer.output.LayerNorm)
        return x_BQD

    def _block_end(self, name: str, units: str, residual: str, dense: nn.Linear, norm: nn.LayerNorm) -> str:
        total = self._graph.node("Add", self._linear(name, units, dense), residual)
        return self._layer_norm(f"{name}.norm", total, norm)

    def _layer_norm(self, name: str, x: str, norm: nn.LayerNorm) -> str:
        scale = self._graph.weight(f"{name}.weight", _array(norm.weight))
        shift = self._graph.weight(f"{name}.bias", _array(norm.bias))
        return self._graph.node("LayerNormalization", x, scale, shift, axis=-1, epsilon=norm.eps)

    def _linear(self, name: str, x: str, layer: nn.Linear) -> str:
        return self._weights.linear(self._graph, name, x, layer)


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return tensor.detach().float().cpu().numpy()
