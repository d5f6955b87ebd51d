"""Do a model's weights fit into one ONNX file, which is a protobuf message of at most 2 GiB?

Knows nothing about files.
"""

from export.weights import ModelWeights
from sparsebert.errors import ExportError
from sparsebert.manifest import Precision

LIMIT_BYTES = 2**31 - 2**24  # the rest is for nodes and names
BYTES: dict[Precision, int] = {"fp32": 4, "fp16": 2, "int8": 1}


def check_size(weights: ModelWeights, precision: Precision, seen_words: int, limit_bytes: int = LIMIT_BYTES) -> None:
    """Raise ExportError, which names what fits, when a graph of this model is larger than ONNX can hold.

    `seen_words` are the rows of the word table that calibration needs.
    """
    needed = {one: needed_bytes(weights, one, seen_words) for one in BYTES}
    if needed[precision] <= limit_bytes:
        return
    fitting = [one for one, size in needed.items() if size <= limit_bytes]
    others = f"--precision {' or '.join(fitting)}, " if fitting else ""
    during = " while it is calibrated in 32-bit floats" if precision == "int8" else ""
    raise ExportError(
        f"in {precision} this model has {needed[precision] / 1e9:.3g} GB of weights{during}, more than the "
        f"{limit_bytes / 1e9:.3g} GB that an ONNX file holds; take {others}--vocabulary FILE where most are word rows, "
        "a higher sparsity or a smaller backbone"
    )


def needed_bytes(weights: ModelWeights, precision: Precision, seen_words: int) -> int:
    """Bytes of weights in the largest graph that export at this precision makes.

    For integers that is the graph in 32-bit floats that calibration runs, with the words of its texts alone, or the
    graph with all words.
    """
    rows, width = weights.embeddings.words_VE.shape
    others = _numbers_without_words(weights)
    whole: int = BYTES[precision] * (others + rows * width)
    return max(whole, BYTES["fp32"] * (others + seen_words * width)) if precision == "int8" else whole


def _numbers_without_words(weights: ModelWeights) -> int:
    tables = weights.embeddings
    places = len(tables.positions_VE) * tables.types_VE.size  # one table for each pair of both
    layers = sum(layer.weight_KN.size + layer.bias_N.size for layer in weights.linears())
    norms = [tables.norm, *(block.norm for block in weights.blocks)]
    return int(places + layers + sum(norm.weight_D.size + norm.bias_D.size for norm in norms))
