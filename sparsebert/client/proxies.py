"""Through which proxy does the environment want requests to an address to go?

HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY count as they do everywhere: for this machine's own addresses, too.
Knows nothing about what is asked.
"""

from typing import TypeVar
from urllib.request import getproxies, proxy_bypass

import httpx

from sparsebert.client.errors import ClientError

Transport = TypeVar("Transport", httpx.HTTPTransport, httpx.AsyncHTTPTransport)


def carrier(kind: type[Transport], url: httpx.URL) -> Transport:
    """What carries requests to an address. Raises ClientError for a proxy that cannot be used."""
    proxy = proxy_of(url)
    try:
        return kind(proxy=proxy)
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        # Without its address, which may have a password in it.
        raise ClientError(
            "the proxy that the environment names cannot be used; look at HTTP_PROXY, HTTPS_PROXY and ALL_PROXY, or "
            f"have NO_PROXY leave out this address ({type(error).__name__})"
        ) from error


def proxy_of(url: httpx.URL) -> str | None:
    """The address of the proxy, if there is to be one."""
    if proxy_bypass(url.host) or proxy_bypass(url.netloc.decode("ascii")):
        return None
    named = getproxies()
    found = named.get(url.scheme) or named.get("all")
    return f"http://{found}" if found and "://" not in found else found
