"""How an example becomes token ids, with the very tokenizer file that the bundle ships.

Knows nothing about models; the service reads the same file with the same library.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from sparsebert.checkpoint import Example, evenly_spaced
from sparsebert.errors import ConfigError

CALIBRATION_EXAMPLES = 256  # each is run by itself, so that time limits their number


@dataclass(frozen=True, slots=True)
class EncodedText:
    """Token ids of one text or pair and the segment of each token."""

    token_ids: list[int]
    segments: list[int]


def encode_examples(tokenizer_file: Path, examples: Sequence[Example], max_length: int) -> list[EncodedText]:
    """Token ids, at most `max_length` each; the longer text of a pair is cut first."""
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length, strategy="longest_first")
    inputs = [text_or_pair(example) for example in examples]
    return [EncodedText(encoding.ids, encoding.type_ids) for encoding in tokenizer.encode_batch(inputs)]


def calibration_examples(stored: Sequence[Example]) -> tuple[Example, ...]:
    """The training texts that the exporter looks at, evenly spaced among those that a checkpoint holds."""
    return evenly_spaced(stored, CALIBRATION_EXAMPLES)


def text_or_pair(example: Example) -> str | tuple[str, str]:
    """What a tokenizer reads."""
    return example.text if example.text_pair is None else (example.text, example.text_pair)


def read_texts(path: Path) -> list[str]:
    """The lines of a file of texts, empty ones left out. Raises ConfigError when there is none."""
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"--vocabulary {path} cannot be read ({error}); give a UTF-8 file, one text a line"
        ) from error
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise ConfigError(f"--vocabulary {path} has no text in it; give a UTF-8 file, one text a line")
    return texts


def random_texts(seed: int, count: int, max_length: int, vocabulary_size: int) -> list[EncodedText]:
    """Texts of all lengths with ids and segments that no tokenizer would give."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, max_length + 1, count)
    return [
        EncodedText(rng.integers(0, vocabulary_size, length).tolist(), rng.integers(0, 2, length).tolist())
        for length in lengths
    ]
