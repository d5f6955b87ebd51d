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
    model: str | None, variant: str | None, defaults: Sequence[VariantName], available: Sequence[VariantName]
) -> VariantName:
    """The variant asked for; `defaults` has one of each model, and first the service's own.

    Raises UnknownVariantError, which lists what exists.
    """
    wanted_model = choose_model(model, defaults[0], available)
    if variant is None:
        return next(name for name in defaults if name.model == wanted_model)
    return pick(wanted_model, variant, available)


def pick(model: str, variant: str, available: Sequence[VariantName]) -> VariantName:
    """The variant of that name. Raises UnknownVariantError, which lists those of the model, or else the models."""
    of_model = [name for name in available if name.model == model]
    for name in of_model:
        if name.variant == variant:
            return name
    if not of_model:
        raise _unknown_model(model, available)
    listed = _listed(sorted(name.variant for name in of_model))
    raise UnknownVariantError(f"model {model!r} has no variant {variant!r}; it has {listed}")


def choose_model(model: str | None, default: VariantName, available: Sequence[VariantName]) -> str:
    """The model asked for, or the default's. Raises UnknownVariantError, which lists what exists."""
    if model is None:
        return default.model
    if all(name.model != model for name in available):
        raise _unknown_model(model, available)
    return model


def choose_defaults(default_variant: str, available: Sequence[VariantName]) -> tuple[VariantName, ...]:
    """One variant of each model, for requests that name none; first the one for requests that name no model either.

    That one is `variant` or `model/variant`; all others, and it too when that is empty, are the first in
    alphabetical order. Raises ConfigError when it is not there.
    """
    names = sorted(available)
    chosen = [name for name in names if not default_variant or default_variant in (name.variant, str(name))]
    if not chosen:
        raise ConfigError(f"--default-variant is {default_variant!r}, which is not there: choose {_listed(names)}")
    of_model: dict[str, VariantName] = {chosen[0].model: chosen[0]}
    for name in names:
        of_model.setdefault(name.model, name)
    return tuple(of_model.values())


def _unknown_model(model: str, available: Iterable[VariantName]) -> UnknownVariantError:
    there = _listed(sorted({name.model for name in available}))
    return UnknownVariantError(f"there is no model {model!r}; there is {there}")


def _listed(names: Iterable[object]) -> str:
    return ", ".join(str(name) for name in names)
