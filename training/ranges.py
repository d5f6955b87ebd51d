"""Which numbers of epochs and peak rates can be? Told by the flag that gave them.

Knows nothing about training.
"""

from sparsebert.errors import ConfigError


def check_epochs(epochs: float | None, flag: str = "--epochs") -> None:
    """Raises ConfigError, which names the `flag`, for a number of epochs that cannot be."""
    if epochs is not None and epochs < 0:
        raise ConfigError(f"{flag} is {epochs:g}; it must be at least 0")


def check_learning_rate(rate: float | None, flag: str = "--learning-rate") -> None:
    """Raises ConfigError, which names the `flag`, for a peak rate that cannot be."""
    if rate is not None and not 0 < rate < 1:
        raise ConfigError(f"{flag} is {rate:g}; it must be above 0 and below 1")
