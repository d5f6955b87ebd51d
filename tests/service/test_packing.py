"""A batch stays within its budget, holds the oldest text and lets nobody starve."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.packing import choose_batch

lengths_of_queue = st.lists(st.integers(1, 512), min_size=1, max_size=60)


@pytest.mark.parametrize(
    ("lengths", "max_tokens", "max_items", "chosen"),
    [
        ([], 64, 8, []),
        ([10], 64, 8, [0]),
        ([100], 64, 8, [0]),
        ([10, 10, 10], 64, 8, [0, 1, 2]),
        ([10, 10, 10], 20, 8, [0, 1]),
        ([10, 10, 10], 64, 1, [0]),
        ([200, 8, 201, 9], 2048, 8, [0, 2]),
        ([8, 200, 9, 201], 2048, 8, [0, 2]),
    ],
)
def test_literal_queues(lengths: list[int], max_tokens: int, max_items: int, chosen: list[int]) -> None:
    assert choose_batch(lengths, max_tokens, max_items) == chosen


@given(lengths=lengths_of_queue, max_tokens=st.integers(512, 4096), max_items=st.integers(1, 64))
def test_within_budget_distinct_and_with_the_oldest(lengths: list[int], max_tokens: int, max_items: int) -> None:
    chosen = choose_batch(lengths, max_tokens, max_items)
    assert 0 in chosen
    assert len(set(chosen)) == len(chosen) <= max_items
    longest, real = max(lengths[one] for one in chosen), sum(lengths[one] for one in chosen)
    assert longest * len(chosen) <= max_tokens
    assert longest * len(chosen) - real <= max(64, real / 4)


@given(lengths=lengths_of_queue)
def test_a_queue_is_emptied_in_at_most_as_many_batches_as_texts(lengths: list[int]) -> None:
    waiting, num_batches = list(enumerate(lengths)), 0
    seen = []
    while waiting:
        chosen = choose_batch([length for _, length in waiting], 1024, 32)
        seen += [waiting[one][0] for one in chosen]
        waiting = [entry for place, entry in enumerate(waiting) if place not in chosen]
        num_batches += 1
    assert sorted(seen) == list(range(len(lengths)))
    assert num_batches <= len(lengths)
