"""Which of the waiting texts, of all variants, does the next free worker compute?

State without threads: time is a parameter, and who calls holds a lock. Knows nothing about futures or models.

Within a variant the oldest text is in every batch, so nothing starves. Between variants the one that has been
computed for the shortest time is next; one that was idle has saved nothing up.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import inf

from service.encoding import Encoding
from service.packing import choose_batch

# Packing looks at so many of the oldest texts: enough for close lengths, and its cost stays small in a long queue.
WINDOW_ITEMS = 256

Packing = Callable[[Sequence[int], int, int], list[int]]


@dataclass(frozen=True, kw_only=True)
class BatchLimits:
    """What one batch and one queue may hold."""

    max_batch_tokens: int
    max_batch_items: int
    max_queue_items: int
    max_queue_tokens: int


@dataclass(eq=False, kw_only=True)
class Text:
    """One text that waits; `deadline_s` is when nobody wants its answer any more."""

    encoding: Encoding
    admitted_s: float
    deadline_s: float = inf


@dataclass(frozen=True, kw_only=True, eq=False)
class Taken:
    """What left a queue: the texts of a batch, those that are too late, and why packing failed if it did."""

    chosen: list[Text]
    late: list[Text]
    failure: Exception | None = None


@dataclass(eq=False)
class Queue:
    """The texts of one variant that wait, oldest first, and what it has been computed for."""

    limits: BatchLimits
    packing: Packing = choose_batch
    num_tokens: int = 0
    served_s: float = 0.0
    waiting: dict[Text, None] = field(default_factory=dict)
    running_since_s: list[float] = field(default_factory=list)

    @property
    def busy(self) -> bool:
        return bool(self.waiting or self.running_since_s)

    def remove(self, text: Text) -> None:
        """The text waits no longer, if it did."""
        if text in self.waiting:
            del self.waiting[text]
            self.num_tokens -= text.encoding.num_tokens

    def take(self, now_s: float, num_free: int) -> Taken:
        """The next batch for one of `num_free` free workers; a packing that fails costs the oldest text."""
        window = list(islice(self.waiting, WINDOW_ITEMS))
        late = [text for text in window if text.deadline_s <= now_s]
        fresh = [text for text in window if text.deadline_s > now_s]
        chosen, failure = fresh[:1], None
        try:
            chosen = self._pack(fresh, num_free) if fresh else []
        except Exception as error:  # noqa: BLE001 - whatever packing raises must fail one text and nothing else
            failure = error
        for text in (*late, *chosen):
            self.remove(text)
        return Taken(chosen=chosen, late=late, failure=failure)

    def _pack(self, texts: list[Text], num_free: int) -> list[Text]:
        lengths = [text.encoding.num_tokens for text in texts]
        max_tokens = share_of_tokens(lengths[0], self.num_tokens, self.limits.max_batch_tokens, num_free)
        places = self.packing(lengths, max_tokens, self.limits.max_batch_items)
        if not places or len(set(places)) < len(places) or not set(places) <= set(range(len(texts))):
            raise ValueError(f"packing chose {places} of {len(texts)} texts")
        return [texts[place] for place in places]

    def began(self, now_s: float) -> None:
        """A batch of this queue runs now."""
        self.running_since_s.append(now_s)

    def ended(self, began_s: float, now_s: float) -> None:
        """The batch that began then is over."""
        self.running_since_s.remove(began_s)
        self.served_s += now_s - began_s

    def debt(self, now_s: float) -> tuple[float, int]:
        """The smaller, the sooner it is this queue's turn."""
        return self.served_s + sum(now_s - began_s for began_s in self.running_since_s), len(self.running_since_s)


class Schedule:
    """The queues of all variants and whose turn it is."""

    def __init__(self) -> None:
        self._queues: list[Queue] = []

    def add(self, queue: Queue) -> None:
        """One variant more."""
        self._queues.append(queue)

    def remove(self, queue: Queue) -> None:
        """One variant less; nothing of it waits any more."""
        self._queues.remove(queue)

    def admit(self, queue: Queue, texts: Sequence[Text]) -> None:
        """The texts wait from now on."""
        if not queue.busy:
            busy = [other.served_s for other in self._queues if other.busy]
            # Where all are idle, one that comes back later must not find this one to have been waiting for ever.
            queue.served_s = max(
                queue.served_s, min(busy) if busy else max((one.served_s for one in self._queues), default=0.0)
            )
        queue.waiting.update(dict.fromkeys(texts))
        queue.num_tokens += sum(text.encoding.num_tokens for text in texts)

    def next(self, now_s: float, num_free: int) -> tuple[Queue, Taken] | None:
        """The queue whose turn it is, and what left it; None when nothing waits."""
        asking = [queue for queue in self._queues if queue.waiting]
        if not asking:
            return None
        queue = min(asking, key=lambda one: one.debt(now_s))
        return queue, queue.take(now_s, num_free - len(asking) + 1)


def share_of_tokens(oldest: int, waiting: int, max_batch_tokens: int, num_free: int) -> int:
    """Tokens of a batch when `waiting` tokens are to be spread over the free workers; the oldest text always fits."""
    if num_free <= 1:
        return max_batch_tokens
    return max(oldest, min(max_batch_tokens, -(-waiting // num_free)))
