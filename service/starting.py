"""`sparsebert serve`, before all that takes long to import: may SIGHUP end it?

Who changes keys while a service with keys starts sends it SIGHUP; what it will read is the changed file, so it has
nothing to do. Imports nothing that takes long, and knows nothing about what is served.
"""

import os
import signal
from collections.abc import Mapping, Sequence
from types import FrameType

from service.hangups import on_hangup

FLAG, VARIABLE = "--api-keys", "SPARSEBERT_API_KEYS"


def main(arguments: Sequence[str]) -> None:
    """Serve. Raises what `service.cli.main` raises; with keys SIGHUP means nothing to the process afterwards."""
    with_keys = names_keys(arguments, os.environ)
    if with_keys:
        on_hangup(_pass_over)
    try:
        from service import cli  # takes a second on a small box

        cli.main(arguments)
    finally:
        if with_keys:
            on_hangup(signal.SIG_IGN)  # Python puts back at its end what a function handled, and then it would end it


def names_keys(arguments: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Whether a keys file is named; the last flag goes first, as it does when all is read."""
    named = {name.upper(): value for name, value in environment.items()}.get(VARIABLE, "")
    for word, after in zip(arguments, [*arguments[1:], ""], strict=False):
        flag, equals, value = word.partition("=")
        if flag == FLAG:
            named = value if equals else after
    return bool(named)


def _pass_over(number: int, frame: FrameType | None) -> None:
    del number, frame
