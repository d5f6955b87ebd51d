"""In which equivalent ways can the graph be written, and which is the default for a kind of processor?

The alternatives compute the same; `export.tuning` measures which is fastest on a machine. Knows nothing about ONNX.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal, get_args, get_type_hints

from sparsebert.manifest import Precision


@dataclass(frozen=True, kw_only=True)
class Form:
    """One way to write a graph.

    `layout`: linear layers compute all positions of the batch, or only real tokens (padding is taken out before the
    first layer and put back for the attention alone). `projections`: queries, keys and values are one product or
    three. `products`: biases and residuals go into the matrix product (Gemm), or are added after it (integer products
    take a bias, but no residual, whatever is said here). `norms`: Add then LayerNormalization, or one fused operator.
    """

    layout: Literal["padded", "packed"]
    projections: Literal["joined", "separate"]
    products: Literal["gemm", "matmul"]
    norms: Literal["plain", "fused"]

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
CPU_FORM = Form(layout="packed", projections="joined", products="gemm", norms="plain")
GPU_FORM = Form(layout="padded", projections="separate", products="matmul", norms="fused")
DEFAULT_FORMS: dict[Precision, Form] = {
    "fp32": CPU_FORM,
    "int8": replace(CPU_FORM, products="matmul"),
    "fp16": GPU_FORM,
}
# What makes a difference on a CPU.
TUNED_CHOICES: dict[Precision, tuple[str, ...]] = {
    "fp32": ("layout", "projections", "products", "norms"),
    "int8": ("layout", "projections", "norms"),
}
