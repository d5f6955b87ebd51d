"""Nothing starves within a variant or between variants, and free workers share what waits."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.encoding import Encoding
from service.waiting import WINDOW_ITEMS, BatchLimits, Queue, Schedule, Text, share_of_tokens

LIMITS = BatchLimits(max_batch_tokens=512, max_batch_items=64, max_queue_items=1000, max_queue_tokens=100_000)


def text(num_tokens: int, deadline_s: float = inf) -> Text:
    ids = (1,) * num_tokens
    encoding = Encoding(input_ids=ids, token_type_ids=ids, num_tokens_full=num_tokens)
    return Text(encoding=encoding, admitted_s=0.0, deadline_s=deadline_s)


def filled(schedule: Schedule, *lengths: int) -> Queue:
    queue = Queue(LIMITS)
    schedule.add(queue)
    schedule.admit(queue, [text(length) for length in lengths])
    return queue


@pytest.mark.parametrize(
    ("oldest", "waiting", "num_free", "share"),
    [
        (10, 400, 1, 512),
        (10, 400, 0, 512),
        (10, 400, 2, 200),
        (10, 401, 2, 201),
        (300, 400, 2, 300),
        (10, 4000, 2, 512),
        (10, 10, 4, 10),
    ],
)
def test_share_of_tokens(oldest: int, waiting: int, num_free: int, share: int) -> None:
    assert share_of_tokens(oldest, waiting, 512, num_free) == share


def test_free_workers_share_a_list() -> None:
    schedule = Schedule()
    queue = filled(schedule, *[10] * 8)
    sizes = []
    for num_free in (2, 1):
        found = schedule.next(0.0, num_free)
        assert found is not None
        queue.began(0.0)
        sizes.append(len(found[1].chosen))
    assert sizes == [4, 4]
    assert schedule.next(0.0, 1) is None


def test_late_texts_leave_with_the_batch_and_are_not_in_it() -> None:
    queue = Queue(LIMITS)
    late, fresh = [text(10, deadline_s=5.0), text(10, deadline_s=4.0)], [text(10, deadline_s=5.1), text(10)]
    schedule = Schedule()
    schedule.add(queue)
    schedule.admit(queue, [late[0], fresh[0], late[1], fresh[1]])
    taken = queue.take(5.0, 1)
    assert (taken.late, taken.chosen) == (late, fresh)
    assert (queue.num_tokens, queue.waiting) == (0, {})


@pytest.mark.parametrize("places", [[], [0, 0], [7], [-1]])
def test_a_packing_that_chooses_nonsense_costs_the_oldest_text(places: list[int]) -> None:
    queue = Queue(LIMITS, packing=lambda lengths, max_tokens, max_items: places)
    schedule = Schedule()
    schedule.add(queue)
    texts = [text(10), text(20)]
    schedule.admit(queue, texts)
    taken = queue.take(0.0, 1)
    assert taken.chosen == texts[:1]
    assert str(taken.failure) == f"packing chose {places} of 2 texts"
    assert queue.num_tokens == 20


def test_a_long_queue_is_packed_from_its_oldest_part() -> None:
    seen = []

    def first(lengths: list[int], max_tokens: int, max_items: int) -> list[int]:
        seen.append(len(lengths))
        return [0]

    queue = Queue(LIMITS, packing=first)
    Schedule().admit(queue, [text(5) for _ in range(WINDOW_ITEMS + 10)])
    queue.take(0.0, 1)
    assert seen == [WINDOW_ITEMS]


@given(lengths=st.lists(st.integers(1, 512), min_size=1, max_size=80), num_free=st.integers(1, 8))
def test_every_text_leaves_once_and_padded_tokens_stay_in_the_budget(lengths: list[int], num_free: int) -> None:
    schedule = Schedule()
    queue = filled(schedule, *lengths)
    waiting, left = list(queue.waiting), []
    while (found := schedule.next(0.0, num_free)) is not None:
        chosen = found[1].chosen
        assert next(one for one in waiting if one not in left) in chosen  # the oldest
        assert max(one.encoding.num_tokens for one in chosen) * len(chosen) <= 512
        left += chosen
    assert len(left) == len(waiting)
    assert set(left) == set(waiting)
    assert queue.num_tokens == 0


@given(costs=st.lists(st.floats(0.001, 1.0), min_size=2, max_size=4), rounds=st.integers(20, 60))
def test_variants_that_always_ask_get_the_same_time(costs: list[float], rounds: int) -> None:
    schedule, now_s = Schedule(), 0.0
    queues = [filled(schedule, *[500] * 100) for _ in costs]
    for _ in range(rounds):
        found = schedule.next(now_s, 1)
        assert found is not None
        queue, began_s = found[0], now_s
        queue.began(began_s)
        now_s += costs[queues.index(queue)]
        queue.ended(began_s, now_s)
        schedule.admit(queue, [text(500)])
    served_s = [queue.served_s for queue in queues]
    assert max(served_s) - min(served_s) <= max(costs) + 1e-6


def test_two_free_workers_begin_with_different_variants() -> None:
    schedule = Schedule()
    queues = [filled(schedule, 500, 500), filled(schedule, 500, 500)]
    begun = []
    for num_free in (2, 1):
        found = schedule.next(0.0, num_free)
        assert found is not None
        found[0].began(0.0)
        begun.append(found[0])
    assert begun == queues


def test_a_variant_that_was_idle_has_saved_nothing_up() -> None:
    schedule = Schedule()
    busy, idle = filled(schedule, *[500] * 10), filled(schedule)
    busy.served_s = 100.0
    schedule.admit(idle, [text(500)])
    assert idle.served_s == 100.0


def test_a_new_variant_saves_nothing_up_while_all_are_idle() -> None:
    schedule = Schedule()
    old, new = filled(schedule), filled(schedule)
    old.served_s = 3000.0
    schedule.admit(new, [text(500)] * 2)
    schedule.admit(old, [text(500)])
    assert (old.served_s, new.served_s) == (3000.0, 3000.0)


def test_a_removed_queue_is_asked_no_more() -> None:
    schedule = Schedule()
    schedule.remove(filled(schedule, 10))
    assert schedule.next(0.0, 1) is None
