"""In which equivalent ways can the graph be written, and which is the default for a kind of processor?

The alternatives compute the same but for rounding; `export.tuning` measures which is fastest on a machine. Knows
nothing about ONNX.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal, get_args, get_type_hints

from sparsebert.manifest import Precision

Operators = Literal["fused", "standard"]


@dataclass(frozen=True, kw_only=True)
class Form:
    """One way to write a graph.

    `layout`: linear layers compute all positions of the batch, or only real tokens (padding is taken out before the
    first layer and put back for the attention alone). `projections`: queries, keys and values are one product, three,
    or inside the attention operator. `last`: the last attention, which has one query for each text, projects keys and
    values, or does without. `attention`: one fused operator, or standard operators of ONNX. `mask`: attention is told
    which positions are tokens, or how many each text has and where it begins, which fused CUDA kernels want.
    `products`: biases and residuals go into the matrix product (Gemm), or are added after it (integer products take a
    bias, but no residual, whatever is said here). `norms`: Add then LayerNormalization, or one fused operator. `gelu`:
    by the error function, or by tanh, which is within 0.0005 of it and for integers less than a step.
    """

    layout: Literal["padded", "packed"]
    projections: Literal["joined", "separate", "inside"]
    last: Literal["projected", "unprojected"]
    attention: Operators
    mask: Literal["positions", "lengths"]
    products: Literal["gemm", "matmul"]
    norms: Literal["plain", "fused"]
    gelu: Literal["exact", "tanh"]

    def as_dict(self) -> dict[str, str]:
        """The choices by name, for the manifest."""
        return asdict(self)

    def neighbours(self, choices: Sequence[str]) -> list["Form"]:
        """All forms that differ in one of these choices."""
        hints = get_type_hints(Form)
        return [
            replace(self, **{choice: value})
            for choice in choices
            for value in get_args(hints[choice])
            if value != getattr(self, choice)
        ]


# Measured in docs/results.md. The form for GPUs follows ONNX Runtime's own fusions for CUDA and is not measured.
CPU_FORM = Form(
    layout="packed", projections="joined", last="unprojected", attention="fused", mask="positions", products="gemm",
    norms="plain", gelu="exact",
)  # fmt: skip
GPU_FORM = Form(
    layout="padded", projections="separate", last="projected", attention="fused", mask="lengths", products="matmul",
    norms="fused", gelu="exact",
)  # fmt: skip
# No operator of ONNX Runtime's own: what OpenVINO and TensorRT can compute whole.
STANDARD_FORM = Form(
    layout="padded", projections="separate", last="projected", attention="standard", mask="positions",
    products="gemm", norms="plain", gelu="exact",
)  # fmt: skip
DEFAULT_FORMS: dict[Precision, Form] = {
    "fp32": CPU_FORM,
    "int8": replace(CPU_FORM, products="matmul", gelu="tanh"),
    "fp16": GPU_FORM,
}
# What makes a difference on a CPU.
TUNED_CHOICES: dict[Precision, tuple[str, ...]] = {
    "fp32": ("layout", "projections", "last", "products", "norms"),
    "int8": ("layout", "projections", "last", "norms", "gelu"),
}
