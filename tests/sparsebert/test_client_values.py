"""What a client is made of and given: it is refused with a sentence before anything is sent, and no key is shown."""

import traceback

import httpx
import pytest

from client_double import BOTH, URL, Answers, call, ok, predict, use
from sparsebert.client import ClientError, UnreachableError


@BOTH
@pytest.mark.parametrize(
    ("inputs", "options", "words"),
    [
        (b"abc", {}, "inputs is of the type bytes; pass a str, a Pair, or a list of them"),
        (5, {}, "inputs is of the type int;"),
        (None, {}, "inputs is of the type NoneType;"),
        ([b"abc"], {}, "a value cannot be sent as JSON"),
        ("a", {"top_k": float("nan")}, "a value cannot be sent as JSON"),
        (["half \ud83d"], {}, "a lone surrogate"),
    ],
)
def test_what_is_no_text_is_refused_before_it_is_sent(
    form: type, inputs: object, options: dict[str, object], words: str
) -> None:
    server = Answers()
    with pytest.raises(ClientError) as caught:
        predict(server, form, inputs, **options)
    assert words in str(caught.value)
    assert server.requests == []


@BOTH
def test_a_compare_takes_a_list_of_names_and_whole_numbers(form: type) -> None:
    for options, words in (
        ({"variants": "dense"}, r'pass one such as \["dense", "sparse"\]'),
        ({"variants": 5}, "variants is no list of names"),
        ({"repeats": float("nan")}, "a value cannot be sent as JSON"),
    ):
        with pytest.raises(ClientError, match=words):
            call(Answers(), form, "compare", "a", **options)


@BOTH
def test_a_name_that_cannot_be_sent_is_refused(form: type) -> None:
    with pytest.raises(ClientError, match="a lone surrogate"):
        call(Answers(), form, "load", "demo", "half \ud83d")
    with pytest.raises(ClientError, match="a name of a model or variant is of the type int; pass a str"):
        call(Answers(), form, "load", "demo", 5)


@BOTH
@pytest.mark.parametrize("api_key", ["", " ", "schlüssel", "two\nlines", "a key", "nul\x00", 5])
def test_a_key_that_cannot_be_sent_is_refused_and_not_repeated(form: type, api_key: object) -> None:
    with pytest.raises(ClientError, match="api_key is no key") as caught:
        form(URL, api_key=api_key)
    told = "".join(traceback.format_exception(caught.value)).split("ClientError: ")[1]
    assert told == (
        "api_key is no key: one has at least one character, and none but printable ASCII without spaces; "
        "pass what `sparsebert key` printed, or None for a service without keys\n"
    )


@BOTH
def test_white_space_around_a_key_is_left_out(form: type) -> None:
    server = Answers(ok())
    predict(server, form, "a", api_key=" sparsebert_abc\n")
    assert server.requests[0].headers["authorization"] == "Bearer sparsebert_abc"


@BOTH
def test_a_header_that_is_not_sent_is_not_shown_either(form: type) -> None:
    server = Answers(httpx.LocalProtocolError("Illegal header value b'Bearer secret'"))
    with pytest.raises(ClientError, match="the request cannot be written as HTTP; look at base_url, api_key") as caught:
        predict(server, form, "a", api_key="secret")
    assert "secret" not in "".join(traceback.format_exception(caught.value)).replace('api_key="secret"', "")


@BOTH
@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("http://127.0.0.1:abc", {}, "base_url is no address of a service; write one such as http://localhost:8000"),
        ("http://[::1", {}, "base_url is no address"),
        ("127.0.0.1:8000", {}, "base_url is no address"),
        ("localhost:8000", {}, "base_url is no address"),
        ("http://service:99999", {}, "base_url is no address"),
        ("http://", {}, "base_url is no address"),
        ("", {}, "base_url is no address"),
        (5, {}, "base_url is no address"),
        (URL, {"retries": -1}, "retries is -1; pass a whole number from 0 on"),
        (URL, {"retries": 1.5}, "retries is 1.5; pass"),
        (URL, {"timeout_s": 0}, "timeout_s is 0; pass a number of seconds above 0, up to 86400"),
        (URL, {"timeout_s": -1}, "timeout_s is -1; pass"),
        (URL, {"timeout_s": float("nan")}, "timeout_s is nan; pass"),
        (URL, {"timeout_s": float("inf")}, "timeout_s is inf; pass"),
        (URL, {"timeout_s": None}, "timeout_s is None; pass"),
    ],
)
def test_what_no_client_can_be_made_of(form: type, url: object, options: dict[str, object], words: str) -> None:
    with pytest.raises(ClientError) as caught:
        form(url, **options)
    assert words in str(caught.value)


@BOTH
def test_a_password_in_the_address_is_not_shown(form: type) -> None:
    options = {"transport": Answers(httpx.ReadTimeout("late")).transport}
    with pytest.raises(UnreachableError, match="^http://service did not answer in time"):
        use(form("http://me:secret@service", **options), form)


@BOTH
def test_a_closed_client_says_so(form: type) -> None:
    client = form(URL, transport=Answers(ok()).transport)
    use(client, form)
    with pytest.raises(ClientError, match="the client is closed; make a new one"):
        use(client, form)
