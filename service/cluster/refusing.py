"""How is a request refused that no replica answers? As the service refuses, without what a replica needs for it."""

import json

from starlette.types import Send

from service.errors import OverloadError
from service.headers import API_HEADERS, Headers
from service.ledger import REQUEST_ID_HEADER

LOST = "the replica that had the request is gone; send it again"
BUSY = "all replicas have as much to do as they take; try again later"
NONE_THERE = "no replica is there; try again later"


async def refuse(send: Send, status: int, sentence: str, request_id: str) -> None:
    """Send the document of an error."""
    body = json.dumps({"error": sentence, "request_id": request_id}).encode()
    again: Headers = ((b"retry-after", str(OverloadError.retry_after_s).encode()),) if status in (429, 503) else ()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (REQUEST_ID_HEADER, request_id.encode()),
        *API_HEADERS,
        *again,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
