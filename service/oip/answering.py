"""How do probabilities become an answer of the protocol, as JSON and binary data?

Pure; knows nothing about texts, models or HTTP. N texts, C labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.oip.reading import AskedInference, AskedOutput
from service.oip.schemas import InferAnswer, OutputTensor
from service.oip.tensors import write_binary_floats, write_binary_texts


@dataclass(frozen=True, kw_only=True)
class Answerer:
    """Who answers: the model as it was asked for, the variant as its version, and the version of its bundle."""

    model: str
    variant: str
    bundle_version: str
    labels: Sequence[str]


def answer(
    asked: AskedInference, who: Answerer, probabilities_NC: NDArray[np.float64], num_truncated: int
) -> tuple[bytes, int | None]:
    """The body, and the length of its JSON when binary data follows."""
    outputs = [_output(one, who.labels, probabilities_NC) for one in asked.outputs]
    told = InferAnswer(
        model_name=who.model,
        model_version=who.variant,
        id=asked.id,
        parameters={"bundle_version": who.bundle_version, "truncated": num_truncated},
        outputs=[tensor for tensor, _ in outputs],
    )
    head = told.model_dump_json(exclude_none=True).encode()
    data = [binary for _, binary in outputs if binary is not None]
    return (b"".join([head, *data]), len(head)) if data else (head, None)


def _output(
    asked: AskedOutput, labels: Sequence[str], probabilities_NC: NDArray[np.float64]
) -> tuple[OutputTensor, bytes | None]:
    """The tensor, and its data when that follows the JSON."""
    if asked.name == "score":
        return _floats(asked, probabilities_NC.max(axis=1))
    if asked.name == "label":
        texts = [labels[index] for index in probabilities_NC.argmax(axis=1)]
        return _texts(asked, texts, [len(texts)])
    if asked.classes:
        count = min(asked.classes, len(labels))
        texts = [text for row_C in probabilities_NC for text in classes(row_C, labels, count)]
        return _texts(asked, texts, [len(probabilities_NC), count])
    return _floats(asked, probabilities_NC)


def classes(probabilities_C: NDArray[np.float64], labels: Sequence[str], count: int) -> list[str]:
    """The `count` most probable classes as `value:index:label`, most probable first."""
    order = np.argsort(-probabilities_C, kind="stable")[:count]
    return [f"{probabilities_C[index]:f}:{index}:{labels[index]}" for index in order]


def _floats(asked: AskedOutput, values: NDArray[np.float64]) -> tuple[OutputTensor, bytes | None]:
    floats, shape = values.astype(np.float32), list(values.shape)
    if not asked.binary:
        return OutputTensor(name=asked.name, shape=shape, datatype="FP32", data=floats.ravel().tolist()), None
    data = write_binary_floats(floats)
    size = {"binary_data_size": len(data)}
    return OutputTensor(name=asked.name, shape=shape, datatype="FP32", parameters=size), data


def _texts(asked: AskedOutput, texts: list[str], shape: list[int]) -> tuple[OutputTensor, bytes | None]:
    if not asked.binary:
        return OutputTensor(name=asked.name, shape=shape, datatype="BYTES", data=texts), None
    data = write_binary_texts(texts)
    size = {"binary_data_size": len(data)}
    return OutputTensor(name=asked.name, shape=shape, datatype="BYTES", parameters=size), data
