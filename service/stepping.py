"""How is a coroutine begun without a task, which it needs only when it has to wait?

Knows nothing about requests.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from types import coroutine
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


@dataclass(frozen=True)
class Done(Generic[Value]):
    """It gave its value without waiting."""

    value: Value


@dataclass(frozen=True, eq=False)
class Waiting(Generic[Value]):
    """It waits for `awaited`; use one of the two methods, once."""

    begun: Coroutine[Any, Any, Value]
    awaited: Any

    async def rest(self) -> Value:
        """What it gives in the end."""
        return await _resumed(self.begun, self.awaited)

    def watch(self, on_end: Callable[[], None]) -> Callable[[], None]:
        """Call `on_end` in the event loop when it waits no longer; call what this returns to give it up."""
        task = None if asyncio.isfuture(self.awaited) else asyncio.ensure_future(self.rest())
        future = task or self.awaited
        given_up = False

        def tell(_: object) -> None:
            if not given_up:
                on_end()

        def give_up() -> None:
            nonlocal given_up
            given_up = True  # it may be on its way already
            future.remove_done_callback(tell)
            if task is None:
                self.begun.close()
            else:
                task.cancel()

        future.add_done_callback(tell)
        return give_up


def begin(begun: Coroutine[Any, Any, Value]) -> Done[Value] | Waiting[Value]:
    """Run it up to its first wait. Raises what it raises."""
    try:
        return Waiting(begun, begun.send(None))
    except StopIteration as end:
        return Done(end.value)


@coroutine
def _resumed(begun: Coroutine[Any, Any, Value], awaited: Any) -> Generator[Any, Any, Value]:
    try:
        yield awaited
    except BaseException as error:
        begun.throw(error)
        raise
    value: Value = yield from begun
    return value
