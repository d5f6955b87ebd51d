"""Which of the waiting texts form the next batch?

Pure: lengths in, positions out. Knows nothing about queues, tasks or models.

A batch costs what its padded tokens cost, so texts of close lengths go together. The oldest text is in
every batch: a text waits for at most as many batches as there were texts before it, whatever arrives later.
"""

from collections.abc import Sequence

MAX_PADDING_SHARE = 0.25
FREE_PADDING_TOKENS = 64


def choose_batch(lengths: Sequence[int], max_tokens: int, max_items: int) -> list[int]:
    """Positions of the next batch within `lengths`, which is ordered by age, oldest first.

    Holds position 0; then grows towards the nearest lengths while padded tokens stay within `max_tokens` and
    padding stays below a quarter of the real tokens (or below 64 tokens, which cost less than a batch more).
    A single text may exceed `max_tokens`; it goes alone.
    """
    if not lengths:
        return []
    order = sorted(range(len(lengths)), key=lambda position: (lengths[position], position))
    low = high = order.index(0)
    real = longest = lengths[0]
    while high - low + 1 < max_items:
        num_items = high - low + 2
        steps = []
        if low > 0:
            steps.append((_padding(real, longest, lengths[order[low - 1]], num_items), -1))
        if high + 1 < len(order):
            steps.append((_padding(real, longest, lengths[order[high + 1]], num_items), 1))
        if not steps:
            break
        padding, direction = min(steps)
        position = order[low - 1] if direction < 0 else order[high + 1]
        grown_real, grown_longest = real + lengths[position], max(longest, lengths[position])
        if grown_longest * num_items > max_tokens or padding > max(FREE_PADDING_TOKENS, MAX_PADDING_SHARE * grown_real):
            break
        real, longest = grown_real, grown_longest
        low, high = (low - 1, high) if direction < 0 else (low, high + 1)
    return order[low : high + 1]


def _padding(real: int, longest: int, added: int, num_items: int) -> int:
    return max(longest, added) * num_items - real - added
