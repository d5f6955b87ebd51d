"""What does a client see when Ray, and not a replica, ends its request?

Ray's proxy answers a request whose replica died with a bare 500, as if asking again were of no use. This stands
around the proxy and tells it as the service does. Ray finds `middlewares` through the environment variable in
PROXY_ENVIRONMENT, which must be set where proxies run.
"""

from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.cluster.refusing import BUSY, LOST, NONE_THERE, refuse
from service.headers import API_HEADERS
from service.ledger import REQUEST_ID_HEADER, choose_request_id

PROXY_ENVIRONMENT = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "service.cluster.proxy:middlewares"}
LATE = "no replica answered in time; send fewer texts at a time, or have --request-timeout-s raised"
# Ray's status to ours.
TOLD: dict[int, tuple[int, str]] = {408: (504, LATE), 429: (429, BUSY), 503: (503, NONE_THERE)}
# Paths that Ray answers itself.
OWN = "/-/"


class Retriable:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(OWN):
            await self._app(scope, receive, send)
            return
        request_id, begun, replaced = choose_request_id(scope["headers"]), False, False
        # Ray tells the id that it finds, whatever it is.
        MutableHeaders(scope=scope)[REQUEST_ID_HEADER.decode()] = request_id

        async def pass_on(message: Message) -> None:
            nonlocal begun, replaced
            if message["type"] == "http.response.start":
                begun, replaced = True, message["status"] in TOLD and not _is_ours(message)
                if replaced:
                    await refuse(send, *TOLD[message["status"]], request_id)
            if not replaced:
                await send(message)

        await self._app(scope, receive, pass_on)
        if not begun:
            await refuse(send, 503, LOST, request_id)


def middlewares() -> list[Middleware]:
    """What Ray puts around its proxy."""
    return [Middleware(Retriable)]


def _is_ours(message: Message) -> bool:
    return API_HEADERS[0] in [(bytes(name), bytes(value)) for name, value in message["headers"]]
