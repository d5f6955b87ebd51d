"""How do the bytes and JSON values of the protocol become texts, and arrays become bytes?

Pure. What a request claims about lengths is compared with the bytes that are there before anything is done with it.
Knows nothing about models or HTTP.
"""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import MalformedError

LENGTH = struct.Struct("<I")
HEADER = "Inference-Header-Content-Length"


def split_body(body: bytes, head_length: str | None) -> tuple[bytes, memoryview]:
    """The JSON and the binary data after it, of which `head_length`, the header's text, says where it begins.

    Raises MalformedError.
    """
    if head_length is None:
        return body, memoryview(b"")
    if not (head_length.isascii() and head_length.isdigit() and len(head_length) < 20):
        raise MalformedError(f"the header {HEADER} is no number; send the length of the JSON in bytes")
    length = int(head_length)
    if length > len(body):
        raise MalformedError(f"the header {HEADER} says {length}, but the body has {len(body)} bytes only")
    return body[:length], memoryview(body)[length:]


def take(tail: memoryview, size: int, name: str) -> tuple[memoryview, memoryview]:
    """The binary data of one input, and what comes after it. Raises MalformedError."""
    if size > len(tail):
        raise MalformedError(
            f"the input {name!r} says that it has {size} bytes of binary data, but {len(tail)} are left after the JSON "
            f"and the inputs before it; the header {HEADER} says where the JSON ends"
        )
    return tail[:size], tail[size:]


def read_binary_texts(data: memoryview, count: int, name: str) -> list[str]:
    """`count` texts, each after its length as a little-endian number of 4 bytes. Raises MalformedError."""
    texts: list[str] = []
    offset = 0
    while offset < len(data):
        if len(texts) == count:
            raise MalformedError(f"the input {name!r} has more elements than its shape, which says {count}")
        begin = offset + LENGTH.size
        if begin > len(data):
            raise MalformedError(f"the input {name!r} ends within the length of element {len(texts)}")
        [length] = LENGTH.unpack_from(data, offset)
        offset = begin + length
        if offset > len(data):
            raise MalformedError(
                f"the input {name!r} ends within element {len(texts)}: it says that it has {length} bytes, and "
                f"{len(data) - begin} are left"
            )
        texts.append(decode(data[begin:offset], f"element {len(texts)} of the input {name!r}"))
    if len(texts) < count:
        raise MalformedError(f"the input {name!r} has {len(texts)} elements, but its shape says {count}")
    return texts


def read_json_texts(data: list[Any], count: int, name: str) -> list[str]:
    """`count` texts out of a list of texts or of lists with one text each. Raises MalformedError."""
    if len(data) != count:
        raise MalformedError(f"the input {name!r} has {len(data)} elements, but its shape says {count}")
    texts = [one[0] if isinstance(one, list) and len(one) == 1 else one for one in data]
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise MalformedError(f"element {index} of the input {name!r} is not a text; BYTES in JSON are texts")
    return texts


def decode(data: memoryview | bytes, place: str) -> str:
    """UTF-8 to text. Raises MalformedError."""
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError(f"{place} is not UTF-8 at byte {error.start}; encode it so") from error


def write_binary_texts(texts: Sequence[str]) -> bytes:
    """The inverse of `read_binary_texts`."""
    encoded = [text.encode() for text in texts]
    return b"".join(LENGTH.pack(len(one)) + one for one in encoded)


def write_binary_floats(values: NDArray[np.float32]) -> bytes:
    """Little-endian, row by row."""
    return values.astype("<f4").tobytes()
