"""What came out, as rows, as csv and as a table for a reader, best first.

Pure: knows nothing about folders or processes.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from training.sweep.plan import Point
from training.sweep.receipts import Finished


@dataclass(frozen=True, kw_only=True)
class Row:
    """A point and how it stands; `result` when it is finished, `error` when it failed."""

    name: str
    axes: Mapping[str, str]
    seed: int
    result: Finished | None = None
    error: str | None = None

    @property
    def state(self) -> Literal["finished", "failed", "open"]:
        if self.result is not None:
            return "finished"
        return "open" if self.error is None else "failed"


def make_rows(points: Sequence[Point], finished: Mapping[str, Finished], errors: Mapping[str, str]) -> list[Row]:
    """A row for each point of the grid, and for each finished one of an earlier grid; best first, unfinished last."""
    rows = []
    for point in points:
        result = finished.get(point.identity)
        name, error = (point.name, errors.get(point.name)) if result is None else (result.name, None)
        rows.append(Row(name=name, axes=dict(point.axes), seed=point.seed, result=result, error=error))
    earlier = [result for key, result in finished.items() if key not in {point.identity for point in points}]
    rows += [Row(name=r.name, axes=r.receipt.axes, seed=r.receipt.seed, result=r) for r in earlier]
    return sorted(rows, key=_rank)


def to_csv(rows: Sequence[Row]) -> str:
    """One line a point; an axis that a point does not have is empty."""
    axes = _axes(rows)
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    numbers = ("accuracy", "dense_accuracy", "holdout_accuracy", "overall", "encoder_sparsity", "duration_s")
    table.writerow(["point", *axes, "seed", "state", *numbers, "error"])
    for row in rows:
        values = [None if row.result is None else getattr(row.result, name) for name in numbers]
        own = [row.axes.get(axis, "") for axis in axes]
        table.writerow([row.name, *own, row.seed, row.state, *values, row.error or ""])
    return stream.getvalue()


def to_table(rows: Sequence[Row]) -> str:
    """The rows for a reader, and below them why points failed; `vs dense` is over validation and holdout together."""
    axes = _axes(rows)
    lines = [[*axes, "seed", "accuracy", "holdout", "vs dense", "removed", "minutes"]]
    lines += [[*(row.axes.get(axis, "") for axis in axes), str(row.seed), *_numbers(row)] for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = ["  ".join(word.rjust(width) for word, width in zip(line, widths, strict=True)) for line in lines]
    failed = [f"{row.name}: {row.error}" for row in rows if row.error]
    return "\n".join([*text, *(["", *failed] if failed else [])]) + "\n"


def _axes(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(axis for row in rows for axis in row.axes))


def _numbers(row: Row) -> list[str]:
    if row.result is None:
        return [row.state, "", "", "", ""]
    result = row.result
    return [
        f"{result.accuracy:.2%}",
        "" if result.holdout_accuracy is None else f"{result.holdout_accuracy:.2%}",
        f"{100 * (result.overall - result.dense_overall):+.2f}",
        f"{result.encoder_sparsity:.1%}",
        f"{result.duration_s / 60:.1f}",
    ]


def _rank(row: Row) -> tuple[float, float]:
    return (1.0, 0.0) if row.result is None else (-row.result.overall, -row.result.encoder_sparsity)
