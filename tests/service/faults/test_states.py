"""Whatever comes in whatever order (requests, deadlines, callers that leave, failures, deaths, a stop), the law holds.

A machine of states drives one batcher with a clock and workers that move only when told to.
"""

import asyncio
import threading
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from service.batcher import Batcher
from service.encoding import EncodedBatch, Encoding, FloatArray
from service.engine import EchoEngine, Halt
from service.errors import (
    DrainingError,
    EngineError,
    NotReadyError,
    QueueFullError,
    RequestTimeoutError,
    TooManyError,
)
from service.tickets import Answer, Ending
from service.waiting import BatchLimits, Queue, Schedule
from service.workers import Job, Owner

LIMITS = BatchLimits(max_batch_tokens=32, max_batch_items=6, max_queue_items=12, max_queue_tokens=80)
NUM_WORKERS = 2
# Before these many requests nothing ends it all.
MIN_CALLS = 12
RUNNING = Bundle("running")
CALLS = Bundle("calls")


class HandPool:
    """The pool's part that a batcher knows, without threads."""

    def __init__(self) -> None:
        self.lock = threading.Condition()
        self.schedule = Schedule()
        self.alive = True
        self.owner: Owner | None = None

    def silence_s(self) -> float:
        return 0.0

    def add(self, queue: Queue, owner: Owner) -> None:
        self.schedule.add(queue)
        self.owner = owner

    def remove(self, queue: Queue) -> None:
        self.schedule.remove(queue)

    def wake(self, num_items: int) -> None:
        pass


