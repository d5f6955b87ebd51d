"""`sparsebert sweep`: the command line's words become a grid, and it is run here or on a cluster.

Knows nothing about how points are run.
"""

import argparse
import logging
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from tqdm.contrib.logging import logging_redirect_tqdm

from sparsebert.cpus import available_cpus
from sparsebert.errors import ConfigError, TrainingError
from sparsebert.files import check_writable
from training.flags import number
from training.sweep.cluster import RayRunner
from training.sweep.conduct import RESULTS_FILE, Sweep
from training.sweep.grid import SEED, Axis, parse_axis
from training.sweep.local import LocalRunner, threads_each
from training.sweep.plan import plan_sweep
from training.sweep.results import to_table
from training.sweep.runner import Runner

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Machines:
    """Where points are run: `jobs` at a time here, or on the Ray cluster at `ray`."""

    jobs: int
    ray: str | None
    gpus: float

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise ConfigError(f"--jobs is {self.jobs}; it must be at least 1")
        if self.gpus < 0:
            raise ConfigError(f"--gpus is {self.gpus:g}; it must be at least 0")
        if self.gpus and self.ray is None:
            raise ConfigError("--gpus needs --ray, which gives each point its own; on this machine alone: --ray local")


def main(arguments: Sequence[str]) -> None:
    """Run `sparsebert sweep` with the words after it."""
    words, shared = split_words(arguments)
    options = build_parser().parse_args(words)
    machines = Machines(jobs=options.jobs, ray=options.ray, gpus=options.gpus)
    points = plan_sweep(read_axes(options.grid, options.seeds), shared)
    sweep = Sweep(points, options.output.resolve(), Path.cwd())
    if not options.dry_run:
        check_writable(sweep.output / RESULTS_FILE)
        with logging_redirect_tqdm():
            _run(sweep, machines)
    sys.stdout.write(to_table(sweep.rows()))
    left = len(sweep.left())
    if left and not options.dry_run:
        raise TrainingError(f"{left} of {len(points)} points failed; the same command tries them again")


def split_words(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The sweep's own words, and after the first `--` those of `sparsebert train`."""
    words = list(arguments)
    cut = words.index("--") if "--" in words else len(words)
    return words[:cut], words[cut + 1 :]


def read_axes(grid: Sequence[str], seeds: str | None) -> list[Axis]:
    """The axes. Raises ConfigError when there is none."""
    axes = [parse_axis(word) for word in grid]
    if seeds is not None:
        axes.append(parse_axis(f"{SEED}={seeds}"))
    if not axes:
        raise ConfigError("a sweep needs a --grid, such as --grid sparsity=0.5,0.67, or --seeds")
    return axes


def build_parser() -> argparse.ArgumentParser:
    """The flags of `sparsebert sweep`."""
    parser = argparse.ArgumentParser(
        prog="sparsebert sweep",
        usage="sparsebert sweep --output DIR --grid FLAG=VALUE,VALUE ... [options] [-- WORDS OF sparsebert train]",
        description="Train every point of a grid. A dense model is trained once for all points that can share it. "
        "Writes DIR/results.csv after each point; a point that fails stops no other one. Given again, the same "
        "command does only what is not finished, and goes on inside a point that was killed.",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for all points and results")
    parser.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="FLAG=VALUE,VALUE",
        help="a flag of 'sparsebert train' and the values to try; on and off for a switch; once for each axis",
    )
    parser.add_argument("--seeds", metavar="N,N", help="every point with each of these seeds")
    parser.add_argument("--dry-run", action="store_true", help="check the grid and say how its points stand; run none")
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="points side by side, which share the CPUs (default: 1)"
    )
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="run on this Ray cluster ('auto', 'HOST:6379', 'ray://HOST:10001'), or on a Ray of this machine "
        "('local'); a point then takes the CPUs of this machine divided by --jobs. DIR, the data and the folder of "
        "this command must be the same on all machines, on a file system with locks such as NFS, and the package "
        "installed; Ray finds the cluster's token as it always does. Needs the extra 'sweep'",
    )
    parser.add_argument(
        "--gpus",
        type=number,
        default=0.0,
        metavar="G",
        help="with --ray: GPUs of a point, 0.5 lets two share one (default: 0)",
    )
    return parser


def _make_folder(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--output {output} cannot be written ({error.strerror}); choose another") from error


def _run(sweep: Sweep, machines: Machines) -> None:
    try:
        with _runner(machines) as runner, _interrupted_by_signals():
            _make_folder(sweep.output)  # not before: without its machines a sweep leaves nothing behind
            sweep.run(runner)
    except KeyboardInterrupt:
        logger.info("stopped with %d points left; the same command goes on where they are", len(sweep.left()))
        raise
    finally:
        if (sweep.output / RESULTS_FILE).exists():
            logger.info("-> %s", sweep.output / RESULTS_FILE)


def _runner(machines: Machines) -> AbstractContextManager[Runner]:
    cpus = available_cpus()
    if machines.ray is None:
        return nullcontext(LocalRunner(side_by_side=machines.jobs, cpus=cpus))
    return RayRunner(machines.ray, threads=threads_each(cpus, machines.jobs), gpus=machines.gpus, cpus=cpus)


@contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """A terminal that closes and a scheduler that ends the job stop the sweep as Ctrl-C does, children first."""

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as `signal` calls it
        raise KeyboardInterrupt

    heard = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in heard}  # nohup's SIGHUP stays ignored
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
