"""Is this folder a bundle that computes on this machine what it computed where it was exported?

Opens one bundle and tests it. Knows nothing about other bundles, queues or HTTP.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.encoding import EncodedBatch, Encoding, FloatArray, pad
from service.engine import Engine
from service.memory import give_back_freed, resident_bytes
from service.routing import VariantName
from service.tokenizer import TextInput, TextTokenizer
from sparsebert.digests import verify_files
from sparsebert.errors import BundleError, ConfigError
from sparsebert.manifest import MODEL_FILE, TOKENIZER_FILE, Golden, Manifest, read_golden, read_manifest

OpenEngine = Callable[[Path], Engine]


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedBundle:
    """A bundle that passed every test; `memory_bytes` is by how much the process grew."""

    manifest: Manifest
    tokenizer: TextTokenizer
    engine: Engine
    load_s: float
    memory_bytes: int

    @property
    def name(self) -> VariantName:
        return VariantName(model=self.manifest.name, variant=self.manifest.variant)

    @property
    def file_bytes(self) -> int:
        """Size of the graph's file."""
        return self.manifest.files[MODEL_FILE].size_bytes


def open_bundle(
    folder: Path, open_engine: OpenEngine, *, max_batch_tokens: int, clock_s: Callable[[], float]
) -> LoadedBundle:
    """Verify, open, self-test and warm up the bundle in `folder`.

    Raises BundleError when the bundle is not to be trusted, ConfigError when the settings do not fit it.
    """
    began_s, bytes_before = clock_s(), resident_bytes()
    manifest = read_manifest(folder)
    _check_name(folder, manifest)
    if manifest.max_sequence_length > max_batch_tokens:
        raise ConfigError(
            f"--max-batch-tokens is {max_batch_tokens}: {folder} reads texts of up to "
            f"{manifest.max_sequence_length} tokens, so it must be at least that"
        )
    verify_files(folder, manifest)
    tokenizer = TextTokenizer.from_file(folder / TOKENIZER_FILE)
    engine = open_engine(folder / MODEL_FILE)
    check_golden(folder, manifest, read_golden(folder), tokenizer, engine)
    _warm_up(folder, manifest, engine)
    give_back_freed()
    return LoadedBundle(
        manifest=manifest,
        tokenizer=tokenizer,
        engine=engine,
        load_s=clock_s() - began_s,
        memory_bytes=max(0, resident_bytes() - bytes_before),
    )


def check_golden(folder: Path, manifest: Manifest, golden: Golden, tokenizer: TextTokenizer, engine: Engine) -> None:
    """Replay the golden inputs, each alone in its batch. Raises BundleError when a logit is off."""
    for item, expected in zip(golden.inputs, golden.logits, strict=True):
        text = TextInput(text=item.text, text_pair=item.text_pair)
        encoding = tokenizer.encode([text], manifest.max_sequence_length)[0]
        logits_C = _run(folder, engine, pad([encoding]))[0]
        if len(logits_C) != len(manifest.labels) or len(expected) != len(manifest.labels):
            raise BundleError(
                f"{folder} names {len(manifest.labels)} labels but its graph gives {len(logits_C)} logits "
                f"and golden.json {len(expected)}; export again"
            )
        difference = float(np.abs(logits_C - np.asarray(expected)).max())
        if not difference <= golden.tolerance:
            raise BundleError(
                f"{folder} computes something else on this machine than where it was exported: a golden logit is off "
                f"by {difference:.3g}, allowed is {golden.tolerance:.3g}; export again on this kind of machine"
            )


def _check_name(folder: Path, manifest: Manifest) -> None:
    if (folder.parent.name, folder.name) != (manifest.name, manifest.variant):
        raise BundleError(
            f"{folder} holds the bundle {manifest.name}/{manifest.variant}; "
            f"name its folders {manifest.name}/{manifest.variant}"
        )


def _warm_up(folder: Path, manifest: Manifest, engine: Engine) -> None:
    """One text of full length, so that the first request finds the memory it needs already there."""
    length = manifest.max_sequence_length
    full = Encoding(input_ids=(0,) * length, token_type_ids=(0,) * length, num_tokens_full=length)
    _run(folder, engine, pad([full]))


def _run(folder: Path, engine: Engine, batch: EncodedBatch) -> FloatArray:
    try:
        return engine.run(batch)
    except Exception as error:
        raise BundleError(f"{folder} has a graph that does not run ({error}); export again") from error
