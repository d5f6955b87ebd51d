"""How float weights become 8-bit integers with scales. Pure arithmetic on arrays.

K inputs, N outputs of a linear layer; V rows of an embedding table, D hidden size.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Int8 = NDArray[np.int8]

LARGEST = 127  # symmetric: -128 is left out, so that the zero point is 0


class Quantized(NamedTuple):
    """Integers and scales: value ≈ integer * scale, the scale's shape broadcasts over the integers'."""

    integers: Int8
    scale: Float32


def quantize_columns(weight_KN: Float32) -> Quantized:
    """One scale for each output, shape [N]."""
    return _quantize(weight_KN, axis=0)


def quantize_rows(table_VD: Float32) -> Quantized:
    """One scale for each row, shape [V, 1]."""
    integers, scale = _quantize(table_VD, axis=1)
    return Quantized(integers, scale[:, None])


def _quantize(values: Float32, axis: int) -> Quantized:
    largest = np.abs(values).max(axis=axis)
    scale = np.where(largest > 0, largest / LARGEST, 1.0).astype(np.float32)
    integers = np.rint(values / np.expand_dims(scale, axis)).astype(np.int8)
    return Quantized(integers, scale)
