import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.quantization import InputRange, best_range, quantize_columns, quantize_rows, smooth
from export.weights import Linear

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


def test_the_range_of_inputs():
    scale, zero = InputRange(low=-1.0, high=4.1).scale_and_zero()
    assert (float(scale), int(zero)) == (pytest.approx(0.02), 50)
    assert InputRange(low=0.0, high=0.0).scale_and_zero()[0] == 1.0


def test_the_best_range_cuts_a_rare_outlier_but_not_a_uniform_spread():
    even = np.linspace(-1, 3, 1001, dtype=np.float32)
    assert best_range(even, -1.0, 3.0) == InputRange(low=-1.0, high=3.0)
    many = np.concatenate([np.random.default_rng(0).normal(0, 1, 100_000), [20.0]]).astype(np.float32)
    assert best_range(many, float(many.min()), 20.0).high == 17.5
    assert best_range(even[500:], 1.0, 3.0).low == 0.0


@given(seed=st.integers(0, 2**32 - 1))
def test_smoothing_changes_nothing_but_the_scales(seed):
    rng = np.random.default_rng(seed)
    x_NK, largest_K = rng.normal(size=(3, 6)).astype(np.float32), rng.uniform(0, 30, 6).astype(np.float32)
    layer = Linear(name="l", weight_KN=rng.normal(size=(6, 4)).astype(np.float32), bias_N=np.ones(4, np.float32))
    smoothed = smooth(layer, largest_K)
    assert (x_NK / smoothed.divisor_K) @ smoothed.weight_KN == pytest.approx(x_NK @ layer.weight_KN, rel=1e-3, abs=1e-4)


def test_an_outlier_channel_is_divided_most():
    layer = Linear(name="l", weight_KN=np.ones((3, 2), np.float32), bias_N=np.zeros(2, np.float32))
    divisor_K = smooth(layer, np.array([1.0, 16.0, 1.0], np.float32)).divisor_K
    assert divisor_K == pytest.approx([0.5, 4.0, 0.5])  # 16 ** 0.75 = 8, geometric mean 2


def test_two_products_of_the_reduced_range_fit_16_bits():
    integers, scale = quantize_columns(np.array([[1.0, -2.0], [0.26, 0.0]], np.float32), reduced_range=True)
    assert integers.tolist() == [[63, -63], [16, 0]]
    assert scale == pytest.approx([1 / 63, 2 / 63])
    assert 2 * 255 * int(np.abs(integers).max()) < 2**15
