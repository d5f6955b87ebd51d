"""What can go wrong while serving, as one tree; every message names the cure.

Knows nothing about HTTP: `service.app` maps these classes to status codes.

    SparseBertError
    └── ServiceError
        ├── RequestError            the caller must change the request
        │   ├── MalformedError          it is not what the route reads
        │   ├── UnauthenticatedError    it carries no key, or none of this service's
        │   ├── ForbiddenError          its key is not good for this
        │   ├── NotEnabledError         it asks for what this service does not let anybody do
        │   ├── UnknownVariantError     it names a model or a variant that is not here
        │   ├── BodyTooLargeError       it has more bytes than the service reads
        │   ├── TooLongError            a text has more tokens than the model reads
        │   └── TooManyError            it has more texts or tokens than one request may have
        ├── OverloadError           the same request may succeed later
        │   ├── QueueFullError          more work waits than the queue may hold
        │   ├── RateLimitedError        the caller has asked for more than its share
        │   ├── NotReadyError           the variant did not load, or the workers died
        │   ├── DrainingError           the service is stopping
        │   └── RequestTimeoutError     the answer was not ready in time
        ├── ClientGoneError         nobody waits for the answer any more
        └── EngineError             the model failed on a batch
"""

from sparsebert.errors import SparseBertError

STOPPING = "the service is stopping; send the request to another replica or try again later"


class ServiceError(SparseBertError):
    """Base of every error that the service raises on purpose."""


class RequestError(ServiceError):
    """The caller must change the request."""


class MalformedError(RequestError):
    """The request is not what the route reads."""


class UnauthenticatedError(RequestError):
    """The request carries no key, or none of this service's."""


class ForbiddenError(RequestError):
    """The key of the request is not good for what it asks."""


class NotEnabledError(RequestError):
    """The request asks for what this service does not let anybody do."""


class UnknownVariantError(RequestError):
    """The request names a model or a variant that is not here."""


class BodyTooLargeError(RequestError):
    """The body has more bytes than the service reads."""


class TooLongError(RequestError):
    """A text has more tokens than the model reads."""


class TooManyError(RequestError):
    """The request has more texts or tokens than one request may have."""


class OverloadError(ServiceError):
    """The same request may succeed after `retry_after_s`."""

    retry_after_s = 1


class QueueFullError(OverloadError):
    """More work waits than the queue may hold."""


class RateLimitedError(OverloadError):
    """The caller has asked for more than its share."""

    def __init__(self, sentence: str, retry_after_s: int) -> None:
        super().__init__(sentence)
        self.retry_after_s = retry_after_s


class NotReadyError(OverloadError):
    """The variant did not load, or the workers died."""


class DrainingError(OverloadError):
    """The service is stopping."""


class RequestTimeoutError(OverloadError):
    """The answer was not ready in time."""


class ClientGoneError(ServiceError):
    """Nobody waits for the answer any more."""


class EngineError(ServiceError):
    """The model failed on a batch."""
