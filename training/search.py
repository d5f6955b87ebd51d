"""What is the largest share that can go within a tolerated loss, given what was tried? And how sure is it?

Pure; knows nothing about training. Differences are in points of accuracy, sparse less dense.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from sparsebert.checkpoint import RunRecord
from training.config import SearchConfig

SEARCH_FILE = "search.json"


@dataclass(frozen=True)
class Trial:
    """A share that was tried, and what it cost: the difference and its 95% interval, in points."""

    share: float
    difference: float
    low: float
    high: float

    def passes(self, search: SearchConfig) -> bool:
        """Whether the measured loss is tolerated."""
        return self.difference >= -search.max_drop

    def is_sure(self, search: SearchConfig) -> bool:
        """Whether the whole interval is on one side of the tolerated loss."""
        return self.low >= -search.max_drop or self.high < -search.max_drop


class TrialRecord(BaseModel):
    """A share that was tried, and the verdict on it; differences in points of accuracy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    share: float
    difference: float
    difference_low: float
    difference_high: float
    passes: bool
    sure: bool


class SearchRecord(BaseModel):
    """What `search.json` says: the tolerated loss, what was tried in its order, and the checkpoint that was found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    max_drop: float
    best: str | None
    trials: tuple[TrialRecord, ...]

    @classmethod
    def of(cls, trials: Sequence[Trial], search: SearchConfig, best: str | None) -> "SearchRecord":
        """The record of a search that has ended."""
        records = tuple(
            TrialRecord(
                share=trial.share, difference=trial.difference, difference_low=trial.low, difference_high=trial.high,
                passes=trial.passes(search), sure=trial.is_sure(search),
            )
            for trial in trials
        )  # fmt: skip
        return cls(max_drop=search.max_drop, best=best, trials=records)


def next_share(trials: Sequence[Trial], targets: Sequence[float], search: SearchConfig) -> float | None:
    """The share to try next, None when the answer is known.

    The targets one after the other; after the first that loses too much, the middle between it and the last that
    passed, until they are `search.resolution` apart.
    """
    passed = max((trial.share for trial in trials if trial.passes(search)), default=0.0)
    failed = min((trial.share for trial in trials if not trial.passes(search)), default=None)
    if failed is None:
        return next((share for share in targets if share > passed), None)
    if failed - passed <= search.resolution:
        return None
    return round((passed + failed) / 2, 4)


def pooled_difference(record: RunRecord) -> tuple[float, float, float]:
    """The difference to the dense model over all judged texts, and its interval, as shares.

    Splits are weighted by their texts; their errors are independent, so half widths add up as squares.
    """
    splits = [metrics for metrics in record.metrics.values() if metrics.difference is not None]
    total = sum(metrics.num_examples for metrics in splits)
    weights = [metrics.num_examples / total for metrics in splits]
    mean = sum(weight * (metrics.difference or 0.0) for weight, metrics in zip(weights, splits, strict=True))
    widths = [
        weight * ((metrics.difference_high or 0.0) - (metrics.difference_low or 0.0)) / 2
        for weight, metrics in zip(weights, splits, strict=True)
    ]
    half = sum(width**2 for width in widths) ** 0.5
    return mean, mean - half, mean + half
