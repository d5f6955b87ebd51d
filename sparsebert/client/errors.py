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
    """The service refused; `sentence` says why, its log tells more under `request_id`."""

    def __init__(self, status: int, sentence: str, request_id: str | None) -> None:
        super().__init__(f"{sentence} (status {status}, request {request_id or 'without an id'})")
        self.status = status
        self.sentence = sentence
        self.request_id = request_id


class UnreachableError(ClientError):
    """No answer came: nothing listens there, the connection broke, or time was up."""


class UnexpectedAnswerError(ClientError):
    """The answer is not one of this service."""
