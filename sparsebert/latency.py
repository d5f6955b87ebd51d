"""How long does a model with these heads and neurons take on a machine that was measured? Interpolated, not guessed.

A table is measured on the machine that will serve ('sparsebert latency-table') and read where a model is pruned.
Pure arithmetic; knows nothing about ONNX.

All attention blocks but the last and the FFN blocks before it compute every token; what comes after the last
attention computes first tokens only, so it has curves of its own.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)

from sparsebert.errors import BundleError
from sparsebert.geometry import Geometry
from sparsebert.manifest import Precision


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Curve(_Record):
    """Milliseconds of a block by its number of units; a block without units is not there and takes none."""

    units: Annotated[tuple[NonNegativeInt, ...], Field(min_length=2)]
    times_ms: tuple[NonNegativeFloat, ...]

    @model_validator(mode="after")
    def _from_zero_upwards(self) -> Self:
        if len(self.units) != len(self.times_ms) or list(self.units) != sorted(set(self.units)) or self.units[0] != 0:
            raise ValueError("units must rise from 0, with a time for each")
        return self

    def at(self, units: int) -> float:
        """Milliseconds, linear between the measured numbers. Raises ValueError beyond them."""
        if units > self.units[-1]:
            raise ValueError(f"{units} units are more than the {self.units[-1]} that were measured")
        return float(np.interp(units, self.units, self.times_ms))


class ShapeLatency(_Record):
    """One precision, batch and length: curves of the blocks, and what every model takes besides."""

    precision: Precision
    batch: PositiveInt
    tokens: PositiveInt
    rest_ms: NonNegativeFloat
    attention: Curve
    ffn: Curve
    last_attention: Curve
    last_ffn: Curve

    def predict_ms(self, geometry: Geometry) -> float:
        """The time of one batch. Raises ValueError for more heads or neurons than were measured."""
        last = max((index for index, heads in enumerate(geometry.heads_L) if heads), default=-1)
        total = self.rest_ms
        for index, (heads, neurons) in enumerate(zip(geometry.heads_L, geometry.neurons_L, strict=True)):
            total += (self.last_attention if index == last else self.attention).at(heads)
            total += (self.ffn if index < last else self.last_ffn).at(neurons)
        return total


class LatencyTable(_Record):
    """Everything that was measured on one machine for models of one hidden size and head size.

    `embedding_size` is that of embeddings that are projected to the hidden size; None: they have that size.
    """

    schema_version: Literal[1] = 1
    hidden_size: PositiveInt
    head_size: PositiveInt
    embedding_size: PositiveInt | None = None
    threads: PositiveInt
    shapes: Annotated[tuple[ShapeLatency, ...], Field(min_length=1)]
    provenance: dict[str, str]

    def find(self, precision: str, batch: int, tokens: int) -> ShapeLatency:
        """The entry of one shape. Raises ValueError, naming those that are there."""
        for entry in self.shapes:
            if (entry.precision, entry.batch, entry.tokens) == (precision, batch, tokens):
                return entry
        there = ", ".join(f"{entry.precision} {entry.batch}x{entry.tokens}" for entry in self.shapes)
        raise ValueError(f"the table has no {precision} {batch}x{tokens}; it has {there}")


def read_latency_table(path: Path) -> LatencyTable:
    """Read a table. Raises BundleError when it is missing or malformed."""
    try:
        return LatencyTable.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BundleError(f"{path} cannot be read; make it with 'sparsebert latency-table'") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or path.name
        raise BundleError(
            f"{path} is no latency table: {place}: {first['msg']}; make it with 'sparsebert latency-table'"
        ) from error


def rising(times_ms: Sequence[float]) -> tuple[float, ...]:
    """Times from 0 upwards that never fall: differences of noisy measurements may."""
    return tuple(float(value) for value in np.maximum.accumulate([0.0, *times_ms]))
