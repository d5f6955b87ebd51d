"""How is a training run killed at a chosen step? Right after the snapshot of this step, the last that it left."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from training.snapshot import SnapshotFile


class Killed(BaseException):
    """Stands for a kill: nothing in the code catches it."""


@contextmanager
def killed_after(num_steps: int) -> Iterator[None]:
    """What trains in the block must not survive its n-th step, counted over all its stages."""
    steps, save = 0, SnapshotFile.save

    def is_due(self: SnapshotFile, now_s: float) -> bool:
        nonlocal steps
        steps += 1
        return steps == num_steps

    def save_and_die(self: SnapshotFile, state: dict[str, object]) -> None:
        save(self, state)
        if steps == num_steps:
            raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(SnapshotFile, "is_due", is_due)
        patch.setattr(SnapshotFile, "save", save_and_die)
        yield
