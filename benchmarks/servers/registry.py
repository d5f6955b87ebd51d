"""Which servers are compared, how is each asked, and with which settings?

`chosen` is the best of `candidates` that `--tune` found for a sparse-int8 bundle on two cores; the note in
docs/results.md says how sure that is. Knows nothing about processes or loads.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

Settings = Mapping[str, int]
OURS = "ours"


@dataclass(frozen=True, kw_only=True)
class Server:
    """`body` makes a request of a text, `label` finds the label in the answer; both are JSON."""

    name: str
    path: str
    body: Callable[[str], Any]
    label: Callable[[Any], str]
    chosen: Settings
    candidates: Sequence[Settings]


def grid(**values: Sequence[int]) -> list[Settings]:
    """Every combination."""
    return [dict(zip(values, combination, strict=True)) for combination in product(*values.values())]


def _text(text: str) -> dict[str, str]:
    return {"text": text}


def _label(answer: dict[str, str]) -> str:
    return answer["label"]


def _v2_body(text: str) -> dict[str, Any]:
    return {"inputs": [{"name": "text", "shape": [1, 1], "datatype": "BYTES", "data": [text]}]}


# Two cores: two workers with a thread each, or one worker with two, whose pool spins or does not.
SERVERS: dict[str, Server] = {
    server.name: server
    for server in (
        Server(
            name=OURS,
            path="/v1/predict",
            body=lambda text: {"inputs": text},
            label=lambda answer: str(answer["predictions"][0]["label"]),
            chosen={},
            candidates=[{}],
        ),
        Server(
            name="fastapi",
            path="/predict",
            body=_text,
            label=_label,
            chosen={"workers": 2, "threads": 1, "slots": 40},
            candidates=[
                *grid(workers=[1], threads=[1], slots=[2, 4, 40]),
                *grid(workers=[2], threads=[1], slots=[1, 40]),
            ],
        ),
        Server(
            name="litserve",
            path="/predict",
            body=_text,
            label=_label,
            chosen={"workers": 2, "threads": 1, "batch": 8, "wait_ms": 1, "zmq": 0},
            candidates=[
                *grid(workers=[2], threads=[1], batch=[1, 8, 16], wait_ms=[1], zmq=[0]),
                *grid(workers=[2], threads=[1], batch=[8], wait_ms=[1], zmq=[1]),
                *grid(workers=[1], threads=[2], spin=[0], batch=[8], wait_ms=[1], zmq=[0]),
            ],
        ),
        Server(
            name="mosec",
            path="/inference",
            body=_text,
            label=_label,
            chosen={"workers": 2, "threads": 1, "batch": 8, "wait_ms": 1},
            candidates=[
                *grid(workers=[2], threads=[1], batch=[1, 4, 8, 16], wait_ms=[1]),
                *grid(workers=[1], threads=[2], spin=[0], batch=[8], wait_ms=[1]),
            ],
        ),
        Server(
            name="bentoml",
            path="/predict",
            body=lambda text: {"texts": [text]},
            label=lambda answer: str(answer[0]["label"]),
            chosen={"workers": 2, "threads": 1, "batch": 16, "latency_ms": 10000},
            candidates=[
                *grid(workers=[2], threads=[1], batch=[8, 16], latency_ms=[10000]),
                *grid(workers=[1], threads=[2], spin=[0], batch=[16], latency_ms=[10000]),
            ],
        ),
        Server(
            name="ray",
            path="/predict",
            body=_text,
            label=_label,
            chosen={"workers": 1, "threads": 2, "spin": 0, "batch": 8, "wait_ms": 1, "loops": 0},
            candidates=[
                *grid(workers=[2], threads=[1], batch=[8], wait_ms=[1], loops=[0]),
                *grid(workers=[1], threads=[2], spin=[0], batch=[8], wait_ms=[1], loops=[0, 1]),
                *grid(workers=[1], threads=[2], spin=[0], batch=[16], wait_ms=[1], loops=[0]),
            ],
        ),
        Server(
            name="mlserver",
            path="/v2/models/model/infer",
            body=_v2_body,
            label=lambda answer: str(answer["outputs"][0]["data"][0]),
            chosen={"workers": 2, "threads": 1, "batch": 8, "wait_ms": 1},
            candidates=[
                *grid(workers=[0], threads=[2], spin=[0], batch=[8, 16], wait_ms=[1]),
                *grid(workers=[2], threads=[1], batch=[8], wait_ms=[1]),
            ],
        ),
    )
}
