"""Coroutines that are begun by hand end as if a task had run them."""

import asyncio

import pytest

from service.stepping import Done, Waiting, begin


async def at_once() -> str:
    return "value"


async def after(event: asyncio.Event) -> str:
    await event.wait()
    await event.wait()
    await asyncio.sleep(0)
    return "value"


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_a_value_that_is_there_needs_no_waiting() -> None:
    assert begin(at_once()) == Done("value")


def test_what_it_raises_before_its_first_wait_is_raised() -> None:
    async def fails() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError, match="x"):
        begin(fails())


def test_the_rest_gives_the_value_in_the_end() -> None:
    async def run() -> str:
        event = asyncio.Event()
        waiting = begin(after(event))
        assert isinstance(waiting, Waiting)
        asyncio.get_running_loop().call_soon(event.set)
        return await waiting.rest()

    assert asyncio.run(run()) == "value"


def test_a_cancelled_rest_ends_the_coroutine() -> None:
    ended = []

    async def run() -> None:
        async def waits() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(True)

        waiting = begin(waits())
        assert isinstance(waiting, Waiting)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await waiting.rest()

    asyncio.run(run())
    assert ended == [True]


@pytest.mark.parametrize("future", [True, False])
def test_a_watch_tells_once_and_a_given_up_one_never(future: bool) -> None:
    async def run() -> list[str]:
        told, event = [], asyncio.Event()

        async def bare() -> None:
            if not future:
                await asyncio.sleep(0)  # waits for no future, as other event loops' coroutines do
            await event.wait()

        first, second, late = (begin(bare()) for _ in range(3))
        assert isinstance(first, Waiting)
        assert isinstance(second, Waiting)
        assert isinstance(late, Waiting)
        first.watch(lambda: told.append("first"))
        give_up = second.watch(lambda: told.append("second"))
        give_up_late = late.watch(lambda: told.append("late"))
        await turns(2)
        give_up()
        event.set()
        give_up_late()
        await turns(5)
        return told

    assert asyncio.run(run()) == ["first"]
