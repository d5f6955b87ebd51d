from hypothesis import given
from hypothesis import strategies as st

from training.sharding import MicroBatch, micro_batches


def test_one_process_and_one_part_is_the_batch():
    assert micro_batches([4, 7, 9], 0, 1, 1) == [MicroBatch([4, 7, 9], 1.0)]


def test_parts_are_weighted_by_their_texts():
    assert micro_batches([4, 7, 9], 0, 1, 2) == [MicroBatch([4, 9], 2 / 3), MicroBatch([7], 1 / 3)]


def test_a_process_without_texts_computes_one_for_nothing():
    assert micro_batches([4], 1, 2, 4) == [MicroBatch([4], 0.0)]
    assert micro_batches([4], 0, 2, 4) == [MicroBatch([4], 2.0)]


@given(size=st.integers(1, 40), processes=st.integers(1, 5), parts=st.integers(1, 5))
def test_all_texts_are_computed_once_and_weigh_the_same(size, processes, parts):
    weights: dict[int, float] = {}
    for process in range(processes):
        for indices, weight in micro_batches(list(range(size)), process, processes, parts):
            if weight:
                for index in indices:
                    assert index not in weights
                    weights[index] = weight / len(indices) / processes
    assert sorted(weights) == list(range(size))
    assert all(abs(weight - 1 / size) < 1e-12 for weight in weights.values())
