"""Which variant answers a request that names a model, a variant, both or neither?

Pure; knows nothing about bundles or HTTP.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from service.errors import UnknownVariantError
from sparsebert.errors import ConfigError


@dataclass(frozen=True, kw_only=True, order=True)
class VariantName:
    """A variant and the model it belongs to."""

    model: str
    variant: str

    def __str__(self) -> str:
        return f"{self.model}/{self.variant}"


def choose_variant(
    model: str | None, variant: str | None, default: VariantName, available: Sequence[VariantName]
) -> VariantName:
    """The variant asked for; what is not named is the default's, or the model's first in alphabetical order.

    Raises UnknownVariantError, which lists what exists.
    """
    wanted_model = choose_model(model, default, available)
    of_model = sorted(name for name in available if name.model == wanted_model)
    if variant is None:
        return default if default.model == wanted_model else of_model[0]
    for name in of_model:
        if name.variant == variant:
            return name
    raise UnknownVariantError(
        f"model {wanted_model!r} has no variant {variant!r}; it has {_listed(name.variant for name in of_model)}"
    )


def choose_model(model: str | None, default: VariantName, available: Sequence[VariantName]) -> str:
    """The model asked for, or the default's. Raises UnknownVariantError, which lists what exists."""
    if model is None:
        return default.model
    models = sorted({name.model for name in available})
    if model not in models:
        raise UnknownVariantError(f"there is no model {model!r}; there is {_listed(models)}")
    return model


def choose_default(default_variant: str, available: Sequence[VariantName]) -> VariantName:
    """The default of a service: `variant` or `model/variant`, or the first in alphabetical order when empty.

    Raises ConfigError when it is not there.
    """
    names = sorted(available)
    if not default_variant:
        return names[0]
    for name in names:
        if default_variant in (name.variant, str(name)):
            return name
    raise ConfigError(f"--default-variant is {default_variant!r}, which is not there: choose {_listed(names)}")


def _listed(names: Iterable[object]) -> str:
    return ", ".join(str(name) for name in names)
