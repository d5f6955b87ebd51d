"""What is a runner? It takes jobs and gives each exactly one outcome.

Knows nothing about grids, or about where and how jobs are run.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Job:
    """Words for the Python interpreter, to be run in `cwd`; `folder` is the job's alone and holds its log."""

    name: str
    folder: Path
    command: tuple[str, ...]
    cwd: Path


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a job ended; `error` is None when it ended well, else one line."""

    name: str
    error: str | None


class Runner(Protocol):
    """Runs jobs, several at a time."""

    def run(self, jobs: Sequence[Job]) -> Generator[Outcome, None, None]:
        """Give one outcome for each job, as they end. Closed early, it stops what runs before it returns."""
