"""How good are a model's answers, and how sure is it that they are worse or better than another's?

Pure; knows nothing about models. N texts, C classes.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap
from sklearn.metrics import f1_score
from torch import Tensor

from sparsebert.checkpoint import Example, Metrics

BoolArray = NDArray[np.bool_]
CONFIDENCE = 0.95
RESAMPLES = 2000


def judge(
    logits_NC: Tensor, examples: Sequence[Example], *, with_f1: bool, dense_logits_NC: Tensor | None = None
) -> Metrics:
    """Accuracy, F1 of label 1 when asked for, and the paired difference to the dense model's answers if given."""
    labels_N = np.array([example.label for example in examples])
    answers_N = logits_NC.argmax(dim=-1).numpy()
    correct_N: BoolArray = answers_N == labels_N
    metrics = Metrics(
        num_examples=len(examples),
        accuracy=float(correct_N.mean()),
        f1=float(f1_score(labels_N, answers_N)) if with_f1 else None,
    )
    if dense_logits_NC is None:
        return metrics
    difference, low, high = paired_difference(correct_N, dense_logits_NC.argmax(dim=-1).numpy() == labels_N)
    return metrics.model_copy(update={"difference": difference, "difference_low": low, "difference_high": high})


def paired_difference(correct_N: BoolArray, base_correct_N: BoolArray, seed: int = 0) -> tuple[float, float, float]:
    """The accuracy less that of `base` on the same texts, and its 95% interval.

    The interval is that of the percentile bootstrap over texts (Efron and Tibshirani 1993, chapter 13).
    """
    gained_N = correct_N.astype(np.float64) - base_correct_N
    if (gained_N == gained_N[0]).all():  # nothing to resample
        return float(gained_N[0]), float(gained_N[0]), float(gained_N[0])
    interval = bootstrap(
        (gained_N,), np.mean, confidence_level=CONFIDENCE, n_resamples=RESAMPLES, method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return float(gained_N.mean()), float(interval.low), float(interval.high)
