"""Every admitted text ends exactly once, whatever is killed."""

import asyncio
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batching import LIMITS, Gate, assert_all_ended, echo, encoding, occupied, start
from service.batcher import Batcher
from service.encoding import EncodedBatch, FloatArray, pad
from service.engine import EchoEngine, Halt
from service.errors import DrainingError, EngineError, QueueFullError, RequestTimeoutError, TooManyError
from service.tickets import Ending
from service.waiting import BatchLimits
from service.workers import WorkerPool


async def test_answers_are_in_the_order_of_the_inputs() -> None:
    batcher = start(EchoEngine())
    answer = await batcher.submit([encoding(5, 6, 7), encoding(1), encoding(9, 9)])
    assert answer.rows_NC.tolist() == [echo(5, 6, 7), echo(1), echo(9, 9)]
    batcher.close()
    assert batcher.endings == {Ending.OK: 3}
    assert_all_ended(batcher)


async def test_what_waits_while_the_engine_works_goes_together() -> None:
    batcher, engine, gate, first = await occupied()
    others = [asyncio.ensure_future(batcher.submit([encoding(number, 1)])) for number in (2, 3, 4)]
    await asyncio.sleep(0)
    assert batcher.num_queued == 3
    gate.open()
    await asyncio.gather(first, *others)
    assert [batch.num_items for batch in engine.batches] == [1, 3]
    batcher.close()


async def test_an_engine_that_raises_fails_its_batch_and_nothing_else() -> None:
    def refuse_thirteen(batch: EncodedBatch) -> None:
        if 13 in batch.input_ids_BS:
            raise RuntimeError("secret")

    batcher = start(EchoEngine(refuse_thirteen))
    with pytest.raises(EngineError, match="failed on a batch of 1 texts"):
        await batcher.submit([encoding(13)])
    assert batcher.alive
    assert (await batcher.submit([encoding(4)])).rows_NC.tolist() == [echo(4)]
    batcher.close()
    assert batcher.endings == {Ending.ERROR: 1, Ending.OK: 1}
    assert_all_ended(batcher)


async def test_cancelled_texts_never_reach_the_engine() -> None:
    batcher, engine, gate, running = await occupied()
    queued = asyncio.ensure_future(batcher.submit([encoding(2), encoding(3)]))
    await asyncio.sleep(0)
    queued.cancel()
    with pytest.raises(asyncio.CancelledError):
        await queued
    assert batcher.num_queued == 0
    gate.open()
    await running
    await batcher.submit([encoding(4)])
    assert [batch.input_ids_BS.tolist() for batch in engine.batches] == [[[1]], [[4]]]
    batcher.close()
    assert batcher.endings == {Ending.OK: 2, Ending.CANCELLED: 2}
    assert_all_ended(batcher)


async def test_a_caller_that_leaves_during_its_batch_harms_nobody() -> None:
    batcher, _, gate, running = await occupied()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    gate.open()
    assert (await batcher.submit([encoding(4)])).rows_NC.tolist() == [echo(4)]
    batcher.close()
    assert batcher.endings == {Ending.CANCELLED: 1, Ending.OK: 1}


async def test_closing_ends_what_waits_and_what_runs() -> None:
    batcher, _, gate, running = await occupied()
    queued = asyncio.ensure_future(batcher.submit([encoding(2)]))
    await asyncio.sleep(0)
    batcher.close()
    for waiter in (running, queued):
        with pytest.raises(DrainingError):
            await waiter
    with pytest.raises(DrainingError):
        await batcher.submit([encoding(3)])
    gate.open()
    assert batcher.endings == {Ending.SHUTDOWN: 2}
    assert_all_ended(batcher)


async def test_a_list_is_admitted_whole_or_not_at_all() -> None:
    batcher, _, gate, running = await occupied()
    queued = asyncio.ensure_future(batcher.submit([encoding(number) for number in range(6)]))
    await asyncio.sleep(0)
    with pytest.raises(QueueFullError, match="6 texts of 6 tokens wait"):
        await batcher.submit([encoding(7), encoding(8), encoding(9)])
    assert batcher.num_queued == 6
    with pytest.raises(QueueFullError):
        await batcher.submit([encoding(*range(60))])
    gate.open()
    await asyncio.gather(running, queued)
    batcher.close()
    assert batcher.endings == {Ending.OK: 7}


async def test_a_list_that_could_never_be_admitted_says_so() -> None:
    batcher = start(EchoEngine())
    with pytest.raises(TooManyError, match="more than the whole queue holds"):
        await batcher.submit([encoding(number) for number in range(9)])
    batcher.close()


async def test_the_wait_in_the_queue_and_the_time_of_the_batch_are_told() -> None:
    now_s = 100.0
    gate = Gate(asyncio.get_running_loop())
    batcher = start(EchoEngine(gate), clock_s=lambda: now_s)
    first = asyncio.ensure_future(batcher.submit([encoding(1)]))
    await gate.entered.wait()
    second = asyncio.ensure_future(batcher.submit([encoding(2)]))
    await asyncio.sleep(0)
    now_s = 103.0
    gate.open()
    assert ((await first).queue_s, (await first).infer_s) == (0.0, 3.0)
    assert ((await second).queue_s, (await second).infer_s) == (3.0, 0.0)
    batcher.close()


