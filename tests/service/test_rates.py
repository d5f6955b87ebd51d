"""A caller gets what its rate says, never more over time, and is told how long to wait."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.rates import Bucket, Rate, read_rate


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_rates_in_words() -> None:
    assert read_rate("100/second") == Rate(number=100, period_s=1)
    assert read_rate("6000/minute") == Rate(number=6000, period_s=60)
    assert read_rate("1/hour") == Rate(number=1, period_s=3600)


@pytest.mark.parametrize(
    "text", ["", "100", "0/second", "-1/second", "1.5/second", "1/day", " 1/hour", "9" * 20 + "/hour"]
)
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(ValueError, match="is no rate; write a whole number and a period, such as 100/second"):
        read_rate(text)


def test_a_burst_then_a_wait() -> None:
    clock = Clock()
    bucket = Bucket(Rate(number=2, period_s=1), clock)
    assert [bucket.enter() for _ in range(3)] == [0, 0, 0.5]
    clock.now_s += 0.5
    assert [bucket.enter(), bucket.enter()] == [0, 0.5]
    clock.now_s += 1000
    assert [bucket.enter() for _ in range(3)] == [0, 0, 0.5]


def test_a_large_request_is_let_in_and_waited_for_later() -> None:
    clock = Clock()
    bucket = Bucket(Rate(number=60, period_s=60), clock)
    assert bucket.enter() == 0
    bucket.spend(99)
    assert bucket.enter() == 41
    clock.now_s += 41
    assert bucket.enter() == 0


@given(
    st.integers(1, 50), st.sampled_from([1, 60]), st.lists(st.tuples(st.floats(0, 20), st.integers(1, 40)), max_size=60)
)
def test_never_more_than_a_burst_and_the_rate(number: int, period_s: int, asked: list[tuple[float, int]]) -> None:
    clock = Clock()
    bucket, spent, last = Bucket(Rate(number=number, period_s=period_s), clock), 0, 0
    for pause_s, texts in asked:
        clock.now_s += pause_s
        if bucket.enter() == 0:
            bucket.spend(texts - 1)
            spent, last = spent + texts, texts
        assert spent - last <= number + number / period_s * (clock.now_s - 100) + 1e-6
