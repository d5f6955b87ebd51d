"""Which variant is a request for, and how does it get to the replicas of that variant?

Only inference of one variant is handed on; whatever names none that is known, or comes without a good key, is
answered here, where the app says what is wrong with it. Knows nothing about Ray.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping

from pydantic_core import from_json
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.catalog import Catalog
from service.cluster.calling import Answered, Asked, send_answer
from service.cluster.refusing import refuse
from service.errors import OverloadError, QueueFullError, ServiceError
from service.gate import sent_key
from service.keys import KeyRing
from service.ledger import choose_request_id
from service.oip.names import read_name
from service.oip.tensors import HEADER, split_body
from service.routing import VariantName, choose_variant

Ask = Callable[[Asked], Awaitable[Answered]]

PREDICT = "/v1/predict"
INFER = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")


class Forwarding:
    """ASGI middleware: `asks` has the replicas of each variant (`model/variant`) that has its own.

    A body of more than `max_bytes`, or one that takes longer than `patience_s`, is left to the app.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        asks: Mapping[str, Ask],
        catalog: Callable[[], Catalog],
        ring: KeyRing,
        max_bytes: int,
        patience_s: float,
    ) -> None:
        self._app = app
        self._asks = asks
        self._catalog = catalog
        self._ring = ring
        self._max_bytes = max_bytes
        self._patience_s = patience_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not (is_inference(scope) and self._knows_caller(scope)):
            await self._app(scope, receive, send)
            return
        read = await _read(receive, self._max_bytes, self._patience_s)
        body = b"".join(message.get("body", b"") for message in read)
        name = choose(scope, body, self._catalog()) if _is_whole(read) and len(body) <= self._max_bytes else None
        if name is None or str(name) not in self._asks:
            await self._app(scope, _replayed(read, receive), send)
            return
        asked = Asked(method=scope["method"], path=scope["path"], headers=list(scope["headers"]), body=body)
        await self._hand_on(self._asks[str(name)], asked, choose_request_id(scope["headers"]), send)

    def _knows_caller(self, scope: Scope) -> bool:
        if not self._ring.keys:
            return True
        key = sent_key(scope["headers"])
        return key is not None and self._ring.find(key) is not None

    async def _hand_on(self, ask: Ask, asked: Asked, request_id: str, send: Send) -> None:
        try:
            answered = await ask(asked)
        except OverloadError as error:
            await refuse(send, 429 if isinstance(error, QueueFullError) else 503, str(error), request_id)
        else:
            await send_answer(answered, send)


def is_inference(scope: Scope) -> bool:
    """Whether a request asks one variant."""
    return (
        scope["type"] == "http"
        and scope["method"] == "POST"
        and (scope["path"] == PREDICT or INFER.fullmatch(scope["path"]) is not None)
    )


def choose(scope: Scope, body: bytes, catalog: Catalog) -> VariantName | None:
    """The variant that an inference asks for; None where it names none that is there."""
    try:
        if scope["path"] == PREDICT:
            asked = _fields(body)
            return choose_variant(_word(asked, "model"), _word(asked, "variant"), catalog.defaults, catalog.names)
        found = INFER.fullmatch(scope["path"])
        head, _ = split_body(body, Headers(scope=scope).get(HEADER))
        parameters = _fields(head).get("parameters") if head else None
        parameter = _word(parameters, "variant") if isinstance(parameters, dict) else None
        name = read_name(found[1], found[2], catalog.names, parameter) if found else None
        return choose_variant(name.model, name.variant, catalog.defaults, catalog.names) if name else None
    except (ServiceError, ValueError):
        return None


def _fields(body: bytes) -> dict[str, object]:
    read = from_json(body)
    if isinstance(read, dict):
        return read
    raise ValueError("no object")


def _word(fields: dict[str, object], name: str) -> str | None:
    value = fields.get(name)
    if value is None or isinstance(value, str):
        return value
    raise ValueError("no word")


async def _read(receive: Receive, max_bytes: int, patience_s: float) -> list[Message]:
    messages: list[Message] = []
    left = max_bytes
    try:
        async with asyncio.timeout(patience_s):
            while left >= 0 and (not messages or messages[-1].get("more_body", False)):
                messages.append(await receive())
                left -= len(messages[-1].get("body", b""))
    except TimeoutError:
        pass  # what came so far is enough: the service here reads the rest, and says when it is late
    return messages


def _is_whole(messages: list[Message]) -> bool:
    last = messages[-1] if messages else {"type": "http.disconnect"}
    return last["type"] == "http.request" and not last.get("more_body", False)


def _replayed(messages: list[Message], receive: Receive) -> Receive:
    """What was read already, and then what comes."""
    waiting = iter(messages)

    async def replay() -> Message:
        for message in waiting:
            return message
        return await receive()

    return replay
