"""Runs jobs on this machine, some side by side.

Knows nothing about grids.
"""

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from training.sweep.child import Child
from training.sweep.runner import Job, Outcome


class LocalRunner:
    """A child process for each job, `side_by_side` at a time; those that run share `cpus` evenly."""

    def __init__(self, *, side_by_side: int, cpus: int) -> None:
        self._side_by_side = side_by_side
        self._cpus = cpus

    def run(self, jobs: Sequence[Job]) -> Generator[Outcome, None, None]:
        """As `Runner.run`. An interrupt reaches this thread and ends the children, too."""
        threads = threads_each(self._cpus, min(self._side_by_side, len(jobs)))
        children = [Child(job, threads=threads) for job in jobs]
        with ThreadPoolExecutor(self._side_by_side) as pool:
            futures = [pool.submit(child.run) for child in children]
            try:
                for future in as_completed(futures):
                    yield future.result()
            finally:
                for future in futures:
                    future.cancel()
                for child in children:
                    child.interrupt()
                for child in children:
                    child.end()


def threads_each(cpus: int, side_by_side: int) -> int:
    """Threads for each of so many processes, at least one."""
    return max(1, cpus // max(1, side_by_side))