class Fallible(EchoEngine):
    """Raises when it is told to, and notes what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.fails = False

    def run(self, batch: EncodedBatch, halt: Halt) -> FloatArray:
        if self.fails:
            raise RuntimeError("the engine was told to fail")
        return super().run(batch, halt)


@dataclass(eq=False)
class Call:
    """One request and what it may still become."""

    encodings: list[Encoding]
    task: "asyncio.Task[Answer]"
    deadline_s: float
    cancelled: bool = False


@dataclass(eq=False)
class Running:
    """A batch in the hands of a worker."""

    job: Job
    queue: Queue
    began_s: float
    entries: list = field(default_factory=list)


class Batching(RuleBasedStateMachine):
    """See the law in `service.batcher`."""

    @initialize()
    def begin(self) -> None:
        self.now_s = 100.0
        self.loop = asyncio.new_event_loop()
        self.pool, self.engine = HandPool(), Fallible()
        self.calls: list[Call] = []
        self.num_running = 0
        self.closed = False
        self.number = 0
        self.batcher = Batcher("m/v", self.engine, LIMITS, pool=self.pool, clock_s=lambda: self.now_s)
        self.step(start=True)
        for lengths, allowed_s in (([3, 9], 1000.0), ([20], 0.5), ([2, 2, 2], 2.0), ([7], 1000.0)):
            self.submit(lengths, allowed_s)

    def step(self, *, start: bool = False) -> None:
        """Let the event loop do whatever it can do now."""

        async def turns() -> None:
            if start:
                self.batcher.start()
            for _ in range(6):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())

    @rule(
        target=CALLS,
        lengths=st.lists(st.integers(1, 32), min_size=1, max_size=7),
        allowed_s=st.sampled_from([0.5, 2.0, 1000.0]),
    )
    def submit(self, lengths: list[int], allowed_s: float) -> Call:
        encodings = []
        for length in lengths:
            self.number += 1
            encodings.append(
                Encoding(input_ids=(self.number,) * length, token_type_ids=(0,) * length, num_tokens_full=length)
            )
        task = self.loop.create_task(self.batcher.submit(encodings, self.now_s + allowed_s))
        call = Call(encodings, task, self.now_s + allowed_s)
        free = LIMITS.max_queue_items - self.batcher.num_queued, LIMITS.max_queue_tokens - self.batcher.queued_tokens
        before = self.batcher.num_admitted
        self.step()
        admitted = self.batcher.num_admitted - before
        fits = len(lengths) <= free[0] and sum(lengths) <= free[1]
        assert admitted == (len(lengths) if fits and self.pool.alive and not self.closed else 0)
        self.calls.append(call)
        return call

    @rule(call=consumes(CALLS))
    def caller_leaves(self, call: Call) -> None:
        call.cancelled = not call.task.done()
        call.task.cancel()
        self.step()

    @precondition(lambda self: self.num_running < NUM_WORKERS and self.pool.alive and not self.closed)
    @rule(target=RUNNING, passed_s=st.sampled_from([0.0, 0.3, 1.0, 5.0]))
    def worker_takes(self, passed_s: float) -> "Running | None":
        self.now_s += passed_s
        waiting = list(self.batcher._queue.waiting)
        with self.pool.lock:
            found = self.pool.schedule.next(self.now_s, NUM_WORKERS - self.num_running)
            if found is None:
                assert not waiting, "something waits and a free worker gets nothing"
                return None
            queue, taken = found
            job = self.pool.owner.begin(taken, self.now_s)
            queue.began(self.now_s)
        fresh = [text for text in waiting if text.deadline_s > self.now_s]
        assert fresh[:1] == [text for text in taken.chosen if text is (fresh or [None])[0]], "the oldest waits on"
        assert all(text.deadline_s > self.now_s and text.ending is None for text in taken.chosen)
        longest = max((text.encoding.num_tokens for text in taken.chosen), default=0)
        assert longest * len(taken.chosen) <= LIMITS.max_batch_tokens
        assert len(taken.chosen) <= LIMITS.max_batch_items
        self.step()
        self.num_running += 1
        return Running(job, queue, self.now_s, taken.chosen)

    @rule(running=consumes(RUNNING), end=st.sampled_from(["good", "good", "fails", "dies"]))
    def worker_ends(self, running: "Running | None", end: str) -> None:
        if running is None:
            return
        if running.job is not None and end == "dies":
            running.job.lost(SystemExit())
        elif running.job is not None:
            self.engine.fails = end == "fails"
            running.job.run()
        running.queue.ended(running.began_s, self.now_s)
        self.num_running -= 1
        self.step()
        assert all(entry.ending is not None for entry in running.entries)

    @precondition(lambda self: self.pool.alive and not self.closed and len(self.calls) >= MIN_CALLS)
    @rule()
    def pool_dies(self) -> None:
        self.pool.alive = False
        self.pool.owner.on_dead_pool()
        self.step()
        assert all(call.task.done() for call in self.calls)

    @precondition(lambda self: not self.closed and len(self.calls) >= MIN_CALLS)
    @rule()
    def service_stops(self) -> None:
        self.closed = True
        self.batcher.close()
        self.step()
        assert all(call.task.done() for call in self.calls)

    @invariant()
    def every_text_is_somewhere(self) -> None:
        if not hasattr(self, "batcher"):
            return
        batcher = self.batcher
        open_texts = sum(entry.ending is None for ticket in batcher._open for entry in ticket.entries)
        assert batcher.num_admitted == batcher.endings.total() + open_texts
        assert batcher.queued_tokens == sum(text.encoding.num_tokens for text in batcher._queue.waiting)
        assert batcher.num_queued <= LIMITS.max_queue_items
        assert batcher.queued_tokens <= LIMITS.max_queue_tokens
        for call in self.calls:
            if call.task.done():
                check(call)
        if self.num_running == 0 and batcher.num_queued == 0:
            assert all(call.task.done() for call in self.calls), "a request waits for nothing"

    def teardown(self) -> None:
        if not hasattr(self, "batcher"):
            return
        if not self.closed:
            self.service_stops()
        assert (self.batcher.num_queued, self.batcher.queued_tokens) == (0, 0)
        assert self.batcher.num_admitted == self.batcher.endings.total()
        assert set(self.batcher.endings) <= set(Ending)
        for call in self.calls:
            check(call)
        self.loop.close()


def check(call: Call) -> None:
    """A request that ended has its own rows in its own order, or an error of the table."""
    if call.task.cancelled():
        assert call.cancelled
    elif (error := call.task.exception()) is None:
        expected = [
            [float(sum(one * place for place, one in enumerate(text.input_ids, 1))), float(text.num_tokens)]
            for text in call.encodings
        ]
        assert call.task.result().rows_NC.tolist() == expected
    else:
        allowed = (DrainingError, EngineError, NotReadyError, QueueFullError, RequestTimeoutError, TooManyError)
        assert isinstance(error, allowed)


Batching.TestCase.settings = settings(max_examples=50, stateful_step_count=50)
TestBatching = Batching.TestCase
