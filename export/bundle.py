"""How a bundle is put on disk: its files, their digests and the manifest, all or nothing.

Knows nothing about how the graph was made.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from sparsebert.checkpoint import Example
from sparsebert.digests import digest_file
from sparsebert.errors import ConfigError, ExportError
from sparsebert.manifest import (
    GOLDEN_FILE,
    MODEL_FILE,
    NAME_PATTERN,
    TOKENIZER_FILE,
    FileDigest,
    Golden,
    GoldenInput,
    Precision,
)

GOLDEN_EXAMPLES = 8
# How far logits may be from the recorded ones on the machine that serves. Other processors add floats in another
# order; with integers that moves an activation by one step now and then.
GOLDEN_TOLERANCES: dict[Precision, float] = {"fp32": 1e-3, "int8": 0.1, "fp16": 0.05}


def bundle_name(target: Path) -> tuple[str, str]:
    """Model and variant of a bundle folder, its last two names. Raises ConfigError when there are not two."""
    parts = target.resolve().parts[-2:]
    for part in parts:
        if not re.fullmatch(NAME_PATTERN, part):
            raise ConfigError(
                f"--output ends in {part!r}; use up to 64 lower-case letters, digits, '-', '_' and '.', for example "
                "models/demo/sparse"
            )
    if len(parts) != 2:
        raise ConfigError("--output must end in MODEL/VARIANT, for example models/demo/sparse")
    return parts[0], parts[1]


def spread(examples: Sequence[Example], count: int) -> list[int]:
    """Positions of `count` examples from the shortest to the longest, evenly spread."""
    order = sorted(range(len(examples)), key=lambda index: len(examples[index].text))
    count = min(count, len(order))
    return [order[round(step * (len(order) - 1) / max(1, count - 1))] for step in range(count)]


def make_golden(examples: Sequence[Example], logits: Sequence[Sequence[float]], precision: Precision) -> Golden:
    """Texts and the logits that the graph gave here."""
    inputs = tuple(GoldenInput(text=example.text, text_pair=example.text_pair) for example in examples)
    return Golden(
        inputs=inputs,
        logits=tuple(tuple(float(value) for value in row) for row in logits),
        tolerance=GOLDEN_TOLERANCES[precision],
    )


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Raises ExportError, which names the bundle `target`, where the block cannot write a file of it."""
    try:
        yield
    except Exception as error:  # of a full disk safetensors and tokenizers have errors of their own, without a base
        raise ExportError(
            f"{target} cannot be written ({str(error).partition(chr(10))[0]}); nothing was bundled, and what was there "
            "is whole; free some space, or choose another --output, and run again"
        ) from error


def write_golden(folder: Path, golden: Golden) -> None:
    (folder / GOLDEN_FILE).write_text(golden.model_dump_json(indent=1) + "\n", encoding="utf-8")


def bundle_version(files: Mapping[str, FileDigest], labels: Sequence[str]) -> str:
    """Twelve digits that differ when what a bundle answers does: of its graph, its tokenizer and its labels."""
    parts = [files[MODEL_FILE].sha256, files[TOKENIZER_FILE].sha256, *labels]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def digest_folder(folder: Path) -> dict[str, FileDigest]:
    """Digests of all files below a folder, by relative name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): digest_file(path) for path in files}
