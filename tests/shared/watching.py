"""How does a test wait for what another thread or process does, and not for ever?"""

import time
from collections.abc import Callable

PATIENCE_S = 60.0


def wait_until(condition: Callable[[], bool]) -> None:
    """Until it holds; fails when it does not within a minute."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, "what was waited for did not come"
