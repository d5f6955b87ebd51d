"""When is a request sent again?

A question has no effect, so sending one twice is harmless: it is sent again when the connection breaks, and on 429,
502 and 503, after what Retry-After says or else ever longer. A change is sent again only when it cannot have been
made: no connection was to be had, or the service says with 429 or 503 that it did not begin. No other refusal is
tried again, no request whose time is up, and none whose Retry-After says more than LONGEST_WAIT_S: who asks hears of
that at once. Knows nothing about what is asked.
"""

from collections.abc import Sequence
from functools import partial

import httpx
from httpx_retries import Retry

RETRIED_STATUSES = (429, 502, 503)
RETRIED_ERRORS = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout)
# Of a change: a proxy's 502 does not say whether it was made.
UNTOUCHED_STATUSES = (429, 503)
UNTOUCHED_ERRORS = (httpx.ConnectError, httpx.ConnectTimeout)
BACKOFF_S = 0.1
LONGEST_WAIT_S = 10.0


class _AskAgainError(Exception):
    """An answer that is worth another try."""


class _Patience(Retry):
    """Looks at the headers of a refusal too, which the library judges by its status alone."""

    def is_retryable_status_code(self, status_code: int) -> bool:
        del status_code  # `_judge` does, which sees the whole answer
        return False


def retrying(retries: int) -> Retry:
    """When a question is sent again; at most `retries` times."""
    return _retry(retries, RETRIED_STATUSES, RETRIED_ERRORS)


def retrying_change(retries: int) -> Retry:
    """When a change is sent again; at most `retries` times."""
    return _retry(retries, UNTOUCHED_STATUSES, UNTOUCHED_ERRORS)


def retry_after_s(response: httpx.Response) -> float | None:
    """What an answer says of when to ask again, if anything that can be read."""
    told = response.headers.get("retry-after")
    try:
        return None if told is None else Retry().parse_retry_after(told)
    except ValueError:
        return None


def _retry(retries: int, statuses: Sequence[int], errors: Sequence[type[Exception]]) -> Retry:
    return _Patience(
        total=retries,
        allowed_methods=("GET", "POST"),
        retry_on_exceptions=(*errors, _AskAgainError),
        backoff_factor=BACKOFF_S,
        max_backoff_wait=LONGEST_WAIT_S,
        validate_response=partial(_judge, statuses),
    )


def _judge(statuses: Sequence[int], response: httpx.Response) -> None:
    if response.status_code in statuses and (retry_after_s(response) or 0.0) <= LONGEST_WAIT_S:
        raise _AskAgainError
