"""Runs jobs as tasks of a Ray cluster, or of a Ray of this machine alone.

Ray keeps the queue, finds a machine with room, and tries again where a machine was lost. The only module that
knows Ray; knows nothing about grids.
"""

import importlib
import logging
import os
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, Self

from sparsebert.errors import ConfigError, MissingExtraError
from training.sweep.child import GRACE_S, LOOK_EVERY_S, Child
from training.sweep.runner import Job, Outcome

logger = logging.getLogger(__name__)

LOCAL = "local"
RETRIES = 5  # of a task whose worker or machine was lost; a job that fails by itself is not tried again


class RayRunner:
    """A Ray task for each job, which takes `threads` CPUs and `gpus` GPUs; a context manager.

    Raises MissingExtraError when Ray is not installed, ConfigError when there is no cluster at `address`.
    """

    def __init__(self, address: str, *, threads: int, gpus: float, cpus: int) -> None:
        try:
            self._ray: Any = importlib.import_module("ray")
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                f"--ray needs: pip install 'sparsebert[sweep]', on every machine of the cluster "
                f"(the package {error.name!r} is missing)"
            ) from error
        self._threads = threads
        self._gpus = gpus
        self._connect(address, cpus)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ray.shutdown()

    def run(self, jobs: Sequence[Job]) -> Generator[Outcome, None, None]:
        """As `Runner.run`."""
        task = self._ray.remote(run_child).options(
            num_cpus=self._threads, num_gpus=self._gpus, max_retries=RETRIES, scheduling_strategy="SPREAD"
        )
        names = {task.remote(job, self._threads): job.name for job in jobs}
        try:
            while names:
                ended, _ = self._ray.wait(list(names), num_returns=1)
                yield self._outcome(ended[0], names.pop(ended[0]))
        finally:
            self._cancel(list(names))

    def _connect(self, address: str, cpus: int) -> None:
        local: dict[str, Any] = {"num_cpus": cpus, "include_dashboard": False} if address == LOCAL else {}
        if local:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            self._ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
        except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            raise ConfigError(
                f"--ray {address} cannot be had: {reason}; give the address of a running cluster whose token "
                "Ray can find, or 'local'"
            ) from error
        self._warn_of_machines([node["Resources"] for node in self._ray.nodes() if node["Alive"]])

    def _warn_of_machines(self, machines: Sequence[Mapping[str, float]]) -> None:
        """A cluster that grows may have room later, so it is no error when no machine has it now."""
        if not any(m.get("CPU", 0) >= self._threads and m.get("GPU", 0) >= self._gpus for m in machines):
            logger.warning(
                "no machine of the cluster has %d CPUs and %g GPUs for a point, so all of them wait; "
                "give more --jobs or fewer --gpus",
                self._threads,
                self._gpus,
            )
        if not self._gpus and any(machine.get("GPU") for machine in machines):
            logger.warning("the cluster has GPUs, and points train without; to use them give --gpus 1")

    def _outcome(self, reference: Any, name: str) -> Outcome:
        try:
            outcome: Outcome = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:  # the worker was lost time after time
            reason = str(error).strip().splitlines()
            return Outcome(name=name, error=reason[0] if reason else type(error).__name__)
        return outcome

    def _cancel(self, references: list[Any]) -> None:
        """Stop what runs and wait for it, so that nothing is left behind when this process ends."""
        for reference in references:
            self._ray.cancel(reference)
        if references:
            self._ray.wait(references, num_returns=len(references), timeout=GRACE_S + 5)


def run_child(job: Job, threads: int) -> Outcome:
    """What a worker does; a task that is cancelled takes its process along."""
    child = Child(job, threads=threads)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(child.run)
        try:
            # Ray cancels with an exception between two instructions of this thread, so none may take long.
            while not wait([future], timeout=LOOK_EVERY_S).done:
                pass
            return future.result()
        finally:
            child.interrupt()
            child.end()
