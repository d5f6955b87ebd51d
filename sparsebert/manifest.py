"""What a model bundle says about itself: the schema of `manifest.json` and `golden.json`.

A bundle is the folder `<repository>/<model>/<variant>/`. Knows nothing about PyTorch or ONNX Runtime;
the digests of its files are in `sparsebert.digests`.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveInt, ValidationError

from sparsebert.errors import BundleError, DigestError
from sparsebert.geometry import Geometry

MANIFEST_FILE = "manifest.json"
MODEL_FILE = "model.onnx"
TOKENIZER_FILE = "tokenizer.json"
GOLDEN_FILE = "golden.json"
BUNDLE_FILES = (MODEL_FILE, TOKENIZER_FILE, GOLDEN_FILE)

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Precision = Literal["fp32", "int8", "fp16"]
BATCH_ROUNDING = 0.02  # of a logit in 16-bit floats; export refuses what moves more
WeightRange = Literal["full", "reduced"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TensorSpec(_Record):
    """One input or output of the graph; -1 stands for a free dimension."""

    name: str
    dtype: Literal["int64", "float32"]
    shape: tuple[int, ...]


class Task(_Record):
    """What the classifier was trained for; `pair` says that it reads two texts."""

    name: str
    pair: bool


class Quality(_Record):
    """A metric of the bundle's own ONNX graph on held-out examples.

    `difference` is `value` less what the masked model scored on them in PyTorch (older bundles do not have it).
    """

    metric: str
    value: Share
    data: str
    num_examples: PositiveInt
    difference: Annotated[float, Field(ge=-1.0, le=1.0)] | None = None


class Parity(_Record):
    """How far the graph's logits are from those of the masked model in PyTorch, each text alone in its batch."""

    max_logit_difference: NonNegativeFloat
    label_agreement: Share
    num_examples: PositiveInt


class Size(_Record):
    """Parameters, and multiply-accumulates for one text of `macs_sequence_length` tokens."""

    parameters: PositiveInt
    encoder_parameters: NonNegativeInt
    encoder_sparsity: Share
    macs: PositiveInt
    macs_sequence_length: PositiveInt


class Trial(_Record):
    """One measurement of tuning: `tried` is `ratio` times as fast as `instead_of`, the other choices being equal."""

    tried: dict[str, str]
    instead_of: dict[str, str]
    ratio: Annotated[float, Field(gt=0.0)]

    def __str__(self) -> str:
        tried, instead_of = (
            ", ".join(f"{name} {choice}" for name, choice in one.items()) for one in (self.tried, self.instead_of)
        )
        return f"{tried} is {self.ratio:.3f} times as fast as {instead_of}"


class FileDigest(_Record):
    """What a file of the bundle must be."""

    sha256: Sha256
    size_bytes: NonNegativeInt


class Manifest(_Record):
    """Everything a server or a reader must know about a bundle before it opens the graph.

    `form` says in which of the equivalent ways the graph is written, `tuned` that they were measured on the machine
    that exported, and `trials` what came out (older bundles have none). `weight_range` of an int8 graph is `reduced`
    when its weights have 7 bits, for processors without VNNI. `parity` is on held-out texts, `parity_random_ids` on
    random token ids, and `compact_difference` is the largest logit difference between the masked and the compact
    model in PyTorch, over both. `batch_difference` is the largest difference of a logit between a text alone and in
    a batch of mixed lengths, and `batch_invariant` says that it is at most 1e-4 (older bundles have the word alone).
    """

    schema_version: Literal[2] = 2
    name: Name
    variant: Name
    version: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    labels: Annotated[tuple[str, ...], Field(min_length=2)]
    task: Task
    geometry: Geometry
    dense_geometry: Geometry
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_sequence_length: PositiveInt
    precision: Precision
    weight_range: WeightRange | None
    batch_invariant: bool
    batch_difference: NonNegativeFloat | None = None
    opset: PositiveInt
    operators: dict[str, PositiveInt]
    form: dict[str, str]
    tuned: bool
    trials: tuple[Trial, ...] = ()
    quality: Quality
    parity: Parity
    parity_random_ids: Parity
    compact_difference: NonNegativeFloat
    size: Size
    files: dict[str, FileDigest]
    provenance: dict[str, str]
    seal: Sha256 = "0" * 64  # until `write_manifest` seals it

    @property
    def shares_batches(self) -> bool:
        """Whether texts may be computed together: their logits then do not move, or by the rounding of fp16 at most."""
        measured = self.batch_difference
        return self.batch_invariant or (measured is not None and measured <= BATCH_ROUNDING)


def seal(manifest: dict[str, Any]) -> dict[str, Any]:
    """The JSON values of a manifest with a digest of all the others as `seal`, so that a changed one is noticed."""
    values = {name: value for name, value in manifest.items() if name != "seal"}
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return values | {"seal": hashlib.sha256(canonical.encode()).hexdigest()}


class GoldenInput(_Record):
    """One text or pair of texts."""

    text: str
    text_pair: str | None = None


class Golden(_Record):
    """Inputs with the logits that the graph gave on the machine that exported it, each alone in its batch."""

    inputs: Annotated[tuple[GoldenInput, ...], Field(min_length=1)]
    logits: tuple[tuple[float, ...], ...]
    tolerance: Annotated[float, Field(gt=0.0)]


RecordType = TypeVar("RecordType", bound=BaseModel)


def _read(path: Path, record: type[RecordType]) -> RecordType:
    try:
        return record.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BundleError(
            f"{path.parent} is not a complete bundle: {path.name} cannot be read; export again"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or path.name
        raise BundleError(f"{path} is malformed at {place}: {first['msg']}; export again") from error


def read_manifest(bundle: Path) -> Manifest:
    """Read `manifest.json` of a bundle folder.

    Raises BundleError when it is missing or malformed, DigestError when it was altered.
    """
    path = bundle / MANIFEST_FILE
    manifest = _read(path, Manifest)
    # What stands there is sealed, not what this version of the schema makes of it.
    if seal(json.loads(path.read_bytes()))["seal"] != manifest.seal:
        raise DigestError(f"{path} was altered: its content is not what its seal says; export or copy the bundle again")
    return manifest


def write_manifest(bundle: Path, manifest: Manifest) -> Manifest:
    """Write `manifest.json` of a bundle folder, sealed; returns what was written."""
    sealed = manifest.model_copy(update={"seal": seal(manifest.model_dump(mode="json"))["seal"]})
    (bundle / MANIFEST_FILE).write_text(sealed.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return sealed


def read_golden(bundle: Path) -> Golden:
    """Read `golden.json` of a bundle folder. Raises BundleError when it is missing or malformed."""
    golden = _read(bundle / GOLDEN_FILE, Golden)
    if len(golden.inputs) != len(golden.logits):
        raise BundleError(f"{bundle / GOLDEN_FILE} has {len(golden.inputs)} inputs but {len(golden.logits)} logits")
    return golden
