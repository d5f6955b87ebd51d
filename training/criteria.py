"""Which criterion of importance has which name."""

from collections.abc import Callable
from typing import Literal

from sparsebert.errors import ConfigError
from training.importance import Importance
from training.importance.activation import ActivationImportance
from training.importance.fisher import FisherImportance
from training.importance.gate import GateImportance
from training.importance.gradient import GradientImportance
from training.importance.magnitude import MagnitudeImportance
from training.importance.margin import MarginImportance
from training.importance.movement import MovementImportance
from training.importance.random import RandomImportance

ImportanceName = Literal["gradient", "fisher", "activation", "magnitude", "movement", "random", "gate", "margin"]

_MAKERS: dict[str, Callable[[], Importance]] = {
    "gradient": GradientImportance,
    "fisher": FisherImportance,
    "activation": ActivationImportance,
    "magnitude": MagnitudeImportance,
    "movement": MovementImportance,
    "gate": GateImportance,
    "margin": MarginImportance,
}
IMPORTANCE_NAMES = (*_MAKERS, "random")
STANDING = "margin"  # judges units of a model that does not train meanwhile


def check_importance(name: str) -> None:
    """Raises ConfigError when there is no such criterion."""
    if name not in IMPORTANCE_NAMES:
        raise ConfigError(f"--importance {name!r} is unknown; choose from {', '.join(IMPORTANCE_NAMES)}")


def make_importance(name: ImportanceName, seed: int) -> Importance:
    """A criterion that has seen nothing yet; `seed` is for the random one."""
    return RandomImportance(seed) if name == "random" else _MAKERS[name]()
