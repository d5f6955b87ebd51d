"""What is told apart where requests are counted: the closed sets that labels come from, and what is known of a variant?

Knows nothing about Prometheus.
"""

from dataclasses import dataclass
from enum import StrEnum

from service.routing import VariantName


class Outcome(StrEnum):
    """How a request to a variant ends; an impatient one waited no longer, although the service's own limit is later."""

    OK = "ok"
    INVALID = "invalid"
    REJECTED = "rejected"
    TIMEOUT = "timeout"
    IMPATIENT = "impatient"
    CANCELLED = "cancelled"
    ERROR = "error"


class Stage(StrEnum):
    """Where the time of a request goes."""

    TOKENIZE = "tokenize"
    QUEUE = "queue"
    INFER = "infer"
    POSTPROCESS = "postprocess"


class Rejection(StrEnum):
    """Why a request was refused although nothing may be wrong with its texts."""

    QUEUE_FULL = "queue_full"
    RATE_LIMITED = "rate_limited"
    DEADLINE = "deadline"
    BODY_TOO_LARGE = "body_too_large"
    DRAINING = "draining"
    NOT_READY = "not_ready"


class Verdict(StrEnum):
    """Whether a variant gives a text of a compare the label that the baseline gives it."""

    AGREE = "agree"
    DISAGREE = "disagree"


class Side(StrEnum):
    """Of two compared variants, whose time it is."""

    BASELINE = "baseline"
    VARIANT = "variant"


@dataclass(frozen=True, kw_only=True)
class VariantFacts:
    """What is known of a loaded variant and does not change; `sha256` is of its graph, `ort` the runtime's version."""

    name: VariantName
    version: str
    precision: str
    provider: str
    sha256: str
    ort: str
    load_s: float
    memory_bytes: int
    file_bytes: int
    gpu_memory_bytes: int | None = None
