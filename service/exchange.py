"""What is a whole request to a route that is asked all day, and what is an answer, whoever reads and writes them?

Knows nothing about frameworks, connections or models.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from service.deadlines import Deadline
from service.headers import Headers
from service.rates import Bucket
from service.records import RequestRecord

# Names in lower case.
RawHeaders = Sequence[tuple[bytes, bytes]]
JSON_TYPE: Headers = ((b"content-type", b"application/json"),)


@dataclass(eq=False, kw_only=True, slots=True)
class Asked:
    """What was sent, whole; until when it must be answered; from whose limit its texts are taken, if from any."""

    headers: RawHeaders
    body: bytes
    deadline: Deadline
    record: RequestRecord
    bucket: Bucket | None = None

    def charge(self, num_texts: int) -> None:
        """Take texts from what the caller may ask for; the first was taken when it was let in."""
        if self.bucket is not None:
            self.bucket.spend(num_texts - 1)


@dataclass(eq=False, kw_only=True, slots=True)
class Reply:
    """An answer, but for what every answer says."""

    body: bytes
    status: int = 200
    headers: Headers = field(default=JSON_TYPE)


def header(headers: RawHeaders, name: bytes) -> str | None:
    """The value of the header `name`, in lower case, if it is there."""
    for one, value in headers:
        if one == name:
            return value.decode("latin-1")
    return None
