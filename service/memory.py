"""How much memory does this process hold, and how is what it no longer needs given back?

Knows nothing about models.
"""

import ctypes
import gc
import sys
import threading
import weakref

import psutil


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
        self._gone = threading.Semaphore(0)
        self._watches = [weakref.ref(thing, lambda _: self._gone.release()) for thing in things]

    def give_back(self, timeout_s: float) -> bool:
        """Give their memory back; whether that is done within the time, or somebody holds one of them. Blocks."""
        gc.collect()  # a batch that failed is a circle: its error holds the frames that hold it
        gone = all(self._gone.acquire(timeout=timeout_s) for _ in self._watches)
        give_back_freed()
        return gone
