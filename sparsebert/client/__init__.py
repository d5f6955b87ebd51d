"""A typed client of the service, in blocking and in async form.

    from sparsebert.client import Client

    with Client("http://localhost:8000") as client:
        print(client.predict("a gripping film").predictions[0].label)

The only part of the contract that speaks HTTP: it needs `pip install 'sparsebert[client]'`, and nothing else of the
contract imports it. Knows nothing about models.
"""

from sparsebert.errors import MissingExtraError

try:
    from sparsebert.client.clients import AsyncClient, Client
except ModuleNotFoundError as error:
    if (error.name or "").split(".")[0] not in ("httpx", "httpx_retries"):
        raise
    raise MissingExtraError(
        f"sparsebert.client needs: pip install 'sparsebert[client]' (the package {error.name!r} is missing)"
    ) from error
from sparsebert.answers import (
    CompareAnswer,
    ComparedVariant,
    FolderVariant,
    LoadAnswer,
    PredictAnswer,
    Prediction,
    Timings,
    UnloadAnswer,
    VariantAnswer,
)
from sparsebert.client.asking import Pair
from sparsebert.client.errors import ClientError, RefusedError, UnexpectedAnswerError, UnreachableError

__all__ = [
    "AsyncClient",
    "Client",
    "ClientError",
    "CompareAnswer",
    "ComparedVariant",
    "FolderVariant",
    "LoadAnswer",
    "Pair",
    "PredictAnswer",
    "Prediction",
    "RefusedError",
    "Timings",
    "UnexpectedAnswerError",
    "UnloadAnswer",
    "UnreachableError",
    "VariantAnswer",
]
