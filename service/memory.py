"""How much memory does this process hold, and how is what it no longer needs given back?

Knows nothing about models.
"""

import ctypes
import gc
import sys

import psutil

# Python's own 700 means a look for garbage at every third request; it is reference counts that free nearly all.
NEW_OBJECTS = 10_000


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
