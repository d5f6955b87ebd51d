"""What does a model answer for a whole split, and how often is it right?

Knows nothing about training. N texts, C classes.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from training.batching import Batch, EncodedExample, collate, plan_evaluation
from training.modeling import SparseBertForSequenceClassification, UnitGates

BatchSeen = Callable[[int], object]


@torch.inference_mode()
def predict_logits(
    model: SparseBertForSequenceClassification,
    examples: Sequence[EncodedExample],
    pad_id: int,
    gates: UnitGates | None = None,
    *,
    batch_size: int = 64,
    on_batch: BatchSeen = lambda _size: None,
) -> Tensor:
    """Logits [N, C], float32, on the CPU, in the order of `examples`; dropout is off while it runs.

    `on_batch` is called with the size of each finished batch.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    rows: dict[int, Tensor] = {}
    try:
        for indices_B in plan_evaluation([len(example.token_ids) for example in examples], batch_size):
            logits_BC = _forward(model, collate(examples, indices_B, pad_id).to(device), gates)
            rows |= dict(zip(indices_B, logits_BC.float().cpu(), strict=True))
            on_batch(len(indices_B))
    finally:
        model.train(was_training)
    return torch.stack([rows[index] for index in range(len(examples))])


def _forward(model: SparseBertForSequenceClassification, batch: Batch, gates: UnitGates | None) -> Tensor:
    output = model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        token_type_ids=batch.token_type_ids,
        gates=gates,
    )
    logits: Tensor = output.logits
    return logits


def accuracy(logits_NC: Tensor, examples: Sequence[EncodedExample]) -> float:
    """The share of examples whose largest logit is the label's, in [0, 1]."""
    labels_N = torch.tensor([example.label for example in examples])
    return float((logits_NC.argmax(dim=-1) == labels_N).double().mean())
