"""How is a load put on an HTTP server, and when was each request answered?

Closed loop: so many kept-alive connections, each of which asks again when it has its answer. Open loop: requests
come at times that were fixed before, whatever the server does; a latency counts from that time, so that a server
that stalls is charged for everything that came meanwhile (no coordinated omission). Requests are bytes that were
made before, and answers are kept as bytes, because whoever asks shares the machine with who answers.

Knows nothing about which server it is or what the answers say.
"""

import asyncio
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import httptools
import numpy as np

LOST = 0  # the status of a request that got no answer
PAUSE_S = 0.05
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """`index` is that of the request; a lost one has status 0 and, as latency, for how long it was waited for."""

    index: int
    latency_ms: float
    status: int
    body: bytes


@dataclass(frozen=True, kw_only=True)
class Load:
    """What came back, in the order of the answers."""

    answers: list[Answer]
    took_s: float

    @property
    def latencies_ms(self) -> list[float]:
        return [answer.latency_ms for answer in self.answers]

    @property
    def per_second(self) -> float:
        return sum(answer.status == 200 for answer in self.answers) / self.took_s


def post(path: str, body: bytes) -> bytes:
    """A whole request with a JSON body."""
    return (
        b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAccept: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (path.encode(), len(body), body)
    )


def poisson_arrivals_s(per_second: float, seconds: float, seed: int) -> list[float]:
    """Times from 0 to `seconds` at which independent clients ask, `per_second` on average; the same for a seed."""
    rng = np.random.default_rng(seed)
    count = int(per_second * seconds * 2 + 100)
    times = np.cumsum(rng.exponential(1 / per_second, count))
    return [float(moment) for moment in times if moment < seconds]


def run_precisely(work: Coroutine[Any, Any, Result]) -> Result:
    """Run in an event loop whose timers are good to the microsecond; others round up to a millisecond."""
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        return runner.run(work)


class _Reader:
    """Collects one answer after the other."""

    def __init__(self) -> None:
        self.complete = False
        self.parts: list[bytes] = []
        self.parser = httptools.HttpResponseParser(self)

    def on_message_begin(self) -> None:
        self.complete, self.parts = False, []

    def on_body(self, body: bytes) -> None:
        self.parts.append(body)

    def on_message_complete(self) -> None:
        self.complete = True


class _Connection(asyncio.Protocol):
    def __init__(self, on_answer: Callable[["_Connection", int, bytes], None]) -> None:
        self.index, self.since_s = -1, 0.0
        self.waiting = self.closed = False
        self._on_answer = on_answer
        self._reader = _Reader()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def ask(self, request: bytes, index: int, since_s: float) -> None:
        assert self._transport is not None
        self.index, self.since_s, self.waiting = index, since_s, True
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._reader.parser.feed_data(data)
        if self._reader.complete and self.waiting:
            self.waiting = False
            self._on_answer(self, self._reader.parser.get_status_code(), b"".join(self._reader.parts))

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        if self.waiting:
            self.waiting = False
            self._on_answer(self, LOST, f"connection lost ({error})".encode())

    def close(self) -> None:
        self.waiting = False
        if self._transport is not None:
            self._transport.abort()


class _Loop:
    """What both loops share: connections, answers, and that every request has an end."""

    def __init__(self, port: int, requests: Sequence[bytes], max_connections: int) -> None:
        self.answers: list[Answer] = []
        self.connections: list[_Connection] = []
        self._port, self._requests, self._max_connections = port, requests, max_connections
        self._next = 0
        self._done = asyncio.Event()

    async def connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: _Connection(self._answered), "127.0.0.1", self._port)
        self.connections.append(connection)
        return connection

    def _send(self, connection: _Connection, since_s: float) -> None:
        index = self._next % len(self._requests)
        self._next += 1
        connection.ask(self._requests[index], index, since_s)

    def _answered(self, connection: _Connection, status: int, body: bytes) -> None:
        self._note(connection.index, connection.since_s, status, body)
        self._go_on(connection)

    def _note(self, index: int, since_s: float, status: int, body: bytes) -> None:
        latency_ms = (time.perf_counter() - since_s) * 1000
        self.answers.append(Answer(index=index, latency_ms=latency_ms, status=status, body=body))

    def _go_on(self, connection: _Connection) -> None:
        raise NotImplementedError

    async def finish(self, until_s: float, grace_s: float) -> None:
        """Wait for what is still asked; what has no answer then is lost."""
        try:
            await asyncio.wait_for(self._done.wait(), max(0.0, until_s + grace_s - time.perf_counter()))
        except TimeoutError:
            for connection in self.connections:
                if connection.waiting:
                    self._note(connection.index, connection.since_s, LOST, b"no answer")
        for connection in self.connections:
            connection.close()


