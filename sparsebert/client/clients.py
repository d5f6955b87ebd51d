"""How do requests travel to the service and back, blocking or async, and when are they sent again?

A question has no effect, so sending one twice is harmless: it is sent again when the connection breaks, and on 429,
502 and 503, after what Retry-After says or else ever longer. A change is sent again only when it cannot have been
made: no connection was to be had, or the service says with 429 or 503 that it did not begin. No other refusal is
tried again, and no request whose time is up. Knows nothing about what is asked.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from httpx_retries import Retry, RetryTransport

from sparsebert.answers import (
    CompareAnswer,
    FolderAnswer,
    FolderVariant,
    LoadAnswer,
    ModelsAnswer,
    PredictAnswer,
    UnloadAnswer,
    VariantAnswer,
)
from sparsebert.client.asking import FOLDER, Inputs, change_path, compare_body, predict_body, read_answer, refusal
from sparsebert.client.errors import ClientError, UnexpectedAnswerError, UnreachableError
from sparsebert.client.proxies import carrier

RETRIED_STATUSES = (429, 502, 503)
RETRIED_ERRORS = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout)
# Of a change: a proxy's 502 does not say whether it was made.
UNTOUCHED_STATUSES = (429, 503)
UNTOUCHED_ERRORS = (httpx.ConnectError, httpx.ConnectTimeout)
BACKOFF_S = 0.1
LONGEST_WAIT_S = 10.0
REQUEST_ID_HEADER = "x-request-id"

AnswerType = TypeVar("AnswerType", PredictAnswer, CompareAnswer, ModelsAnswer, FolderAnswer, LoadAnswer, UnloadAnswer)


def retrying(retries: int) -> Retry:
    """When a question is sent again; at most `retries` times."""
    return _retry(retries, RETRIED_STATUSES, RETRIED_ERRORS)


def retrying_change(retries: int) -> Retry:
    """When a change is sent again; at most `retries` times."""
    return _retry(retries, UNTOUCHED_STATUSES, UNTOUCHED_ERRORS)


def _retry(retries: int, statuses: Sequence[int], errors: Sequence[type[httpx.HTTPError]]) -> Retry:
    return Retry(
        total=retries,
        allowed_methods=("GET", "POST"),
        status_forcelist=statuses,
        retry_on_exceptions=errors,
        backoff_factor=BACKOFF_S,
        max_backoff_wait=LONGEST_WAIT_S,
    )


class Client:
    """Asks the service at `base_url`; use it as a context manager, from as many threads as you like.

    `api_key`, made by `sparsebert key`, is sent as `Authorization: Bearer`; `timeout_s` is the longest wait for a
    connection and for an answer;
    `transport` carries the requests; when left out httpx's own does, through the proxy that the environment names.
    All methods raise ClientError.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 30.0,
        retries: int = 3,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._change = {"retry": retrying_change(retries)}
        retried = RetryTransport(transport or carrier(httpx.HTTPTransport, base_url), retrying(retries))
        self._http = httpx.Client(base_url=base_url, headers=_headers(api_key), timeout=timeout_s, transport=retried)

    def predict(
        self,
        inputs: Inputs,
        *,
        model: str | None = None,
        variant: str | None = None,
        top_k: int | None = None,
        truncate: bool = False,
    ) -> PredictAnswer:
        """Label texts with one variant, the default when none is named."""
        body = predict_body(inputs, model=model, variant=variant, top_k=top_k, truncate=truncate)
        return self._ask(PredictAnswer, "POST", "/v1/predict", json=body)

    def compare(
        self,
        inputs: Inputs,
        *,
        model: str | None = None,
        variants: Sequence[str] | None = None,
        baseline: str | None = None,
        repeats: int = 1,
        top_k: int | None = None,
        truncate: bool = False,
    ) -> CompareAnswer:
        """Label texts with several variants, all that are ready when none is named."""
        body = compare_body(
            inputs, model=model, variants=variants, baseline=baseline, repeats=repeats, top_k=top_k, truncate=truncate
        )
        return self._ask(CompareAnswer, "POST", "/v1/compare", json=body)

    def models(self) -> list[VariantAnswer]:
        """Every variant of the service, also those that did not load."""
        return self._ask(ModelsAnswer, "GET", "/v1/models").variants

    def folder(self) -> list[FolderVariant]:
        """Every variant in the models folder and what is loaded of it; for admin keys, as the two below are."""
        return self._ask(FolderAnswer, "GET", FOLDER).variants

    def load(self, model: str, variant: str) -> LoadAnswer:
        """Load a variant as it lies in the models folder now, or load it again; a load that fails changes nothing.

        One that takes longer than the service lets a request take (status 504) goes on; `folder` tells when it is done.
        """
        return self._ask(LoadAnswer, "POST", change_path(model, variant, "load"), extensions=self._change)

    def unload(self, model: str, variant: str) -> UnloadAnswer:
        """Unload a variant; requests that run on it end on it."""
        return self._ask(UnloadAnswer, "POST", change_path(model, variant, "unload"), extensions=self._change)

    def ready(self) -> bool:
        """Whether the service takes requests now; asks once."""
        return _is_ready(self._send("GET", "/readyz", extensions={"retry": retrying(0)}))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, schema: type[AnswerType], method: str, path: str, **more: Any) -> AnswerType:
        return _read(schema, self._send(method, path, **more))

    def _send(self, method: str, path: str, **more: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **more)
        except (httpx.RequestError, UnicodeEncodeError) as error:
            raise _failure(self._http.base_url, error) from error


