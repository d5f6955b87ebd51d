"""How texts become token ids. Knows nothing about batches or models."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from sparsebert.checkpoint import Example
from sparsebert.errors import BackboneError, ConfigError
from training.backbone import cannot_load
from training.batching import EncodedExample
from training.loading import max_positions

CHUNK = 1000


def load_tokenizer(name_or_path: str, max_length: int) -> PreTrainedTokenizerBase:
    """The fast tokenizer of a model in a folder or on the hub.

    Raises BackboneError when it cannot be had or is no fast one, ConfigError for a bad `max_length`.
    """
    longest = max_positions(name_or_path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name_or_path)
    except (OSError, ValueError) as error:
        raise cannot_load(name_or_path, error) from error
    if not 8 <= max_length <= longest:
        raise ConfigError(f"--max-length is {max_length}; this model takes 8 to {longest} tokens")
    if not tokenizer.is_fast or tokenizer.pad_token_id is None:
        raise BackboneError(f"{name_or_path} has no fast tokenizer with a padding token, which the service needs")
    return tokenizer


@dataclass(frozen=True)
class EncodedSplit:
    """Token ids of a split's texts, and how many of them were cut."""

    examples: list[EncodedExample]
    truncated: int


def encode(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, max_length: int) -> EncodedSplit:
    """Token ids, at most `max_length` each; the longer text of a pair is cut first."""
    encoded: list[EncodedExample] = []
    truncated = 0
    for start in range(0, len(examples), CHUNK):
        chunk = examples[start : start + CHUNK]
        pairs = None if chunk[0].text_pair is None else [example.text_pair for example in chunk]
        fields = tokenizer(
            [example.text for example in chunk],
            pairs,
            truncation=True,
            max_length=max_length,
            padding=False,
            return_token_type_ids=True,
        )
        rows = zip(fields["input_ids"], fields["token_type_ids"], chunk, strict=True)
        encoded += [EncodedExample(ids, segments, example.label) for ids, segments, example in rows]
        truncated += sum(bool(encoding.overflowing) for encoding in fields.encodings)
    return EncodedSplit(encoded, truncated)
