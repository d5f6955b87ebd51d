"""From a masked checkpoint to a proven bundle: compact, build, compare, measure, write.

Knows nothing about the command line. N texts, C classes.
"""

import datetime
import importlib.metadata
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from export.builder import OPSET, count_operators
from export.bundle import (
    GOLDEN_EXAMPLES,
    bundle_name,
    digest_folder,
    make_golden,
    spread,
    write_golden,
)
from export.compaction import compact
from export.graph import INPUTS, build_graph, output_specs
from export.parity import LIMITS, ParityLimits, check_batch_invariance, check_parity
from export.runtime import OnnxRunner, runtime_version
from export.texts import EncodedText, encode_examples
from sparsebert.errors import ConfigError
from sparsebert.files import new_folder
from sparsebert.manifest import (
    MANIFEST_FILE,
    MODEL_FILE,
    TOKENIZER_FILE,
    FileDigest,
    Manifest,
    Parity,
    Precision,
    Quality,
    Size,
    write_manifest,
)
from training.checkpoint import MaskedCheckpoint, load_checkpoint
from training.geometry import geometry_of
from training.masking import fixed_gates

logger = logging.getLogger(__name__)

Float32 = NDArray[np.float32]
PARITY_EXAMPLES = 128
BATCH_EXAMPLES = 16
MACS_SEQUENCE_LENGTH = 128
HF_FOLDER = "hf"
VERSIONED = ("onnx", "torch", "transformers", "numpy")


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What to export, to where, and how; the last two names of `target` are model and variant."""

    checkpoint: Path
    target: Path
    precision: Precision = "fp32"
    with_hf: bool = False

    def __post_init__(self) -> None:
        bundle_name(self.target)
        if self.target.resolve() == self.checkpoint.resolve():
            raise ConfigError(f"--output {self.target} is the checkpoint itself; choose another folder")


def export_bundle(config: ExportConfig) -> Manifest:
    """Write one bundle, replacing one that is there; when anything fails nothing is written.

    Raises CheckpointError, ExportError or ParityError.
    """
    checkpoint = load_checkpoint(config.checkpoint)
    small = compact(checkpoint.model, checkpoint.masks)
    graph = build_graph(small, config.precision)
    with new_folder(config.target, marker=MANIFEST_FILE, kind="bundle") as folder:
        onnx.save(graph, folder / MODEL_FILE)
        checkpoint.tokenizer.backend_tokenizer.save(str(folder / TOKENIZER_FILE))
        if config.with_hf:
            small.save_pretrained(folder / HF_FOLDER)
            checkpoint.tokenizer.save_pretrained(folder / HF_FOLDER)
        texts = encode_examples(folder / TOKENIZER_FILE, checkpoint.examples, checkpoint.run.max_length)
        runner, limits = OnnxRunner(folder / MODEL_FILE), LIMITS[config.precision]
        logits_NC = _answer(runner, texts, config)
        parity = _prove(checkpoint, texts, logits_NC, limits)
        if limits.batch_invariant:
            mixed = [texts[index] for index in spread(checkpoint.examples, BATCH_EXAMPLES)]
            _prove_batch_invariance(runner, mixed, checkpoint.run.max_length)
        golden = spread(checkpoint.examples, GOLDEN_EXAMPLES)
        write_golden(
            folder,
            make_golden([checkpoint.examples[i] for i in golden], logits_NC[golden].tolist(), config.precision),
        )
        manifest = _describe(config, checkpoint, graph, parity, _quality(checkpoint, logits_NC), digest_folder(folder))
        return write_manifest(folder, manifest)


def _answer(runner: OnnxRunner, texts: Sequence[EncodedText], config: ExportConfig) -> Float32:
    variant = config.target.name
    with tqdm(total=len(texts), desc=f"checking {variant}", unit="text", disable=None) as bar:
        return runner.all_logits(texts, bar.update)


@torch.inference_mode()
def _prove(
    checkpoint: MaskedCheckpoint, texts: Sequence[EncodedText], found_NC: Float32, limits: ParityLimits
) -> Parity:
    """Compare with the masked PyTorch model, in 32-bit floats, on texts of all lengths."""
    chosen = spread(checkpoint.examples, PARITY_EXAMPLES)
    gates = fixed_gates(checkpoint.masks)
    rows = []
    for index in chosen:
        ids, segments = torch.tensor([texts[index].token_ids]), torch.tensor([texts[index].segments])
        rows.append(checkpoint.model(input_ids=ids, token_type_ids=segments, gates=gates).logits[0].numpy())
    words = [checkpoint.examples[index].text for index in chosen]
    return check_parity(np.stack(rows), found_NC[chosen], words, limits)


def _prove_batch_invariance(runner: OnnxRunner, texts: Sequence[EncodedText], max_length: int) -> None:
    """Compare texts alone with the same texts in one batch, padded to one that is as long as texts may be."""
    longest = EncodedText([0] * max_length, [0] * max_length)
    check_batch_invariance(runner.all_logits(texts), runner.padded_logits([*texts, longest])[:-1])


def _quality(checkpoint: MaskedCheckpoint, logits_NC: Float32) -> Quality:
    labels_N = np.array([example.label for example in checkpoint.examples])
    accuracy = float((logits_NC.argmax(axis=1) == labels_N).mean())
    return Quality(metric="accuracy", value=accuracy, data=checkpoint.run.data, num_examples=len(labels_N))


def _describe(
    config: ExportConfig,
    checkpoint: MaskedCheckpoint,
    graph: onnx.ModelProto,
    parity: Parity,
    quality: Quality,
    files: dict[str, FileDigest],
) -> Manifest:
    run, masks = checkpoint.run, checkpoint.masks
    dense = geometry_of(checkpoint.model)
    geometry = dense.model_copy(update={"heads_L": masks.kept_heads_L(), "neurons_L": masks.kept_neurons_L()})
    name, variant = bundle_name(config.target)
    versions = {package: importlib.metadata.version(package) for package in VERSIONED}
    return Manifest(
        name=name,
        variant=variant,
        version=files[MODEL_FILE].sha256[:12],
        labels=run.labels,
        task=run.task,
        geometry=geometry,
        dense_geometry=dense,
        inputs=INPUTS,
        outputs=output_specs(dense.num_labels),
        max_sequence_length=run.max_length,
        precision=config.precision,
        batch_invariant=LIMITS[config.precision].batch_invariant,
        opset=OPSET,
        operators=count_operators(graph),
        quality=quality,
        parity=parity,
        size=Size(
            parameters=geometry.parameters(),
            encoder_parameters=geometry.encoder_parameters(),
            encoder_sparsity=geometry.encoder_sparsity(dense),
            macs=geometry.macs(MACS_SEQUENCE_LENGTH),
            macs_sequence_length=MACS_SEQUENCE_LENGTH,
        ),
        files=files,
        provenance={
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "sparsebert": importlib.metadata.version("sparsebert"),
            "onnxruntime": runtime_version(),
            "stage": run.stage,
            "backbone": run.model,
            "trained_on": run.data,
        }
        | versions,
    )
