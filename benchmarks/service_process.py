"""How is `sparsebert serve` started in a process of its own, on a free port, until it listens?

For benchmarks and tests alike. What the service writes is read all the time, so that it never waits for a reader.
Knows nothing about what is asked.
"""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

HERE = Path(__file__).resolve().parents[1]
SERVES = re.compile(r"serving on http://127\.0\.0\.1:(\d+)/")


class Served:
    """A service that runs."""

    def __init__(self, process: subprocess.Popen[str], log: TextIO) -> None:
        self.process = process
        self._lines: list[str] = []
        self._port: Future[int] = Future()
        self._reading = threading.Thread(target=self._read, args=[log], daemon=True)
        self._reading.start()

    def wait(self) -> None:
        """Until it listens. Raises RuntimeError with all that it wrote when it ended before."""
        self._port.result()

    @property
    def port(self) -> int:
        return self._port.result()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What it wrote so far."""
        return "".join(self._lines)

    def ending(self) -> tuple[int, str]:
        """Its exit status and all that it wrote; waits for both."""
        code = self.process.wait(timeout=60)
        self._reading.join()
        return code, self.log

    def _read(self, log: TextIO) -> None:
        for line in log:
            self._lines.append(line)
            found = SERVES.search(line)
            if found and not self._port.done():
                self._port.set_result(int(found[1]))
        if not self._port.done():
            self._port.set_exception(RuntimeError("the service did not start:\n" + "".join(self._lines)))


@contextmanager
def started(models: Path, *flags: str, under: Sequence[str] = (), source: Path = HERE) -> Iterator[Served]:
    """A service that listens; `under` is a command that starts another one, `source` the folder with its packages."""
    with begun(models, *flags, under=under, source=source) as served:
        served.wait()
        yield served


@contextmanager
def begun(models: Path, *flags: str, under: Sequence[str] = (), source: Path = HERE) -> Iterator[Served]:
    """The same, which may not listen yet."""
    command = [*under, sys.executable, "-m", "sparsebert", "serve", "--models", str(models.resolve()), "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(source)}
    with subprocess.Popen(
        [*command, *flags], cwd=source, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        served = Served(process, process.stderr)
        try:
            yield served
        finally:
            process.kill()
            served.ending()
