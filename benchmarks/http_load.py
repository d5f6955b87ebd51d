"""How is a load put on an HTTP server, and when was each request answered?

Closed loop: so many kept-alive connections, each of which asks again when it has its answer. Open loop: requests
come at times that were fixed before, whatever the server does; a latency counts from that time, so that a server
that stalls is charged for everything that came meanwhile (no coordinated omission). Requests are bytes that were
made before, and answers are kept as bytes, because whoever asks shares the machine with who answers.

Knows nothing about which server it is or what the answers say.
"""

import asyncio
import selectors
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from benchmarks.http_connections import LOST, CallingConnection

PAUSE_S = 0.05
FIRST_CONNECTIONS = 16
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Of request `index`, `at_s` after the load began; a lost one has status 0 and the time that it was waited for."""

    index: int
    at_s: float
    latency_ms: float
    status: int
    body: bytes


@dataclass(frozen=True, kw_only=True)
class Load:
    """What came back, in the order of the answers; the load lasted `window_s`, the last answers came later."""

    answers: Sequence[Answer]
    window_s: float

    @property
    def latencies_ms(self) -> list[float]:
        return [answer.latency_ms for answer in self.answers]

    @property
    def per_second(self) -> float:
        """Good answers while the load lasted."""
        return sum(answer.status == 200 and answer.at_s <= self.window_s for answer in self.answers) / self.window_s


def poisson_arrivals_s(per_second: float, seconds: float, seed: int) -> list[float]:
    """Times from 0 to `seconds` at which independent clients ask, `per_second` on average; the same for a seed."""
    rng = np.random.default_rng(seed)
    count = rng.poisson(per_second * seconds)
    return sorted(rng.uniform(0, seconds, count).tolist())


def run_precisely(work: Coroutine[Any, Any, Result]) -> Result:
    """Run in an event loop whose timers are good to the microsecond; others round up to a millisecond."""
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        return runner.run(work)


async def closed_loop(
    port: int, requests: Sequence[bytes], connections: int, seconds: float, *, grace_s: float = 20.0
) -> Load:
    """All connections walk through `requests` together, again and again."""
    loop = _ClosedLoop(port, requests)
    opened = await asyncio.gather(*(loop.connect() for _ in range(connections)))
    await loop.run(opened, seconds, grace_s)
    return Load(answers=loop.answers, window_s=seconds)


async def open_loop(
    port: int,
    requests: Sequence[bytes],
    arrivals_s: Sequence[float],
    *,
    max_connections: int = 128,
    grace_s: float = 5.0,
) -> Load:
    """One request at each of `arrivals_s`; what finds no free connection waits for one, and the wait counts."""
    if not arrivals_s:
        raise ValueError("an open loop needs a request at least")
    loop = _OpenLoop(port, requests, arrivals_s, max_connections)
    await asyncio.gather(*(loop.connect_idle() for _ in range(min(FIRST_CONNECTIONS, max_connections))))
    await loop.run(grace_s)
    return Load(answers=loop.answers, window_s=arrivals_s[-1])


class _Loop(ABC):
    """What both loops share: connections, answers, and that every request has an end."""

    def __init__(self, port: int, requests: Sequence[bytes]) -> None:
        self.answers: list[Answer] = []
        self._port, self._requests = port, requests
        self._connections: list[CallingConnection] = []
        self._began_s = 0.0
        self._next = 0
        self._done = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def connect(self) -> CallingConnection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: CallingConnection(self._answered), "127.0.0.1", self._port)
        self._connections.append(connection)
        return connection

    @abstractmethod
    def _go_on(self, connection: CallingConnection) -> None:
        """The connection has nothing to do."""

    def _send(self, connection: CallingConnection, since_s: float) -> None:
        index = self._next % len(self._requests)
        self._next += 1
        connection.ask(self._requests[index], index, since_s)

    def _answered(self, connection: CallingConnection, status: int, body: bytes) -> None:
        self._note(connection.index, connection.since_s, status, body)
        self._go_on(connection)

    def _note(self, index: int, since_s: float, status: int, body: bytes) -> None:
        now_s = time.perf_counter()
        latency_ms, at_s = (now_s - since_s) * 1000, now_s - self._began_s
        self.answers.append(Answer(index=index, at_s=at_s, latency_ms=latency_ms, status=status, body=body))

    def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _finish(self, seconds: float, grace_s: float) -> None:
        """Wait for what is still asked; what has no answer then is lost."""
        try:
            await asyncio.wait_for(self._done.wait(), seconds + grace_s)
        except TimeoutError:
            for connection in self._connections:
                if connection.waiting:
                    self._note(connection.index, connection.since_s, LOST, b"no answer")
        for connection in self._connections:
            connection.close()


class _ClosedLoop(_Loop):
    async def run(self, connections: Sequence[CallingConnection], seconds: float, grace_s: float) -> None:
        self._began_s = time.perf_counter()
        self._until_s, self._num_open = self._began_s + seconds, len(connections)
        for connection in connections:
            self._send(connection, time.perf_counter())
        await self._finish(seconds, grace_s)

    def _go_on(self, connection: CallingConnection) -> None:
        now_s = time.perf_counter()
        if now_s >= self._until_s:
            self._num_open -= 1
            if self._num_open == 0:
                self._done.set()
        elif connection.closed:
            self._beside(self._replace())
        else:
            self._send(connection, now_s)

    async def _replace(self) -> None:
        await asyncio.sleep(PAUSE_S)
        self._go_on(await self.connect())


class _OpenLoop(_Loop):
    def __init__(self, port: int, requests: Sequence[bytes], arrivals_s: Sequence[float], most: int) -> None:
        super().__init__(port, requests)
        self._arrivals_s, self._most, self._num_wanted = deque(arrivals_s), most, len(arrivals_s)
        self._due_s: deque[float] = deque()
        self._idle: list[CallingConnection] = []
        self._opening = False

    async def run(self, grace_s: float) -> None:
        self._began_s = time.perf_counter() + PAUSE_S
        self._tick()
        await self._finish(PAUSE_S + self._arrivals_s[-1] if self._arrivals_s else 0.0, grace_s)
        for since_s in self._due_s:
            self._note(self._next % len(self._requests), since_s, LOST, b"no connection was free")
            self._next += 1

    async def connect_idle(self) -> None:
        self._idle.append(await self.connect())

    def _tick(self) -> None:
        """Ask what is due, and come back when the next one is."""
        passed_s = time.perf_counter() - self._began_s
        while self._arrivals_s and self._arrivals_s[0] <= passed_s:
            self._due_s.append(self._began_s + self._arrivals_s.popleft())
        self._serve()
        if self._arrivals_s:
            wait_s = self._began_s + self._arrivals_s[0] - time.perf_counter()
            asyncio.get_running_loop().call_later(max(0.0, wait_s), self._tick)

    def _serve(self) -> None:
        while self._due_s and self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                self._send(connection, self._due_s.popleft())
        if self._due_s and not self._opening:
            self._opening = True
            self._beside(self._open_more())

    async def _open_more(self) -> None:
        try:
            while self._due_s and sum(not one.closed for one in self._connections) < self._most:
                await self.connect_idle()
                self._serve()
        finally:
            self._opening = False

    def _go_on(self, connection: CallingConnection) -> None:
        if len(self.answers) == self._num_wanted:
            self._done.set()
        if not connection.closed:
            self._idle.append(connection)
        self._serve()
