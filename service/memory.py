"""How much memory does this process hold, and how is what it no longer needs given back?

Knows nothing about models.
"""

import ctypes
import sys

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
