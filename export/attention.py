"""With which operators is an attention block written: for all tokens, and for first tokens alone?

All ways compute the same. `MultiHeadAttention` takes any number of heads (the runtime's own fusion does not); the
operators with the projections inside (`Attention`, `QAttention`) save moving queries, keys and values about. For
first tokens, which have one query each, keys and values need not be projected at all: with query q of a head,
(x Wk) q = x (Wk q), and the softmax's sum over (x Wv) is the sum over x, times Wv. The keys' bias adds the same to
all scores of a query, and the softmax takes it out.

B texts, T positions, N rows, D hidden size, H heads, E head size, W = H E.
"""

import numpy as np
from onnx import TensorProto

from export.builder import MICROSOFT, GraphBuilder
from export.forms import Form
from export.layouts import PaddedLayout
from export.products import Products
from export.weights import AttentionWeights, Float32, Linear, join, split_projections

LOWEST = np.array(-np.inf, np.float32)  # every text has a token, so no softmax is of these alone


class AttentionWriter:
    """Writes what the heads of a block read, before the output projection."""

    def __init__(self, graph: GraphBuilder, products: Products, layout: PaddedLayout, form: Form) -> None:
        self._graph = graph
        self._products = products
        self._layout = layout
        self._form = form

    def all_tokens(self, block: AttentionWeights, x_ND: str) -> str:
        """The context of each row, [N, W]."""
        if self._form.projections == "inside":
            rows = self._products.attention_rows(self._graph, x_ND, block.projections)
            x_BTD = self._layout.to_texts(rows)
            return self._layout.to_rows(self._products.attention(self._graph, x_BTD, block, self._layout.key_mask()))
        q_BTW, k_BTW, v_BTW = self._projected(split_projections(block.projections), x_ND)
        return self._layout.to_rows(self._heads(block, q_BTW, k_BTW, v_BTW, self._layout.key_mask()))

    def first_tokens(self, block: AttentionWeights, x_BD: str, read_ND: str) -> str:
        """The context of first tokens `x_BD`, reading all rows, [B, W]."""
        graph, (queries, keys, values) = self._graph, split_projections(block.projections)
        if self._form.last == "unprojected":
            return self._unprojected(block, x_BD, self._layout.to_texts(read_ND))
        k_BTW, v_BTW = self._projected((keys, values), read_ND)
        q_B1W = graph.node("Unsqueeze", self._products.linear(graph, x_BD, queries), graph.constant([1]))
        mask = self._layout.key_mask(first_tokens=True)
        return graph.node("Squeeze", self._heads(block, q_B1W, k_BTW, v_BTW, mask), graph.constant([1]))

    def _projected(self, parts: tuple[Linear, ...], x_ND: str) -> list[str]:
        """Each part of the projections for all positions, [B, T, W]."""
        graph, layout = self._graph, self._layout
        if self._form.projections == "separate":
            return [layout.to_texts(self._products.linear(graph, x_ND, part)) for part in parts]
        joined = layout.to_texts(self._products.linear(graph, x_ND, join(parts)))
        return graph.nodes("Split", [joined], len(parts), axis=-1, num_outputs=len(parts))

    def _heads(self, block: AttentionWeights, q_BQW: str, k_BTW: str, v_BTW: str, mask: str) -> str:
        if self._form.attention == "standard":
            return self._standard_heads(block, q_BQW, k_BTW, v_BTW)
        return self._graph.node(
            "MultiHeadAttention",
            q_BQW,
            k_BTW,
            v_BTW,
            "",
            mask,
            domain=MICROSOFT,
            num_heads=block.num_heads,
            scale=block.scale,
        )

    def _standard_heads(self, block: AttentionWeights, q_BQW: str, k_BTW: str, v_BTW: str) -> str:
        graph, size = self._graph, len(block.output.weight_KN) // block.num_heads
        of_heads = graph.constant([0, 0, block.num_heads, size])
        q_BQHE, k_BTHE, v_BTHE = (graph.node("Reshape", one, of_heads) for one in (q_BQW, k_BTW, v_BTW))
        q_BHQE, v_BHTE = (graph.node("Transpose", one, perm=[0, 2, 1, 3]) for one in (q_BQHE, v_BTHE))
        scores_BHQT = graph.node("MatMul", q_BHQE, graph.node("Transpose", k_BTHE, perm=[0, 2, 3, 1]))
        scale = self._products.constant(graph, f"{block.output.name}.scale", np.array(block.scale, np.float32))
        shares_BHQT = self._shares(graph.node("Mul", scores_BHQT, scale), [1, 2])
        context_BQHE = graph.node("Transpose", graph.node("MatMul", shares_BHQT, v_BHTE), perm=[0, 2, 1, 3])
        return graph.node("Reshape", context_BQHE, graph.constant([0, 0, -1]))

    def _unprojected(self, block: AttentionWeights, x_BD: str, read_BTD: str) -> str:
        graph = self._graph
        queries, keys, values = split_projections(block.projections)
        heads, size = block.num_heads, len(queries.bias_N) // block.num_heads
        q_BW = self._products.linear(graph, x_BD, queries)
        q_BHE = graph.node("Reshape", q_BW, graph.constant([0, heads, size]))
        keys_HED = keys.weight_KN.T.reshape(heads, size, -1)
        scores_BTH = graph.node(
            "FusedMatMul",
            read_BTD,
            self._of_each_head(q_BHE, keys.name, keys_HED),
            domain=MICROSOFT,
            alpha=block.scale,
            transB=1,
        )
        shares_BHT = self._shares(graph.node("Transpose", scores_BTH, perm=[0, 2, 1]), [1])
        values_HDE = values.weight_KN.reshape(-1, heads, size).transpose(1, 0, 2)
        context_BHE = self._of_each_head(self._weighted(read_BTD, shares_BHT), values.name, values_HDE)
        context_BW = graph.node("Reshape", context_BHE, graph.constant([0, -1]))
        return graph.node("Add", context_BW, self._products.constant(graph, f"{values.name}.bias", values.bias_N))

    def _shares(self, scores: str, axes: list[int]) -> str:
        """How much each head reads of each token; `axes` are those of the scores between texts and tokens."""
        graph = self._graph
        real_BT = graph.node("Cast", "attention_mask", to=TensorProto.BOOL)
        real = graph.node("Unsqueeze", real_BT, graph.constant(axes))
        masked = graph.node("Where", real, scores, self._products.constant(graph, "lowest", LOWEST))
        return graph.node("Softmax", masked, axis=-1)

    def _of_each_head(self, x_BHK: str, name: str, weight_HKM: Float32) -> str:
        """The product with each head's own weight, [B, H, M]."""
        graph, weight = self._graph, self._products.constant(self._graph, f"{name}.heads", weight_HKM)
        if self._products.fixed_order:  # a product for each text, since one of many rows adds up in another order
            x_BH1K = graph.node("Unsqueeze", x_BHK, graph.constant([2]))
            return graph.node("Squeeze", graph.node("MatMul", x_BH1K, weight), graph.constant([2]))
        x_HBK = graph.node("Transpose", x_BHK, perm=[1, 0, 2])
        return graph.node("Transpose", graph.node("MatMul", x_HBK, weight), perm=[1, 0, 2])

    def _weighted(self, x_BTD: str, shares_BHT: str) -> str:
        """The sums of tokens by their shares, [B, H, D]."""
        graph = self._graph
        if self._products.fixed_order:  # with few columns, sums over many tokens are not cut where threads cut them
            sums_BDH = graph.node("FusedMatMul", x_BTD, shares_BHT, domain=MICROSOFT, transA=1, transB=1)
            return graph.node("Transpose", sums_BDH, perm=[0, 2, 1])
        return graph.node("MatMul", shares_BHT, x_BTD)
