"""Are these logits sound, which label does a row of them say, and with which probability?

Pure; knows nothing about texts or models. N texts, C labels.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.encoding import FloatArray
from service.errors import EngineError


def check_logits(logits_NC: FloatArray, num_items: int) -> None:
    """Raise EngineError unless there is one row for each text and every number is finite."""
    if logits_NC.ndim != 2 or len(logits_NC) != num_items:
        raise EngineError(f"the graph gave logits of shape {logits_NC.shape} for {num_items} texts")
    if not np.isfinite(logits_NC).all():
        raise EngineError("the graph gave logits that are not finite")


def softmax(logits_NC: FloatArray) -> NDArray[np.float64]:
    """Probabilities of each row; finite for every finite logit."""
    shifted_NC = logits_NC.astype(np.float64)
    shifted_NC -= shifted_NC.max(axis=1, keepdims=True)
    powers_NC = np.exp(shifted_NC)
    probabilities_NC: NDArray[np.float64] = powers_NC / powers_NC.sum(axis=1, keepdims=True)
    return probabilities_NC


def top_labels(probabilities_C: Sequence[float], labels: Sequence[str], top_k: int | None) -> dict[str, float]:
    """The `top_k` most probable labels, or all, most probable first."""
    order = sorted(range(len(labels)), key=probabilities_C.__getitem__, reverse=True)[:top_k]
    return {labels[index]: probabilities_C[index] for index in order}
