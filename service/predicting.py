"""How do texts become probabilities: check, tokenise, wait, compute, and the time of each step?

Knows nothing about HTTP or JSON. N texts, C labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from service.counted import Stage
from service.deadlines import Deadline
from service.encoding import Encoding
from service.errors import MalformedError, RequestTimeoutError, TooLongError
from service.inputs import check_pairs, place
from service.records import RequestRecord, VariantRun
from service.serving import ServingVariant, outcome_of
from service.tokenizer import TextInput
from service.tokenizing import TokenizingThreads

# Below this a hop to another thread costs more than the tokenising.
MAX_CHARACTERS_INLINE = 8000


@dataclass(frozen=True, kw_only=True, eq=False)
class Predicted:
    """Probabilities [N, C] of the inputs in order, and where the time went."""

    encodings: list[Encoding]
    probabilities_NC: NDArray[np.float64]
    tokenize_s: float
    queue_s: float
    infer_s: float
    total_s: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictor:
    """Runs one request on variants and records what they did; the event loop's time is that of the clock."""

    clock_s: Callable[[], float]
    tokenizing: TokenizingThreads
    record: RequestRecord

    async def predict(
        self, variant: ServingVariant, inputs: list[TextInput], *, truncate: bool, deadline: Deadline
    ) -> Predicted:
        """One request to one variant, counted once.

        Raises MalformedError, TooLongError, RequestTimeoutError and what `Batcher.submit` raises.
        """
        began_s = variant.begin()
        try:
            predicted = await self._predict(variant, inputs, truncate=truncate, deadline_s=deadline.at_s)
        except BaseException as error:
            variant.end(began_s, outcome_of(error, deadline))
            if isinstance(error, RequestTimeoutError):
                raise RequestTimeoutError(deadline.too_late(variant.name)) from error
            raise
        variant.end(began_s)
        return predicted

    async def _predict(
        self, variant: ServingVariant, inputs: list[TextInput], *, truncate: bool, deadline_s: float
    ) -> Predicted:
        began_s, manifest = self.clock_s(), variant.bundle.manifest
        run = VariantRun(
            model=variant.name.model, variant=variant.name.variant, version=manifest.version, began_s=began_s
        )
        self.record.runs.append(run)
        check_pairs(inputs, pair=manifest.task.pair, model=manifest.name)
        run.encodings = encodings = await self._encode(variant, inputs, deadline_s)
        variant.metrics.on_encoded(encodings)
        check_not_empty(encodings)
        check_lengths(encodings, manifest.max_sequence_length, truncate=truncate)
        variant.metrics.on_truncated(sum(encoding.truncated for encoding in encodings))
        run.encoded_s = encoded_s = self.clock_s()
        run.answer = answer = await variant.batcher.submit(encodings, deadline_s)
        ended_s = self.clock_s()
        variant.metrics.on_stage(Stage.TOKENIZE, encoded_s - began_s)
        variant.metrics.on_stage(Stage.QUEUE, answer.queue_s)
        variant.metrics.on_stage(Stage.INFER, answer.infer_s)
        variant.metrics.on_stage(Stage.POSTPROCESS, ended_s - answer.computed_s)
        return Predicted(
            encodings=encodings,
            probabilities_NC=cast("NDArray[np.float64]", answer.rows_NC),
            tokenize_s=encoded_s - began_s,
            queue_s=answer.queue_s,
            infer_s=answer.infer_s,
            total_s=ended_s - began_s,
        )

    async def _encode(self, variant: ServingVariant, inputs: list[TextInput], deadline_s: float) -> list[Encoding]:
        tokenizer, max_tokens = variant.bundle.tokenizer, variant.bundle.manifest.max_sequence_length
        if sum(one.num_characters for one in inputs) <= MAX_CHARACTERS_INLINE:
            return tokenizer.encode(inputs, max_tokens)
        return await self.tokenizing.encode(tokenizer, inputs, max_tokens, deadline_s)


def check_not_empty(encodings: Sequence[Encoding]) -> None:
    """Raise MalformedError for a text of which the tokenizer leaves nothing."""
    for index, encoding in enumerate(encodings):
        if encoding.empty:
            raise MalformedError(
                f"{place(index, len(encodings))} is empty for the model: the tokenizer finds no word in it; send words"
            )


def check_lengths(encodings: Sequence[Encoding], max_tokens: int, *, truncate: bool) -> None:
    """Raise TooLongError when a text does not fit and must not be cut."""
    for index, encoding in enumerate(encodings):
        if encoding.truncated and not truncate:
            raise TooLongError(
                f"{place(index, len(encodings))} has {encoding.num_tokens_full} tokens, the limit is {max_tokens}; "
                'shorten it, or send "truncate": true to have it cut'
            )
