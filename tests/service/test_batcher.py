"""Every admitted text ends exactly once, whatever is killed."""

import asyncio
import functools
import threading
from collections.abc import Awaitable, Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batcher import Answer, Batcher, BatchLimits, Ending
from service.encoding import EncodedBatch, Encoding, FloatArray, pad
from service.engine import EchoEngine
from service.errors import DrainingError, EngineError, NotReadyError, QueueFullError, TooManyError

LIMITS = BatchLimits(max_batch_tokens=32, max_batch_items=8, max_queue_items=8, max_queue_tokens=64)


def encoding(*ids: int) -> Encoding:
    return Encoding(input_ids=ids, token_type_ids=(0,) * len(ids), num_tokens_full=len(ids))


def echo(*ids: int) -> list[float]:
    return [float(sum(position * one for position, one in enumerate(ids, 1))), float(len(ids))]


class Gate:
    """Holds the engine inside its first batch until it is opened."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.entered = asyncio.Event()
        self._loop = loop
        self._open = threading.Event()

    def __call__(self, batch: EncodedBatch) -> None:
        self._loop.call_soon_threadsafe(self.entered.set)
        assert self._open.wait(timeout=30)

    def open(self) -> None:
        self._open.set()


def build(engine: EchoEngine, limits: BatchLimits = LIMITS, **arguments: object) -> Batcher:
    return Batcher("reviews/dense", engine, limits, clock_s=asyncio.get_running_loop().time, **arguments)


async def occupied() -> tuple[Batcher, EchoEngine, Gate, "asyncio.Task[Answer]"]:
    """A batcher whose engine is held inside a batch of one text, until the gate is opened."""
    gate = Gate(asyncio.get_running_loop())
    engine = EchoEngine(gate)
    batcher = build(engine)
    batcher.start()
    running = asyncio.create_task(batcher.submit([encoding(1)]))
    await gate.entered.wait()
    return batcher, engine, gate, running


def in_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def wrapper(*arguments: object, **named: object) -> None:
        asyncio.run(asyncio.wait_for(test(*arguments, **named), timeout=30))

    return wrapper


def assert_all_ended(batcher: Batcher) -> None:
    assert batcher.num_admitted == sum(batcher.endings.values())
    assert (batcher.num_queued, batcher.queued_tokens) == (0, 0)


@in_loop
async def test_answers_are_in_the_order_of_the_inputs() -> None:
    batcher = build(EchoEngine())
    batcher.start()
    answer = await batcher.submit([encoding(5, 6, 7), encoding(1), encoding(9, 9)])
    assert answer.logits_NC.tolist() == [echo(5, 6, 7), echo(1), echo(9, 9)]
    await batcher.close()
    assert batcher.endings == {Ending.OK: 3}
    assert_all_ended(batcher)


@in_loop
async def test_what_waits_while_the_engine_works_goes_together() -> None:
    batcher, engine, gate, first = await occupied()
    others = [asyncio.ensure_future(batcher.submit([encoding(number, 1)])) for number in (2, 3, 4)]
    await asyncio.sleep(0)
    assert batcher.num_queued == 3
    gate.open()
    await asyncio.gather(first, *others)
    assert [batch.num_items for batch in engine.batches] == [1, 3]
    await batcher.close()


@in_loop
async def test_an_engine_that_raises_fails_its_batch_and_nothing_else() -> None:
    def refuse_thirteen(batch: EncodedBatch) -> None:
        if 13 in batch.input_ids_BS:
            raise RuntimeError("secret")

    batcher = build(EchoEngine(refuse_thirteen))
    batcher.start()
    with pytest.raises(EngineError, match="failed on a batch of 1 texts"):
        await batcher.submit([encoding(13)])
    assert batcher.alive
    assert (await batcher.submit([encoding(4)])).logits_NC.tolist() == [echo(4)]
    await batcher.close()
    assert batcher.endings == {Ending.ERROR: 1, Ending.OK: 1}
    assert_all_ended(batcher)


class ShortEngine(EchoEngine):
    """Forgets the last row."""

    def run(self, batch: EncodedBatch) -> FloatArray:
        return super().run(batch)[:-1]


class NanEngine(EchoEngine):
    """Computes nonsense."""

    def run(self, batch: EncodedBatch) -> FloatArray:
        return super().run(batch) * np.float32(np.nan)


@pytest.mark.parametrize("engine", [ShortEngine(), NanEngine()], ids=["short", "nan"])
@in_loop
async def test_logits_that_are_wrong_are_an_error(engine: EchoEngine) -> None:
    batcher = build(engine)
    batcher.start()
    with pytest.raises(EngineError):
        await batcher.submit([encoding(1), encoding(2)])
    assert batcher.alive
    await batcher.close()
    assert batcher.endings == {Ending.ERROR: 2}
    assert_all_ended(batcher)


@in_loop
async def test_a_killed_loop_fails_all_who_wait_and_later_calls() -> None:
    batcher, _, gate, running = await occupied()
    queued = asyncio.ensure_future(batcher.submit([encoding(2), encoding(3)]))
    await asyncio.sleep(0)
    assert batcher.loop_task is not None
    batcher.loop_task.cancel()
    for waiter in (running, queued):
        with pytest.raises(NotReadyError, match="died"):
            await waiter
    assert not batcher.alive
    with pytest.raises(NotReadyError, match="dead"):
        await batcher.submit([encoding(4)])
    gate.open()
    await batcher.close()
    assert batcher.endings == {Ending.ERROR: 3}
    assert_all_ended(batcher)


@in_loop
async def test_a_loop_that_dies_of_its_own_packing_fails_all_who_wait() -> None:
    def broken(*_: object) -> list[int]:
        raise ZeroDivisionError

    batcher = build(EchoEngine(), packing=broken)
    batcher.start()
    with pytest.raises(NotReadyError, match="died"):
        await batcher.submit([encoding(1)])
    assert not batcher.alive
    await batcher.close()
    assert_all_ended(batcher)


@in_loop
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
    await batcher.close()
    assert batcher.endings == {Ending.OK: 2, Ending.CANCELLED: 2}
    assert_all_ended(batcher)


@in_loop
async def test_a_caller_that_leaves_during_its_batch_harms_nobody() -> None:
    batcher, _, gate, running = await occupied()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    gate.open()
    assert (await batcher.submit([encoding(4)])).logits_NC.tolist() == [echo(4)]
    await batcher.close()
    assert batcher.endings == {Ending.CANCELLED: 1, Ending.OK: 1}


@in_loop
async def test_closing_ends_what_waits_and_what_runs() -> None:
    batcher, _, gate, running = await occupied()
    queued = asyncio.ensure_future(batcher.submit([encoding(2)]))
    await asyncio.sleep(0)
    await batcher.close()
    for waiter in (running, queued):
        with pytest.raises(DrainingError):
            await waiter
    with pytest.raises(DrainingError):
        await batcher.submit([encoding(3)])
    gate.open()
    assert batcher.endings == {Ending.SHUTDOWN: 2}
    assert_all_ended(batcher)


@in_loop
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
    await batcher.close()
    assert batcher.endings == {Ending.OK: 7}


@in_loop
async def test_a_list_that_could_never_be_admitted_says_so() -> None:
    batcher = build(EchoEngine())
    batcher.start()
    with pytest.raises(TooManyError, match="more than the whole queue holds"):
        await batcher.submit([encoding(number) for number in range(9)])
    await batcher.close()


@in_loop
async def test_the_wait_in_the_queue_and_the_time_of_the_batch_are_told() -> None:
    now_s = 100.0
    gate = Gate(asyncio.get_running_loop())
    batcher = Batcher("reviews/dense", EchoEngine(gate), LIMITS, clock_s=lambda: now_s)
    batcher.start()
    first = asyncio.ensure_future(batcher.submit([encoding(1)]))
    await gate.entered.wait()
    second = asyncio.ensure_future(batcher.submit([encoding(2)]))
    await asyncio.sleep(0)
    now_s = 103.0
    gate.open()
    assert ((await first).queue_s, (await first).infer_s) == (0.0, 3.0)
    assert ((await second).queue_s, (await second).infer_s) == (3.0, 0.0)
    await batcher.close()


@in_loop
async def test_silence_is_counted_only_while_a_batch_runs_or_after_death() -> None:
    now_s = 100.0
    gate = Gate(asyncio.get_running_loop())
    batcher = Batcher("reviews/dense", EchoEngine(gate), LIMITS, clock_s=lambda: now_s)
    batcher.start()
    now_s = 105.0
    assert batcher.silence_s() == 0.0
    running = asyncio.ensure_future(batcher.submit([encoding(1)]))
    await gate.entered.wait()
    now_s = 107.0
    assert batcher.silence_s() == 2.0
    gate.open()
    await running
    await batcher.close()


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
        batcher = build(EchoEngine(refuse), limits)
        batcher.start()
        encoded = [[encoding(*range(1, size + 1), size) for size in sizes] for sizes in requests]
        calls = [asyncio.ensure_future(batcher.submit(one)) for one in encoded]
        await asyncio.sleep(0)
        for index in cancelled & set(range(len(calls))):
            calls[index].cancel()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        await batcher.close()
        for one, answer in zip(encoded, answers, strict=True):
            if not isinstance(answer, BaseException):
                assert answer.logits_NC.tolist() == [echo(*text.input_ids) for text in one]
            else:
                assert isinstance(answer, EngineError | asyncio.CancelledError)
        assert batcher.num_admitted == sum(len(sizes) for sizes in requests)
        assert_all_ended(batcher)

    in_loop(scenario)()


def test_padding_is_zeros_on_the_right() -> None:
    batch = pad([encoding(5, 6), encoding(7)])
    assert batch.input_ids_BS.tolist() == [[5, 6], [7, 0]]
    assert batch.attention_mask_BS.tolist() == [[1, 1], [1, 0]]
