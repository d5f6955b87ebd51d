"""How a killed stage goes on where it was: its state in one file, written all or nothing.

Knows nothing about what the state means. The file is private to one run and holds tensors and plain values only.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch

from sparsebert.errors import CheckpointError
from training.faults import disk_errors


class SnapshotFile:
    """One stage's state on disk; `fingerprint` identifies the configuration that may read it.

    It is to be saved every `every_s` seconds, so that a kill costs no more than that.
    """

    def __init__(self, path: Path, fingerprint: str, every_s: float) -> None:
        self._path = path
        self._fingerprint = fingerprint
        self._every_s = every_s
        self._last_s: float | None = None

    def is_due(self, now_s: float) -> bool:
        """Whether so much time has passed since the last time this said yes (or was first asked)."""
        if self._last_s is None:
            self._last_s = now_s
        if now_s - self._last_s < self._every_s:
            return False
        self._last_s = now_s
        return True

    def save(self, state: dict[str, Any]) -> None:
        """Replace what was saved before. Raises CheckpointError when it cannot be written; the old one survives."""
        part = self._path.with_suffix(".part")
        part.unlink(missing_ok=True)  # of a run that was killed while it saved
        with disk_errors(self._path, part=part):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            torch.save({"fingerprint": self._fingerprint, "state": state}, part)
            os.replace(part, self._path)

    def load(self) -> dict[str, Any] | None:
        """The saved state, or None when there is none.

        Raises CheckpointError when it belongs to another configuration or cannot be read.
        """
        return self._read(mmap=False)

    def check(self) -> None:
        """Raises what `load` raises, long before it: tensors stay on the disk."""
        self._read(mmap=True)

    def _read(self, *, mmap: bool) -> dict[str, Any] | None:
        if not self._path.exists():
            return None
        try:
            saved = torch.load(self._path, map_location="cpu", weights_only=True, mmap=mmap)
            fingerprint, state = saved["fingerprint"], saved["state"]
        except Exception as error:
            raise CheckpointError(f"{self._path} cannot be read; delete it to start this stage again") from error
        if fingerprint != self._fingerprint:
            raise CheckpointError(
                f"{self._path.parent} holds an unfinished run with other settings or data, or of an earlier "
                "version of SparseBERT; finish it with the same ones, choose another --output, or delete it"
            )
        return cast(dict[str, Any], state)

    @contextmanager
    def being_restored(self) -> Iterator[None]:
        """Raises CheckpointError where the block misses a part of the state, or finds one that does not fit."""
        try:
            yield
        except (KeyError, ValueError) as error:
            raise CheckpointError(
                f"{self._path.parent} holds an unfinished run of another version of SparseBERT; "
                "finish it with that one, choose another --output, or delete it"
            ) from error

    def delete(self) -> None:
        """Forget the state; nothing happens when there is none."""
        self._path.unlink(missing_ok=True)


def random_state() -> dict[str, Any]:
    """Of torch's generators in this process: the CPU's, and one for each GPU."""
    return {
        "cpu": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Go back to what `random_state` gave."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
