"""What would take long to read is refused before it is read, and nothing else is."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import TooManyError
from service.structure import check_num_tokens

TEXT = st.text(max_size=200) | st.sampled_from(['"' * 300, "\\" * 300, ",[{" * 100, '\\"' * 100])
ITEM = TEXT | st.fixed_dictionaries({"text": TEXT, "text_pair": TEXT})


@given(st.lists(ITEM, min_size=4, max_size=4), st.integers(1, 64), st.booleans())
def test_a_full_request_passes(items: list[object], copies: int, ascii_only: bool) -> None:
    body = json.dumps({"inputs": items * copies, "truncate": True}, ensure_ascii=ascii_only)
    check_num_tokens(body.encode(), 4 * copies)


@given(st.lists(ITEM, min_size=4, max_size=4), st.integers(1, 64))
def test_a_full_request_of_the_protocol_passes(items: list[object], copies: int) -> None:
    def column(name: str) -> dict[str, object]:
        texts = [[str(item)] for item in items * copies]
        return {"name": name, "shape": [len(texts), 1], "datatype": "BYTES", "data": texts}

    body = json.dumps({"inputs": [column("text"), column("text_pair")]})
    check_num_tokens(body.encode(), 4 * copies)


@pytest.mark.parametrize("piece", [b"1,", b'"",', b"[],", b"{},", b'{"a":0},', b"[", b'{"a":', b'"a":0,'])
def test_too_many_values(piece: bytes) -> None:
    with pytest.raises(TooManyError, match="the body has more values than a request of 10 texts needs"):
        check_num_tokens(b'{"inputs": [' + piece * 5000, 10)


@pytest.mark.parametrize(
    "body",
    [b'"' + b"a" * 10**6, b'"' + b'\\"' * 500_000 + b"\\", b"\\" * 10**6, b"1" * 10**6, b'"' + b"[{,\\" * 250_000],
)
def test_what_has_few_values_is_left_to_the_parser(body: bytes) -> None:
    check_num_tokens(body, 1)
