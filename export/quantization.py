"""How floats become 8-bit integers with scales. Pure arithmetic on arrays.

K inputs, N outputs of a linear layer; V rows of an embedding table, D hidden size.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from export.weights import Float32, Linear

Int8 = NDArray[np.int8]

LARGEST = 127  # symmetric: -128 is left out, so that the zero point is 0
LARGEST_REDUCED = 63
STEPS = 255
CLIPS = np.linspace(0.3, 1.0, 29)
SMOOTHING = 0.75


class Quantized(NamedTuple):
    """Integers and scales: value ≈ integer * scale, the scale's shape broadcasts over the integers'."""

    integers: Int8
    scale: Float32


@dataclass(frozen=True, kw_only=True)
class InputRange:
    """The range of activations that 0 to 255 stand for; values outside are cut. It always holds 0."""

    low: float
    high: float

    def scale_and_zero(self) -> tuple[Float32, NDArray[np.uint8]]:
        """The size of one step, and the integer that stands for 0."""
        scale = (self.high - self.low) / STEPS or 1.0
        return np.array(scale, np.float32), np.array(np.rint(-self.low / scale), np.uint8)


def best_range(sample: Float32, low: float, high: float) -> InputRange:
    """The range with the smallest mean squared rounding error on `sample`, from 0.3 times to all of [low, high].

    The search for a clipped range is that of Banner et al. 2019 (ACIQ), done on the values themselves.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    ranges = [InputRange(low=low * clip, high=high * clip) for clip in CLIPS]
    return min(ranges, key=lambda candidate: _rounding_error(sample, candidate))


def _rounding_error(values: Float32, candidate: InputRange) -> float:
    scale, zero = candidate.scale_and_zero()
    integers = np.clip(np.rint(values / scale) + zero, 0, STEPS)
    return float(np.square((integers - zero) * scale - values).mean())


def smooth(layer: Linear, largest_K: Float32) -> Linear:
    """The same layer with inputs divided, channel by channel, so that channels with outliers round no coarser.

    `largest_K` are the largest absolute inputs seen. SmoothQuant (Xiao et al. 2023, section 4) with migration
    strength 0.75, normalised to a geometric mean of 1.
    """
    weight_K = np.abs(layer.weight_KN).max(axis=1)
    divisor_K = np.maximum(largest_K, 1e-5) ** SMOOTHING / np.maximum(weight_K, 1e-5) ** (1 - SMOOTHING)
    divisor_K = np.maximum(divisor_K / np.exp(np.log(divisor_K).mean()), 1e-3).astype(np.float32)
    return replace(layer, weight_KN=layer.weight_KN * divisor_K[:, None], divisor_K=divisor_K)


def quantize_columns(weight_KN: Float32, *, reduced_range: bool = False) -> Quantized:
    """One scale for each output, shape [N]; integers up to 127, or to 63 in the reduced range."""
    return _quantize(weight_KN, axis=0, largest=LARGEST_REDUCED if reduced_range else LARGEST)


def quantize_rows(table_VD: Float32) -> Quantized:
    """One scale for each row, shape [V, 1]."""
    integers, scale = _quantize(table_VD, axis=1, largest=LARGEST)
    return Quantized(integers, scale[:, None])


def _quantize(values: Float32, axis: int, largest: int) -> Quantized:
    extreme = np.abs(values).max(axis=axis)
    scale = np.where(extreme > 0, extreme / largest, 1.0).astype(np.float32)
    integers = np.rint(values / np.expand_dims(scale, axis)).astype(np.int8)
    return Quantized(integers, scale)
