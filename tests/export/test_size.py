from dataclasses import replace

import pytest

from export.assembly import float_graphs
from export.forms import DEFAULT_FORMS
from export.latency import random_weights
from export.size import check_size, needed_bytes
from sparsebert.errors import ExportError
from sparsebert.geometry import Geometry

DENSE = Geometry(hidden_size=16, head_size=4, heads_L=(4,), neurons_L=(24,), vocabulary_size=9, max_positions=12,
                 token_types=2, num_labels=3)  # fmt: skip
WEIGHTS = random_weights(DENSE, (("heads", 4), ("neurons", 24)))
ROWS = len(WEIGHTS.embeddings.words_VE)
WORD_BYTES = 4 * WEIGHTS.embeddings.words_VE.size


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_size_is_that_of_the_graph(precision):
    graph = float_graphs(WEIGHTS, precision)(replace(DEFAULT_FORMS[precision], layout="padded"))
    assert graph.ByteSize() == pytest.approx(needed_bytes(WEIGHTS, precision, 7), rel=0.2)


def test_calibration_counts_the_words_of_its_texts_alone():
    whole = needed_bytes(WEIGHTS, "fp32", 7)
    assert needed_bytes(WEIGHTS, "int8", ROWS) == whole
    assert needed_bytes(WEIGHTS, "int8", 500) == whole - (ROWS - 500) * 64
    assert needed_bytes(WEIGHTS, "int8", 0) == max(whole // 4, whole - WORD_BYTES)


def test_what_fits_is_named():
    limit = needed_bytes(WEIGHTS, "fp16", 7)
    check_size(WEIGHTS, "fp16", 7, limit)
    with pytest.raises(ExportError, match=r"in fp32 this model has .* take --precision fp16 or int8, --vocabulary"):
        check_size(WEIGHTS, "fp32", 7, limit)
    with pytest.raises(ExportError, match=r"in fp32 .* holds; take --vocabulary FILE .* or a smaller backbone"):
        check_size(WEIGHTS, "fp32", 7, 9)
    with pytest.raises(ExportError, match="in int8 .* while it is calibrated in 32-bit floats"):
        check_size(WEIGHTS, "int8", ROWS, limit)
