"""Does a JSON body hold so much that reading it would keep others waiting?

A megabyte of `1,1,1,...` is half a million values, which take a hundred times as long as a megabyte of text, and far
more where each of them is wrong. So what a body holds is counted before anything is made of it, up to what a full
request needs. Pure; knows nothing about HTTP or what the values mean.
"""

import re
from itertools import islice

from service.errors import TooManyError

# The most that a text needs is {"text": "...", "text_pair": "..."} and the comma after it.
TOKENS_OF_ITEM = 7
TOKENS_OF_REST = 1000
# Fewer bytes hold too few values to matter.
MIN_BYTES = 4096
_IN_EVERY_TOKEN = (b'"', b",", b"[", b"{")
# A string, as far as it goes when it has no end, or what separates values. It never reads a byte twice.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.?)*+(?:"|\Z)|[\[{,]', re.DOTALL)


def check_num_tokens(body: bytes, max_items: int) -> None:
    """Raise TooManyError when `body` has more strings, lists, objects and commas than `max_items` texts need."""
    if len(body) < MIN_BYTES:
        return
    limit = TOKENS_OF_ITEM * max_items + TOKENS_OF_REST
    if sum(body.count(byte) for byte in _IN_EVERY_TOKEN) <= limit:
        return
    if next(islice(_TOKEN.finditer(body), limit, None), None) is not None:
        raise TooManyError(
            f"the body has more values than a request of {max_items} texts needs; send fewer texts at a time"
        )
