"""What has a variant done since it was loaded, in totals: requests, batches, and the time of each stage?

Safe to tell from several threads. Knows nothing about HTTP, Prometheus or queues.
"""

import threading
from dataclasses import dataclass
from enum import StrEnum


class Total(StrEnum):
    """What is counted and timed of requests."""

    SUCCESS = "success"
    FAIL = "fail"
    QUEUE = "queue"
    TOKENIZE = "tokenize"
    INFER = "infer"
    POSTPROCESS = "postprocess"


@dataclass(slots=True)
class Duration:
    """How often, and how long in all."""

    count: int = 0
    total_s: float = 0.0

    def add(self, duration_s: float) -> None:
        self.count += 1
        self.total_s += duration_s


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What is known at one moment; `batches` by size. `last_end_s` is on the service's clock, None before any end."""

    requests: dict[Total, Duration]
    batches: dict[int, Duration]
    last_end_s: float | None

    @property
    def num_batches(self) -> int:
        return sum(duration.count for duration in self.batches.values())

    @property
    def num_inputs(self) -> int:
        return sum(size * duration.count for size, duration in self.batches.items())


class Statistics:
    """Totals of one variant."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests = {total: Duration() for total in Total}
        self._batches: dict[int, Duration] = {}
        self._last_end_s: float | None = None

    def on_end(self, *, succeeded: bool, began_s: float, ended_s: float) -> None:
        """A request ended."""
        with self._lock:
            self._requests[Total.SUCCESS if succeeded else Total.FAIL].add(ended_s - began_s)
            self._last_end_s = ended_s

    def on_stage(self, stage: Total, duration_s: float) -> None:
        """A stage of a request is over."""
        with self._lock:
            self._requests[stage].add(duration_s)

    def on_batch(self, num_items: int, infer_s: float) -> None:
        """A batch came back from the engine."""
        with self._lock:
            self._batches.setdefault(num_items, Duration()).add(infer_s)

    def totals(self) -> Totals:
        """What is known now; it does not change any more."""
        with self._lock:
            return Totals(
                requests={total: Duration(one.count, one.total_s) for total, one in self._requests.items()},
                batches={size: Duration(one.count, one.total_s) for size, one in sorted(self._batches.items())},
                last_end_s=self._last_end_s,
            )
