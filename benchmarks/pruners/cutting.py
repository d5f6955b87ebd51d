"""What all pruners share: how they are called, what every layer keeps, how near to the budget they must come.

Every cut goes on from the model of the cut before it, fine-tuned in between. A pruner that has to remember
removed units in a model of full size sets their weights to zero: they stay zero in training, because all
gradients of a unit are products with its own zeros.
"""

from collections.abc import Sequence
from typing import Protocol

from transformers import BertForSequenceClassification, PreTrainedModel

from training.batching import Batch
from training.selection import KeepFloor

TOLERANCE = 0.01  # of encoder sparsity
FLOOR = KeepFloor(heads=1, neurons=16)


class Pruner(Protocol):
    """Made for one run."""

    def cut(
        self, model: BertForSequenceClassification, sparsity: float, batches: Sequence[Batch], last: bool
    ) -> PreTrainedModel:
        """The model without so many encoder parameters; after the last cut it has that size, not only zeros."""


def encoder_parameters(model: BertForSequenceClassification) -> int:
    return sum(weight.numel() for weight in model.bert.encoder.parameters())
