"""How does a text or a pair of texts become token ids, and what is cut when it is too long?

The only file that imports tokenizers. Knows nothing about queues or models.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import tokenizers

from service.encoding import Encoding
from sparsebert.errors import BundleError


@dataclass(frozen=True, kw_only=True)
class TextInput:
    """One text, or a pair of texts."""

    text: str
    text_pair: str | None = None

    @property
    def num_characters(self) -> int:
        return len(self.text) + len(self.text_pair or "")


class TextTokenizer:
    """The tokenizer of a bundle; safe to use from several threads."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        # Its own limits would cut without telling; ours are told in every answer.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._num_special = tokenizer.num_special_tokens_to_add(False)

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Open a `tokenizer.json`. Raises BundleError when it is not one."""
        try:
            return cls(tokenizers.Tokenizer.from_file(str(path)))
        except Exception as error:
            raise BundleError(f"{path} is not a tokenizer ({error}); export again") from error

    def encode(self, inputs: Sequence[TextInput], max_tokens: int) -> list[Encoding]:
        """Encode each input, longest-first truncated to `max_tokens`; in order. Releases the GIL."""
        texts = [one.text if one.text_pair is None else (one.text, one.text_pair) for one in inputs]
        encoded = self._tokenizer.encode_batch_fast(texts)
        return [self._encoding(text, one, max_tokens) for text, one in zip(inputs, encoded, strict=True)]

    def _encoding(self, text: TextInput, encoded: tokenizers.Encoding, max_tokens: int) -> Encoding:
        # Each look at ids, type_ids or sequence_ids makes a new list.
        ids, num_tokens = encoded.ids, len(encoded)
        empty = num_tokens == self._num_special if text.text_pair is None else lacks_one(encoded)
        if num_tokens > max_tokens:
            encoded = self._truncated(text, max_tokens)
            ids = encoded.ids
        return Encoding(
            input_ids=tuple(ids), token_type_ids=tuple(encoded.type_ids), num_tokens_full=num_tokens, empty=empty
        )

    def _truncated(self, text: TextInput, max_tokens: int) -> tokenizers.Encoding:
        first = self._tokenizer.encode(text.text, add_special_tokens=False)
        if text.text_pair is None:
            first.truncate(max_tokens - self._num_special)
            return self._tokenizer.post_process(first)
        second = self._tokenizer.encode(text.text_pair, add_special_tokens=False)
        room = max_tokens - self._tokenizer.num_special_tokens_to_add(True)
        num_first, num_second = longest_first(len(first.ids), len(second.ids), room)
        first.truncate(num_first)
        second.truncate(num_second)
        return self._tokenizer.post_process(first, second)


def lacks_one(encoded: tokenizers.Encoding) -> bool:
    """Whether one text of a pair has no token of its own: nothing in it is visible to the model."""
    return not {0, 1}.issubset(encoded.sequence_ids)


def longest_first(num_first: int, num_second: int, room: int) -> tuple[int, int]:
    """How many tokens of a pair are kept in `room`, when the longer text gives way first.

    The same numbers as the tokenizers library's own longest-first truncation.
    """
    if num_first + num_second <= room:
        return num_first, num_second
    shorter, longer = sorted((num_first, num_second))
    if shorter + max(shorter, room - shorter) <= room:
        longer = room - shorter
    else:
        shorter, longer = room // 2, room - room // 2
    return (longer, shorter) if num_first > num_second else (shorter, longer)
