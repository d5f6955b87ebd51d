"""How is a linear layer or a table written at one precision?

Knows nothing about BERT. N rows, K inputs, M outputs of a linear layer.
"""

from typing import Protocol

import numpy as np
from onnx import TensorProto

from export.builder import MICROSOFT, GraphBuilder
from export.forms import Form
from export.quantization import InputRange, quantize_columns, quantize_rows
from export.weights import AttentionWeights, Float32, Linear, base_name
from sparsebert.errors import ExportError


class Products(Protocol):
    """What depends on the precision. All tensors between layers have one floating type.

    `takes_residuals` says that `add_linear` is one product when the layer's bias is zero; `fixed_order` that floats
    must add up in the same order whatever the batch, because they are rounded to integers afterwards.
    """

    @property
    def takes_residuals(self) -> bool: ...

    @property
    def fixed_order(self) -> bool: ...

    def linear(self, graph: GraphBuilder, x_NK: str, layer: Linear) -> str:
        """The layer's output, [N, M]."""

    def add_linear(self, graph: GraphBuilder, x_NK: str, layer: Linear, residual_NM: str) -> str:
        """The layer's output plus a residual, [N, M]."""

    def attention_rows(self, graph: GraphBuilder, x_NK: str, layer: Linear) -> str:
        """The rows as `attention` wants them."""

    def attention(self, graph: GraphBuilder, x_BTK: str, block: AttentionWeights, mask: str) -> str:
        """Projections and attention in one operator, [B, T, W]."""

    def lookup(self, graph: GraphBuilder, name: str, ids: str, table_VD: Float32) -> str:
        """Rows of a table, [..., D]."""

    def constant(self, graph: GraphBuilder, name: str, values: Float32) -> str:
        """Weights of a norm."""

    def logits(self, graph: GraphBuilder, x: str) -> str:
        """The same values as 32-bit floats."""


class FloatProducts:
    """32-bit or 16-bit floats."""

    def __init__(self, form: Form, dtype: type[np.float32] | type[np.float16] = np.float32) -> None:
        self._form = form
        self._dtype = dtype

    @property
    def takes_residuals(self) -> bool:
        return self._form.products == "gemm"

    @property
    def fixed_order(self) -> bool:
        return False

    def linear(self, graph: GraphBuilder, x_NK: str, layer: Linear) -> str:
        weight, bias = self._weight(graph, layer), self.constant(graph, f"{layer.name}.bias", layer.bias_N)
        if self._form.products == "gemm":
            return graph.node("Gemm", x_NK, weight, bias)
        return graph.node("Add", graph.node("MatMul", x_NK, weight), bias)

    def add_linear(self, graph: GraphBuilder, x_NK: str, layer: Linear, residual_NM: str) -> str:
        if self.takes_residuals and not layer.bias_N.any():
            return graph.node("Gemm", x_NK, self._weight(graph, layer), residual_NM)
        return graph.node("Add", self.linear(graph, x_NK, layer), residual_NM)

    def attention_rows(self, graph: GraphBuilder, x_NK: str, layer: Linear) -> str:  # noqa: ARG002
        return x_NK

    def attention(self, graph: GraphBuilder, x_BTK: str, block: AttentionWeights, mask: str) -> str:
        layer = block.projections
        return graph.node(
            "Attention",
            x_BTK,
            self._weight(graph, layer),
            self.constant(graph, f"{layer.name}.bias", layer.bias_N),
            mask,
            domain=MICROSOFT,
            num_heads=block.num_heads,
            scale=block.scale,
            qkv_hidden_sizes=[len(block.output.weight_KN)] * 3,
        )

    def lookup(self, graph: GraphBuilder, name: str, ids: str, table_VD: Float32) -> str:
        return graph.node("Gather", self.constant(graph, name, table_VD), ids)

    def constant(self, graph: GraphBuilder, name: str, values: Float32) -> str:
        return graph.weight(name, values.astype(self._dtype))

    def logits(self, graph: GraphBuilder, x: str) -> str:
        return x if self._dtype is np.float32 else graph.node("Cast", x, to=TensorProto.FLOAT)

    def _weight(self, graph: GraphBuilder, layer: Linear) -> str:
        return self.constant(graph, f"{layer.name}.weight", layer.weight_KN)


