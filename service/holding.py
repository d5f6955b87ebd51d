"""How many bytes may the bodies of all requests together have while they come in and until they are answered?

One body is bounded by `--max-body-bytes`; many connections that send a large one each would fill the memory all the
same. The first bytes of each count for nothing, so that large bodies do not keep a single text out. Knows nothing about
what is in them.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import QueueFullError

FREE_BYTES = 4096
# So many bodies of the largest size.
LARGEST_BODIES = 64


class Room:
    """Room for so many bytes."""

    def __init__(self, max_bytes: int) -> None:
        self.held_bytes = 0
        self._max_bytes = max_bytes

    def take(self, num_bytes: int) -> None:
        """Raises QueueFullError, and takes nothing, when there is no room for them."""
        if self.held_bytes + num_bytes > self._max_bytes:
            raise QueueFullError(
                f"the bodies of other requests hold {self.held_bytes} bytes (limit {self._max_bytes}, "
                f"{LARGEST_BODIES} times --max-body-bytes); try again later, or send fewer texts at a time"
            )
        self.held_bytes += num_bytes

    def give_back(self, num_bytes: int) -> None:
        self.held_bytes -= num_bytes


class HeldBodies:
    """ASGI middleware: whoever reads a body takes room for it, which is given back when its request has ended."""

    def __init__(self, app: ASGIApp, room: Room) -> None:
        self._app = app
        self._room = room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        came, taken = 0, 0

        async def receive_counted() -> Message:
            nonlocal came, taken
            message = await receive()
            came += len(message.get("body", b""))
            if came > FREE_BYTES + taken:
                more = came - FREE_BYTES - taken
                self._room.take(more)
                taken += more
            return message

        try:
            await self._app(scope, receive_counted, send)
        finally:
            self._room.give_back(taken)
