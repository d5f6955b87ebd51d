"""How do requests travel to the service and back, blocking or async?

Knows nothing about what is asked, nor when a request is sent again.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from httpx_retries import RetryTransport

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
from sparsebert.client.checking import checked_headers, checked_retries, checked_timeout_s, checked_url, told
from sparsebert.client.errors import ClientError, RefusedError, UnexpectedAnswerError, UnreachableError
from sparsebert.client.proxies import carrier
from sparsebert.client.retrying import retry_after_s, retrying, retrying_change

REQUEST_ID_HEADER = "x-request-id"
CLOSED = "the client is closed; make a new one, or ask before the end of its `with` block"
UNSENDABLE = "the request cannot be written as HTTP; look at base_url, api_key and the proxy that the environment names"
JSON = {"Content-Type": "application/json"}

AnswerType = TypeVar("AnswerType", PredictAnswer, CompareAnswer, ModelsAnswer, FolderAnswer, LoadAnswer, UnloadAnswer)


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
        url, headers, timeout_s = checked_url(base_url), checked_headers(api_key), checked_timeout_s(timeout_s)
        self._change = {"retry": retrying_change(checked_retries(retries))}
        retried = RetryTransport(transport or carrier(httpx.HTTPTransport, url), retrying(retries))
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout_s, transport=retried)

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
        return self._ask(PredictAnswer, "POST", "/v1/predict", content=body, headers=JSON)

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
        return self._ask(CompareAnswer, "POST", "/v1/compare", content=body, headers=JSON)

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
        if self._http.is_closed:
            raise ClientError(CLOSED)
        try:
            return self._http.request(method, path, **more)
        except httpx.LocalProtocolError:  # it quotes the header it does not like, which may be the key
            raise ClientError(UNSENDABLE) from None
        except httpx.RequestError as error:
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
        url, headers, timeout_s = checked_url(base_url), checked_headers(api_key), checked_timeout_s(timeout_s)
        self._change = {"retry": retrying_change(checked_retries(retries))}
        retried = RetryTransport(transport or carrier(httpx.AsyncHTTPTransport, url), retrying(retries))
        self._http = httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout_s, transport=retried)

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
        return await self._ask(PredictAnswer, "POST", "/v1/predict", content=body, headers=JSON)

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
        return await self._ask(CompareAnswer, "POST", "/v1/compare", content=body, headers=JSON)

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
        if self._http.is_closed:
            raise ClientError(CLOSED)
        try:
            return await self._http.request(method, path, **more)
        except httpx.LocalProtocolError:  # it quotes the header it does not like, which may be the key
            raise ClientError(UNSENDABLE) from None
        except httpx.RequestError as error:
            raise _failure(self._http.base_url, error) from error


def _read(schema: type[AnswerType], response: httpx.Response) -> AnswerType:
    if response.status_code != 200:
        raise _refused(response)
    return read_answer(schema, response.content)


def _is_ready(response: httpx.Response) -> bool:
    if response.status_code not in (200, 503):
        raise _refused(response)
    return response.status_code == 200


def _refused(response: httpx.Response) -> RefusedError:
    request_id = response.headers.get(REQUEST_ID_HEADER)
    return refusal(response.status_code, response.content, request_id, retry_after_s(response))


def _failure(base_url: httpx.URL, error: httpx.RequestError) -> ClientError:
    address = told(base_url)
    if isinstance(error, httpx.DecodingError):
        return UnexpectedAnswerError(f"{address} sent a body that cannot be decoded ({error}); check what is between")
    if isinstance(error, httpx.TimeoutException):
        return UnreachableError(f"{address} did not answer in time; raise timeout_s, or send fewer texts at a time")
    return UnreachableError(f"{address} cannot be reached ({error or type(error).__name__}); check the address")
