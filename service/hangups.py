"""What does SIGHUP do where there are keys to read again? It is counted, and nothing else: a signal is handled in the
midst of anything.

Without keys it does what it does to every program: the end of a terminal is the end of what runs in it. Knows nothing
about what is read again on it.
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


def on_hangup(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    """From now on SIGHUP calls this, where there is such a signal, and does not end the process."""
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, handler)
