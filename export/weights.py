"""What a compact SparseBERT is as plain arrays, with nothing of PyTorch left.

The only file of the graph's side that reads the model class. Knows nothing about ONNX.

D hidden size, E embedding size, W heads times head size, V rows of a table; K inputs and N outputs of any linear
layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from sparsebert.errors import ExportError
from training.modeling import ACTIVATIONS, TANH_GELUS, SparseBertForSequenceClassification, SparseBertLayer

Float32 = NDArray[np.float32]
Activation = Literal["gelu", "gelu_tanh", "relu"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Linear:
    """x / divisor @ weight + bias, with inputs of the last axis divided first when there is a divisor."""

    name: str
    weight_KN: Float32
    bias_N: Float32
    divisor_K: Float32 | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Norm:
    """LayerNorm over the last axis."""

    name: str
    weight_D: Float32
    bias_D: Float32
    epsilon: float


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionWeights:
    """One attention block; `projections` are queries, keys and values side by side, [D, 3 W]."""

    projections: Linear
    num_heads: int
    scale: float
    output: Linear
    norm: Norm


@dataclass(frozen=True, kw_only=True, eq=False)
class FeedForwardWeights:
    """One FFN block."""

    hidden: Linear
    output: Linear
    norm: Norm


Block = AttentionWeights | FeedForwardWeights


@dataclass(frozen=True, kw_only=True, eq=False)
class EmbeddingWeights:
    """The three tables, their norm, and the projection to the hidden size where they are not that wide."""

    words_VE: Float32
    positions_VE: Float32
    types_VE: Float32
    norm: Norm
    projection: Linear | None


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelWeights:
    """A whole classifier; `blocks` come in the order in which they compute, removed ones are not there."""

    embeddings: EmbeddingWeights
    blocks: tuple[Block, ...]
    pooler: Linear
    classifier: Linear
    activation: Activation
    pooler_activation: str

    def linears(self) -> list[Linear]:
        """All linear layers, in the order in which they compute."""
        layers = [] if self.embeddings.projection is None else [self.embeddings.projection]
        for block in self.blocks:
            first = block.projections if isinstance(block, AttentionWeights) else block.hidden
            layers += [first, block.output]
        return [*layers, self.pooler, self.classifier]


def split_projections(projections: Linear) -> tuple[Linear, Linear, Linear]:
    """Queries, keys and values, each [D, W]; their names have the whole layer's before the slash."""
    weights = np.split(projections.weight_KN, 3, axis=1)
    biases = np.split(projections.bias_N, 3)
    queries, keys, values = (
        replace(projections, name=f"{projections.name}/{part}", weight_KN=weight, bias_N=bias)
        for part, weight, bias in zip(("queries", "keys", "values"), weights, biases, strict=True)
    )
    return queries, keys, values


def base_name(layer: Linear) -> str:
    """The name of the layer that this is, or is a part of."""
    return layer.name.partition("/")[0]


def join(parts: Sequence[Linear]) -> Linear:
    """Parts of one layer side by side."""
    whole, _, first = parts[0].name.partition("/")
    return replace(
        parts[0],
        name=f"{whole}/{'_'.join([first, *(part.name.partition('/')[2] for part in parts[1:])])}",
        weight_KN=np.concatenate([part.weight_KN for part in parts], axis=1),
        bias_N=np.concatenate([part.bias_N for part in parts]),
    )


def read_weights(model: SparseBertForSequenceClassification, max_positions: int | None = None) -> ModelWeights:
    """The arrays of `model`, which is compact or dense; with the first `max_positions` positions only.

    Raises ExportError for an activation that the graph has no operator for.
    """
    bert, projection = model.bert, model.bert.embeddings_project
    blocks: list[Block] = []
    for index, layer in enumerate(bert.encoder.layer):
        blocks += _blocks(f"layer.{index}", cast(SparseBertLayer, layer))
    return ModelWeights(
        embeddings=EmbeddingWeights(
            words_VE=_array(bert.embeddings.word_embeddings.weight),
            positions_VE=_array(bert.embeddings.position_embeddings.weight)[:max_positions],
            types_VE=_array(bert.embeddings.token_type_embeddings.weight),
            norm=_norm("embeddings.norm", bert.embeddings.LayerNorm),
            projection=None if projection is None else _linear("embeddings.projection", projection),
        ),
        blocks=tuple(blocks),
        pooler=_linear("pooler", bert.pooler.dense),
        classifier=_linear("classifier", model.classifier),
        activation=_activation(model.config.hidden_act),
        pooler_activation=model.config.pooler_activation,
    )


def _activation(hidden_act: str) -> Activation:
    if hidden_act not in ACTIVATIONS:
        raise ExportError(f"the activation {hidden_act!r} cannot be exported; known are {', '.join(ACTIVATIONS)}")
    if hidden_act in TANH_GELUS:
        return "gelu_tanh"
    return "relu" if hidden_act == "relu" else "gelu"


def _blocks(name: str, layer: SparseBertLayer) -> list[Block]:
    blocks: list[Block] = []
    if layer.attention is not None:
        own, output = layer.attention.self, layer.attention.output
        parts = [_linear("", part) for part in (own.query, own.key, own.value)]
        projections = Linear(
            name=f"{name}.projections",
            weight_KN=np.concatenate([part.weight_KN for part in parts], axis=1),
            bias_N=np.concatenate([part.bias_N for part in parts]),
        )
        blocks.append(
            AttentionWeights(
                projections=projections,
                num_heads=own.query.out_features // own.head_size,
                scale=float(own.scaling),
                output=_linear(f"{name}.attention", output.dense),
                norm=_norm(f"{name}.attention.norm", output.LayerNorm),
            )
        )
    if layer.intermediate is not None and layer.output is not None:
        blocks.append(
            FeedForwardWeights(
                hidden=_linear(f"{name}.hidden", layer.intermediate.dense),
                output=_linear(f"{name}.output", layer.output.dense),
                norm=_norm(f"{name}.output.norm", layer.output.LayerNorm),
            )
        )
    return blocks


def _linear(name: str, layer: nn.Linear) -> Linear:
    return Linear(name=name, weight_KN=_array(layer.weight).T, bias_N=_array(layer.bias))


def _norm(name: str, norm: nn.LayerNorm) -> Norm:
    return Norm(name=name, weight_D=_array(norm.weight), bias_D=_array(norm.bias), epsilon=norm.eps)


def _array(tensor: Tensor) -> Float32:
    return cast(Float32, tensor.detach().float().cpu().numpy())
