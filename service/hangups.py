"""What does SIGHUP do? It is counted, and nothing else: a signal is handled in the midst of anything.

Knows nothing about what is read again on it.
"""

import signal
from collections.abc import Callable
from types import FrameType


class Hangups:
    """How often it came."""

    num = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.num += 1


def on_hangup(handler: Callable[[int, FrameType | None], None]) -> None:
    """From now on SIGHUP calls this, where there is such a signal; nobody's would end the process."""
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, handler)
