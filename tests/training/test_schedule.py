import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsebert.errors import ConfigError
from training.schedule import SHAPES, RampConfig, SparsityRamp, learning_rate_factor

# Step of 100, warm-up until 10, tail from 60: p = (step - 10) / 50 is 0, 0.2, 0.5, 0.8 and 1.
STEPS = (0, 10, 20, 35, 50, 60, 100)
TABLES = {
    "cubic": (0.0, 0.0, 0.3904, 0.7, 0.7936, 0.8, 0.8),  # 0.8 * (1 - (1 - p)^3)
    "linear": (0.0, 0.0, 0.16, 0.4, 0.64, 0.8, 0.8),
    "one-shot": (0.0, 0.0, 0.0, 0.0, 0.0, 0.8, 0.8),
    "sigmoid": (0.0, 0.0, 0.0330285, 0.4, 0.7669715, 0.8, 0.8),
}


def ramp(shape="cubic", final=0.8, initial=0.0, warmup=0.1, frozen=0.4) -> SparsityRamp:
    return SparsityRamp(
        initial=initial, final=final, config=RampConfig(shape=shape, warmup_share=warmup, frozen_share=frozen)
    )


@pytest.mark.parametrize("shape", TABLES)
def test_tables(shape):
    assert [ramp(shape).share(step, 100) for step in STEPS] == pytest.approx(TABLES[shape], abs=1e-6)


def test_a_later_target_starts_from_the_one_before():
    assert [ramp("linear", initial=0.4).share(step, 100) for step in STEPS] == pytest.approx(
        [0.4, 0.4, 0.48, 0.6, 0.72, 0.8, 0.8]
    )


@given(
    shape=st.sampled_from(sorted(SHAPES)), final=st.floats(0, 0.99), start=st.floats(0, 0.49), tail=st.floats(0, 0.49),
    steps=st.integers(1, 300),
)  # fmt: skip
def test_a_ramp_never_falls_and_ends_on_target(shape, final, start, tail, steps):
    schedule = ramp(shape, final, warmup=start, frozen=tail)
    values = [schedule.share(step, steps) for step in range(steps + 1)]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(final)
    assert all(value == values[-1] for step, value in enumerate(values) if schedule.is_frozen(step, steps))


def test_a_regulariser_is_not_kept_waiting_for_one_cut_and_arrives_before_it():
    config = RampConfig(shape="one-shot", warmup_share=0.0, frozen_share=0.0)
    ramp = SparsityRamp(initial=0.2, final=0.8, config=config)
    assert [ramp.share(step, 4) for step in range(5)] == [0.2, 0.2, 0.2, 0.2, 0.8]
    assert [ramp.pull(step, 4) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])


def test_the_tail_is_frozen():
    assert [ramp(frozen=0.4).is_frozen(step, 10) for step in (5, 6, 9)] == [False, True, True]


@pytest.mark.parametrize(("initial", "final"), [(0.0, -0.1), (0.0, 1.0), (0.5, 0.4)])
def test_an_impossible_ramp_is_refused(initial, final):
    with pytest.raises(ConfigError, match="sparsity cannot go from"):
        ramp(initial=initial, final=final)


def test_shares_must_leave_room():
    with pytest.raises(ConfigError, match="together below 1"):
        RampConfig(warmup_share=0.5, frozen_share=0.5)


def test_an_unknown_shape_is_refused():
    with pytest.raises(
        ConfigError, match="--schedule 'steep' is unknown; choose from cubic, sigmoid, linear, one-shot"
    ):
        RampConfig(shape="steep")


def test_learning_rate_table():
    factors = [learning_rate_factor(step, 10, 0.2) for step in range(10)]
    assert factors == pytest.approx([0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])


def test_learning_rate_without_warmup():
    assert [learning_rate_factor(step, 4, 0.0) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]
