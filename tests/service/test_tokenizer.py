"""Texts are cut exactly as the tokenizers library cuts them, and it is told."""

import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from service.tokenizer import TextInput, TextTokenizer, longest_first
from sparsebert.errors import BundleError

MakeTokenizer = Callable[[], Tokenizer]
words = st.lists(st.sampled_from(["good", "bad", "film", "the", "unheard"]), min_size=1, max_size=20).map(" ".join)


def reference(tokenizer: Tokenizer, max_tokens: int) -> Tokenizer:
    tokenizer.enable_truncation(max_tokens)
    return tokenizer


@given(text=words, max_tokens=st.integers(3, 16))
def test_single_texts(make_tokenizer: MakeTokenizer, text: str, max_tokens: int) -> None:
    [encoding] = TextTokenizer(make_tokenizer()).encode([TextInput(text=text)], max_tokens)
    assert list(encoding.input_ids) == reference(make_tokenizer(), max_tokens).encode(text).ids
    assert encoding.num_tokens_full == len(text.split()) + 2
    assert encoding.truncated == (encoding.num_tokens_full > max_tokens)


@given(first=words, second=words, max_tokens=st.integers(5, 24))
def test_pairs_are_cut_longest_first(make_tokenizer: MakeTokenizer, first: str, second: str, max_tokens: int) -> None:
    [encoding] = TextTokenizer(make_tokenizer()).encode([TextInput(text=first, text_pair=second)], max_tokens)
    expected = reference(make_tokenizer(), max_tokens).encode(first, second)
    assert list(encoding.input_ids) == expected.ids
    assert list(encoding.token_type_ids) == expected.type_ids


@pytest.mark.parametrize(
    ("lengths", "room", "kept"),
    [((3, 4), 10, (3, 4)), ((3, 9), 10, (3, 7)), ((9, 3), 10, (7, 3)), ((9, 8), 10, (5, 5)), ((9, 9), 11, (5, 6))],
)
def test_longest_first(lengths: tuple[int, int], room: int, kept: tuple[int, int]) -> None:
    assert longest_first(*lengths, room) == kept


@pytest.mark.parametrize(
    ("text", "pair", "empty"),
    [
        ("\u200b", None, True),
        ("good", None, False),
        ("unheard", None, False),
        ("good", "\ufeff", True),
        ("good", "bad", False),
    ],
)
def test_a_text_without_a_word_is_noticed(
    make_tokenizer: MakeTokenizer, text: str, pair: str | None, empty: bool
) -> None:
    [encoding] = TextTokenizer(make_tokenizer()).encode([TextInput(text=text, text_pair=pair)], 16)
    assert encoding.empty == empty


def test_limits_of_the_file_do_not_count(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = reference(make_tokenizer(), 4)
    tokenizer.enable_padding(length=12)
    [encoding] = TextTokenizer(tokenizer).encode([TextInput(text="the good film")], 16)
    assert encoding.num_tokens == 5


def test_one_tokenizer_serves_all_files_of_a_digest_and_leaves_with_the_last(
    tmp_path: Path, make_tokenizer: MakeTokenizer
) -> None:
    path = tmp_path / "tokenizer.json"
    make_tokenizer().save(str(path))
    first, other = TextTokenizer.shared(path, "a digest"), TextTokenizer.shared(path, "another")
    assert TextTokenizer.shared(tmp_path / "not opened", "a digest") is first
    assert other is not first
    left = weakref.ref(first)
    del first
    gc.collect()
    assert left() is None
    with pytest.raises(BundleError, match="is not a tokenizer"):
        TextTokenizer.shared(tmp_path / "not opened", "a digest")
