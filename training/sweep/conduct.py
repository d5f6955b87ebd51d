"""A whole sweep: the dense models, then the points that start from them, each result written down at once.

Knows nothing about where jobs run.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from tqdm import tqdm

from sparsebert.errors import CheckpointError
from sparsebert.files import write_whole
from training.sweep.child import LOG_FILE
from training.sweep.plan import Point, dense_job, dense_runs, point_job
from training.sweep.receipts import find_finished, left_to_do, sign
from training.sweep.results import Row, make_rows, to_csv
from training.sweep.runner import Job, Outcome, Runner

logger = logging.getLogger(__name__)

RESULTS_FILE = "results.csv"


Advance = Callable[[int], object]


class Sweep:
    """Points in the folder `output`, an absolute path; `cwd` is where relative paths in the words begin."""

    def __init__(self, points: Sequence[Point], output: Path, cwd: Path) -> None:
        self._points = points
        self.output = output
        self._cwd = cwd
        self._errors: dict[str, str] = {}

    def rows(self) -> list[Row]:
        """How the points stand, best first."""
        return make_rows(self._points, find_finished(self.output), self._errors)

    def left(self) -> list[Point]:
        """The points that are not finished."""
        return left_to_do(self._points, find_finished(self.output))

    def run(self, runner: Runner) -> None:
        """Do what is left, as far as it goes: a point that fails stops no other one."""
        left = self.left()
        self._write_results()
        done = len(self._points) - len(left)
        with tqdm(total=len(self._points), initial=done, desc="sweep", unit="point", disable=None) as bar:
            ready = self._run_dense(runner, left, bar.update)
            self._run_points(runner, ready, bar.update)

    def _run_dense(self, runner: Runner, left: Sequence[Point], advance: Advance) -> list[Point]:
        """Train the dense models of what is left; returns the points that can start.

        One that is there already is run again, for training to look whether it still is of these data and settings.
        """
        jobs = [dense_job(run, self.output, self._cwd) for run in dense_runs(left)]
        for job in jobs:
            logger.info("dense model %s: its log is %s", job.name, job.folder / LOG_FILE)
        errors = {outcome.name: outcome.error for outcome in _outcomes(runner, jobs) if outcome.error}
        for point in left:
            if point.dense and point.dense.name in errors:
                self._fail(point, f"its dense model {point.dense.name}: {errors[point.dense.name]}")
        ready = [point for point in left if point.name not in self._errors]
        self._write_results()
        advance(len(left) - len(ready))
        return ready

    def _run_points(self, runner: Runner, points: Sequence[Point], advance: Advance) -> None:
        by_name = {point.name: point for point in points}
        for outcome in _outcomes(runner, [point_job(point, self.output, self._cwd) for point in points]):
            point = by_name[outcome.name]
            if outcome.error is None:
                self._finish(point)
            else:
                self._fail(point, outcome.error)
            self._write_results()
            advance(1)

    def _finish(self, point: Point) -> None:
        try:
            record = sign(point, self.output)
        except CheckpointError:  # it was trained on a machine that sees another folder
            self._fail(point, f"it ended well, but not in {self.output}, which all machines must see")
            return
        logger.info(
            "%s: accuracy %.2f%%, %.1f%% of encoder parameters removed",
            point.name, 100 * record.accuracy, 100 * record.encoder_sparsity,
        )  # fmt: skip

    def _fail(self, point: Point, error: str) -> None:
        self._errors[point.name] = error
        logger.warning("%s failed: %s (its log is %s)", point.name, error, point.folder(self.output) / LOG_FILE)

    def _write_results(self) -> None:
        write_whole(self.output / RESULTS_FILE, to_csv(self.rows()))


def _outcomes(runner: Runner, jobs: Sequence[Job]) -> Iterator[Outcome]:
    """The outcomes of `jobs`; when the caller is interrupted, what runs is stopped before this ends."""
    with closing(runner.run(jobs)) as outcomes:
        yield from outcomes
