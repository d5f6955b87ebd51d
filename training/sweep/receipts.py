"""Which points of a folder are finished? Those with a receipt, which is written when a point has ended well.

The numbers are those of the point's `run.json`. Points of an earlier, other grid in the same folder are found as
well. Knows nothing about how points are run.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from sparsebert.checkpoint import RunRecord, read_run
from sparsebert.errors import CheckpointError
from sparsebert.files import write_whole
from training.data import HOLDOUT
from training.sweep.plan import POINTS_FOLDER, Point, Stage

RECEIPT_FILE = "point.json"


class Receipt(BaseModel):
    """What `point.json` says: this folder holds that point, done."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    axes: dict[str, str]
    seed: int
    stage: Stage
    identity: str


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A point that is done, its folder's name and what it scored on validation texts and on the holdout, if it has one.

    `overall` is the accuracy on both together; `dense_accuracy` and `dense_overall` are those of what it started from.
    """

    name: str
    receipt: Receipt
    accuracy: float
    dense_accuracy: float
    holdout_accuracy: float | None = None
    overall: float
    dense_overall: float
    encoder_sparsity: float
    duration_s: float


def sign(point: Point, output: Path) -> RunRecord:
    """Write the receipt of a point that ended well, and give its record. Raises CheckpointError when there is none."""
    folder = point.folder(output)
    record = read_run(folder / point.stage)
    receipt = Receipt(axes=dict(point.axes), seed=point.seed, stage=point.stage, identity=point.identity)
    write_whole(folder / RECEIPT_FILE, receipt.model_dump_json(indent=1) + "\n")
    return record


def find_finished(output: Path) -> dict[str, Finished]:
    """All finished points below `output`, by identity: what a folder is called does not matter."""
    folders = sorted(path.parent for path in (output / POINTS_FOLDER).glob(f"*/{RECEIPT_FILE}"))
    found = (_read(folder) for folder in folders)
    return {point.receipt.identity: point for point in found if point is not None}


def left_to_do(points: Iterable[Point], finished: Mapping[str, Finished]) -> list[Point]:
    """The points that are not finished."""
    return [point for point in points if point.identity not in finished]


def _read(folder: Path) -> Finished | None:
    """None when the receipt is of another version, or what it is for is gone: then it is run again."""
    try:
        receipt = Receipt.model_validate_json((folder / RECEIPT_FILE).read_bytes())
        last, dense = read_run(folder / receipt.stage), read_run(folder / "dense")
    except (ValidationError, CheckpointError):
        return None
    return Finished(
        name=folder.name,
        receipt=receipt,
        accuracy=last.accuracy,
        dense_accuracy=dense.accuracy,
        holdout_accuracy=holdout.accuracy if (holdout := last.metrics.get(HOLDOUT)) else None,
        overall=_overall(last),
        dense_overall=_overall(dense),
        encoder_sparsity=last.encoder_sparsity,
        duration_s=last.duration_s,
    )


def _overall(record: RunRecord) -> float:
    """Accuracy over the texts of all splits, each text once; that of the validation set when no split is listed."""
    splits = record.metrics.values()
    num_texts = sum(split.num_examples for split in splits)
    if not num_texts:
        return record.accuracy
    return sum(split.accuracy * split.num_examples for split in splits) / num_texts
