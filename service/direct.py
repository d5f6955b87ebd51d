"""How do the routes that are asked all day get their requests without the framework in between?

FastAPI describes them and knows their paths; what it would do for each request (matching, dependencies, exit
stacks) they do not use. Knows nothing about models.
"""

from collections.abc import Awaitable, Callable, Iterable

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import ServiceError

Refuse = Callable[[Request, ServiceError], Awaitable[Response]]


class DirectRoutes:
    """ASGI middleware: calls the endpoints of `routes`, which take the request and give a response, by exact path."""

    def __init__(self, app: ASGIApp, *, routes: Iterable[APIRoute], refuse: Refuse) -> None:
        self._app = app
        self._routes = {(method, route.path): route for route in routes for method in route.methods or ()}
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if route is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = route
        request = Request(scope, receive, send)
        try:
            response = await route.endpoint(request)
        except ServiceError as error:
            response = await self._refuse(request, error)
        await response(scope, receive, send)
