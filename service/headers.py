"""What does every answer tell browsers and proxies to do with it, and not to do?

Pure: pages in, headers out. Knows nothing about requests.
"""

import hashlib
import re
from base64 import b64encode
from collections.abc import Mapping

Headers = tuple[tuple[bytes, bytes], ...]

_NOSNIFF = (b"x-content-type-options", b"nosniff")
# What only pages can leak, and `frame-ancestors` for browsers that do not know it.
_OF_PAGES = (_NOSNIFF, (b"x-frame-options", b"DENY"), (b"referrer-policy", b"no-referrer"))
_POLICY = b"content-security-policy"
_CACHE = b"cache-control"
NO_STORE = "no-store"
API_HEADERS: Headers = (_NOSNIFF, (_CACHE, NO_STORE.encode()), (_POLICY, b"default-src 'none'; frame-ancestors 'none'"))


def headers_by_path(content: Mapping[str, tuple[str, str]]) -> dict[str, Headers]:
    """The headers of the paths that differ from API_HEADERS: those with a policy and a rule for caches of their own."""
    return {
        path: (*_OF_PAGES, (_CACHE, cache.encode()), (_POLICY, policy.encode()))
        for path, (policy, cache) in content.items()
    }


def page_policy(html: str) -> str:
    """A page may load what comes from here and use the scripts and styles in it, by their hashes, and no others."""
    scripts = " ".join(("'self'", *_hashes(html, "script")))
    styles = " ".join(("'self'", *_hashes(html, "style")))
    return (
        f"default-src 'none'; script-src {scripts}; style-src {styles}; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _hashes(html: str, tag: str) -> list[str]:
    blocks = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    return [f"'sha256-{b64encode(hashlib.sha256(block.encode()).digest()).decode()}'" for block in blocks]
