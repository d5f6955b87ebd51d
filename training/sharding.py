"""Who computes which texts of a batch: processes, and micro-batches one after the other.

Pure; knows nothing about PyTorch.
"""

from typing import NamedTuple


class MicroBatch(NamedTuple):
    """Positions in the split, and the factor that makes the sum of all mean losses the mean over the whole batch."""

    indices: list[int]
    weight: float


def micro_batches(indices_B: list[int], process: int, num_processes: int, parts: int) -> list[MicroBatch]:
    """The micro-batches of a batch that fall to one process, at most `parts`, at least one.

    Losses are means over a micro-batch and gradients are averaged over processes, so a weight is the micro-batch's
    size times `num_processes` over that of the batch. A process for which no text is left computes one with weight 0.
    """
    own = indices_B[process::num_processes]
    if not own:
        return [MicroBatch(indices_B[:1], 0.0)]
    scale = num_processes / len(indices_B)
    chunks = [own[part::parts] for part in range(min(parts, len(own)))]
    return [MicroBatch(chunk, len(chunk) * scale) for chunk in chunks]
