"""How much memory does this process hold, and how is what it no longer needs given back?

Knows nothing about models.
"""

import ctypes
import gc
import sys
import threading
import weakref
from collections.abc import Iterable

import psutil

# Python's own 700 means a look for garbage at every third request; it is reference counts that free nearly all.
NEW_OBJECTS = 10_000
# A worker or a request that is done drops at once what it held; a batch that was stopped ends a little later.
PAUSES_S = (0.1, 0.4, 1.5, 3.0)


def resident_bytes() -> int:
    """Resident memory of this process."""
    return int(psutil.Process().memory_info().rss)


def give_back_freed() -> None:
    """Hand freed heap pages to the operating system; glibc keeps them otherwise."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none and needs none
        if trim is not None:
            trim(0)


def keep_from_collection() -> None:
    """Call when all is loaded: the collector never again walks what lives as long as the process."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, *gc.get_threshold()[1:])


def collect_all() -> None:
    """Look for circles also among what was kept from collection."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


class Leaving:
    """Things that nobody should need any more; holds none of them."""

    def __init__(self, *things: object) -> None:
        self._gone = threading.Event()
        self._watches = {weakref.ref(thing, self._forget) for thing in things}

    def give_back(self, pauses_s: Iterable[float] = PAUSES_S) -> bool:
        """Give their memory back; false when somebody still holds one of them after all the pauses. Blocks."""
        for pause_s in pauses_s:
            if self._gone.wait(pause_s):
                break
            # A batch that failed is a circle: its error holds the frames that hold it. To look for circles stops all
            # threads, so it is done only when there may be one.
            collect_all()
        give_back_freed()
        return self._gone.is_set()

    def _forget(self, watch: weakref.ref[object]) -> None:
        self._watches.discard(watch)
        if not self._watches:
            self._gone.set()
