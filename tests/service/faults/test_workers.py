"""A worker that dies fails its batch, is replaced, and never leaves anybody waiting."""

import asyncio
import ctypes
import os
import sys
import threading
from collections.abc import Callable

import pytest

from service.batcher import Batcher
from service.encoding import EncodedBatch, Encoding
from service.engine import EchoEngine
from service.errors import EngineError, NotReadyError
from service.tickets import Ending
from service.waiting import BatchLimits
from service.workers import DEATHS_WITHIN_S, MAX_DEATHS, WorkerPool, step_back

LIMITS = BatchLimits(max_batch_tokens=32, max_batch_items=8, max_queue_items=8, max_queue_tokens=64)
POISON = 13


class Killed(BaseException):
    """No `Exception`: nothing but the worker itself catches it."""


def kill(batch: EncodedBatch) -> None:
    if POISON in batch.input_ids_BS:
        raise Killed


def encoding(number: int) -> Encoding:
    return Encoding(input_ids=(number,), token_type_ids=(0,), num_tokens_full=1)


def start(engine: EchoEngine, num_workers: int = 1, clock_s: Callable[[], float] | None = None) -> Batcher:
    clock_s = clock_s or asyncio.get_running_loop().time
    pool = WorkerPool(num_workers, clock_s)
    pool.start()
    batcher = Batcher("reviews/dense", engine, LIMITS, pool=pool, clock_s=clock_s)
    batcher.start()
    return batcher


async def test_a_worker_that_dies_fails_its_batch_and_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    batcher = start(EchoEngine(kill))
    with pytest.raises(EngineError, match="died with its worker"):
        await batcher.submit([encoding(POISON), encoding(2)])
    assert (await batcher.submit([encoding(4)])).rows_NC.tolist() == [[4.0, 1.0]]
    assert batcher.alive
    assert batcher.endings == {Ending.ERROR: 2, Ending.OK: 1}
    assert "a worker died" in caplog.text
    batcher.close()


async def test_workers_that_die_too_often_are_not_replaced_and_everybody_is_told() -> None:
    entered, opened = threading.Event(), threading.Event()

    def kill_or_wait(batch: EncodedBatch) -> None:
        kill(batch)
        entered.set()
        assert opened.wait(timeout=30)

    batcher = start(EchoEngine(kill_or_wait), num_workers=2)
    running = asyncio.ensure_future(batcher.submit([encoding(1)]))
    await asyncio.get_running_loop().run_in_executor(None, entered.wait)
    for _ in range(MAX_DEATHS):
        with pytest.raises(EngineError, match="died with its worker"):
            await batcher.submit([encoding(POISON)])
    with pytest.raises(NotReadyError, match="the workers of reviews/dense died; restart the service"):
        await batcher.submit([encoding(POISON)])
    with pytest.raises(NotReadyError, match="the workers of reviews/dense died; restart the service"):
        await running
    assert not batcher.alive
    with pytest.raises(NotReadyError, match="the workers of reviews/dense are dead"):
        await batcher.submit([encoding(4)])
    opened.set()
    assert batcher.num_admitted == sum(batcher.endings.values()) == MAX_DEATHS + 2
    assert (batcher.num_queued, batcher.queued_tokens) == (0, 0)


async def test_rare_deaths_are_forgiven() -> None:
    now_s = 100.0
    batcher = start(EchoEngine(kill), clock_s=lambda: now_s)
    for _ in range(3 * MAX_DEATHS):
        with pytest.raises(EngineError):
            await batcher.submit([encoding(POISON)])
        now_s += DEATHS_WITHIN_S / MAX_DEATHS
    assert (await batcher.submit([encoding(4)])).rows_NC.tolist() == [[4.0, 1.0]]
    batcher.close()


async def test_the_silence_of_the_dead_grows() -> None:
    now_s = 100.0
    batcher = start(EchoEngine(kill), clock_s=lambda: now_s)
    answers = [await asyncio.gather(batcher.submit([encoding(POISON)]), return_exceptions=True) for _ in range(9)]
    assert isinstance(answers[-1][0], NotReadyError)
    now_s = 107.0
    assert batcher.silence_s() == 7.0


async def test_a_thread_killed_from_outside_is_replaced() -> None:
    entered, opened = threading.Event(), threading.Event()
    idents = []

    def gate(batch: EncodedBatch) -> None:
        idents.append(threading.get_ident())
        entered.set()
        while not opened.wait(timeout=0.01):
            pass

    batcher = start(EchoEngine(gate))
    running = asyncio.ensure_future(batcher.submit([encoding(1)]))
    await asyncio.get_running_loop().run_in_executor(None, entered.wait)
    waiting = asyncio.ensure_future(batcher.submit([encoding(2)]))
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(idents[0]), ctypes.py_object(Killed))
    with pytest.raises(EngineError, match="died with its worker"):
        await running
    opened.set()
    assert (await waiting).rows_NC.tolist() == [[2.0, 1.0]]
    assert batcher.alive
    batcher.close()


@pytest.mark.skipif(sys.platform != "linux", reason="a thread has a niceness of its own on Linux only")
def test_workers_go_after_the_event_loop() -> None:
    told = []

    def step() -> None:
        before = os.getpriority(os.PRIO_PROCESS, 0)
        step_back()
        told.append((before, os.getpriority(os.PRIO_PROCESS, 0)))

    mine = os.getpriority(os.PRIO_PROCESS, 0)
    thread = threading.Thread(target=step)
    thread.start()
    thread.join()
    assert told == [(mine, min(19, mine + 10))]
    assert os.getpriority(os.PRIO_PROCESS, 0) == mine
