"""How do texts get to the engine of one variant, many at a time, and how does each of them end?

Knows nothing about texts' words, HTTP, what the engine is or which thread runs it.

The law: every admitted text ends exactly once, as one of `Ending`. A list of texts is admitted whole or not
at all and ends together: with all its rows in order, or with the first error. Nothing waits on a timer: a
free worker takes whatever waits. A text whose caller left, or whose time is up, is dropped before it reaches
the engine; a batch in which only such texts are left is stopped.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Protocol, cast

from service.encoding import EncodedBatch, Encoding, FloatArray, pad
from service.engine import Engine
from service.errors import (
    STOPPING,
    DrainingError,
    EngineError,
    NotReadyError,
    QueueFullError,
    RequestTimeoutError,
    ServiceError,
    TooManyError,
)
from service.packing import choose_batch
from service.probabilities import check_logits
from service.tickets import Answer, Batch, BatchTimes, Ending, Entry, Row, Ticket
from service.waiting import BatchLimits, Packing, Queue, Taken
from service.workers import WorkerPool

log = logging.getLogger(__name__)


class BatchObserver(Protocol):
    """Is told what the batcher does, from any thread; must not block. What it raises is logged and harms nobody."""

    def on_batch(self, batch: EncodedBatch, infer_s: float) -> None:
        """A batch came back from the engine."""


class SilentObserver:
    """Observes nothing."""

    def on_batch(self, batch: EncodedBatch, infer_s: float) -> None: ...


class Batcher:
    """The queue of one variant; use from one event loop. See the law above."""

    def __init__(
        self,
        name: str,
        engine: Engine,
        limits: BatchLimits,
        *,
        pool: WorkerPool,
        clock_s: Callable[[], float],
        observer: BatchObserver | None = None,
        packing: Packing = choose_batch,
        read: Callable[[FloatArray], Row] = lambda logits_BC: logits_BC,
    ) -> None:
        self.name = name
        self._late = f"{name} did not answer in time"
        self.num_admitted = 0
        self.endings: Counter[Ending] = Counter()
        self._engine = engine
        self._limits = limits
        self._pool = pool
        self._clock_s = clock_s
        self._read = read
        self._observer: BatchObserver = observer or SilentObserver()
        self._queue = Queue(limits, packing)
        self._open: dict[Ticket, None] = {}
        self._closing = False
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def alive(self) -> bool:
        """Whether it takes work; false before `start`, after `close` and when the workers died."""
        return self._loop is not None and not self._closing and self._pool.alive

    @property
    def num_queued(self) -> int:
        return len(self._queue.waiting)

    @property
    def queued_tokens(self) -> int:
        return self._queue.num_tokens

    def silence_s(self) -> float:
        """For how long its oldest batch runs, or nobody was free for what waits, or the workers are dead; else 0."""
        now_s = self._clock_s()
        with self._pool.lock:
            ran_s = max((now_s - began_s for began_s in self._queue.running_since_s), default=0.0)
            waits = bool(self._queue.waiting)
        return max(ran_s, self._pool.silence_s() if waits or not self.alive else 0.0)

    def start(self) -> None:
        """Begin to serve; call inside the event loop."""
        self._loop = asyncio.get_running_loop()
        self._pool.add(self._queue, self)

    async def submit(self, encodings: Sequence[Encoding], deadline_s: float = inf) -> Answer:
        """What is read in the logits of all `encodings`, in order; `deadline_s` is in the time of the clock.

        Raises QueueFullError, TooManyError or NotReadyError before admission; EngineError, RequestTimeoutError,
        NotReadyError or DrainingError after it. Cancelling the call drops what still waits.
        """
        now_s = self._clock_s()
        if deadline_s <= now_s:
            raise RequestTimeoutError(self._late)
        ticket = self._admit(encodings, now_s, deadline_s)
        late = None
        if deadline_s < inf:
            late = asyncio.get_running_loop().call_later(deadline_s - now_s, self._on_late, ticket)
        try:
            await ticket.future
        except asyncio.CancelledError:
            self._end_ticket(ticket, Ending.CANCELLED)
            raise
        finally:
            if late is not None:
                late.cancel()
            self._open.pop(ticket, None)
        return ticket.answer()

    def close(self) -> None:
        """Stop; what waits or runs ends with DrainingError, and its batches are stopped."""
        self._closing = True
        self._fail_all(DrainingError(STOPPING), Ending.SHUTDOWN)
        self._pool.remove(self._queue)

    # What follows up to `compute` runs in the event loop.

    def _admit(self, encodings: Sequence[Encoding], now_s: float, deadline_s: float) -> Ticket:
        ticket = Ticket(asyncio.get_running_loop().create_future(), num_open=len(encodings))
        with self._pool.lock:
            self._check_admission(len(encodings), sum(encoding.num_tokens for encoding in encodings))
            ticket.entries = [
                Entry(encoding=encoding, ticket=ticket, admitted_s=now_s, deadline_s=deadline_s)
                for encoding in encodings
            ]
            self.num_admitted += len(encodings)
            self._open[ticket] = None
            self._pool.schedule.admit(self._queue, ticket.entries)
            self._pool.wake(len(encodings))
        return ticket

    def _check_admission(self, num_items: int, num_tokens: int) -> None:
        limits = self._limits
        if num_items == 0:
            raise ValueError("nothing to submit")
        if num_items > limits.max_queue_items or num_tokens > limits.max_queue_tokens:
            raise TooManyError(
                f"the request has {num_items} texts of {num_tokens} tokens, more than the whole queue holds "
                f"({limits.max_queue_items} texts, {limits.max_queue_tokens} tokens); send fewer at a time"
            )
        if self._closing:
            raise DrainingError(STOPPING)
        if not self.alive:
            raise NotReadyError(f"the workers of {self.name} are dead; restart the service")
        num_queued, queued_tokens = self.num_queued, self.queued_tokens
        if num_queued + num_items > limits.max_queue_items or queued_tokens + num_tokens > limits.max_queue_tokens:
            raise QueueFullError(
                f"the queue of {self.name} is full: {num_queued} texts of {queued_tokens} tokens wait "
                f"(limits {limits.max_queue_items} and {limits.max_queue_tokens}); try again later"
            )

    def _finish(self, batch: Batch, rows: list[Row], infer_s: float) -> None:
        times = BatchTimes(began_s=batch.began_s, infer_s=infer_s, num_items=len(batch.entries))
        for ticket in {entry.ticket: None for entry in batch.entries}:
            ticket.infer_s += infer_s
            ticket.batches.append(times)
        for entry, row_C in zip(batch.entries, rows, strict=True):
            if self._end(entry, Ending.OK):
                entry.finish(row_C)

    def _fail(self, entries: Sequence[Entry], error: ServiceError, ending: Ending) -> None:
        """End the calls of the texts that are still open, with whatever else belongs to them."""
        for ticket in {entry.ticket: None for entry in entries if entry.ending is None}:
            self._end_ticket(ticket, ending)
            ticket.fail(error)

    def _on_late(self, ticket: Ticket) -> None:
        self._fail(ticket.entries, RequestTimeoutError(self._late), Ending.LATE)

    def _fail_all(self, error: ServiceError, ending: Ending) -> None:
        for ticket in list(self._open):
            self._fail(ticket.entries, error, ending)

    def _end_ticket(self, ticket: Ticket, ending: Ending) -> None:
        with self._pool.lock:
            for entry in ticket.entries:
                self._queue.remove(entry)
        for entry in ticket.entries:
            self._end(entry, ending)

    def _end(self, entry: Entry, ending: Ending) -> bool:
        if not entry.end(ending):
            return False
        self.endings[ending] += 1
        return True

    # What follows runs in the workers.

    def begin(self, taken: Taken, began_s: float) -> "_Job | None":
        """See `Owner`."""
        if taken.late:
            failure = RequestTimeoutError(self._late)
            self._in_loop(self._fail, cast("list[Entry]", taken.late), failure, Ending.LATE)
        if not taken.chosen:
            return None
        entries = cast("list[Entry]", taken.chosen)
        batch = Batch(entries=entries, began_s=began_s, num_open=len(entries), failure=taken.failure)
        for entry in entries:
            entry.batch = batch
            entry.ticket.queue_s = max(entry.ticket.queue_s, began_s - entry.admitted_s)
        return _Job(self, batch)

    def compute(self, batch: Batch) -> None:
        """Run a batch and tell how it ended."""
        try:
            if batch.failure is not None:
                raise batch.failure
            padded = pad([entry.encoding for entry in batch.entries])
            logits_BC = self._engine.run(padded, batch.halt)
            check_logits(logits_BC, len(batch.entries))
            infer_s = self._clock_s() - batch.began_s
            rows = list(self._read(logits_BC))
        except Exception as error:  # noqa: BLE001 - whatever the engine raises must fail its batch and nothing else
            self.tell_failed(batch, f"failed on a batch of {len(batch.entries)} texts", error)
            return
        self._tell(self._observer.on_batch, padded, infer_s)
        self._in_loop(self._finish, batch, rows, infer_s)

    def tell_failed(self, batch: Batch, what: str, cause: BaseException) -> None:
        """Fail a batch and nothing else."""
        failure = EngineError(f"the model of {self.name} {what}")
        failure.__cause__ = cause
        self._in_loop(self._fail, batch.entries, failure, Ending.ERROR)

    def on_dead_pool(self) -> None:
        """See `Owner`."""
        failure = NotReadyError(f"the workers of {self.name} died; restart the service")
        self._in_loop(self._fail_all, failure, Ending.ERROR)

    def _in_loop(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            cast("asyncio.AbstractEventLoop", self._loop).call_soon_threadsafe(call, *arguments)
        except RuntimeError:  # the loop is closed: nobody waits any more
            log.debug("an answer of %s found no event loop", self.name)

    def _tell(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            call(*arguments)
        except Exception:
            log.exception("an observer of %s failed", self.name)


@dataclass(frozen=True, eq=False)
class _Job:
    """A batch in the hands of a worker."""

    batcher: Batcher
    batch: Batch

    def run(self) -> None:
        self.batcher.compute(self.batch)

    def lost(self, error: BaseException) -> None:
        self.batcher.tell_failed(self.batch, "died with its worker", error)
