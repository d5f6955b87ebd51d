"""What do requests and answers of the Open Inference Protocol look like on the wire?

Shapes only. Unknown fields are passed over, as in other servers of the protocol: their clients send some.
Knows nothing about how an answer is found.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Size = Annotated[int, Field(ge=0, le=2**63 - 1)]
Word = Annotated[str, Field(max_length=64)]


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)


class InputParameters(_Request):
    """Parameters of an input."""

    binary_data_size: Size | None = Field(
        default=None, description="Bytes of this input after the JSON; then it has no `data`."
    )
    shared_memory_region: Any = Field(default=None, description="Refused: there is no shared memory.")


class InputTensor(_Request):
    """One input: texts as BYTES of the shape [N] or [N, 1]."""

    name: Word = Field(description="`text`, or `text_pair` for the second texts of pairs.")
    shape: Annotated[tuple[Size, ...], Field(max_length=8, fail_fast=True)]
    datatype: Word = Field(description="`BYTES`.")
    parameters: InputParameters | None = None
    data: list[Any] | None = Field(default=None, description="The texts.")


class OutputParameters(_Request):
    """Parameters of a requested output."""

    binary_data: bool | None = Field(default=None, description="Send it as binary data.")
    classification: Annotated[int, Field(ge=0, le=2**31)] | None = Field(
        default=None, description="Of `probabilities`: so many most probable classes instead, as `value:index:label`."
    )
    shared_memory_region: Any = Field(default=None, description="Refused: there is no shared memory.")


class RequestedOutput(_Request):
    """An output that is asked for."""

    name: Word = Field(description="`label`, `score` or `probabilities`.")
    parameters: OutputParameters | None = None


class InferParameters(_Request):
    """Parameters of a request; `priority`, `sequence_*`, `content_type`, `headers` and `triton_*` are passed over."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow")

    truncate: bool | None = Field(default=None, description="Cut a text that is too long instead of refusing it.")
    variant: Word | None = Field(default=None, description="Variant to ask, where neither name nor version says it.")
    timeout: Size | None = Field(default=None, description="Microseconds to answer in; more than the service's do not.")
    binary_data_output: bool | None = Field(default=None, description="Send all outputs as binary data.")


class InferRequest(_Request):
    """Body of `POST /v2/models/{model}/infer`, or its beginning when binary data follows."""

    id: Annotated[str, Field(max_length=1024)] | None = Field(default=None, description="Comes back in the answer.")
    parameters: InferParameters | None = None
    inputs: Annotated[tuple[InputTensor, ...], Field(max_length=16, fail_fast=True)]
    outputs: Annotated[tuple[RequestedOutput, ...], Field(max_length=16, fail_fast=True)] | None = Field(
        default=None, description="Outputs to answer with; all when left out."
    )


class IndexRequest(_Request):
    """Body of `POST /v2/repository/index`."""

    ready: bool | None = Field(default=None, description="List only what is ready.")


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class OutputTensor(_Answer):
    """One output; `data`, or `binary_data_size` among the parameters and the data after the JSON."""

    name: str
    shape: list[int]
    datatype: Literal["BYTES", "FP32"]
    parameters: dict[str, int] | None = None
    data: list[Any] | None = None


class InferAnswer(_Answer):
    """Answer of `POST /v2/models/{model}/infer`; `truncated` among the parameters counts the texts that were cut."""

    model_name: str
    model_version: str
    id: str | None = None
    parameters: dict[str, str | int]
    outputs: list[OutputTensor]


class LiveAnswer(_Answer):
    """Answer of `GET /v2/health/live`."""

    live: Literal[True]


class ReadyAnswer(_Answer):
    """Answer of `GET /v2/health/ready`."""

    ready: Literal[True]


class ModelReadyAnswer(_Answer):
    """Answer of `GET /v2/models/{model}/ready`."""

    name: str
    ready: Literal[True]


class ServerAnswer(_Answer):
    """Answer of `GET /v2`."""

    name: str
    version: str
    extensions: tuple[str, ...]


class MetadataTensor(_Answer):
    """An input or output of a model; -1 is any number."""

    name: str
    datatype: str
    shape: list[int]


class ModelAnswer(_Answer):
    """Answer of `GET /v2/models/{model}`."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[MetadataTensor]
    outputs: list[MetadataTensor]
    properties: dict[str, str]


class IndexEntry(_Answer):
    """One variant in `POST /v2/repository/index`."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str


class DurationAnswer(_Answer):
    """How often, and how long in all."""

    count: int
    ns: int


class InferenceStatistics(_Answer):
    """Where the time of requests went; there is no cache."""

    success: DurationAnswer
    fail: DurationAnswer
    queue: DurationAnswer
    compute_input: DurationAnswer
    compute_infer: DurationAnswer
    compute_output: DurationAnswer
    cache_hit: DurationAnswer
    cache_miss: DurationAnswer


class BatchStatistics(_Answer):
    """Batches of one size; only their time in the engine is measured."""

    batch_size: int
    compute_input: DurationAnswer
    compute_infer: DurationAnswer
    compute_output: DurationAnswer


class ModelStatistics(_Answer):
    """Totals of one variant since the start."""

    name: str
    version: str
    last_inference: int
    inference_count: int
    execution_count: int
    inference_stats: InferenceStatistics
    batch_stats: list[BatchStatistics]


class StatisticsAnswer(_Answer):
    """Answer of `GET /v2/models/stats`."""

    model_stats: list[ModelStatistics]
