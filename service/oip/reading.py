"""What does an inference request of the protocol ask for?

Pure: bytes and the header's text in, values out, every refusal a sentence. Knows nothing about models or HTTP.
"""

from dataclasses import dataclass

from service.errors import MalformedError, TooManyError
from service.oip.schemas import InferParameters, InferRequest, InputParameters, InputTensor, RequestedOutput
from service.oip.tensors import decode, read_binary_texts, read_json_texts, split_body, take
from service.schemas import parse

TEXT, TEXT_PAIR = "text", "text_pair"
OUTPUTS = ("label", "score", "probabilities")
# Clients of other servers send these; they ask for nothing that changes an answer here.
PASSED_OVER = ("priority", "sequence_id", "sequence_start", "sequence_end", "content_type", "headers")
PASSED_OVER_PREFIX = "triton_"


@dataclass(frozen=True, kw_only=True)
class AskedOutput:
    """An output of the answer; `classes` asks for so many most probable classes instead of all values."""

    name: str
    binary: bool
    classes: int = 0


@dataclass(frozen=True, kw_only=True)
class AskedInference:
    """A request; `inputs` is what `service.inputs.read_inputs` reads."""

    inputs: list[str | dict[str, str]]
    outputs: tuple[AskedOutput, ...]
    id: str | None = None
    variant: str | None = None
    truncate: bool = False
    timeout_s: float | None = None


def read_infer(body: bytes, head_length: str | None, max_items: int) -> AskedInference:
    """Read a body. Raises MalformedError, or TooManyError for more than `max_items` texts."""
    head, tail = split_body(body, head_length)
    if head_length is not None and not head:
        return AskedInference(inputs=[decode(tail, "the body")], outputs=_all_outputs(binary=True))
    request = parse(InferRequest, head, max_items)
    parameters = request.parameters or InferParameters()
    _check_parameters(parameters)
    return AskedInference(
        inputs=_inputs(_columns(request.inputs, tail, max_items)),
        outputs=_outputs(request.outputs or (), binary=parameters.binary_data_output or False),
        id=request.id,
        variant=parameters.variant,
        truncate=parameters.truncate or False,
        timeout_s=parameters.timeout / 1e6 if parameters.timeout else None,
    )


def _check_parameters(parameters: InferParameters) -> None:
    for name in parameters.model_extra or {}:
        if name not in PASSED_OVER and not name.startswith(PASSED_OVER_PREFIX):
            known = ", ".join(InferParameters.model_fields)
            raise MalformedError(f"the parameter {name[:64]!r} is unknown; the parameters are {known}")


def _columns(tensors: tuple[InputTensor, ...], tail: memoryview, max_items: int) -> dict[str, list[str]]:
    """The texts of each input; binary data lies in the order of the inputs."""
    columns: dict[str, list[str]] = {}
    for tensor in tensors:
        if tensor.name not in (TEXT, TEXT_PAIR):
            raise MalformedError(f"there is no input {tensor.name!r}; the inputs are {TEXT} and, of pairs, {TEXT_PAIR}")
        if tensor.name in columns:
            raise MalformedError(f"the input {tensor.name!r} is there twice")
        columns[tensor.name], tail = _texts(tensor, tail, max_items)
    if tail:
        raise MalformedError(f"{len(tail)} bytes are left after the last input; binary_data_size says how many it has")
    return columns


def _texts(tensor: InputTensor, tail: memoryview, max_items: int) -> tuple[list[str], memoryview]:
    """The texts of one input, and what is left of the binary data."""
    count = _count(tensor, max_items)
    parameters = tensor.parameters or InputParameters()
    size = parameters.binary_data_size
    if parameters.shared_memory_region is not None:
        raise MalformedError(f"the input {tensor.name!r} lies in shared memory, which is not had here; send the data")
    if (size is None) == (tensor.data is None):
        raise MalformedError(f"the input {tensor.name!r} needs either data or the parameter binary_data_size")
    if size is None:
        return read_json_texts(tensor.data or [], count, tensor.name), tail
    data, rest = take(tail, size, tensor.name)
    return read_binary_texts(data, count, tensor.name), rest


def _count(tensor: InputTensor, max_items: int) -> int:
    if tensor.datatype != "BYTES":
        raise MalformedError(f"the input {tensor.name!r} is {tensor.datatype}; texts are BYTES")
    if len(tensor.shape) not in (1, 2) or tensor.shape[1:] not in ((), (1,)):
        raise MalformedError(f"the input {tensor.name!r} has the shape {list(tensor.shape)}; send [N] or [N, 1]")
    if tensor.shape[0] > max_items:
        raise TooManyError(f"inputs has {tensor.shape[0]} texts, the limit is {max_items}; send fewer at a time")
    return tensor.shape[0]


def _inputs(columns: dict[str, list[str]]) -> list[str | dict[str, str]]:
    if TEXT not in columns:
        raise MalformedError(f"the input {TEXT!r} is missing")
    texts, pairs = columns[TEXT], columns.get(TEXT_PAIR)
    if pairs is None:
        return list(texts)
    if len(pairs) != len(texts):
        raise MalformedError(f"there are {len(texts)} of {TEXT!r} and {len(pairs)} of {TEXT_PAIR!r}; send as many")
    return [{"text": text, "text_pair": pair} for text, pair in zip(texts, pairs, strict=True)]


def _outputs(requested: tuple[RequestedOutput, ...], *, binary: bool) -> tuple[AskedOutput, ...]:
    if not requested:
        return _all_outputs(binary=binary)
    names = [output.name for output in requested]
    if len(set(names)) < len(names):
        raise MalformedError("an output is asked for twice")
    return tuple(_output(output, binary=binary) for output in requested)


def _all_outputs(*, binary: bool) -> tuple[AskedOutput, ...]:
    return tuple(AskedOutput(name=name, binary=binary) for name in OUTPUTS)


def _output(requested: RequestedOutput, *, binary: bool) -> AskedOutput:
    if requested.name not in OUTPUTS:
        raise MalformedError(f"there is no output {requested.name!r}; the outputs are {', '.join(OUTPUTS)}")
    if requested.parameters is None:
        return AskedOutput(name=requested.name, binary=binary)
    if requested.parameters.shared_memory_region is not None:
        raise MalformedError(
            f"the output {requested.name!r} is wanted in shared memory, which is not had here; leave that out"
        )
    classes = requested.parameters.classification or 0
    if classes and requested.name != "probabilities":
        raise MalformedError(f"the output {requested.name!r} has no classes; ask for those of probabilities")
    wanted = requested.parameters.binary_data
    return AskedOutput(name=requested.name, binary=binary if wanted is None else wanted, classes=classes)
