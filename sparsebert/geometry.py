"""How large is a BERT encoder with these heads and neurons: parameters and multiply-accumulates.

Pure arithmetic; knows nothing about tensors, masks or files.

Letters: L layers, H heads in a layer, F neurons of a feed-forward network (FFN), D hidden size.
A block with no units left is removed whole, its LayerNorm with it (Xia et al. 2022, CoFi, section 3.1).
"""

from typing import Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)


def attention_parameters(heads: int, head_size: int, hidden_size: int) -> int:
    """Parameters of one attention block, its LayerNorm included; 0 for a removed block."""
    if heads == 0:
        return 0
    width = heads * head_size
    query_key_value = 3 * (hidden_size * width + width)
    output = width * hidden_size + hidden_size
    return query_key_value + output + 2 * hidden_size


def ffn_parameters(neurons: int, hidden_size: int) -> int:
    """Parameters of one FFN block, its LayerNorm included; 0 for a removed block."""
    if neurons == 0:
        return 0
    return (hidden_size * neurons + neurons) + (neurons * hidden_size + hidden_size) + 2 * hidden_size


def head_parameters(head_size: int, hidden_size: int) -> int:
    """Parameters that leave with one head while its block stays."""
    return 3 * (hidden_size * head_size + head_size) + head_size * hidden_size


def neuron_parameters(hidden_size: int) -> int:
    """Parameters that leave with one FFN neuron while its block stays."""
    return 2 * hidden_size + 1


class Geometry(BaseModel):
    """The sizes of one BERT classifier, layer by layer.

    `embedding_size` is that of embeddings that are projected to the hidden size; None: they have that size.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden_size: PositiveInt
    head_size: PositiveInt
    heads_L: tuple[NonNegativeInt, ...] = Field(min_length=1)
    neurons_L: tuple[NonNegativeInt, ...] = Field(min_length=1)
    vocabulary_size: PositiveInt
    max_positions: PositiveInt
    token_types: NonNegativeInt
    num_labels: PositiveInt
    embedding_size: PositiveInt | None = None

    @model_serializer(mode="wrap")
    def _without_what_it_has_not(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """No `embedding_size` that is None: manifests from before it was known stay what their seals say."""
        values: dict[str, Any] = serialize(self)
        return {name: value for name, value in values.items() if value is not None}

    @model_validator(mode="after")
    def _one_entry_per_layer(self) -> Self:
        if len(self.heads_L) != len(self.neurons_L):
            raise ValueError(f"heads_L has {len(self.heads_L)} layers but neurons_L has {len(self.neurons_L)}")
        return self

    @property
    def num_layers(self) -> int:
        return len(self.heads_L)

    def encoder_parameters(self) -> int:
        """Parameters of all attention and FFN blocks, LayerNorms included."""
        attention = sum(attention_parameters(h, self.head_size, self.hidden_size) for h in self.heads_L)
        return attention + sum(ffn_parameters(f, self.hidden_size) for f in self.neurons_L)

    def embedding_parameters(self) -> int:
        """Parameters of the word, position and token type tables, their LayerNorm and their projection."""
        rows = self.vocabulary_size + self.max_positions + self.token_types
        if self.embedding_size is None:
            return rows * self.hidden_size + 2 * self.hidden_size
        projection = self.embedding_size * self.hidden_size + self.hidden_size
        return rows * self.embedding_size + 2 * self.embedding_size + projection

    def classifier_parameters(self) -> int:
        """Parameters of the pooler and the classification layer."""
        pooler = self.hidden_size * self.hidden_size + self.hidden_size
        return pooler + self.hidden_size * self.num_labels + self.num_labels

    def parameters(self) -> int:
        """All parameters of the classifier."""
        return self.embedding_parameters() + self.encoder_parameters() + self.classifier_parameters()

    def macs(self, sequence_length: int) -> int:
        """Multiply-accumulates for one text of `sequence_length` tokens (matrix products only)."""
        attention = sum(
            4 * self.hidden_size * heads * self.head_size + 2 * sequence_length * heads * self.head_size
            for heads in self.heads_L
        )
        ffn = sum(2 * self.hidden_size * neurons for neurons in self.neurons_L)
        projection = (self.embedding_size or 0) * self.hidden_size
        classifier = self.hidden_size * (self.hidden_size + self.num_labels)
        return sequence_length * (projection + attention + ffn) + classifier

    def encoder_sparsity(self, dense: "Geometry") -> float:
        """The share of `dense`'s encoder parameters that is missing here, in [0, 1]."""
        return 1.0 - self.encoder_parameters() / dense.encoder_parameters()
