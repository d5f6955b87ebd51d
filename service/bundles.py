"""Is this folder a bundle that computes on this machine what it computed where it was exported?

Opens one bundle and tests it. Knows nothing about other bundles, queues or HTTP.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from service.encoding import INPUT_NAMES, OUTPUT_NAME, EncodedBatch, Encoding, FloatArray, pad
from service.engine import Engine, Halt
from service.memory import give_back_freed, resident_bytes
from service.routing import VariantName
from service.tokenizer import TextInput, TextTokenizer
from sparsebert.digests import verify_files
from sparsebert.errors import BundleError
from sparsebert.manifest import (
    BUNDLE_FILES,
    MANIFEST_FILE,
    MODEL_FILE,
    TOKENIZER_FILE,
    Golden,
    Manifest,
    read_golden,
    read_manifest,
)
from sparsebert.processor import this_processor_needs_reduced_range

OpenEngine = Callable[[Path], Engine]


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedBundle:
    """A bundle that passed every test; `memory_bytes` is by how much the process grew, `gpu_memory_bytes` the GPU."""

    manifest: Manifest
    tokenizer: TextTokenizer
    engine: Engine
    load_s: float
    memory_bytes: int
    gpu_memory_bytes: int | None = None

    @cached_property
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

    Raises BundleError when the bundle is not to be trusted or does not fit the settings.
    """
    began_s, read = clock_s(), _stamps(folder)
    give_back_freed()  # else it would grow into what others freed, and seem smaller than it is
    bytes_before = resident_bytes()
    manifest = read_manifest(folder)
    _check_name(folder, manifest)
    if manifest.max_sequence_length > max_batch_tokens:
        raise BundleError(
            f"{folder} reads texts of up to {manifest.max_sequence_length} tokens, more than --max-batch-tokens, which "
            f"is {max_batch_tokens}; raise it to at least that"
        )
    _check_specs(folder, manifest)
    check_processor(folder, manifest, reduced_range=this_processor_needs_reduced_range())
    verify_files(folder, manifest)
    tokenizer = TextTokenizer.shared(folder / TOKENIZER_FILE, manifest.files[TOKENIZER_FILE].sha256)
    engine = open_engine(folder / MODEL_FILE)
    check_golden(folder, manifest, read_golden(folder), tokenizer, engine)
    _warm_up(folder, manifest, engine)
    if _stamps(folder) != read:
        raise BundleError(f"{folder} was written to while it was loaded; load it again when it is complete")
    give_back_freed()
    return LoadedBundle(
        manifest=manifest,
        tokenizer=tokenizer,
        engine=engine,
        load_s=clock_s() - began_s,
        memory_bytes=max(0, resident_bytes() - bytes_before),
        gpu_memory_bytes=engine.gpu_growth_bytes(),
    )


def _stamps(folder: Path) -> list[tuple[int, int, int]]:
    """What changes with the bundle's files; -1 for one that is not there."""
    paths = [folder / name for name in (MANIFEST_FILE, *BUNDLE_FILES)]
    stats = [path.stat() if path.is_file() else None for path in paths]
    return [(-1, -1, -1) if one is None else (one.st_ino, one.st_size, one.st_mtime_ns) for one in stats]


def check_golden(folder: Path, manifest: Manifest, golden: Golden, tokenizer: TextTokenizer, engine: Engine) -> None:
    """Replay the golden inputs, each alone in its batch, and one beside a mate where mates must not matter.

    Raises BundleError when a logit is off.
    """
    texts = [TextInput(text=item.text, text_pair=item.text_pair) for item in golden.inputs]
    encodings = tokenizer.encode(texts, manifest.max_sequence_length)
    alone = [_run(folder, engine, pad([encoding]))[0] for encoding in encodings]
    for logits_C, expected in zip(alone, golden.logits, strict=True):
        if len(logits_C) != len(manifest.labels) or len(expected) != len(manifest.labels):
            raise BundleError(
                f"{folder} names {len(manifest.labels)} labels but its graph gives {len(logits_C)} logits "
                f"and golden.json {len(expected)}; export again"
            )
    difference = _largest_difference(np.stack(alone), golden.logits)
    if not difference <= golden.tolerance:
        raise BundleError(
            f"{folder} computes something else on this machine than where it was exported: a golden logit is off "
            f"by {difference:.3g}, allowed is {golden.tolerance:.3g}; export again on this kind of machine"
        )
    if manifest.shares_batches:
        _check_batch_invariance(folder, manifest, golden, encodings, engine)


def _check_batch_invariance(
    folder: Path, manifest: Manifest, golden: Golden, encodings: list[Encoding], engine: Engine
) -> None:
    """The shortest golden input beside a longer text, so that it is padded; two texts, to save memory."""
    shortest = min(range(len(encodings)), key=lambda index: encodings[index].num_tokens)
    length = min(max(encoding.num_tokens for encoding in encodings) + 1, manifest.max_sequence_length)
    longer = Encoding(input_ids=(0,) * length, token_type_ids=(0,) * length, num_tokens_full=length)
    logits_C = _run(folder, engine, pad([encodings[shortest], longer]))[0]
    difference = _largest_difference(logits_C, golden.logits[shortest])
    if not difference <= golden.tolerance:
        raise BundleError(
            f"{folder} says that answers do not depend on other texts in the batch, but a golden logit moves by "
            f"{difference:.3g}, allowed is {golden.tolerance:.3g}; export again"
        )


def _largest_difference(logits: FloatArray, expected: Sequence[Sequence[float]] | Sequence[float]) -> float:
    return float(np.abs(logits - np.asarray(expected)).max())


def _check_specs(folder: Path, manifest: Manifest) -> None:
    reads = {spec.name: spec.dtype for spec in manifest.inputs}
    gives = {spec.name: spec.dtype for spec in manifest.outputs}
    if reads != dict.fromkeys(INPUT_NAMES, "int64") or gives != {OUTPUT_NAME: "float32"}:
        raise BundleError(
            f"{folder} has a manifest with the inputs {', '.join(reads)} and the outputs {', '.join(gives)}; the "
            f"service feeds {', '.join(INPUT_NAMES)} and takes {OUTPUT_NAME}; export again"
        )


def check_processor(folder: Path, manifest: Manifest, *, reduced_range: bool) -> None:
    """Raise BundleError when this machine would compute the graph wrongly.

    `reduced_range` says that the processor needs int8 weights of 7 bits.
    """
    if manifest.weight_range == "full" and reduced_range:
        raise BundleError(
            f"{folder} has int8 weights of 8 bits, which saturate on processors without VNNI such as this one; "
            "export again with --weight-range reduced"
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
        return engine.run(batch, Halt())
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise BundleError(f"{folder} has a graph that does not run ({reason}); export again") from error
