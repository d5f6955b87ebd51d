"""Does somebody still use this? Counts in one event loop; knows nothing about what is used."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Lease:
    """How many use a thing now; `ended` returns when nobody does."""

    def __init__(self) -> None:
        self.num_held = 0
        self._nobody = asyncio.Event()
        self._nobody.set()

    def take(self) -> None:
        """One more uses it."""
        if self.num_held == 0:
            self._nobody.clear()
        self.num_held += 1

    def give_back(self) -> None:
        """One less uses it."""
        self.num_held -= 1
        if self.num_held == 0:
            self._nobody.set()

    @contextmanager
    def held(self) -> Iterator[None]:
        """The block uses it."""
        self.take()
        try:
            yield
        finally:
            self.give_back()

    async def ended(self) -> None:
        """Returns when nobody uses it; call when nobody can begin to."""
        await self._nobody.wait()
