"""How is a batcher run whose engine tells what it was given, and may be held?"""

import asyncio
import threading
from collections.abc import Callable

from service.batcher import Batcher
from service.encoding import EncodedBatch, Encoding
from service.engine import EchoEngine
from service.tickets import Answer
from service.waiting import BatchLimits
from service.workers import WorkerPool

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


def start(
    engine: EchoEngine, limits: BatchLimits = LIMITS, clock_s: Callable[[], float] | None = None, **arguments: object
) -> Batcher:
    """A batcher with one worker."""
    clock_s = clock_s or asyncio.get_running_loop().time
    pool = WorkerPool(1, clock_s)
    pool.start()
    batcher = Batcher("reviews/dense", engine, limits, pool=pool, clock_s=clock_s, **arguments)
    batcher.start()
    return batcher


async def occupied() -> tuple[Batcher, EchoEngine, Gate, "asyncio.Task[Answer]"]:
    """A batcher whose engine is held inside a batch of one text, until the gate is opened."""
    gate = Gate(asyncio.get_running_loop())
    engine = EchoEngine(gate)
    batcher = start(engine)
    running = asyncio.create_task(batcher.submit([encoding(1)]))
    await gate.entered.wait()
    return batcher, engine, gate, running


def assert_all_ended(batcher: Batcher) -> None:
    assert batcher.num_admitted == sum(batcher.endings.values())
    assert (batcher.num_queued, batcher.queued_tokens) == (0, 0)
