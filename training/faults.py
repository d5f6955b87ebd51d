"""What PyTorch says when memory or disk run out, in words that name the cure."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError

from sparsebert.errors import CheckpointError, TrainingError

TRAINING_CURE = (
    "split each batch with --accumulation 4 and run again, which goes on where this ended; or lower --batch-size or "
    "--max-length and give another --output"
)


@contextmanager
def memory_errors(cure: str = TRAINING_CURE) -> Iterator[None]:
    """Raises TrainingError, which names the cure, where the block runs out of memory, on a GPU or a CPU."""
    try:
        yield
    except (torch.cuda.OutOfMemoryError, RuntimeError, MemoryError) as error:
        if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise TrainingError(f"out of memory: {cure}") from error
        raise


@contextmanager
def disk_errors(path: Path, *, part: Path | None = None) -> Iterator[None]:
    """Raises CheckpointError where the block cannot write `path`, and removes `part`, which the block made of it.

    No other file is ever removed: not `path`, and not a `part` that was there before.
    """
    made_here = part is not None and not part.exists()
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # libraries have errors of their own for a full disk
        if part is not None and made_here:
            part.unlink(missing_ok=True)
        raise CheckpointError(
            f"{path} cannot be written ({str(error).partition(chr(10))[0]}); what was saved before is whole. Free some "
            "space and run again"
        ) from error
