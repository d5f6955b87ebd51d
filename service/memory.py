"""How much memory does this process hold, and how is what it no longer needs given back?

Knows nothing about models.
"""

import ctypes
import gc
import sys
import threading
import weakref

import psutil

# In this time a worker or a request that is done drops what it held.
AT_ONCE_S = 0.1


def resident_bytes() -> int:
    """Resident memory of this process."""
    return int(psutil.Process().memory_info().rss)


def give_back_freed() -> None:
    """Hand freed heap pages to the operating system; glibc keeps them otherwise."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none and needs none
        if trim is not None:
            trim(0)


class Leaving:
    """Things that nobody should need any more; holds none of them."""

    def __init__(self, *things: object) -> None:
        self._gone = threading.Event()
        self._watches = {weakref.ref(thing, self._forget) for thing in things}

    def give_back(self, timeout_s: float) -> bool:
        """Give their memory back; whether that is done within the time, or somebody holds one of them. Blocks."""
        # A batch that failed is a circle: its error holds the frames that hold it. To look for circles stops all
        # threads, so it is done only when there must be one.
        if not self._gone.wait(min(timeout_s, AT_ONCE_S)):
            gc.collect()
        gone = self._gone.wait(timeout_s)
        give_back_freed()
        return gone

    def _forget(self, watch: weakref.ref[object]) -> None:
        self._watches.discard(watch)
        if not self._watches:
            self._gone.set()
