"""Which status and which headers does each error get, and what is said of it?

The only place where an error meets a status code. Knows nothing about who asked what.
"""

import logging
from collections.abc import Mapping

from pydantic_core import to_json

from service.counted import Rejection
from service.errors import (
    STOPPING,
    BodyTooLargeError,
    ClientGoneError,
    DrainingError,
    EngineError,
    ForbiddenError,
    LoadError,
    MalformedError,
    NotEnabledError,
    NotReadyError,
    OverloadError,
    QueueFullError,
    RateLimitedError,
    RequestTimeoutError,
    ServiceError,
    TooLongError,
    TooManyError,
    UnauthenticatedError,
    UnknownVariantError,
)
from service.exchange import JSON_TYPE, Reply
from sparsebert.answers import ErrorAnswer

log = logging.getLogger(__name__)

ERROR_STATUS: dict[type[ServiceError], int] = {
    MalformedError: 400,
    UnauthenticatedError: 401,
    ForbiddenError: 403,
    NotEnabledError: 403,
    UnknownVariantError: 404,
    LoadError: 409,
    BodyTooLargeError: 413,
    TooLongError: 422,
    TooManyError: 422,
    QueueFullError: 429,
    RateLimitedError: 429,
    ClientGoneError: 499,
    EngineError: 500,
    NotReadyError: 503,
    DrainingError: 503,
    RequestTimeoutError: 504,
}
REJECTIONS: dict[type[ServiceError], Rejection] = {
    QueueFullError: Rejection.QUEUE_FULL,
    RateLimitedError: Rejection.RATE_LIMITED,
    RequestTimeoutError: Rejection.DEADLINE,
    BodyTooLargeError: Rejection.BODY_TOO_LARGE,
    DrainingError: Rejection.DRAINING,
    NotReadyError: Rejection.NOT_READY,
}


def rejection(error: ServiceError, method: str) -> Rejection | None:
    """As what an error is counted. A probe of health that is told "not ready" is no refused request."""
    counts = method == "POST" or isinstance(error, RateLimitedError)
    return REJECTIONS.get(type(error)) if counts else None


def refusal(error: ServiceError, request_id: str) -> Reply:
    """What is answered to an error; of what is the service's own fault the log tells more."""
    status = ERROR_STATUS[type(error)]
    if status == 500:
        log.error("request %s failed", request_id, exc_info=error)
        return unexpected(request_id)
    headers = {}
    if status in (429, 503) and isinstance(error, OverloadError):
        headers["retry-after"] = str(error.retry_after_s)
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return refused(status, str(error), request_id, headers)


def unexpected(request_id: str) -> Reply:
    """Tells nothing of the exception: that is in the log, under the same id."""
    return refused(500, "the service failed on this request; its log tells more under the request id", request_id)


def stopping(request_id: str) -> Reply:
    """To a request that the server cut off, because it waits no longer."""
    return refusal(DrainingError(STOPPING), request_id)


def refused(status: int, sentence: str, request_id: str, headers: Mapping[str, str] | None = None) -> Reply:
    """A sentence with a status."""
    told = ((name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in (headers or {}).items())
    body = to_json(ErrorAnswer(error=sentence, request_id=request_id))
    return Reply(body=body, status=status, headers=(*JSON_TYPE, *told))
