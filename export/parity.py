"""Does the graph compute what PyTorch computes? A comparison of logits.

Pure: knows nothing about models or files. N texts, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsebert.errors import ConfigError, ParityError
from sparsebert.manifest import BATCH_ROUNDING, Parity

Float32 = NDArray[np.float32]
SAME_LOGITS = 1e-4


@dataclass(frozen=True, kw_only=True)
class ParityLimits:
    """What still counts as equal.

    For floats the largest logit difference decides; for integers, which move every logit, the share of texts whose
    label stays decides. `max_batch_difference` is how far a logit may be from that of the text alone in its batch.
    """

    max_logit_difference: float | None
    min_label_agreement: float
    max_batch_difference: float = SAME_LOGITS

    def __post_init__(self) -> None:
        if not 0.0 <= self.min_label_agreement <= 1.0:
            raise ConfigError(f"the smallest label agreement is {self.min_label_agreement}; it must be between 0 and 1")


LIMITS = {
    "fp32": ParityLimits(max_logit_difference=SAME_LOGITS, min_label_agreement=1.0),
    "int8": ParityLimits(max_logit_difference=None, min_label_agreement=0.97),
    "fp16": ParityLimits(max_logit_difference=0.05, min_label_agreement=0.99, max_batch_difference=BATCH_ROUNDING),
}


def compare_logits(reference_NC: Float32, found_NC: Float32) -> Parity:
    """The largest difference of any logit and the share of texts with the same label."""
    return Parity(
        max_logit_difference=float(np.abs(reference_NC - found_NC).max()),
        label_agreement=float((reference_NC.argmax(axis=1) == found_NC.argmax(axis=1)).mean()),
        num_examples=len(reference_NC),
    )


def check_batch_invariance(
    alone_NC: Float32, together_NC: Float32, texts: Sequence[str], limits: ParityLimits
) -> float:
    """The largest difference of any logit between a text alone and in a padded batch.

    Raises ParityError, naming the worst text, when that is more than the limit.
    """
    difference_N = np.abs(alone_NC - together_NC).max(axis=1)
    row = int(difference_N.argmax())  # of a difference that is not a number, its row
    if not difference_N[row] <= limits.max_batch_difference:
        raise ParityError(
            f"a logit differs by {difference_N[row]:.2e} when texts of other lengths share the batch, more than "
            f"{limits.max_batch_difference:.0e}; nothing was bundled; worst on {texts[row]!r}: alone "
            f"{alone_NC[row].tolist()}, together {together_NC[row].tolist()}"
        )
    return float(difference_N[row])


def check_parity(
    reference_NC: Float32,
    found_NC: Float32,
    texts: Sequence[str],
    limits: ParityLimits,
    found_by: str = "the graph",
) -> Parity:
    """Like `compare_logits`. Raises ParityError, naming the worst text, when a limit is broken."""
    if not np.isfinite(found_NC).all():
        row = int(np.argmin(np.isfinite(found_NC).all(axis=1)))
        raise ParityError(f"logits of {found_by} are not finite for the text {texts[row]!r}; nothing was bundled")
    parity = compare_logits(reference_NC, found_NC)
    difference_N = np.abs(reference_NC - found_NC).max(axis=1)

    def worst(among_N: NDArray[np.bool_]) -> str:
        row = int(np.where(among_N, difference_N, -1).argmax())
        logits = f"the masked model {reference_NC[row].tolist()}, {found_by} {found_NC[row].tolist()}"
        return f"worst on {texts[row]!r}: {logits}"

    largest = limits.max_logit_difference
    if largest is not None and parity.max_logit_difference > largest:
        raise ParityError(
            f"a logit of {found_by} differs by {parity.max_logit_difference:.2e} from that of the masked model in "
            f"PyTorch, more than {largest:.0e}; nothing was bundled; {worst(difference_N >= 0)}"
        )
    if parity.label_agreement < limits.min_label_agreement:
        flipped_N = reference_NC.argmax(axis=1) != found_NC.argmax(axis=1)
        raise ParityError(
            f"only {parity.label_agreement:.1%} of the labels of {found_by} agree with those of the masked model in "
            f"PyTorch, fewer than {limits.min_label_agreement:.1%}; nothing was bundled; {worst(flipped_N)}"
        )
    return parity
