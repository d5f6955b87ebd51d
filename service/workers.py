"""Which threads compute, and what happens when one of them dies?

One pool for all variants. A free worker takes what waits by itself, so that the event loop is never between two
batches. Knows nothing about texts, futures or models.

The law: a worker dies only of what is no `Exception`. Its job is told, and another thread takes its place; when
that happens too often the pool is dead, every owner is told, and nothing waits for it any more.
"""

import logging
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Protocol

from service.waiting import Queue, Schedule, Taken

log = logging.getLogger(__name__)

MAX_DEATHS = 8
DEATHS_WITHIN_S = 60.0
# More than the event loop has: 9 to 11% more texts a second at 16 connections on two cores (docs/results.md).
WORKER_NICENESS = 10


def step_back() -> None:
    """Let the calling thread go after the others of the process: while it computes, they bring it its next batch.

    Where a service has a cgroup of its own, as in containers and units, it yields to nothing outside.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, 0, min(19, os.getpriority(os.PRIO_PROCESS, 0) + WORKER_NICENESS))


class Job(Protocol):
    """One batch."""

    def run(self) -> None:
        """Compute and tell; raises no `Exception`."""

    def lost(self, error: BaseException) -> None:
        """The thread that ran it died of `error`."""


class Owner(Protocol):
    """Whose texts wait in a queue; called from workers, and must neither block nor raise."""

    def begin(self, taken: Taken, began_s: float) -> Job | None:
        """What to run for what left the queue, if anything. The pool's lock is held."""

    def on_dead_pool(self) -> None:
        """No worker will take anything any more."""


@dataclass(eq=False)
class _Worker:
    # Not a condition: its waiter wakes into a lock that who notifies still holds, which costs five times as much.
    wakes: SimpleQueue[None] = field(default_factory=SimpleQueue)
    thread: threading.Thread | None = None


class WorkerPool:
    """`num_workers` threads and the queues that they empty. `lock` guards every queue."""

    def __init__(self, num_workers: int, clock_s: Callable[[], float]) -> None:
        self.lock = threading.RLock()
        self.schedule = Schedule()
        self._clock_s = clock_s
        self._owners: dict[Queue, Owner] = {}
        self._workers = [_Worker() for _ in range(num_workers)]
        self._num_idle = 0
        # The last to fall asleep is woken first: what it computes with is still near its core.
        self._asleep: list[_Worker] = []
        self._free_s = clock_s()
        self._deaths_s: list[float] = []
        self._dead = False
        self._closing = False

    @property
    def alive(self) -> bool:
        """Whether work is taken; false before `start`, after `close`, and when workers died too often."""
        threads = [worker.thread for worker in self._workers]
        return not (self._dead or self._closing) and all(one is not None and one.is_alive() for one in threads)

    @property
    def dead(self) -> bool:
        """Whether workers died so often that the process had better be started again."""
        return self._dead

    def silence_s(self) -> float:
        """Seconds since a worker was last free to take work."""
        if self.alive and self._num_idle:
            self._free_s = self._clock_s()
        return self._clock_s() - self._free_s

    def start(self) -> None:
        """Begin to take work."""
        for worker in self._workers:
            self._start(worker)

    def add(self, queue: Queue, owner: Owner) -> None:
        """Empty this queue too, from now on."""
        with self.lock:
            self.schedule.add(queue)
            self._owners[queue] = owner

    def remove(self, queue: Queue) -> None:
        """Forget a queue in which nothing waits."""
        with self.lock:
            if self._owners.pop(queue, None) is not None:
                self.schedule.remove(queue)

    def wake(self, num_items: int) -> None:
        """So many texts were admitted; call with the lock."""
        for _ in range(min(num_items, len(self._asleep))):
            self._asleep.pop().wakes.put(None)

    def close(self) -> None:
        """Take nothing any more; workers end after the batch that they compute."""
        with self.lock:
            self._closing = True
            self.wake(len(self._asleep))

    def join(self, timeout_s: float) -> None:
        """Wait for the workers to end after `close`; not for ever, since a batch may hang."""
        ends_s = self._clock_s() + timeout_s
        for worker in self._workers:
            if worker.thread is not None and worker.thread is not threading.current_thread():
                worker.thread.join(max(0.0, ends_s - self._clock_s()))

    def _start(self, worker: _Worker) -> None:
        # A daemon, so that a batch that hangs does not keep the process from ending.
        thread = threading.Thread(target=self._live, args=(worker,), name="engine", daemon=True)
        thread.start()
        worker.thread = thread

    def _live(self, worker: _Worker) -> None:
        step_back()
        job: Job | None = None
        try:
            while (taken := self._take(worker)) is not None:
                queue, job, began_s = taken
                try:
                    if job is not None:
                        job.run()
                finally:
                    with self.lock:
                        queue.ended(began_s, self._clock_s())
                # Who waits holds nothing of what it did last: that may be a variant which is unloaded meanwhile.
                job = None
                del queue, taken
        except BaseException as error:  # noqa: BLE001 - a thread that ends in silence would leave its waiters hanging
            self._on_death(worker, job, error)

    def _take(self, worker: _Worker) -> tuple[Queue, Job | None, float] | None:
        """What to do next, waited for; None when the pool is closed."""
        with self.lock:
            self._num_idle += 1
        try:
            while not self._closing:
                if (found := self._look(worker)) is not None:
                    return found
                worker.wakes.get()
            return None
        finally:
            with self.lock:
                self._num_idle -= 1

    def _look(self, worker: _Worker) -> tuple[Queue, Job | None, float] | None:
        """What to do now; None promises that the next text that comes in is told to a worker that waits for it."""
        with self.lock:
            now_s = self._free_s = self._clock_s()
            found = self.schedule.next(now_s, self._num_idle)
            if found is None:
                self._asleep.append(worker)
                return None
            queue, taken = found
            job = self._owners[queue].begin(taken, now_s)
            queue.began(now_s)
            return queue, job, now_s

    def _on_death(self, worker: _Worker, job: Job | None, error: BaseException) -> None:
        log.critical("a worker died", exc_info=error)
        if not self._closing and not self._replace(worker):
            self._dead = True
            self.close()
            for owner in list(self._owners.values()):
                owner.on_dead_pool()
        # Last, so that who is told of it finds the pool as it is from now on.
        if job is not None:
            job.lost(error)

    def _replace(self, worker: _Worker) -> bool:
        now_s = self._clock_s()
        with self.lock:
            self._deaths_s = [one for one in self._deaths_s if now_s - one < DEATHS_WITHIN_S] + [now_s]
            if len(self._deaths_s) > MAX_DEATHS:
                return False
        try:
            self._start(worker)
        except RuntimeError:
            log.critical("no worker could be started in its place", exc_info=True)
            return False
        return True
