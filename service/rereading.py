"""How do the keys in force follow their file while the service runs?

All or nothing, and beside the event loop: a file system that does not answer holds up no request. Knows nothing about
signals or HTTP.
"""

import asyncio
import logging
import math
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from service.gate import Gate
from service.keys import KeyRing
from service.limits import changes
from service.metrics import KeyMetrics
from sparsebert.errors import ConfigError

log = logging.getLogger(__name__)

SLOW_S = 5
# Who asks while so many hang is served when one of them came back.
MAX_UNDER_WAY = 8


class KeysFile:
    """Reads it again when somebody asked for that; `num_asked` tells how often in all it was.

    Use it from the event loop. Readings have the numbers of who asked for them: one that hangs holds up no newer one,
    and what it brings after that is passed over.
    """

    def __init__(
        self,
        path: Path,
        read: Callable[[Path], KeyRing],
        *,
        gate: Gate,
        metrics: KeyMetrics,
        num_asked: Callable[[], int],
        clock_s: Callable[[], float],
        wall_clock_s: Callable[[], float],
    ) -> None:
        self._path = path
        self._read = read
        self._gate = gate
        self._metrics = metrics
        self._num_asked = num_asked
        self._clock_s = clock_s
        self._wall_clock_s = wall_clock_s
        self._num_begun = 0
        self._num_ended = 0
        self._num_in_force = 0
        self._num_put_off = 0
        self._num_under_way = 0
        self._slow_at_s = math.inf
        metrics.on_read(gate.ring.read_at_s)
        metrics.watch(lambda: num_asked() == self._num_in_force)

    def follow(self) -> None:
        """Begin to read the file again where that was asked for and not begun; call it now and then."""
        number = self._num_asked()
        if number != self._num_begun:
            if self._num_under_way < MAX_UNDER_WAY:
                self._begin(number)
            else:
                self._put_off(
                    number, f"{MAX_UNDER_WAY} readings are under way; where they hang, look at its file system"
                )
        if self._clock_s() >= self._slow_at_s:
            self._slow_at_s = math.inf
            log.error(
                "reading the keys file %s takes more than %d s: look at its file system, then send SIGHUP again; until "
                "it is read again the former keys stay in force",
                self._path,
                SLOW_S,
            )

    def _begin(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        thread = threading.Thread(target=self._run, args=[number, loop], name="keys", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # as many run as may
            self._put_off(number, f"{error}; let the service have more threads")
            return
        self._num_begun = number
        self._num_under_way += 1
        self._slow_at_s = self._clock_s() + SLOW_S

    def _put_off(self, number: int, reason: str) -> None:
        """Tell it once; it is begun when it can be."""
        if number == self._num_put_off:
            return
        self._num_put_off = number
        log.error(
            "the keys file %s is not read again yet (%s); that is tried until it can be, or restart the service; "
            "until then the former keys stay in force",
            self._path,
            reason,
        )

    def _run(self, number: int, loop: asyncio.AbstractEventLoop) -> None:
        read: KeyRing | BaseException
        begun_s = self._wall_clock_s()  # what is written from now on may not be in it
        try:
            read = replace(self._read(self._path), read_at_s=begun_s)
        except BaseException as error:  # noqa: BLE001 - it must be told, and the next one read
            read = error
        with suppress(RuntimeError):  # the loop is closed: nobody asks any more
            loop.call_soon_threadsafe(self._end, number, read)

    def _end(self, number: int, read: KeyRing | BaseException) -> None:
        self._num_under_way -= 1
        if number < self._num_ended:
            log.warning("a reading of the keys file %s came back after a newer one, and is passed over", self._path)
            return
        self._num_ended = number
        if number == self._num_begun:
            self._slow_at_s = math.inf
        if isinstance(read, KeyRing):
            self._num_in_force = number
            self._take(read)
            return
        unknown = None if isinstance(read, ConfigError) else read
        log.error("%s; until it is read again the former keys stay in force", read, exc_info=unknown)

    def _take(self, ring: KeyRing) -> None:
        told = changes(self._gate.ring, ring)
        self._gate.renew(ring)
        self._metrics.on_read(ring.read_at_s)
        log.info("the keys file %s was read again: %d in force; %s", self._path, len(ring.keys), told)
