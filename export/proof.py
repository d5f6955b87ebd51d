"""Do the masked model, the compact model and the graph compute the same? Everything a bundle is held to.

On held-out texts and on random token ids, texts alone and in mixed company. Knows nothing about files.

N texts, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from export.bundle import spread
from export.parity import LIMITS, check_batch_invariance, check_parity
from export.runtime import OnnxRunner, pad
from export.texts import EncodedText, random_texts
from sparsebert.manifest import Parity, Precision
from training.checkpoint import MaskedCheckpoint
from training.masking import fixed_gates
from training.modeling import SparseBertForSequenceClassification, UnitGates

Float32 = NDArray[np.float32]
REAL_TEXTS = 512
RANDOM_TEXTS = 64
BATCH_TEXTS = 32
TORCH_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What was found, all within the limits of the precision."""

    parity: Parity
    parity_random_ids: Parity
    compact_difference: float
    batch_difference: float


def prove(
    checkpoint: MaskedCheckpoint,
    small: SparseBertForSequenceClassification,
    runner: OnnxRunner,
    texts: Sequence[EncodedText],
    logits_NC: Float32,
    precision: Precision,
    kept_words: NDArray[np.int64],
) -> Proof:
    """Hold the graph in `runner`, which answered `logits_NC` for the checkpoint's `texts`, to its limits.

    `kept_words` has the token id of the masked model for each id of the texts. Raises ParityError, naming
    the worst example.
    """
    limits, max_length = LIMITS[precision], checkpoint.run.max_length
    chosen = spread(checkpoint.examples, REAL_TEXTS)
    real, real_names = [texts[index] for index in chosen], [checkpoint.examples[index].text for index in chosen]
    odd = random_texts(0, RANDOM_TEXTS, max_length, len(kept_words))
    names = [*real_names, *(f"token ids {text.token_ids}" for text in odd)]
    as_trained = [EncodedText(kept_words[text.token_ids].tolist(), text.segments) for text in (*real, *odd)]
    masked_NC = torch_logits(checkpoint.model, as_trained, fixed_gates(checkpoint.masks))
    compact_NC = torch_logits(small, [*real, *odd])
    compact_parity = check_parity(masked_NC, compact_NC, names, LIMITS["fp32"], found_by="the compact model")
    parity = check_parity(masked_NC[: len(real)], logits_NC[chosen], real_names, limits)
    # Integers have ranges for real texts: their labels on nonsense are recorded, and held to nothing. What holds for
    # any ids is that logits are finite and do not depend on the batch.
    odd_limits = replace(limits, min_label_agreement=0.0) if precision == "int8" else limits
    odd_NC = runner.all_logits(odd)
    odd_parity = check_parity(masked_NC[len(real) :], odd_NC, names[len(real) :], odd_limits)
    batch_differences = []
    step = max(1, len(real) // BATCH_TEXTS)
    for alone_NC, some, their_names in (
        (logits_NC[chosen][::step], real[::step], real_names[::step]),
        (odd_NC, odd, names[len(real) :]),
    ):
        together_NC = mixed_logits(runner, some[: BATCH_TEXTS - 1], max_length)
        batch_differences.append(check_batch_invariance(alone_NC[: BATCH_TEXTS - 1], together_NC, their_names, limits))
    return Proof(
        parity=parity,
        parity_random_ids=odd_parity,
        compact_difference=compact_parity.max_logit_difference,
        batch_difference=max(batch_differences),
    )


def mixed_logits(runner: OnnxRunner, texts: Sequence[EncodedText], max_length: int) -> Float32:
    """Logits [N, C] of texts in one batch with a text of the largest length."""
    longest = EncodedText([0] * max_length, [0] * max_length)
    return runner.padded_logits([*texts, longest])[:-1]


@torch.inference_mode()
def torch_logits(
    model: SparseBertForSequenceClassification, texts: Sequence[EncodedText], gates: UnitGates | None = None
) -> Float32:
    """Logits [N, C] in PyTorch, in padded batches."""
    rows = []
    for start in range(0, len(texts), TORCH_BATCH):
        feeds = {name: torch.from_numpy(values) for name, values in pad(texts[start : start + TORCH_BATCH]).items()}
        rows.append(model(**feeds, gates=gates).logits.numpy())
    return np.concatenate(rows)
