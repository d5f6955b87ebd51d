import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.least_squares import LackSums


def solve(inputs_RU, lacks_RD, ridge=1e-9, batches=1):
    sums = LackSums(inputs_RU.shape[1], lacks_RD.shape[1])
    for rows in zip(inputs_RU.chunk(batches), lacks_RD.chunk(batches), strict=True):
        sums.add(*rows)
    return sums.solve(ridge)


def test_a_linear_lack_is_found():
    inputs = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [2.0, 3.0]])
    correction = solve(inputs, inputs @ torch.tensor([[2.0], [-1.0]]) + 5.0)
    assert correction.weight_DU.flatten().tolist() == pytest.approx([2.0, -1.0], abs=1e-6)
    assert correction.bias_D.tolist() == pytest.approx([5.0], abs=1e-6)
    assert correction.error_before == pytest.approx(25 + 49 + 16 + 36)
    assert correction.error_after == pytest.approx(0.0, abs=1e-6)


def test_a_ridge_draws_the_weight_to_where_it_was_and_leaves_the_bias_free():
    # one input of variance sum 2 around its mean 1; lack = 3 * input + 4: slope 3 * 2 / (2 + 1 * 2)
    inputs = torch.tensor([[0.0], [2.0]])
    correction = solve(inputs, 3 * inputs + 4, ridge=1.0)
    assert correction.weight_DU.item() == pytest.approx(1.5)
    assert correction.bias_D.item() == pytest.approx(7 - 1.5)  # the mean lack is met


@pytest.mark.parametrize("inputs", [torch.zeros(4, 3), torch.ones(4, 3)])
def test_inputs_that_never_change_get_no_weight(inputs):
    correction = solve(inputs, torch.tensor([[1.0], [2.0], [3.0], [6.0]]))
    assert correction.weight_DU.abs().max().item() == pytest.approx(0.0, abs=1e-12)
    assert correction.bias_D.item() == pytest.approx(3.0)


@settings(max_examples=50)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 40),
    inputs=st.integers(1, 12),
    ridge=st.sampled_from([1e-6, 1e-3, 1.0]),
)
def test_the_error_never_grows_on_its_own_data_and_is_told_truly(seed, rows, inputs, ridge):
    generator = torch.Generator().manual_seed(seed)
    inputs_RU = torch.randn(rows, inputs, generator=generator, dtype=torch.float64)
    lacks_RD = torch.randn(rows, 3, generator=generator, dtype=torch.float64)
    correction = solve(inputs_RU, lacks_RD, ridge)
    left_RD = lacks_RD - inputs_RU @ correction.weight_DU.T - correction.bias_D
    assert correction.error_before == pytest.approx(float(lacks_RD.square().sum()))
    assert correction.error_after == pytest.approx(float(left_RD.square().sum()), abs=1e-6)
    assert correction.error_after <= correction.error_before + 1e-9


@given(seed=st.integers(0, 2**32 - 1), batches=st.integers(1, 10))
def test_how_rows_are_dealt_out_does_not_matter(seed, batches):
    generator = torch.Generator().manual_seed(seed)
    inputs_RU, lacks_RD = torch.randn(10, 4, generator=generator), torch.randn(10, 2, generator=generator)
    whole, dealt = solve(inputs_RU, lacks_RD, 0.1), solve(inputs_RU, lacks_RD, 0.1, batches)
    assert torch.allclose(whole.weight_DU, dealt.weight_DU, atol=1e-10)
    assert torch.allclose(whole.bias_D, dealt.bias_D, atol=1e-10)


def test_nothing_lacking_changes_nothing():
    correction = solve(torch.randn(9, 4), torch.zeros(9, 2))
    assert correction.weight_DU.abs().sum() == 0
    assert correction.bias_D.abs().sum() == 0


@pytest.mark.parametrize(("rows", "ridge"), [(0, 0.1), (3, 0.0), (3, -1.0)])
def test_no_rows_and_no_ridge_are_refused(rows, ridge):
    with pytest.raises(ValueError, match="both must be above 0"):
        solve(torch.zeros(rows, 2), torch.zeros(rows, 1), ridge)
