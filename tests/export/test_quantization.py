import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.quantization import quantize_columns, quantize_rows

WEIGHT = np.array([[1.0, -2.0], [0.5, 0.0]], np.float32)


def test_columns():
    integers, scale = quantize_columns(WEIGHT)
    assert scale == pytest.approx([1 / 127, 2 / 127])
    assert integers.tolist() == [[127, -127], [64, 0]]
    assert integers.dtype == np.int8


def test_rows():
    integers, scale = quantize_rows(WEIGHT)
    assert scale.shape == (2, 1)
    assert integers.tolist() == [[64, -127], [127, 0]]


def test_a_column_of_zeros_stays_zero():
    integers, scale = quantize_columns(np.zeros((3, 2), np.float32))
    assert integers.tolist() == [[0, 0]] * 3
    assert scale.tolist() == [1.0, 1.0]


@given(seed=st.integers(0, 2**32 - 1), size=st.floats(1e-3, 1e3))
def test_no_weight_moves_by_more_than_half_a_step(seed, size):
    weight = np.random.default_rng(seed).normal(0, size, (5, 4)).astype(np.float32)
    integers, scale = quantize_columns(weight)
    assert (np.abs(integers * scale - weight) <= 0.5001 * scale).all()
