"""From a compact model to the ONNX graph at one precision, in one form.

Knows nothing about files, parity or speed.
"""

from collections.abc import Callable

import numpy as np
import onnx

from export.calibration import Calibrated
from export.forms import Form
from export.graph import build_graph
from export.products import FloatProducts, Int8Products
from export.weights import ModelWeights
from sparsebert.manifest import Precision, WeightRange

Assemble = Callable[[Form], onnx.ModelProto]


def float_graphs(weights: ModelWeights, precision: Precision) -> Assemble:
    """The graphs of a model in 32-bit or 16-bit floats."""
    dtype = np.float16 if precision == "fp16" else np.float32
    return lambda form: build_graph(weights, FloatProducts(form, dtype), form)


def int8_graphs(calibrated: Calibrated, weight_range: WeightRange) -> Assemble:
    """The graphs of a calibrated model in 8-bit integers."""
    reduced = weight_range == "reduced"
    return lambda form: build_graph(
        calibrated.weights, Int8Products(form, calibrated.ranges, reduced_range=reduced), form
    )
