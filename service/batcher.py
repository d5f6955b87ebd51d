"""How do waiting texts get to the engine, many at a time, and how does each of them end?

One batcher serves one variant. Knows nothing about texts, HTTP or what the engine is.

The law: every admitted text ends exactly once, as one of `Ending`. A list of texts is admitted whole or not
at all and ends together: with all its rows in order, or with the first error. Nothing waits on a timer: a
free engine takes whatever waits. A text whose caller left is dropped before it reaches the engine.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import numpy as np

from service.encoding import EncodedBatch, Encoding, FloatArray, pad
from service.engine import Engine
from service.errors import (
    STOPPING,
    DrainingError,
    EngineError,
    NotReadyError,
    QueueFullError,
    ServiceError,
    TooManyError,
)
from service.packing import choose_batch
from service.probabilities import check_logits

Packing = Callable[[Sequence[int], int, int], list[int]]


class Ending(StrEnum):
    """How an admitted text ends."""

    OK = "ok"
    ERROR = "error"
    CANCELLED = "cancelled"
    SHUTDOWN = "shutdown"


class BatchObserver(Protocol):
    """Is told what the batcher does; must not raise or block."""

    def on_queue(self, num_items: int, num_tokens: int) -> None:
        """So much waits now."""

    def on_batch(self, batch: EncodedBatch, infer_s: float) -> None:
        """A batch came back from the engine."""


class SilentObserver:
    """Observes nothing."""

    def on_queue(self, num_items: int, num_tokens: int) -> None: ...

    def on_batch(self, batch: EncodedBatch, infer_s: float) -> None: ...


@dataclass(frozen=True, kw_only=True)
class BatchLimits:
    """What one batch and one queue may hold."""

    max_batch_tokens: int
    max_batch_items: int
    max_queue_items: int
    max_queue_tokens: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """Logits [N, labels] of the texts in order, the longest wait of one of them, and the time of their batches."""

    logits_NC: FloatArray
    queue_s: float
    infer_s: float


@dataclass(eq=False)
class _Ticket:
    """One call of `submit`."""

    future: asyncio.Future[None]
    rows: list[FloatArray | None]
    num_open: int
    queue_s: float = 0.0
    infer_s: float = 0.0


@dataclass(eq=False)
class _Entry:
    """One text of a ticket."""

    encoding: Encoding
    ticket: _Ticket
    row: int
    admitted_s: float
    ending: Ending | None = field(default=None)


class Batcher:
    """The queue and the loop of one variant; use from one event loop. See the law above."""

    def __init__(
        self,
        name: str,
        engine: Engine,
        limits: BatchLimits,
        *,
        clock_s: Callable[[], float],
        observer: BatchObserver | None = None,
        packing: Packing = choose_batch,
    ) -> None:
        self.name = name
        self.num_admitted = 0
        self.endings: Counter[Ending] = Counter()
        self._engine = engine
        self._limits = limits
        self._clock_s = clock_s
        self._observer: BatchObserver = observer or SilentObserver()
        self._packing = packing
        self._queue: list[_Entry] = []
        self._queue_tokens = 0
        self._running: list[_Entry] = []
        self._work = asyncio.Event()
        self._beat_s = clock_s()
        self._closing = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"engine-{name}")
        self._loop_task: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        """Whether the loop takes work; false before `start`, after `close` and when the loop died."""
        return self._loop_task is not None and not self._loop_task.done() and not self._closing

    @property
    def num_queued(self) -> int:
        return len(self._queue)

    @property
    def queued_tokens(self) -> int:
        return self._queue_tokens

    @property
    def loop_task(self) -> "asyncio.Task[None] | None":
        """The loop, for those who watch it."""
        return self._loop_task

    def silence_s(self) -> float:
        """Seconds since the loop was last able to take work: 0 while idle, else since its batch began or it died."""
        if self.alive and not self._running:
            self._beat_s = self._clock_s()
        return self._clock_s() - self._beat_s

    def start(self) -> None:
        """Begin to serve; call inside the event loop."""
        self._loop_task = asyncio.get_running_loop().create_task(self._serve(), name=f"batcher-{self.name}")
        self._loop_task.add_done_callback(self._on_loop_end)

    async def submit(self, encodings: Sequence[Encoding]) -> Answer:
        """Logits of all `encodings`, in order.

        Raises QueueFullError, TooManyError or NotReadyError before admission; EngineError, NotReadyError or
        DrainingError after it. Cancelling the call drops what still waits.
        """
        entries = self._admit(encodings)
        ticket = entries[0].ticket
        try:
            await ticket.future
        except asyncio.CancelledError:
            self._end_all(entries, Ending.CANCELLED)
            raise
        return Answer(
            logits_NC=np.stack([row for row in ticket.rows if row is not None]),
            queue_s=ticket.queue_s,
            infer_s=ticket.infer_s,
        )

    async def close(self) -> None:
        """Stop; what waits or runs ends with DrainingError. Returns when the loop has ended."""
        self._closing = True
        self._fail(self._queue + self._running, DrainingError(STOPPING), Ending.SHUTDOWN)
        if self._loop_task is not None:
            self._loop_task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._loop_task
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _admit(self, encodings: Sequence[Encoding]) -> list[_Entry]:
        self._check_admission(len(encodings), sum(encoding.num_tokens for encoding in encodings))
        ticket = _Ticket(
            future=asyncio.get_running_loop().create_future(), rows=[None] * len(encodings), num_open=len(encodings)
        )
        now_s = self._clock_s()
        entries = [_Entry(encoding, ticket, row, now_s) for row, encoding in enumerate(encodings)]
        self.num_admitted += len(entries)
        self._set_queue(self._queue + entries)
        self._work.set()
        return entries

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
            raise NotReadyError(f"the batcher of {self.name} is dead; restart the service")
        if len(self._queue) + num_items > limits.max_queue_items or (
            self._queue_tokens + num_tokens > limits.max_queue_tokens
        ):
            raise QueueFullError(
                f"the queue of {self.name} is full: {len(self._queue)} texts of {self._queue_tokens} tokens wait "
                f"(limits {limits.max_queue_items} and {limits.max_queue_tokens}); try again later"
            )

    async def _serve(self) -> None:
        while True:
            await self._work.wait()
            if not self._queue:
                self._work.clear()
                continue
            self._running = self._take()
            self._beat_s = self._clock_s()
            await self._run(self._running)
            self._running = []

    def _take(self) -> list[_Entry]:
        lengths = [entry.encoding.num_tokens for entry in self._queue]
        chosen = self._packing(lengths, self._limits.max_batch_tokens, self._limits.max_batch_items)
        taken = [self._queue[position] for position in chosen]
        left_out = set(chosen)
        self._set_queue([entry for position, entry in enumerate(self._queue) if position not in left_out])
        return taken

    async def _run(self, entries: list[_Entry]) -> None:
        batch = pad([entry.encoding for entry in entries])
        began_s = self._clock_s()
        for entry in entries:
            entry.ticket.queue_s = max(entry.ticket.queue_s, began_s - entry.admitted_s)
        try:
            logits_BC = await asyncio.get_running_loop().run_in_executor(self._thread, self._engine.run, batch)
            check_logits(logits_BC, len(entries))
        except Exception as error:  # noqa: BLE001 - whatever the engine raises must fail its batch and nothing else
            failure = EngineError(f"the model of {self.name} failed on a batch of {len(entries)} texts")
            failure.__cause__ = error
            self._fail(entries, failure, Ending.ERROR)
            return
        infer_s = self._clock_s() - began_s
        self._observer.on_batch(batch, infer_s)
        for ticket in {id(entry.ticket): entry.ticket for entry in entries}.values():
            ticket.infer_s += infer_s
        for entry, row_C in zip(entries, logits_BC, strict=True):
            self._finish(entry, row_C)

    def _finish(self, entry: _Entry, row_C: FloatArray) -> None:
        if not self._end(entry, Ending.OK):
            return
        ticket = entry.ticket
        ticket.rows[entry.row] = row_C
        ticket.num_open -= 1
        if ticket.num_open == 0 and not ticket.future.done():
            ticket.future.set_result(None)

    def _fail(self, entries: list[_Entry], error: ServiceError, ending: Ending) -> None:
        """End the tickets of `entries`, with whatever else of them still waits."""
        tickets = {id(entry.ticket): entry.ticket for entry in entries if entry.ending is None}
        same = [entry for entry in self._queue + self._running if id(entry.ticket) in tickets]
        self._end_all(same, ending)
        for ticket in tickets.values():
            if not ticket.future.done():
                ticket.future.set_exception(error)

    def _end_all(self, entries: list[_Entry], ending: Ending) -> None:
        ended = {id(entry) for entry in entries if self._end(entry, ending)}
        if ended:
            self._set_queue([entry for entry in self._queue if id(entry) not in ended])

    def _end(self, entry: _Entry, ending: Ending) -> bool:
        """Whether the entry was still open; it is ended now."""
        if entry.ending is not None:
            return False
        entry.ending = ending
        self.endings[ending] += 1
        return True

    def _set_queue(self, entries: list[_Entry]) -> None:
        self._queue = entries
        self._queue_tokens = sum(entry.encoding.num_tokens for entry in entries)
        self._observer.on_queue(len(entries), self._queue_tokens)

    def _on_loop_end(self, task: "asyncio.Task[None]") -> None:
        cause = None if task.cancelled() else task.exception()
        if not self._closing:
            failure = NotReadyError(f"the batcher of {self.name} died; restart the service")
            failure.__cause__ = cause
            self._fail(self._queue + self._running, failure, Ending.ERROR)
