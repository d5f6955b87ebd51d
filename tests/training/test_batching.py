import random

from hypothesis import given
from hypothesis import strategies as st

from training.batching import EncodedExample, collate, plan_epoch, plan_evaluation


@given(lengths=st.lists(st.integers(1, 60), max_size=300), size=st.integers(1, 40), seed=st.integers())
def test_an_epoch_sees_every_text_once(lengths, size, seed):
    plan = plan_epoch(lengths, size, random.Random(seed))
    assert sorted(index for batch in plan for index in batch) == list(range(len(lengths)))
    assert len(plan) == -(-len(lengths) // size)
    assert all(len(batch) <= size for batch in plan)


def test_the_plan_follows_from_the_seed_alone():
    lengths = [index % 7 for index in range(100)]
    assert plan_epoch(lengths, 8, random.Random("1/2")) == plan_epoch(lengths, 8, random.Random("1/2"))
    assert plan_epoch(lengths, 8, random.Random("1/2")) != plan_epoch(lengths, 8, random.Random("1/3"))


def test_buckets_waste_little_padding():
    rng = random.Random(0)
    lengths = [rng.randint(3, 60) for _ in range(3200)]
    padded = sum(len(batch) * max(lengths[i] for i in batch) for batch in plan_epoch(lengths, 32, random.Random(1)))
    assert padded < 1.05 * sum(lengths)


def test_evaluation_goes_by_length():
    assert plan_evaluation([5, 1, 3, 2], 3) == [[1, 3, 2], [0]]


def test_collate_pads_to_the_longest_of_the_batch():
    examples = [
        EncodedExample([2, 7, 3], [0, 0, 0], 1),
        EncodedExample([2, 3], [0, 1], 0),
        EncodedExample([9] * 9, [0] * 9, 0),
    ]
    batch = collate(examples, [1, 0], pad_id=5)
    assert batch.input_ids.tolist() == [[2, 3, 5], [2, 7, 3]]
    assert batch.attention_mask.tolist() == [[1, 1, 0], [1, 1, 1]]
    assert batch.token_type_ids.tolist() == [[0, 1, 0], [0, 0, 0]]
    assert batch.labels_B.tolist() == [0, 1]
    assert batch.indices_B == [1, 0]
