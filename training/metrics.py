"""How good are a model's answers, and how sure is it that they are worse or better than another's?

Pure; knows nothing about models. N texts, C classes.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.metrics import f1_score
from torch import Tensor

from sparsebert.checkpoint import Example, Metrics

BoolArray = NDArray[np.bool_]
CONFIDENCE = 0.95


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


def one_answer(logits_NC: Tensor, examples: Sequence[Example], labels: Sequence[str]) -> str:
    """What to tell of a model that gives one label to all examples although they have several; empty: nothing."""
    given = set(logits_NC.argmax(dim=-1).tolist())
    if len(given) > 1 or len({example.label for example in examples}) < 2:
        return ""
    return f"answers {labels[given.pop()]!r} to each of {len(examples)} texts"


def paired_difference(correct_N: BoolArray, base_correct_N: BoolArray) -> tuple[float, float, float]:
    """The accuracy less that of `base` on the same texts, and its 95% interval.

    The interval is Wald's with half a text more in each of the four cells of right and wrong (Agresti and Min 2005,
    "Simple improved confidence intervals for comparing matched proportions"): a few texts on which both agree are no
    certainty.
    """
    gained, lost = int((correct_N & ~base_correct_N).sum()), int((base_correct_N & ~correct_N).sum())
    texts, disagreeing = len(correct_N) + 2.0, gained + lost + 1.0
    middle = (gained - lost) / texts
    half = float(norm.ppf(0.5 + CONFIDENCE / 2)) * (disagreeing / texts - middle**2) ** 0.5 / texts**0.5
    return (gained - lost) / len(correct_N), max(-1.0, middle - half), min(1.0, middle + half)