async def test_silence_is_counted_only_while_a_batch_runs_or_after_death() -> None:
    now_s = 100.0
    gate = Gate(asyncio.get_running_loop())
    batcher = start(EchoEngine(gate), clock_s=lambda: now_s)
    now_s = 105.0
    assert batcher.silence_s() == 0.0
    running = asyncio.ensure_future(batcher.submit([encoding(1)]))
    await gate.entered.wait()
    now_s = 107.0
    assert batcher.silence_s() == 2.0
    gate.open()
    await running
    batcher.close()


class Halting(EchoEngine):
    """Computes until it is halted."""

    def __init__(self, entered: Callable[[], None]) -> None:
        super().__init__()
        self.halts: list[Halt] = []
        self._entered = entered

    def run(self, batch: EncodedBatch, halt: Halt) -> FloatArray:
        self.halts.append(halt)
        halted = threading.Event()
        halt.on_request(halted.set)
        self._entered()
        assert halted.wait(timeout=30)
        raise RuntimeError("halted")


async def test_a_batch_is_stopped_when_its_last_waiter_left_and_not_before() -> None:
    entered = asyncio.Queue[None]()
    loop = asyncio.get_running_loop()
    engine = Halting(lambda: loop.call_soon_threadsafe(entered.put_nowait, None))
    batcher = start(engine)
    first = asyncio.ensure_future(batcher.submit([encoding(1)]))
    await entered.get()
    second, third = (asyncio.ensure_future(batcher.submit([encoding(number)])) for number in (2, 3))
    await asyncio.sleep(0)
    first.cancel()
    await entered.get()  # the first batch was stopped: the worker took the other two together
    second.cancel()
    await asyncio.sleep(0)
    assert [halt.requested for halt in engine.halts] == [True, False]
    third.cancel()
    await asyncio.gather(first, second, third, return_exceptions=True)
    assert batcher.endings == {Ending.CANCELLED: 3}
    batcher.close()
    assert_all_ended(batcher)


async def test_late_texts_are_dropped_in_the_queue() -> None:
    now_s = 100.0
    gate = Gate(asyncio.get_running_loop())
    engine = EchoEngine(gate)
    batcher = start(engine, clock_s=lambda: now_s)
    first = asyncio.ensure_future(batcher.submit([encoding(1)]))
    await gate.entered.wait()
    late = asyncio.ensure_future(batcher.submit([encoding(2), encoding(3)], deadline_s=101.0))
    fresh = asyncio.ensure_future(batcher.submit([encoding(4)], deadline_s=102.0))
    await asyncio.sleep(0)
    now_s = 101.0
    gate.open()
    with pytest.raises(RequestTimeoutError, match="reviews/dense did not answer in time"):
        await late
    await asyncio.gather(first, fresh)
    assert [batch.input_ids_BS.tolist() for batch in engine.batches] == [[[1]], [[4]]]
    assert batcher.endings == {Ending.OK: 2, Ending.LATE: 2}
    batcher.close()
    assert_all_ended(batcher)


async def test_closing_stops_the_batch_that_runs() -> None:
    entered = asyncio.Event()
    loop = asyncio.get_running_loop()
    pool = WorkerPool(1, loop.time)
    pool.start()
    batcher = Batcher(
        "reviews/dense", Halting(lambda: loop.call_soon_threadsafe(entered.set)), LIMITS, pool=pool, clock_s=loop.time
    )
    batcher.start()
    running = asyncio.ensure_future(batcher.submit([encoding(1)]))
    await entered.wait()
    batcher.close()
    pool.close()
    pool.join(30.0)
    with pytest.raises(DrainingError):
        await running


requests = st.lists(st.lists(st.integers(1, 20), min_size=1, max_size=4), min_size=1, max_size=12)


@given(requests=requests, cancelled=st.sets(st.integers(0, 11)), poison=st.integers(0, 25))
def test_counters_add_up_and_nobody_gets_the_answer_of_another(
    requests: list[list[int]], cancelled: set[int], poison: int
) -> None:
    def refuse(batch: EncodedBatch) -> None:
        if poison in batch.input_ids_BS:
            raise RuntimeError

    async def scenario() -> None:
        limits = BatchLimits(max_batch_tokens=24, max_batch_items=8, max_queue_items=100, max_queue_tokens=1000)
        batcher = start(EchoEngine(refuse), limits)
        encoded = [[encoding(*range(1, size + 1), size) for size in sizes] for sizes in requests]
        calls = [asyncio.ensure_future(batcher.submit(one)) for one in encoded]
        await asyncio.sleep(0)
        for index in cancelled & set(range(len(calls))):
            calls[index].cancel()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        batcher.close()
        for one, answer in zip(encoded, answers, strict=True):
            if not isinstance(answer, BaseException):
                assert answer.rows_NC.tolist() == [echo(*text.input_ids) for text in one]
            else:
                assert isinstance(answer, EngineError | asyncio.CancelledError)
        assert batcher.num_admitted == sum(len(sizes) for sizes in requests)
        assert_all_ended(batcher)

    asyncio.run(asyncio.wait_for(scenario(), timeout=30))


def test_padding_is_zeros_on_the_right() -> None:
    batch = pad([encoding(5, 6), encoding(7)])
    assert batch.input_ids_BS.tolist() == [[5, 6], [7, 0]]
    assert batch.attention_mask_BS.tolist() == [[1, 1], [1, 0]]