class ObservingProducts(FloatProducts):
    """32-bit floats; what goes into each linear layer is an output of the graph, named as the layer.

    Of a layer in parts, what goes into the part that is written first: keys and values, which read all tokens.
    """

    def __init__(self, form: Form) -> None:
        super().__init__(form)
        self._seen: set[str] = set()

    def linear(self, graph: GraphBuilder, x_NK: str, layer: Linear) -> str:
        name = base_name(layer)
        if name not in self._seen:
            graph.output(graph.node("Identity", x_NK), name, ("rows", len(layer.weight_KN)))
            self._seen.add(name)
        return super().linear(graph, x_NK, layer)


class Int8Products(FloatProducts):
    """8-bit weights with a scale per output or row, 8-bit activations with a constant scale per layer.

    Constant scales make an answer independent of the other texts in the batch: every row is rounded in the same way
    wherever it stands, and integer sums are exact. `ranges` holds the range of each layer's inputs, by layer name.
    With `reduced_range` weights have 7 bits, so that processors that add pairs of products in 16 bits (x86 without
    VNNI) never saturate: 2 x 255 x 63 < 2^15.
    """

    def __init__(self, form: Form, ranges: dict[str, InputRange], *, reduced_range: bool = False) -> None:
        super().__init__(form)
        self._ranges = ranges
        self._reduced_range = reduced_range

    @property
    def takes_residuals(self) -> bool:
        return False

    @property
    def fixed_order(self) -> bool:
        return True

    def linear(self, graph: GraphBuilder, x_NK: str, layer: Linear) -> str:
        weight = quantize_columns(layer.weight_KN, reduced_range=self._reduced_range)
        scale, zero = self._input_scale(graph, layer)
        return graph.node(
            "MatMulIntegerToFloat",
            self._quantize(graph, x_NK, layer),
            graph.weight(f"{layer.name}.weight", weight.integers),
            scale,
            graph.weight(f"{layer.name}.weight_scale", weight.scale),
            zero,
            "",
            graph.weight(f"{layer.name}.bias", layer.bias_N),
            domain=MICROSOFT,
        )

    def add_linear(self, graph: GraphBuilder, x_NK: str, layer: Linear, residual_NM: str) -> str:
        return graph.node("Add", self.linear(graph, x_NK, layer), residual_NM)

    def attention_rows(self, graph: GraphBuilder, x_NK: str, layer: Linear) -> str:
        return self._quantize(graph, x_NK, layer)

    def attention(self, graph: GraphBuilder, x_BTK: str, block: AttentionWeights, mask: str) -> str:
        layer = block.projections
        weight = quantize_columns(layer.weight_KN, reduced_range=self._reduced_range)
        scale, zero = self._input_scale(graph, layer)
        return graph.node(
            "QAttention",
            x_BTK,
            graph.weight(f"{layer.name}.weight", weight.integers),
            graph.weight(f"{layer.name}.bias", layer.bias_N),
            scale,
            graph.weight(f"{layer.name}.weight_scale", weight.scale),
            mask,
            zero,
            domain=MICROSOFT,
            num_heads=block.num_heads,
            scale=block.scale,
        )

    def lookup(self, graph: GraphBuilder, name: str, ids: str, table_VD: Float32) -> str:
        rows = quantize_rows(table_VD)
        integers = graph.node("Gather", graph.weight(name, rows.integers), ids)
        scale = graph.node("Gather", graph.weight(f"{name}.scale", rows.scale), ids)
        return graph.node("Mul", graph.node("Cast", integers, to=TensorProto.FLOAT), scale)

    def _quantize(self, graph: GraphBuilder, x_NK: str, layer: Linear) -> str:
        if layer.divisor_K is not None:
            x_NK = graph.node("Mul", x_NK, graph.weight(f"{base_name(layer)}.factor", 1 / layer.divisor_K))
        return graph.node("QuantizeLinear", x_NK, *self._input_scale(graph, layer))

    def _input_scale(self, graph: GraphBuilder, layer: Linear) -> tuple[str, str]:
        name = base_name(layer)
        if name not in self._ranges:
            raise ExportError(f"no calibrated range for the inputs of {name}")
        scale, zero = self._ranges[name].scale_and_zero()
        return graph.weight(f"{name}.input_scale", scale), graph.weight(f"{name}.input_zero", zero)
