import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsebert.errors import ConfigError
from training.schedule import CubicSchedule, learning_rate_factor

TABLE = [  # step of 100, warm-up until 10, tail from 60: s = 0.8 * (1 - (1 - p)^3), p = (step - 10) / 50
    (0, 0.0),
    (10, 0.0),
    (20, 0.3904),  # p = 0.2
    (35, 0.7),  # p = 0.5
    (50, 0.7936),  # p = 0.8
    (60, 0.8),
    (100, 0.8),
]


@pytest.mark.parametrize(("step", "expected"), TABLE)
def test_cubic_table(step, expected):
    schedule = CubicSchedule(final_sparsity=0.8, warmup_share=0.1, frozen_share=0.4)
    assert schedule.sparsity(step, 100) == pytest.approx(expected)


@given(final=st.floats(0, 0.99), start=st.floats(0, 0.49), tail=st.floats(0, 0.49), steps=st.integers(1, 300))
def test_cubic_never_falls_and_ends_on_target(final, start, tail, steps):
    schedule = CubicSchedule(final_sparsity=final, warmup_share=start, frozen_share=tail)
    values = [schedule.sparsity(step, steps) for step in range(steps + 1)]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(final)
    assert all(value == values[-1] for step, value in enumerate(values) if schedule.is_frozen(step, steps))


def test_the_tail_is_frozen():
    schedule = CubicSchedule(final_sparsity=0.5, frozen_share=0.4)
    assert [schedule.is_frozen(step, 10) for step in (5, 6, 9)] == [False, True, True]


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 3.0])
def test_an_impossible_sparsity_is_refused(sparsity):
    with pytest.raises(ConfigError, match="--sparsity is .* at least 0 and below 1"):
        CubicSchedule(final_sparsity=sparsity)


def test_shares_must_leave_room():
    with pytest.raises(ConfigError, match="together below 1"):
        CubicSchedule(final_sparsity=0.5, warmup_share=0.5, frozen_share=0.5)


def test_learning_rate_table():
    factors = [learning_rate_factor(step, 10, 0.2) for step in range(10)]
    assert factors == pytest.approx([0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])


def test_learning_rate_without_warmup():
    assert [learning_rate_factor(step, 4, 0.0) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]
