"""What is one call for answers, one text of it, one batch of such texts, and how does a text end?

Knows nothing about engines, threads or which variant it is.
"""

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.engine import Halt
from service.waiting import Text

# Of a text, or of several.
Row = NDArray[np.floating[Any]]


class Ending(StrEnum):
    """How an admitted text ends."""

    OK = "ok"
    ERROR = "error"
    LATE = "late"
    CANCELLED = "cancelled"
    SHUTDOWN = "shutdown"


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchTimes:
    """When a batch began, how long it took, and its texts."""

    began_s: float
    infer_s: float
    num_items: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """A row for each text in order, the longest wait of one of them, the time of their batches and their end.

    Rows are logits [N, labels], or what the batcher makes of them.
    """

    rows_NC: Row
    admitted_s: float
    queue_s: float
    infer_s: float
    computed_s: float
    batches: tuple[BatchTimes, ...]


@dataclass(eq=False)
class Ticket:
    """One call; `future` is done when its last text is, or its first one failed."""

    future: asyncio.Future[None]
    entries: "list[Entry]" = field(default_factory=list)
    num_open: int = 0
    queue_s: float = 0.0
    infer_s: float = 0.0
    batches: list[BatchTimes] = field(default_factory=list)

    def answer(self) -> Answer:
        """Call when the future is done without an error."""
        rows = [entry.row_C for entry in self.entries if entry.row_C is not None]
        rows_NC = rows[0][np.newaxis] if len(rows) == 1 else np.stack(rows)
        return Answer(
            rows_NC=rows_NC,
            admitted_s=self.entries[0].admitted_s,
            queue_s=self.queue_s,
            infer_s=self.infer_s,
            computed_s=max(batch.began_s + batch.infer_s for batch in self.batches),
            batches=tuple(self.batches),
        )

    def fail(self, error: Exception) -> None:
        """The call ends with `error`, unless it ended already."""
        if not self.future.done():
            self.future.set_exception(error)


@dataclass(eq=False, kw_only=True)
class Entry(Text):
    """One text of a call; `batch` is set when it left the queue."""

    ticket: Ticket
    ending: Ending | None = None
    row_C: Row | None = None
    batch: "Batch | None" = None

    def end(self, ending: Ending) -> bool:
        """Whether the text was still open; it is ended now, and its batch stopped if nobody waits for that."""
        if self.ending is not None:
            return False
        self.ending = ending
        if self.batch is not None:
            self.batch.num_open -= 1
            if self.batch.num_open == 0 and ending is not Ending.OK:
                self.batch.halt.request()
        return True

    def finish(self, row_C: Row) -> None:
        """The text has its answer; the last one of a call wakes it."""
        self.row_C = row_C
        self.ticket.num_open -= 1
        if self.ticket.num_open == 0 and not self.ticket.future.done():
            self.ticket.future.set_result(None)


@dataclass(eq=False, kw_only=True)
class Batch:
    """What one worker computes at once; `num_open` of its texts are still waited for."""

    entries: list[Entry]
    began_s: float
    num_open: int
    failure: Exception | None = None
    halt: Halt = field(default_factory=Halt)
