"""How are the requests of the soak sent, and what became of each of them?

Knows nothing about what they ask.
"""

import asyncio
import json
import re
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from benchmarks.soak.kinds import Asked, Manner, labels_of

PATIENCE_S = 120.0
RESET = struct.pack("ii", 1, 0)
HEAD = re.compile(rb"HTTP/1\.1 (\d+).*?\r\ncontent-length: (\d+)\r\n", re.IGNORECASE | re.DOTALL)


@dataclass(kw_only=True)
class Found:
    """What the clients saw; `wrong` says what must not be."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    answered: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    num_vanished: int = 0
    num_checked: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def num_requests(self) -> int:
        return self.outcomes.total()


class Client:
    """One connection, opened again whenever it was lost; asks one thing after the other."""

    def __init__(self, port: int, reference: dict[str, dict[str, str]], found: Found) -> None:
        self.port = port
        self._reference = reference
        self.found = found
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, asked: Asked) -> None:
        """Send it and note what became of it."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                outcome = await self._outcome(asked)
        except TimeoutError:
            outcome = "hang"
            self.found.wrong.append(f"{asked.kind}: no answer within {PATIENCE_S:.0f} s")
            self.close()
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            outcome = "connection lost"
            self.found.wrong.append(f"{asked.kind}: {error!r}")
            self.close()
        self.found.outcomes[asked.kind, outcome] += 1

    def close(self) -> None:
        """Leave."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None

    async def _outcome(self, asked: Asked) -> str:
        if asked.manner is Manner.VANISHES:
            return await self._vanish(asked.sent)
        if asked.manner is Manner.GARBAGE:
            return await self._garbage(asked.sent)
        status, body = await self._exchange(asked)
        self.found.answered[asked.method, asked.route, status] += 1
        if status not in asked.allowed:
            self.found.wrong.append(f"{asked.kind}: {status} {body[:300]!r}")
        elif status == 200 and asked.texts:
            self._check(asked, json.loads(body))
        elif status == 200 and asked.told and not dict(asked.told).items() <= json.loads(body).items():
            self.found.wrong.append(f"{asked.kind}: {body[:300]!r}")
        return str(status)

    async def _exchange(self, asked: Asked) -> tuple[int, bytes]:
        if self._reader is None or self._writer is None or self._reader.at_eof():
            self.close()
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)
        pieces = [asked.sent]
        if asked.manner is Manner.DRIBBLES:
            third = len(asked.sent) // 3
            pieces = [asked.sent[:third], asked.sent[third : 2 * third], asked.sent[2 * third :]]
        for piece in pieces:
            self._writer.write(piece)
            await asyncio.sleep(0.002 if len(pieces) > 1 else 0)
        head = await self._reader.readuntil(b"\r\n\r\n")
        found = HEAD.match(head)
        if found is None:
            raise ConnectionError(f"no HTTP answer: {head[:200]!r}")
        body = await self._reader.readexactly(int(found[2]))
        if b"connection: close" in head.lower():
            self.close()
        return int(found[1]), body

    async def _vanish(self, sent: bytes) -> str:
        """Send and reset the connection without reading."""
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(sent)
        await asyncio.sleep(0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        writer.close()
        self.found.num_vanished += 1
        return "vanished"

    async def _garbage(self, sent: bytes) -> str:
        """What is no HTTP is closed or told so, and never a 500."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(sent)
            writer.write_eof()
            answer = await reader.read()
        except ConnectionError:
            return "closed"
        finally:
            writer.close()
        if answer and not re.match(rb"HTTP/1\.1 4\d\d ", answer):
            self.found.wrong.append(f"garbage was answered with {answer[:100]!r}")
        return "400" if answer else "closed"

    def _check(self, asked: Asked, answer: dict[str, object]) -> None:
        expected = {name: [self._reference[name][text] for text in asked.texts] for name in asked.variants}
        self.found.num_checked += len(asked.texts) * len(asked.variants)
        if labels_of(answer) != expected:
            self.found.wrong.append(f"{asked.kind}: labels {labels_of(answer)}, expected {expected}")


async def run(clients: list[Client], asked: Iterator[Asked]) -> None:
    """Every client asks the next thing when it knows what became of its last request."""

    async def keep_asking(client: Client) -> None:
        for one in asked:
            await client.ask(one)
        client.close()

    await asyncio.gather(*(keep_asking(client) for client in clients))
