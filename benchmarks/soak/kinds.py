"""What is asked in the soak, how often, and which answers are allowed?

Pure: bytes and sets of statuses. Knows nothing about sockets or the service's code.
"""

import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

MAX_ITEMS = 64
MAX_BODY_BYTES = 100_000
WORDS = ("the", "film", "was", "a", "slow", "but", "rather", "lovely", "story", "about", "two", "people", "who", "talk")
TEXTS = (
    "a gripping film", "dull and far too long", "one of the best of the year", "a complete waste of time",
    "warm, funny and wise", "the plot makes no sense at all", "I loved every minute of it", "awful acting",
)  # fmt: skip
PREDICT, COMPARE, INFER = "/v1/predict", "/v1/compare", "/v2/models/{model}/infer"
LOAD = "/v1/admin/models/{model}/variants/{variant}/load"
UNLOAD = "/v1/admin/models/{model}/variants/{variant}/unload"
REPOSITORY = "/v2/repository/models/{model}/load"
UNMATCHED = "unmatched"
ANSWERED = frozenset({200, 429})


class Manner(StrEnum):
    """How a client behaves."""

    WAITS = "waits"
    DRIBBLES = "dribbles"
    VANISHES = "vanishes"
    GARBAGE = "sends garbage"


@dataclass(frozen=True, kw_only=True)
class Keys:
    """One of each sort."""

    user: str
    limited: str
    admin: str


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request; a 200 must have the labels of `texts` by each of `variants`, or the fields of `told`.

    `route` is the one of the metrics.
    """

    kind: str
    sent: bytes
    method: str = "POST"
    route: str = PREDICT
    allowed: frozenset[int] = ANSWERED
    manner: Manner = Manner.WAITS
    variants: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    told: tuple[tuple[str, object], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Maker:
    """Makes requests to the variants of one model, which are always there, and to `changing`, which may not be."""

    model: str
    variants: tuple[str, ...]
    changing: str
    keys: Keys
    rng: random.Random

    @property
    def everywhere(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*self.variants, self.changing]))

    @property
    def comes_and_goes(self) -> bool:
        """Whether `changing` is not loaded at times; where it is the only one it is only loaded again."""
        return self.changing not in self.variants

    def next(self) -> Asked:
        """One of the kinds, by weight."""
        [make] = self.rng.choices([one for one, _ in KINDS], [weight for _, weight in KINDS])
        return make(self)

    def texts(self, count: int) -> tuple[str, ...]:
        return tuple(self.rng.choices(TEXTS, k=count))

    def variant(self) -> str:
        return self.rng.choice(self.variants)


def good(maker: Maker, count: int = 1) -> Asked:
    return predicted(f"predict {count}", maker, maker.variant(), count)


def predicted(kind: str, maker: Maker, variant: str, count: int = 1, key: str | None = None) -> Asked:
    texts = maker.texts(count)
    sent = request(PREDICT, {"inputs": list(texts), "variant": variant}, key or maker.keys.user)
    return Asked(kind=kind, sent=sent, variants=(variant,), texts=texts)


def good_list(maker: Maker) -> Asked:
    return good(maker, maker.rng.choice((2, 8, 16)))


def burst(maker: Maker) -> Asked:
    return good(maker, MAX_ITEMS)


def dribbled(maker: Maker) -> Asked:
    return replace(good(maker), kind="dribbled", manner=Manner.DRIBBLES)


def cut(maker: Maker) -> Asked:
    text = " ".join(maker.rng.choices(WORDS, k=400))
    body = {"inputs": text, "variant": maker.variant(), "truncate": True}
    return Asked(kind="cut", sent=request(PREDICT, body, maker.keys.user))


def compared(maker: Maker) -> Asked:
    texts, variants = maker.texts(1), maker.everywhere
    sent = request(COMPARE, {"inputs": list(texts), "variants": list(variants)}, maker.keys.user)
    allowed = ANSWERED | ({404} if maker.comes_and_goes else {400})
    return Asked(kind="compare", route=COMPARE, sent=sent, allowed=allowed, variants=variants, texts=texts)


def inferred(maker: Maker) -> Asked:
    texts, variant = maker.texts(maker.rng.choice((1, 4))), maker.variant()
    tensor = {"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": list(texts)}
    body = {"inputs": [tensor], "parameters": {"variant": variant}, "outputs": [{"name": "label"}]}
    sent = request(INFER.format(model=maker.model), body, maker.keys.user)
    return Asked(kind="v2 JSON", route=INFER, sent=sent, variants=(variant,), texts=texts)


def inferred_binary(maker: Maker) -> Asked:
    texts, variant = maker.texts(2), maker.variant()
    data = b"".join(struct.pack("<I", len(text)) + text.encode() for text in texts)
    tensor = {
        "name": "text", "shape": [len(texts)], "datatype": "BYTES", "parameters": {"binary_data_size": len(data)},
    }  # fmt: skip
    head = json.dumps({"inputs": [tensor], "parameters": {"variant": variant}, "outputs": [{"name": "label"}]}).encode()
    header = f"Inference-Header-Content-Length: {len(head)}\r\n"
    sent = request(INFER.format(model=maker.model), head + data, maker.keys.user, header)
    return Asked(kind="v2 binary", route=INFER, sent=sent, variants=(variant,), texts=texts)


def hurried(maker: Maker) -> Asked:
    body = {"inputs": list(maker.texts(8)), "variant": maker.variant()}
    sent = request(PREDICT, body, maker.keys.user, "X-Request-Timeout-Ms: 1\r\n")
    return Asked(kind="deadline of 1 ms", sent=sent, allowed=ANSWERED | {504})


def changed(maker: Maker) -> Asked:
    asked = predicted("predict, it changes", maker, maker.changing)
    return replace(asked, allowed=ANSWERED | {404}) if maker.comes_and_goes else asked


def limited(maker: Maker) -> Asked:
    return predicted("a limited key", maker, maker.variant(), key=maker.keys.limited)


def without_key(maker: Maker) -> Asked:
    key = maker.rng.choice(("", "sparsebert_wrong", maker.keys.user[:-1], maker.keys.user + "x"))
    sent = request(PREDICT, {"inputs": "good"}, key)
    return Asked(kind="no key or a wrong one", sent=sent, allowed=frozenset({401}))


def user_loads(maker: Maker) -> Asked:
    path, told = LOAD.format(model=maker.model, variant=maker.changing), frozenset({403})
    return Asked(kind="a user loads", route=LOAD, sent=request(path, b"", maker.keys.user), allowed=told)


def changes(route: str, path: str, **told: object) -> Callable[[Maker], Asked]:
    """An operator's request about the variant that changes."""

    def make(maker: Maker) -> Asked:
        at = path.format(model=maker.model, variant=maker.changing)
        sent = request(at, b"", maker.keys.admin)
        return Asked(kind=route, route=route, sent=sent, allowed=frozenset({200}), told=tuple(told.items()))

    return make


