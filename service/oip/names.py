"""Which variant does the protocol's model name, version or parameter mean?

A version is a variant: `reviews` with the version `sparse` and `reviews.sparse` are the same. Pure; knows nothing
about bundles or HTTP.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from service.errors import MalformedError, UnknownVariantError
from service.routing import VariantName


@dataclass(frozen=True, kw_only=True)
class AskedName:
    """A model and, unless the default is meant, one of its variants."""

    model: str
    variant: str | None


def read_name(
    model: str, version: str | None, available: Sequence[VariantName], parameter: str | None = None
) -> AskedName:
    """What `model` of a path means together with its version and with the parameter `variant` of a request.

    Raises MalformedError when they name different variants, UnknownVariantError when `model` may mean two.
    """
    asked = _split(model, available)
    variants = sorted({name for name in (asked.variant, version, parameter) if name is not None})
    if len(variants) > 1:
        raise MalformedError(f"the request names the variants {' and '.join(variants)}; name one")
    return AskedName(model=asked.model, variant=variants[0] if variants else None)


def _split(model: str, available: Sequence[VariantName]) -> AskedName:
    """A model's own name comes first: it may have a dot in it."""
    if any(name.model == model for name in available):
        return AskedName(model=model, variant=None)
    found = [name for name in available if f"{name.model}.{name.variant}" == model]
    if len(found) > 1:
        raise UnknownVariantError(
            f"{model!r} may be {' or '.join(map(str, found))}; send the model's name, and the variant as the version"
        )
    return AskedName(model=found[0].model, variant=found[0].variant) if found else AskedName(model=model, variant=None)
