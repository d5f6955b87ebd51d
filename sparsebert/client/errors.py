"""What can go wrong when the service is asked, as one tree; every message is a sentence for the user.

Knows nothing about how requests travel.

SparseBertError
└── ClientError
    ├── RefusedError            the service answered that it will not, or cannot
    ├── UnreachableError        no answer came
    └── UnexpectedAnswerError   what answered is not this service
"""

from sparsebert.errors import SparseBertError


class ClientError(SparseBertError):
    """Base of every error of `sparsebert.client`."""


class RefusedError(ClientError):
    """The service refused; `sentence` says why, its log tells more under `request_id`.

    `retry_after_s` is in how many seconds it wants to be asked again, where it says so.
    """

    def __init__(self, status: int, sentence: str, request_id: str | None, retry_after_s: float | None = None) -> None:
        again = "" if retry_after_s is None else f", ask again in {retry_after_s:g} s"
        super().__init__(f"{sentence} (status {status}, request {request_id or 'without an id'}{again})")
        self.status = status
        self.sentence = sentence
        self.request_id = request_id
        self.retry_after_s = retry_after_s


class UnreachableError(ClientError):
    """No answer came: nothing listens there, the connection broke, or time was up."""


class UnexpectedAnswerError(ClientError):
    """The answer is not one of this service."""
