"""How is one job run, wherever it is? As a child process with a log, alone in its folder.

The lock of the folder belongs to the child and is gone when the child is, so a child that outlives a killed sweep
is waited for and never joined by a second one. Knows nothing about other jobs.
"""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Lock

from sparsebert.errors import TrainingError
from training.sweep.runner import Job, Outcome

try:
    import fcntl
except ModuleNotFoundError as missing:
    raise TrainingError("'sparsebert sweep' needs the file locks of Linux or macOS; on Windows use WSL") from missing

logger = logging.getLogger(__name__)

LOG_FILE = "train.log"
LOCK_FILE = ".lock"
STOPPED = "stopped before its end"
GRACE_S = 20.0  # for a child to clean up after an interrupt
LOOK_EVERY_S = 1.0  # whether another process has left the folder


class Child:
    """One job's process. `run` is called once; `interrupt` and `end` at any time, from any thread."""

    def __init__(self, job: Job, *, threads: int) -> None:
        self._job = job
        self._threads = threads
        self._stopping = Event()
        self._starting = Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> Outcome:
        """Run the job to its end; whatever goes wrong is in the outcome."""
        try:
            self._job.folder.mkdir(parents=True, exist_ok=True)
            with _alone(self._job.folder, self._stopping) as lock:
                error = STOPPED if lock is None else self._run_alone(lock)
        except OSError as failure:
            error = str(failure)
        return Outcome(name=self._job.name, error=error)

    def interrupt(self) -> None:
        """Ask the process to end, as Ctrl-C does; one that has not begun will not."""
        with self._starting:
            self._stopping.set()
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # by what was started in the background
        self._signal(signal.SIGTERM if ignored else signal.SIGINT)

    def end(self, grace_s: float = GRACE_S) -> None:
        """Wait for an interrupted process, and kill it when it takes too long."""
        if self._process is None:
            return
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._process.wait()

    def _run_alone(self, lock: int) -> str | None:
        log = self._job.folder / LOG_FILE
        with log.open("ab") as stream:
            begin = stream.tell()
            process = self._start(stream.fileno(), lock)
            code = None if process is None else process.wait()
        return STOPPED if code is None or self._stopping.is_set() else _error(code, log, begin)

    def _start(self, log: int, lock: int) -> "subprocess.Popen[bytes] | None":
        with self._starting:
            if self._stopping.is_set():
                return None
            with _interrupts_unblocked():
                self._process = subprocess.Popen(  # noqa: S603 - the words are the user's own command
                    [sys.executable, *self._job.command],
                    cwd=self._job.cwd,
                    env={**os.environ, "OMP_NUM_THREADS": str(self._threads), "PYTHONUNBUFFERED": "1"},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=(lock,),
                    start_new_session=True,  # Ctrl-C reaches the sweep alone, which then stops its children once
                )
            return self._process

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


@contextmanager
def _alone(folder: Path, stopping: Event) -> Iterator[int | None]:
    """The lock of a folder as a file descriptor to hand on; None when `stopping` was set while waiting for it."""
    with (folder / LOCK_FILE).open("ab") as stream:
        told = False
        while not _lock(stream.fileno()):
            if not told:
                logger.info("%s: another process is at work there; waiting for it", folder)
                told = True
            if stopping.wait(LOOK_EVERY_S):
                yield None
                return
        yield stream.fileno()  # never unlocked here: closing leaves the lock with a child that still has it


@contextmanager
def _interrupts_unblocked() -> Iterator[None]:
    """A process that is started here can be interrupted, also where Ray blocks that in its own processes."""
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _error(code: int, log: Path, begin: int) -> str | None:
    """One line on how a process ended that left its words in `log` from `begin` on; None when it ended well."""
    if code == 0:
        return None
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    lines = log.read_bytes()[begin:].decode(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("sparsebert train: ") if lines else f"ended with code {code} and no word"
