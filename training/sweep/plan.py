"""What is to be done for a grid: the points, the dense models that they share, and the command of each.

Pure: the same words make the same plan; in a grid that grew, or names its axes in another order, folders keep their
names.
Knows nothing about what is done already, or how commands are run.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sparsebert.errors import ConfigError
from training.config import TrainConfig
from training.sweep.grid import SEED, Axis, Settings, check_axes, combinations, read_config, train_words
from training.sweep.runner import Job

Stage = Literal["dense", "sparse"]

POINTS_FOLDER = "points"
DENSE_FOLDER = "dense"
TEACHER_FOLDER = "teacher"
LONGEST_NAME = 120


@dataclass(frozen=True, kw_only=True)
class DenseRun:
    """A dense model that points start from; `words` are those of `sparsebert train` without `--output`."""

    name: str
    words: tuple[str, ...]

    def folder(self, output: Path) -> Path:
        return output / DENSE_FOLDER / self.name


@dataclass(frozen=True, kw_only=True)
class Point:
    """One run of the grid.

    `words` are those of `sparsebert train` without `--output` and without the dense model to start from.
    `identity` is equal for two points exactly when their settings, their data's place and their model's are.
    """

    name: str
    axes: Settings
    seed: int
    words: tuple[str, ...]
    stage: Stage
    identity: str
    dense: DenseRun | None

    def folder(self, output: Path) -> Path:
        return output / POINTS_FOLDER / self.name


def plan_sweep(axes: Sequence[Axis], shared: Sequence[str]) -> tuple[Point, ...]:
    """The points of a grid, in the order in which they are run.

    Raises ConfigError when `sparsebert train` would refuse one of them, or when two would be the same.
    """
    check_axes(axes, shared)
    points = tuple(_point(settings, tuple(shared)) for settings in combinations(axes))
    _check_distinct(points)
    return points


def dense_runs(points: Iterable[Point]) -> tuple[DenseRun, ...]:
    """The dense models that these points start from, each once."""
    return tuple({point.dense.name: point.dense for point in points if point.dense}.values())


def dense_job(run: DenseRun, output: Path, cwd: Path) -> Job:
    """Trains a dense model."""
    return _job(run.name, run.folder(output), run.words, cwd)


def point_job(point: Point, output: Path, cwd: Path) -> Job:
    """Trains a point, from its dense model when it has one; points with the same teacher ask it once."""
    cache = f"--teacher-cache={output / TEACHER_FOLDER}"
    start = [] if point.dense is None else [f"--model={point.dense.folder(output) / 'dense'}", "--epochs=0"]
    return _job(point.name, point.folder(output), (cache, *point.words, *start), cwd)


def describe(settings: Settings) -> str:
    """The settings for a reader: `importance=fisher sparsity=0.5`."""
    return " ".join(f"{flag}={value}" for flag, value in settings)


def folder_name(settings: Settings) -> str:
    """A name that can be read and is safe in any shell; what had to be changed or cut is told apart by a digest."""
    wanted = "_".join(f"{flag}-{value}" for flag, value in settings)
    name = re.sub(r"[^A-Za-z0-9.+_-]+", "-", wanted)[:LONGEST_NAME]
    return name if name == wanted else f"{name}-{_digest(wanted)}"


def _point(settings: Settings, shared: tuple[str, ...]) -> Point:
    words = (*shared, *train_words(settings))
    try:
        config = read_config(words)
        if len(config.budget.shares) > 1:
            raise ConfigError("it has several targets; make --sparsity an axis of the grid instead")
        if config.search is not None:
            raise ConfigError("it looks for its sparsity (--max-drop); 'sparsebert train' does that, outside a sweep")
        dense = _dense_run(config, words)
    except ConfigError as error:
        raise ConfigError(f"the point {describe(settings)} is none: {error}") from error
    axes = tuple((flag, value) for flag, value in settings if flag != SEED)
    return Point(
        name=folder_name((*sorted(axes), (SEED, str(config.seed)))),
        axes=axes,
        seed=config.seed,
        words=words,
        stage="sparse" if config.prunes else "dense",
        identity=_identity(config, "sparse"),
        dense=dense,
    )


def _dense_run(config: TrainConfig, words: tuple[str, ...]) -> DenseRun | None:
    """What trains the dense model of `words` alone; None when they take a model as it is."""
    if not config.dense.epochs:
        return None
    alone = (*words, "--sparsity=0")
    identity = _identity(config, "dense")
    if _identity(read_config(alone), "dense") != identity:
        raise ConfigError("its dense model is another one with --sparsity 0, so it cannot be trained alone")
    return DenseRun(name=f"{SEED}-{config.seed}-{identity[:8]}", words=alone)


def _identity(config: TrainConfig, stage: Stage) -> str:
    place = json.dumps(config.as_json()["data"], sort_keys=True)
    targets = "" if stage == "dense" else f" {config.budget.shares}"
    return config.fingerprint(stage, place, config.model) + targets


def _check_distinct(points: Iterable[Point]) -> None:
    seen: dict[str, Point] = {}
    for point in points:
        for key in (point.identity, point.name):
            if key in seen:
                raise ConfigError(f"{seen[key].name} and {point.name} are the same point; leave one out of the grid")
            seen[key] = point


def _job(name: str, folder: Path, words: tuple[str, ...], cwd: Path) -> Job:
    command = ("-m", "sparsebert", "train", *words, f"--output={folder}")
    return Job(name=name, folder=folder, command=command, cwd=cwd)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