load, load_by_protocol = changes(LOAD, LOAD), changes(REPOSITORY, REPOSITORY.replace("{model}", "{model}.{variant}"))
unload = changes(UNLOAD, UNLOAD)
# When nothing else is asked, it has gone when that is answered.
unload_whole = changes(UNLOAD, UNLOAD, gone=True)


def unload_for_a_while(maker: Maker) -> Asked:
    return unload(maker) if maker.comes_and_goes else load(maker)


def load_what_is_not_there(maker: Maker) -> Asked:
    sent = request(LOAD.format(model=maker.model, variant="nope"), b"", maker.keys.admin)
    return Asked(kind="load what is not there", route=LOAD, sent=sent, allowed=frozenset({404}))


def refused(
    kind: str, status: int, body: object, route: str = PREDICT, path: str | None = None
) -> Callable[[Maker], Asked]:
    def make(maker: Maker) -> Asked:
        sent = request(path or route.format(model=maker.model), body, maker.keys.user)
        return Asked(kind=kind, route=route, sent=sent, allowed=frozenset({status}))

    return make


def read(path: str, route: str, status: int) -> Callable[[Maker], Asked]:
    def make(maker: Maker) -> Asked:
        sent = f"GET {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {maker.keys.admin}\r\n\r\n".encode()
        return Asked(kind=f"GET {path}", method="GET", route=route, sent=sent, allowed=frozenset({status}))

    return make


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
    (refused("deep JSON", 422, b'{"inputs": ' + b"[" * 50_000), 1),
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
    (read("/v1/admin/models", "/v1/admin/models", 200), 1),
    (changed, 6),
    (limited, 3),
    (without_key, 3),
    (user_loads, 1),
    (load_what_is_not_there, 0.5),
    # A load takes as long as a hundred texts.
    (load, 0.1),
    (load_by_protocol, 0.1),
    (unload_for_a_while, 0.1),
]


def request(path: str, body: object, key: str, headers: str = "") -> bytes:
    """A request; `body` is bytes or a JSON value, no key is empty."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    keyed = f"X-API-Key: {key}\r\n" if key else ""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n{keyed}{headers}\r\n"
    return head.encode() + content


def labels_of(answer: dict[str, object]) -> dict[str, list[str]]:
    """The labels of each variant in the answer of any route."""
    if "outputs" in answer:
        return {answer["model_version"]: answer["outputs"][0]["data"]}
    if "variants" in answer:
        return {name: [each["label"] for each in one["predictions"]] for name, one in answer["variants"].items()}
    return {answer["variant"]: [each["label"] for each in answer["predictions"]]}