class _ClosedLoop(_Loop):
    def __init__(self, port: int, requests: Sequence[bytes], connections: int, until_s: float) -> None:
        super().__init__(port, requests, connections)
        self._until_s = until_s
        self._num_open = connections
        self._tasks: set[asyncio.Task[None]] = set()

    def _go_on(self, connection: _Connection) -> None:
        if time.perf_counter() >= self._until_s:
            self._num_open -= 1
            if self._num_open == 0:
                self._done.set()
        elif connection.closed:
            task = asyncio.get_running_loop().create_task(self._replace())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._send(connection, time.perf_counter())

    async def _replace(self) -> None:
        await asyncio.sleep(PAUSE_S)
        self._go_on(await self.connect())


class _OpenLoop(_Loop):
    def __init__(self, port: int, requests: Sequence[bytes], times_s: Sequence[float], max_connections: int) -> None:
        super().__init__(port, requests, max_connections)
        self._times_s = deque(times_s)
        self._late: deque[float] = deque()
        self._idle: list[_Connection] = []
        self._num_opening = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._num_wanted = len(times_s)

    def tick(self) -> None:
        """Ask what is due, and come back when the next one is."""
        now_s = time.perf_counter()
        while self._times_s and self._times_s[0] <= now_s:
            self._late.append(self._times_s.popleft())
        self._serve()
        if self._times_s:
            asyncio.get_running_loop().call_later(max(0.0, self._times_s[0] - time.perf_counter()), self.tick)

    def _serve(self) -> None:
        while self._late and self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                self._send(connection, self._late.popleft())
        if not self._late:
            return
        open_now = sum(not connection.closed for connection in self.connections) + self._num_opening
        if len(self._late) > self._num_opening and open_now < self._max_connections:
            self._num_opening += 1
            task = asyncio.get_running_loop().create_task(self.add())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def add(self) -> None:
        try:
            self._idle.append(await self.connect())
        finally:
            self._num_opening = max(0, self._num_opening - 1)
        self._serve()

    def _go_on(self, connection: _Connection) -> None:
        if len(self.answers) == self._num_wanted:
            self._done.set()
        if not connection.closed:
            self._idle.append(connection)
        self._serve()

    def give_up(self) -> None:
        """What was never asked, because no connection was free, is lost too."""
        for since_s in [*self._late, *self._times_s]:
            self._note(self._next % len(self._requests), since_s, LOST, b"never asked")
            self._next += 1


async def closed_loop(
    port: int, requests: Sequence[bytes], connections: int, seconds: float, grace_s: float = 20.0
) -> Load:
    """All connections walk through `requests` together, again and again."""
    began_s = time.perf_counter()
    loop = _ClosedLoop(port, requests, connections, began_s + seconds)
    opened = await asyncio.gather(*(loop.connect() for _ in range(connections)))
    for connection in opened:
        loop._send(connection, time.perf_counter())  # noqa: SLF001
    await loop.finish(began_s + seconds, grace_s)
    return Load(answers=loop.answers, took_s=time.perf_counter() - began_s)


async def open_loop(
    port: int, requests: Sequence[bytes], arrivals_s: Sequence[float], *, max_connections: int = 128, grace_s: float = 5.0
) -> Load:
    """One request at each of `arrivals_s`; what finds no free connection waits for one, and the wait counts."""
    began_s = time.perf_counter() + PAUSE_S
    loop = _OpenLoop(port, requests, [began_s + moment for moment in arrivals_s], max_connections)
    await asyncio.gather(*(loop.add() for _ in range(min(16, max_connections))))
    loop.tick()
    await loop.finish(began_s + arrivals_s[-1], grace_s)
    loop.give_up()
    return Load(answers=loop.answers, took_s=time.perf_counter() - began_s)


class OneConnection:
    """Asks and waits, with as little around it as Python allows."""

    def __init__(self, port: int, timeout_s: float = 60.0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = _Reader()

    def ask(self, request: bytes, index: int) -> Answer:
        began_s = time.perf_counter()
        self._reader.complete = False
        self._socket.sendall(request)
        while not self._reader.complete:
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionError("the server closed the connection")
            self._reader.parser.feed_data(data)
        latency_ms = (time.perf_counter() - began_s) * 1000
        body = b"".join(self._reader.parts)
        return Answer(index=index, latency_ms=latency_ms, status=self._reader.parser.get_status_code(), body=body)

    def close(self) -> None:
        self._socket.close()
