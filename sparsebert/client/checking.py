"""Can a client be made of these values?

Pure: each refusal is a ClientError, and none repeats what may be secret. Knows nothing about what is asked.
"""

import re

import httpx

from sparsebert.client.errors import ClientError

LONGEST_TIMEOUT_S = 86_400
LARGEST_PORT = 65_535
# What a header takes; white space would end the key, or the header.
_KEY = re.compile(r"[\x21-\x7e]+")


def checked_headers(api_key: str | None) -> dict[str, str]:
    """The headers that carry a key; white space around it, as a file's last line has it, is left out."""
    if api_key is None:
        return {}
    key = api_key.strip() if isinstance(api_key, str) else ""
    if not _KEY.fullmatch(key):
        raise ClientError(
            "api_key is no key: one has at least one character, and none but printable ASCII without spaces; pass what "
            "`sparsebert key` printed, or None for a service without keys"
        )
    return {"Authorization": f"Bearer {key}"}


def checked_url(base_url: str | httpx.URL) -> httpx.URL:
    """An address that requests can be sent to. A refusal repeats none, as there may be a password in it."""
    try:
        url = httpx.URL(base_url)
    except (httpx.InvalidURL, TypeError, ValueError):
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host or (url.port or 80) > LARGEST_PORT:
        # Without the cause, which may quote the address.
        raise ClientError("base_url is no address of a service; write one such as http://localhost:8000")
    return url


def checked_timeout_s(timeout_s: float) -> float:
    """The longest wait."""
    if _is_number(timeout_s) and 0 < timeout_s <= LONGEST_TIMEOUT_S:
        return timeout_s
    raise ClientError(f"timeout_s is {timeout_s!r}; pass a number of seconds above 0, up to {LONGEST_TIMEOUT_S}")


def checked_retries(retries: int) -> int:
    """How often a request is sent again."""
    if isinstance(retries, int) and retries >= 0:
        return retries
    raise ClientError(f"retries is {retries!r}; pass a whole number from 0 on")


def told(url: httpx.URL) -> str:
    """An address as a message may have it: without a password."""
    return str(url.copy_with(userinfo=b"")) if url.userinfo else str(url)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
