"""Where the curves of a run go: TensorBoard, MLflow or Weights & Biases, through accelerate's trackers.

Knows nothing about what is tracked.
"""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from accelerate import Accelerator

from sparsebert.errors import ConfigError, MissingExtraError

TrackerName = Literal["tensorboard", "mlflow", "wandb", "none"]
TRACKERS: tuple[TrackerName, ...] = ("tensorboard", "mlflow", "wandb", "none")
LOG_FOLDER = "logs"

Track = Callable[[Mapping[str, float], int], None]


def track_nothing(values: Mapping[str, float], step: int) -> None:
    """Forget the values."""


def check_tracker(name: str) -> None:
    """Raises ConfigError for an unknown tracker, MissingExtraError for one that is not installed."""
    if name not in TRACKERS:
        raise ConfigError(f"--track {name!r} is unknown; choose from {', '.join(TRACKERS)}")
    if name != "none" and find_spec(name) is None:
        raise MissingExtraError(f"--track {name} needs: pip install {name}")


def start_tracking(accelerator: Accelerator, name: TrackerName, config: Mapping[str, Any]) -> Track:
    """Open the tracker with the run's settings; what it returns takes values by name and their step."""
    if name == "none":
        return track_nothing
    accelerator.init_trackers("sparsebert", config=flat(config))

    def track(values: Mapping[str, float], step: int) -> None:
        accelerator.log(dict(values), step=step)

    if name != "wandb":
        return track
    return steps_beside(accelerator.log, accelerator.get_tracker(name, unwrap=True).define_metric)


def steps_beside(log: Callable[[dict[str, float]], None], define_metric: Callable[..., object]) -> Track:
    """For Weights & Biases, which drops steps that go back, as they do where a stage begins: a step for each stage."""
    stages: set[str] = set()

    def track(values: Mapping[str, float], step: int) -> None:
        (stage,) = {name.partition("/")[0] for name in values}
        if stage not in stages:
            stages.add(stage)
            define_metric(f"{stage}/*", step_metric=f"{stage}/step")
        log({**values, f"{stage}/step": step})

    return track


def log_folder(output: Path) -> Path:
    """Where TensorBoard's files lie: `tensorboard --logdir OUTPUT/logs`."""
    return output / LOG_FOLDER


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str | int | float | bool]:
    """Nested settings as one level with dotted names, of types that every tracker takes."""
    rows: dict[str, str | int | float | bool] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows |= flat(value, f"{prefix}{name}.")
        else:
            rows[f"{prefix}{name}"] = value if isinstance(value, str | int | float | bool) else str(value)
    return rows
