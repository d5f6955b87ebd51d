"""Which variant does the path of a request of the protocol mean?"""

from typing import Annotated

from fastapi import Path

from service.oip.names import read_name
from service.serving import Serving, ServingVariant

ModelPath = Annotated[
    str, Path(description="A model, for its default variant; or model and variant, as in `reviews.sparse`.")
]
VersionPath = Annotated[str, Path(description="A variant of the model, as in `sparse`.")]


def find(serving: Serving, model: str, version: str | None, parameter: str | None = None) -> ServingVariant:
    """The variant asked for. Raises MalformedError, UnknownVariantError, or NotReadyError when it cannot serve."""
    asked = read_name(model, version, serving.catalog.names, parameter)
    return serving.find(asked.model, asked.variant)
