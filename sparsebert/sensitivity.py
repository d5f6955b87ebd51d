"""What does each head, each share of a layer's FFN and each whole block cost when it alone is removed? The record.

Measured by 'sparsebert sensitivity', read by whatever draws it. Knows nothing about PyTorch.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveInt, ValidationError, model_validator

from sparsebert.errors import CheckpointError
from sparsebert.geometry import Geometry
from sparsebert.manifest import Task

Share = Annotated[float, Field(ge=0, le=1)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Quality(_Record):
    """Mean cross-entropy and share of right answers of a model on the validation examples."""

    loss: NonNegativeFloat
    accuracy: Share


class RemovedShare(_Record):
    """The model without the least important `neurons` of one FFN, `share` of them; without all the block is gone."""

    share: Annotated[float, Field(gt=0, le=1)]
    neurons: PositiveInt
    without: Quality


class LayerSensitivity(_Record):
    """The model without one part of this layer: head by head, by share of the FFN, and without a whole block.

    A block that is removed is identity, its LayerNorm with it.
    """

    without_head: Annotated[tuple[Quality, ...], Field(min_length=1)]
    without_neurons: tuple[RemovedShare, ...]
    without_attention: Quality
    without_ffn: Quality


class Sensitivity(_Record):
    """Everything that was measured on one dense checkpoint; differences to `dense` are what the parts cost.

    Which neurons matter least was found on `num_scored` training texts.
    """

    schema_version: Literal[1] = 1
    model: str
    task: Task
    data: str
    num_examples: PositiveInt
    num_scored: PositiveInt
    geometry: Geometry
    dense: Quality
    layers: tuple[LayerSensitivity, ...]
    duration_s: NonNegativeFloat
    versions: dict[str, str]

    @model_validator(mode="after")
    def _one_entry_per_layer_and_head(self) -> Self:
        if tuple(len(layer.without_head) for layer in self.layers) != self.geometry.heads_L:
            raise ValueError("layers and heads must be those of the geometry")
        return self


def read_sensitivity(path: Path) -> Sensitivity:
    """Read a record. Raises CheckpointError when it is missing or malformed."""
    try:
        return Sensitivity.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read; make it with 'sparsebert sensitivity'") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or path.name
        raise CheckpointError(
            f"{path} is no sensitivity record: {place}: {first['msg']}; make it with 'sparsebert sensitivity'"
        ) from error


def render(record: Sensitivity) -> str:
    """The record for a reader: what parts cost, layer by layer, as rises of the loss and points of accuracy."""
    dense = record.dense
    first = (
        f"dense: loss {dense.loss:.4f}, accuracy {100 * dense.accuracy:.2f}% on {record.num_examples} examples; "
        "without a part, change of loss (of accuracy, in points):"
    )
    return "\n".join([first, "", *_layer_table(record), "", *_extremes(record)]) + "\n"


def _layer_table(record: Sensitivity) -> list[str]:
    partial = [removed.share for removed in record.layers[0].without_neurons if removed.share < 1]  # 1 is the block
    shares = [f"{100 * share:g}% of FFN" for share in partial]
    titles = ["layer", "costliest head", "cheapest head", "attention", *shares, "FFN"]
    rows = [titles]
    for index, layer in enumerate(record.layers):
        heads = sorted(range(len(layer.without_head)), key=lambda head: layer.without_head[head].loss)
        named = [f"{head}: {_cost(layer.without_head[head], record.dense)}" for head in (heads[-1], heads[0])]
        neurons = [removed.without for removed in layer.without_neurons if removed.share < 1]
        parts = [layer.without_attention, *neurons, layer.without_ffn]
        rows.append([str(index), *named, *(_cost(part, record.dense) for part in parts)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(titles))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def _extremes(record: Sensitivity) -> list[str]:
    heads = [
        (f"head {head} of layer {index}", quality)
        for index, layer in enumerate(record.layers)
        for head, quality in enumerate(layer.without_head)
    ]
    blocks = [
        (f"{kind} of layer {index}", quality)
        for index, layer in enumerate(record.layers)
        for kind, quality in (("attention", layer.without_attention), ("FFN", layer.without_ffn))
    ]
    lines = []
    for name, parts in (("head", heads), ("block", blocks)):
        ranked = sorted(parts, key=lambda part: part[1].loss)
        for word, (part, quality) in (("costliest", ranked[-1]), ("cheapest", ranked[0])):
            lines.append(f"{word + ' ' + name + ':':<17}{part}, {_cost(quality, record.dense)}")
    return lines


def _cost(without: Quality, dense: Quality) -> str:
    return f"{without.loss - dense.loss:+.4f} ({100 * (without.accuracy - dense.accuracy):+.1f})"
