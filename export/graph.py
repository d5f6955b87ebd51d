"""Which ONNX graph computes a compact SparseBERT: our own, straight from the weights.

Every tensor between layers is a matrix with one row for each token; only the attention sees texts, with one fused
operator per layer whose number of heads is free (unlike that of the runtime's own fusion). From the last attention
on, only the first token is computed, which is all that the pooler reads. Knows nothing about masks, files or
accuracy.

B texts, T positions, N rows (real tokens, or all positions), E embedding size, D hidden size, W heads times head
size, U units, C classes.
"""

from collections.abc import Sequence
from dataclasses import replace

import onnx

from export.attention import AttentionWriter
from export.builder import MICROSOFT, GraphBuilder
from export.folding import fold_output_biases, with_two_heads
from export.forms import Form
from export.layouts import LAYOUTS
from export.products import Products
from export.weights import AttentionWeights, Block, ModelWeights, Norm
from sparsebert.manifest import TensorSpec

INPUTS = tuple(
    TensorSpec(name=name, dtype="int64", shape=(-1, -1)) for name in ("input_ids", "attention_mask", "token_type_ids")
)
POOLER_ACTIVATIONS = {"gelu": "Gelu", "relu": "Relu", "tanh": "Tanh"}


def output_specs(num_labels: int) -> tuple[TensorSpec, ...]:
    """What the graph gives."""
    return (TensorSpec(name="logits", dtype="float32", shape=(-1, num_labels)),)


def build_graph(weights: ModelWeights, products: Products, form: Form) -> onnx.ModelProto:
    """The graph of a model."""
    if products.takes_residuals:
        weights = fold_output_biases(weights)
    if form.last == "unprojected" and products.fixed_order:
        # Products with one row or column, which a single head would make, add up in another order.
        blocks = list(weights.blocks)
        last = last_attention(blocks)
        blocks[last:] = [with_two_heads(block) for block in blocks[last:]]
        weights = replace(weights, blocks=tuple(blocks))
    return _BertGraph(weights, products, form).build()


class _BertGraph:
    """One use: writes the graph of one model."""

    def __init__(self, weights: ModelWeights, products: Products, form: Form) -> None:
        self._weights = weights
        self._products = products
        self._form = form
        self._graph = GraphBuilder()
        self._layout = LAYOUTS[form.layout](self._graph, form.mask)
        self._attention = AttentionWriter(self._graph, products, self._layout, form)

    def build(self) -> onnx.ModelProto:
        graph, weights = self._graph, self._weights
        x_ND = self._embeddings()
        last = last_attention(weights.blocks)
        for block in weights.blocks[:last]:
            x_ND = self._block(block, x_ND)
        x_BD = self._layout.first_tokens(x_ND)
        for block in weights.blocks[last:]:
            x_BD = self._block(block, x_BD, read_ND=x_ND)
        pooled_BD = graph.node(
            POOLER_ACTIVATIONS[weights.pooler_activation], self._products.linear(graph, x_BD, weights.pooler)
        )
        logits_BC = self._products.logits(graph, self._products.linear(graph, pooled_BD, weights.classifier))
        graph.output(logits_BC, "logits", ("batch", len(weights.classifier.bias_N)))
        return graph.model({spec.name: (spec.dtype, ("batch", "sequence")) for spec in INPUTS})

    def _embeddings(self) -> str:
        graph, tables, layout = self._graph, self._weights.embeddings, self._layout
        words = self._products.lookup(graph, "embeddings.word", layout.rows_of("input_ids"), tables.words_VE)
        # One table for every pair of position and token type: a lookup and an addition less for each batch. It is
        # small, and in 8 bits it would cost more accuracy than all words (measured, docs/results.md).
        places_VE = (tables.positions_VE[:, None] + tables.types_VE).reshape(-1, tables.types_VE.shape[1])
        first_type = graph.node("Mul", layout.positions(), graph.constant(len(tables.types_VE)))
        place = graph.node("Add", first_type, layout.rows_of("token_type_ids"))
        places = graph.node("Gather", self._products.constant(graph, "embeddings.place", places_VE), place)
        x_NE = self._norm(graph.node("Add", words, places), tables.norm)
        return x_NE if tables.projection is None else self._products.linear(graph, x_NE, tables.projection)

    def _block(self, block: Block, x_ND: str, read_ND: str | None = None) -> str:
        """One block for the rows of `x_ND`; with `read_ND` those are first tokens, and attention reads all tokens."""
        if isinstance(block, AttentionWeights):
            writer = self._attention
            units_NU = writer.all_tokens(block, x_ND) if read_ND is None else writer.first_tokens(block, x_ND, read_ND)
        else:
            units_NU = self._activation(self._products.linear(self._graph, x_ND, block.hidden))
        return self._block_end(units_NU, block, x_ND)

    def _activation(self, x_NU: str) -> str:
        if self._weights.activation == "relu":
            return self._graph.node("Relu", x_NU)
        by_tanh = self._weights.activation == "gelu_tanh" or self._form.gelu == "tanh"
        return self._graph.node("Gelu", x_NU, approximate="tanh" if by_tanh else "none")

    def _block_end(self, units_NU: str, block: Block, x_ND: str) -> str:
        if self._form.norms == "fused":
            return self._fused_norm(self._products.linear(self._graph, units_NU, block.output), x_ND, block.norm)
        return self._norm(self._products.add_linear(self._graph, units_NU, block.output, x_ND), block.norm)

    def _norm(self, x_ND: str, norm: Norm) -> str:
        return self._graph.node("LayerNormalization", x_ND, *self._affine(norm), axis=-1, epsilon=norm.epsilon)

    def _fused_norm(self, x_ND: str, residual_ND: str, norm: Norm) -> str:
        return self._graph.node(
            "SkipLayerNormalization", x_ND, residual_ND, *self._affine(norm), domain=MICROSOFT, epsilon=norm.epsilon
        )

    def _affine(self, norm: Norm) -> tuple[str, str]:
        return (
            self._products.constant(self._graph, f"{norm.name}.weight", norm.weight_D),
            self._products.constant(self._graph, f"{norm.name}.bias", norm.bias_D),
        )


def last_attention(blocks: Sequence[Block]) -> int:
    """The position of the last attention block: what comes after it reads single tokens, so the first is enough."""
    places = [index for index, block in enumerate(blocks) if isinstance(block, AttentionWeights)]
    return places[-1] if places else 0
