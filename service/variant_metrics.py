"""What is counted of one variant?

Looks its series up once, since that costs more than counting. Knows nothing about how they are told.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from service.counted import Outcome, Stage
from service.encoding import EncodedBatch, Encoding
from service.routing import VariantName
from service.statistics import Statistics, Total

if TYPE_CHECKING:
    from service.metrics import Metrics


class VariantMetrics:
    """Counts what happens to one variant; observes its batcher."""

    def __init__(self, metrics: "Metrics", name: VariantName, version: str) -> None:
        self.statistics = Statistics()
        labels = (name.model, name.variant)
        self._outcomes = {one: metrics.requests.labels(*labels, version, one.value) for one in Outcome}
        self._request_seconds = metrics.request_seconds.labels(*labels)
        self._stages = {one: metrics.stage_seconds.labels(*labels, one.value) for one in Stage}
        self._inputs = metrics.inputs.labels(*labels)
        self._executions = metrics.executions.labels(*labels)
        self._batch_size = metrics.batch_size.labels(*labels)
        self._batch_tokens = metrics.batch_tokens.labels(*labels)
        self._real_tokens = metrics.tokens.labels(*labels, "real")
        self._padding_tokens = metrics.tokens.labels(*labels, "padding")
        self._input_tokens = metrics.input_tokens
        self._truncated = metrics.truncated.labels(*labels)
        self._queue_depth = metrics.queue_depth.labels(*labels)
        self._queue_tokens = metrics.queue_tokens.labels(*labels)
        self._inflight = metrics.inflight.labels(*labels)
        self._silence = metrics.silence.labels(*labels)

    def on_begin(self) -> None:
        """A request is in flight until `on_end`."""
        self._inflight.inc()

    def on_end(self, outcome: Outcome, *, began_s: float, ended_s: float) -> None:
        """It ended."""
        self._inflight.dec()
        self._outcomes[outcome].inc()
        if outcome == Outcome.OK:
            self._request_seconds.observe(ended_s - began_s)
        self.statistics.on_end(succeeded=outcome == Outcome.OK, began_s=began_s, ended_s=ended_s)

    def on_stage(self, stage: Stage, duration_s: float) -> None:
        """A stage of a request is over."""
        self._stages[stage].observe(duration_s)
        self.statistics.on_stage(Total(stage.value), duration_s)

    def on_encoded(self, encodings: Sequence[Encoding]) -> None:
        """Texts were tokenised."""
        for encoding in encodings:
            self._input_tokens.observe(encoding.num_tokens_full)

    def on_truncated(self, num_items: int) -> None:
        """Texts were cut and are computed so."""
        self._truncated.inc(num_items)

    def set_queue(self, num_items: int, num_tokens: int) -> None:
        """So much waits now."""
        self._queue_depth.set(num_items)
        self._queue_tokens.set(num_tokens)

    def on_batch(self, batch: EncodedBatch, infer_s: float) -> None:
        """A batch came back from the engine."""
        self.statistics.on_batch(batch.num_items, infer_s)
        real, padded = int(batch.attention_mask_BS.sum()), batch.attention_mask_BS.size
        self._executions.inc()
        self._inputs.inc(batch.num_items)
        self._batch_size.observe(batch.num_items)
        self._batch_tokens.observe(padded)
        self._real_tokens.inc(real)
        self._padding_tokens.inc(padded - real)

    def set_silence(self, duration_s: float) -> None:
        """The batcher could take no work for so long."""
        self._silence.set(duration_s)
