"""What PyTorch says when memory or disk run out, in words that name the cure."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from sparsebert.errors import CheckpointError, TrainingError


@contextmanager
def memory_errors() -> Iterator[None]:
    """Raises TrainingError where the block runs out of memory, on a GPU or a CPU."""
    try:
        yield
    except (torch.cuda.OutOfMemoryError, RuntimeError, MemoryError) as error:
        if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise TrainingError(
                "out of memory: lower --batch-size or --max-length, or split each batch with --accumulation 4; "
                "then run again (an unfinished stage starts anew when the batch size changes)"
            ) from error
        raise


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Raises CheckpointError where the block cannot write `path`, and removes what it left of it."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch.save has errors of its own for a full disk
        path.unlink(missing_ok=True)
        raise CheckpointError(
            f"{path} cannot be written ({str(error).partition(chr(10))[0]}); what was saved before is whole. Free some "
            "space and run again"
        ) from error
