"""How do the keys in force follow their file while the service runs?

All or nothing, and beside the event loop: a file system that does not answer holds up no request. Knows nothing about
signals or HTTP.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from service.gate import Gate
from service.keys import KeyRing
from service.limits import changes
from service.metrics import KeyMetrics
from sparsebert.errors import ConfigError

log = logging.getLogger(__name__)


class KeysFile:
    """Reads it again when somebody asked for that; `path` is None where the service has none.

    Use it from the event loop. One reading at a time: who asks meanwhile is served by the next one.
    """

    def __init__(
        self,
        path: Path | None,
        read: Callable[[Path], KeyRing],
        *,
        gate: Gate,
        metrics: KeyMetrics,
        wall_clock_s: Callable[[], float],
    ) -> None:
        self._path = path
        self._read = read
        self._gate = gate
        self._metrics = metrics
        self._wall_clock_s = wall_clock_s
        self._num_served = 0
        self._reading = False
        if path is not None:
            metrics.on_read(wall_clock_s())

    def follow(self, num_asked: int) -> None:
        """So often in all it was asked to read the file again; begin to, unless that was served already."""
        if num_asked == self._num_served or self._reading:
            return
        self._num_served = num_asked
        if self._path is None:
            log.warning("there is no keys file to read again; name one with --api-keys and start the service again")
            return
        self._reading = True
        threading.Thread(
            target=self._run, args=[self._path, asyncio.get_running_loop()], name="keys", daemon=True
        ).start()

    def _run(self, path: Path, loop: asyncio.AbstractEventLoop) -> None:
        read: KeyRing | BaseException
        try:
            read = self._read(path)
        except BaseException as error:  # noqa: BLE001 - it must be told, and the next one read
            read = error
        with suppress(RuntimeError):  # the loop is closed: nobody asks any more
            loop.call_soon_threadsafe(self._end, path, read)

    def _end(self, path: Path, read: KeyRing | BaseException) -> None:
        self._reading = False
        if isinstance(read, KeyRing):
            self._take(path, read)
            return
        self._metrics.on_failed()
        unknown = None if isinstance(read, ConfigError) else read
        log.error("%s; until it is read again the former keys stay in force", read, exc_info=unknown)

    def _take(self, path: Path, ring: KeyRing) -> None:
        told = changes(self._gate.ring, ring)
        self._gate.renew(ring)
        self._metrics.on_read(self._wall_clock_s())
        log.info("the keys file %s was read again: %d in force; %s", path, len(ring.keys), told)
