"""What is asked in the soak, how often, and which answers are allowed?

Pure: bytes and sets of statuses. Knows nothing about sockets or the service's code.
"""

import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

MAX_ITEMS = 64
MAX_BODY_BYTES = 100_000
WORDS = ("the", "film", "was", "a", "slow", "but", "rather", "lovely", "story", "about", "two", "people", "who", "talk")
TEXTS = (
    "a gripping film", "dull and far too long", "one of the best of the year", "a complete waste of time",
    "warm, funny and wise", "the plot makes no sense at all", "I loved every minute of it", "awful acting",
)  # fmt: skip
PREDICT, COMPARE, INFER = "/v1/predict", "/v1/compare", "/v2/models/{model}/infer"
UNMATCHED = "unmatched"
ANSWERED = frozenset({200, 429})


class Manner(StrEnum):
    """How a client behaves."""

    WAITS = "waits"
    DRIBBLES = "dribbles"
    VANISHES = "vanishes"
    GARBAGE = "sends garbage"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request; a 200 must have the labels of `texts` by each of `variants`; `route` is the one of the metrics."""

    kind: str
    sent: bytes
    method: str = "POST"
    route: str = PREDICT
    allowed: frozenset[int] = ANSWERED
    manner: Manner = Manner.WAITS
    variants: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Maker:
    """Makes requests to the variants of one model."""

    model: str
    variants: tuple[str, ...]
    rng: random.Random

    def next(self) -> Asked:
        """One of the kinds, by weight."""
        [make] = self.rng.choices([one for one, _ in KINDS], [weight for _, weight in KINDS])
        return make(self)

    def texts(self, count: int) -> tuple[str, ...]:
        return tuple(self.rng.choices(TEXTS, k=count))

    def variant(self) -> str:
        return self.rng.choice(self.variants)


def good(maker: Maker, count: int = 1) -> Asked:
    texts, variant = maker.texts(count), maker.variant()
    body = {"inputs": list(texts), "variant": variant}
    return Asked(kind=f"predict {count}", sent=request(PREDICT, body), variants=(variant,), texts=texts)


def good_list(maker: Maker) -> Asked:
    return good(maker, maker.rng.choice((2, 8, 16)))


def burst(maker: Maker) -> Asked:
    return good(maker, MAX_ITEMS)


def dribbled(maker: Maker) -> Asked:
    one = good(maker)
    return Asked(
        kind="dribbled", sent=one.sent, manner=Manner.DRIBBLES, variants=one.variants, texts=one.texts
    )  # fmt: skip


def cut(maker: Maker) -> Asked:
    text = " ".join(maker.rng.choices(WORDS, k=400))
    body = {"inputs": text, "variant": maker.variant(), "truncate": True}
    return Asked(kind="cut", sent=request(PREDICT, body))


def compared(maker: Maker) -> Asked:
    texts = maker.texts(1)
    body = {"inputs": list(texts), "variants": list(maker.variants)}
    sent = request(COMPARE, body)
    return Asked(kind="compare", route=COMPARE, sent=sent, variants=maker.variants, texts=texts)


def inferred(maker: Maker) -> Asked:
    texts, variant = maker.texts(maker.rng.choice((1, 4))), maker.variant()
    tensor = {"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": list(texts)}
    body = {"inputs": [tensor], "parameters": {"variant": variant}, "outputs": [{"name": "label"}]}
    sent = request(INFER.format(model=maker.model), body)
    return Asked(kind="v2 JSON", route=INFER, sent=sent, variants=(variant,), texts=texts)


def inferred_binary(maker: Maker) -> Asked:
    texts, variant = maker.texts(2), maker.variant()
    data = b"".join(struct.pack("<I", len(text)) + text.encode() for text in texts)
    tensor = {
        "name": "text", "shape": [len(texts)], "datatype": "BYTES", "parameters": {"binary_data_size": len(data)},
    }  # fmt: skip
    head = json.dumps({"inputs": [tensor], "parameters": {"variant": variant}, "outputs": [{"name": "label"}]}).encode()
    header = f"Inference-Header-Content-Length: {len(head)}\r\n"
    sent = request(INFER.format(model=maker.model), head + data, header)
    return Asked(kind="v2 binary", route=INFER, sent=sent, variants=(variant,), texts=texts)


def hurried(maker: Maker) -> Asked:
    body = {"inputs": list(maker.texts(8)), "variant": maker.variant()}
    sent = request(PREDICT, body, "X-Request-Timeout-Ms: 1\r\n")
    return Asked(kind="deadline of 1 ms", sent=sent, allowed=ANSWERED | {504})


def refused(
    kind: str, status: int, body: object, route: str = PREDICT, path: str | None = None
) -> Callable[[Maker], Asked]:
    def make(maker: Maker) -> Asked:
        sent = request(path or route.format(model=maker.model), body)
        return Asked(kind=kind, route=route, sent=sent, allowed=frozenset({status}))

    return make


def read(path: str, route: str, status: int) -> Callable[[Maker], Asked]:
    sent = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    return lambda _: Asked(
        kind=f"GET {path}", method="GET", route=route, sent=sent, allowed=frozenset({status})
    )  # fmt: skip


def vanishing(maker: Maker) -> Asked:
    sent = good(maker, maker.rng.choice((1, 16, MAX_ITEMS))).sent
    if maker.rng.random() < 0.5:
        sent = sent[: maker.rng.randrange(1, len(sent))]
    return Asked(kind="vanishes", sent=sent, manner=Manner.VANISHES)


def garbage(maker: Maker) -> Asked:
    sent = maker.rng.choice(
        [
            b"\x80" + maker.rng.randbytes(maker.rng.randrange(1, 2000)),
            b"\x16\x03\x01\x02\x00\x01\x00" * 50,
            b"\0" * 100,
            f"POST {PREDICT} HTTP/1.1\r\nContent-Length: -1\r\n\r\n".encode(),
        ]
    )
    return Asked(kind="garbage", sent=sent, manner=Manner.GARBAGE)


TOO_MANY = {"inputs": ["good"] * (MAX_ITEMS + 1)}
TENSOR = {"name": "text", "shape": [2], "datatype": "BYTES", "data": ["good"]}
KINDS: list[tuple[Callable[[Maker], Asked], float]] = [
    (good, 30),
    (good_list, 6),
    (burst, 2),
    (dribbled, 2),
    (cut, 3),
    (compared, 3),
    (inferred, 6),
    (inferred_binary, 5),
    (hurried, 4),
    (vanishing, 6),
    (garbage, 4),
    (refused("broken JSON", 400, b'{"inputs": "good'), 4),
    (refused("not UTF-8", 400, b'{"inputs": "\xff"}'), 2),
    (refused("deep JSON", 400, b'{"inputs": ' + b"[" * 50_000), 1),
    (refused("a NUL", 400, {"inputs": "good\0film"}), 2),
    (refused("a bad tensor", 400, {"inputs": [TENSOR]}, INFER), 2),
    (refused("an unknown variant", 404, {"inputs": "good", "variant": "nope"}), 3),
    (refused("too long", 422, {"inputs": "good " * 1000}), 2),
    (refused("too many", 422, TOO_MANY), 2),
    (refused("too large", 413, b"x" * (MAX_BODY_BYTES + 1)), 2),
    (refused("an unknown path", 404, {}, UNMATCHED, "/v1/nope"), 1),
    (read("/nope", UNMATCHED, 404), 1),
    (read("/v1/predict", UNMATCHED, 405), 1),
    (read("/healthz", "/healthz", 200), 2),
    (read("/readyz", "/readyz", 200), 2),
    (read("/v1/models", "/v1/models", 200), 1),
    (read("/v2/models/stats", "/v2/models/stats", 200), 1),
]


def request(path: str, body: object, headers: str = "") -> bytes:
    """A request; `body` is bytes or a JSON value."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n{headers}\r\n".encode() + content


def labels_of(answer: dict[str, object]) -> dict[str, list[str]]:
    """The labels of each variant in the answer of any route."""
    if "outputs" in answer:
        return {answer["model_version"]: answer["outputs"][0]["data"]}
    if "variants" in answer:
        return {name: [each["label"] for each in one["predictions"]] for name, one in answer["variants"].items()}
    return {answer["variant"]: [each["label"] for each in answer["predictions"]]}
