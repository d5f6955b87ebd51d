"""What does the log say of a request when it is over?

Numbers and names, never a text. Knows nothing about how a line is written.
"""

import logging
from typing import Any

from service.records import RequestRecord, VariantRun

log = logging.getLogger(__name__)


class AccessLine(dict[str, Any]):
    """The fields of one request, in order; as text `name=value` for each."""

    def __str__(self) -> str:
        return "request " + " ".join(f"{name}={value}" for name, value in self.items())


def write(record: RequestRecord) -> None:
    """One line."""
    log.info(access_line(record))


def access_line(record: RequestRecord) -> AccessLine:
    """What is said of a request; a compare adds up its runs."""
    line = AccessLine(
        request_id=record.request_id,
        method=record.method,
        route=record.route,
        status=record.status,
        duration_ms=_ms(record.ended_s - record.began_s),
    )
    if record.runs:
        line.update(_of_runs(record.runs))
    return line


def _of_runs(runs: list[VariantRun]) -> dict[str, Any]:
    told: dict[str, Any] = {
        "model": runs[0].model,
        "variant": ",".join(dict.fromkeys(run.variant for run in runs)),
        "version": ",".join(dict.fromkeys(run.version for run in runs)),
        "num_texts": sum(len(run.encodings) for run in runs),
        "tokens": sum(run.num_tokens for run in runs),
        "truncated": sum(run.num_truncated for run in runs),
        "tokenize_ms": _ms(sum(run.encoded_s - run.began_s for run in runs if run.encoded_s is not None)),
    }
    answers = [run.answer for run in runs if run.answer is not None]
    if answers:
        told["queue_ms"] = _ms(sum(answer.queue_s for answer in answers))
        told["infer_ms"] = _ms(sum(answer.infer_s for answer in answers))
        told["batch_size"] = max(batch.num_items for answer in answers for batch in answer.batches)
    return told


def _ms(duration_s: float) -> float:
    return round(duration_s * 1000, 3)
