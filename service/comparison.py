"""How far do variants agree on the same texts, and how much faster is one than another?

Pure statistics over answers; knows nothing about models, queues or HTTP. N texts, C labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """What one variant answered: probabilities of shape [N, C], and the milliseconds of each repeat."""

    labels: tuple[str, ...]
    probabilities_NC: NDArray[np.float64]
    infer_ms: tuple[float, ...]

    def chosen_labels(self) -> list[str]:
        """The most probable label of each text."""
        return [self.labels[index] for index in self.probabilities_NC.argmax(axis=1)]


@dataclass(frozen=True, kw_only=True)
class AgainstBaseline:
    """One variant beside the baseline; `infer_ms` is the median, `total_infer_ms` the sum over the repeats."""

    num_agreeing: int
    agreement: float
    max_probability_difference: float | None
    infer_ms: float
    total_infer_ms: float
    speedup: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All variants beside the baseline; `agreement` is the share of texts on which all give the same label."""

    baseline: str
    num_texts: int
    agreement: float
    variants: dict[str, AgainstBaseline]


def compare(measured: Mapping[str, Measured], baseline: str) -> Comparison:
    """Compare every variant with `baseline`, which is one of them."""
    labels_of = {name: one.chosen_labels() for name, one in measured.items()}
    num_texts = len(labels_of[baseline])
    reference, reference_ms = measured[baseline], median(measured[baseline].infer_ms)
    variants = {}
    for name, one in measured.items():
        infer_ms, num_agreeing = median(one.infer_ms), count_agreeing([labels_of[baseline], labels_of[name]])
        variants[name] = AgainstBaseline(
            num_agreeing=num_agreeing,
            agreement=num_agreeing / num_texts,
            max_probability_difference=_largest_difference(reference, one),
            infer_ms=infer_ms,
            total_infer_ms=sum(one.infer_ms),
            speedup=reference_ms / infer_ms,
        )
    agreement = count_agreeing(list(labels_of.values())) / num_texts
    return Comparison(baseline=baseline, num_texts=num_texts, agreement=agreement, variants=variants)


def count_agreeing(labels: Sequence[Sequence[str]]) -> int:
    """The number of texts to which every row of `labels` gives the same label."""
    return sum(len(set(column)) == 1 for column in zip(*labels, strict=True))


def alternating(names: Sequence[str], repeats: int) -> list[list[str]]:
    """The order of the variants in each repeat: forth, back, forth, so that none always runs first."""
    return [list(names) if repeat % 2 == 0 else list(reversed(names)) for repeat in range(repeats)]


def choose_baseline(names: Sequence[str]) -> str:
    """`dense` when it is there, else the first."""
    return "dense" if "dense" in names else names[0]


def _largest_difference(one: Measured, other: Measured) -> float | None:
    """None when the two do not tell the same labels, so that there is nothing to subtract."""
    if set(one.labels) != set(other.labels):
        return None
    columns = [other.labels.index(label) for label in one.labels]
    return float(abs(one.probabilities_NC - other.probabilities_NC[:, columns]).max())