class AsyncClient:
    """The async form of `Client`, for one event loop; use it as an async context manager."""

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 30.0,
        retries: int = 3,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._change = {"retry": retrying_change(retries)}
        retried = RetryTransport(transport or carrier(httpx.AsyncHTTPTransport, base_url), retrying(retries))
        self._http = httpx.AsyncClient(
            base_url=base_url, headers=_headers(api_key), timeout=timeout_s, transport=retried
        )

    async def predict(
        self,
        inputs: Inputs,
        *,
        model: str | None = None,
        variant: str | None = None,
        top_k: int | None = None,
        truncate: bool = False,
    ) -> PredictAnswer:
        """Label texts with one variant, the default when none is named."""
        body = predict_body(inputs, model=model, variant=variant, top_k=top_k, truncate=truncate)
        return await self._ask(PredictAnswer, "POST", "/v1/predict", json=body)

    async def compare(
        self,
        inputs: Inputs,
        *,
        model: str | None = None,
        variants: Sequence[str] | None = None,
        baseline: str | None = None,
        repeats: int = 1,
        top_k: int | None = None,
        truncate: bool = False,
    ) -> CompareAnswer:
        """Label texts with several variants, all that are ready when none is named."""
        body = compare_body(
            inputs, model=model, variants=variants, baseline=baseline, repeats=repeats, top_k=top_k, truncate=truncate
        )
        return await self._ask(CompareAnswer, "POST", "/v1/compare", json=body)

    async def models(self) -> list[VariantAnswer]:
        """Every variant of the service, also those that did not load."""
        return (await self._ask(ModelsAnswer, "GET", "/v1/models")).variants

    async def folder(self) -> list[FolderVariant]:
        """Every variant in the models folder and what is loaded of it; for admin keys, as the two below are."""
        return (await self._ask(FolderAnswer, "GET", FOLDER)).variants

    async def load(self, model: str, variant: str) -> LoadAnswer:
        """Load a variant as it lies in the models folder now, or load it again; a load that fails changes nothing.

        One that takes longer than the service lets a request take (status 504) goes on; `folder` tells when it is done.
        """
        return await self._ask(LoadAnswer, "POST", change_path(model, variant, "load"), extensions=self._change)

    async def unload(self, model: str, variant: str) -> UnloadAnswer:
        """Unload a variant; requests that run on it end on it."""
        return await self._ask(UnloadAnswer, "POST", change_path(model, variant, "unload"), extensions=self._change)

    async def ready(self) -> bool:
        """Whether the service takes requests now; asks once."""
        return _is_ready(await self._send("GET", "/readyz", extensions={"retry": retrying(0)}))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _ask(self, schema: type[AnswerType], method: str, path: str, **more: Any) -> AnswerType:
        return _read(schema, await self._send(method, path, **more))

    async def _send(self, method: str, path: str, **more: Any) -> httpx.Response:
        try:
            return await self._http.request(method, path, **more)
        except (httpx.RequestError, UnicodeEncodeError) as error:
            raise _failure(self._http.base_url, error) from error


def _headers(api_key: str | None) -> dict[str, str]:
    return {} if api_key is None else {"Authorization": f"Bearer {api_key}"}


def _read(schema: type[AnswerType], response: httpx.Response) -> AnswerType:
    return read_answer(schema, response.status_code, response.content, response.headers.get(REQUEST_ID_HEADER))


def _is_ready(response: httpx.Response) -> bool:
    if response.status_code not in (200, 503):
        raise refusal(response.status_code, response.content, response.headers.get(REQUEST_ID_HEADER))
    return response.status_code == 200


def _failure(base_url: httpx.URL, error: httpx.RequestError | UnicodeEncodeError) -> ClientError:
    if isinstance(error, UnicodeEncodeError):
        return ClientError(
            "a text has half of a character (a lone surrogate) in it, which cannot be sent; leave it out"
        )
    if isinstance(error, httpx.DecodingError):
        return UnexpectedAnswerError(f"{base_url} sent a body that cannot be decoded ({error}); check what is between")
    if isinstance(error, httpx.TimeoutException):
        return UnreachableError(f"{base_url} did not answer in time; raise timeout_s, or send fewer texts at a time")
    return UnreachableError(f"{base_url} cannot be reached ({error or type(error).__name__}); check the address")
