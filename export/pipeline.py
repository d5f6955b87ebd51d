"""From a masked checkpoint to a proven bundle: compact, build, compare, measure, write.

Knows nothing about the command line. N texts, C classes.
"""

import datetime
import importlib.metadata
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tqdm import tqdm

from export.assembly import float_graphs, int8_graphs
from export.builder import OPSET, count_operators
from export.bundle import (
    GOLDEN_EXAMPLES,
    bundle_name,
    bundle_version,
    digest_folder,
    make_golden,
    spread,
    write_golden,
    writing,
)
from export.calibration import calibrate, words_of
from export.forms import DEFAULT_FORMS, STANDARD_FORM, TUNED_CHOICES, Form, Operators
from export.graph import INPUTS, output_specs
from export.parity import SAME_LOGITS
from export.proof import Proof, prove
from export.runtime import OnnxRunner, runtime_version
from export.size import LIMIT_BYTES, check_size
from export.texts import EncodedText, calibration_examples, encode_examples, read_texts, text_or_pair
from export.trust import check_words
from export.tuning import fastest_form, typical_batches
from export.vocabulary import Shrunk, shrink
from export.weights import ModelWeights, read_weights
from sparsebert.errors import ConfigError
from sparsebert.files import new_folder
from sparsebert.manifest import (
    MANIFEST_FILE,
    MODEL_FILE,
    TOKENIZER_FILE,
    FileDigest,
    Manifest,
    Precision,
    Quality,
    Size,
    Trial,
    WeightRange,
    write_manifest,
)
from sparsebert.processor import choose_weight_range, this_processor_needs_reduced_range
from training.checkpoint import MaskedCheckpoint, load_checkpoint
from training.compaction import compact, keep_words
from training.geometry import geometry_of
from training.modeling import SparseBertForSequenceClassification

logger = logging.getLogger(__name__)

Float32 = NDArray[np.float32]
MACS_SEQUENCE_LENGTH = 128
HF_FOLDER = "hf"
ACCURACY_LOSS = 0.005  # more than this is worth a warning
VERSIONED = ("onnx", "torch", "transformers", "numpy")


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What to export, to where, and how; the last two names of `target` are model and variant.

    `vocabulary` is a file of texts, one a line: the word table keeps the rows that they and the checkpoint's own
    examples need. `weight_range` of int8 weights: None asks this machine's processor. `operators`: with those of ONNX
    Runtime's own, or with the standard ones alone. `tune` measures the forms of the graph here.
    """

    checkpoint: Path
    target: Path
    precision: Precision = "fp32"
    weight_range: WeightRange | None = None
    operators: Operators = "fused"
    tune: bool = False
    vocabulary: Path | None = None
    with_hf: bool = False

    def __post_init__(self) -> None:
        bundle_name(self.target)
        if self.target.resolve() == self.checkpoint.resolve():
            raise ConfigError(f"--output {self.target} is the checkpoint itself; choose another folder")
        if self.weight_range is not None and self.precision != "int8":
            raise ConfigError(f"--weight-range is for --precision int8, not for {self.precision}")
        if self.tune and self.precision == "fp16":
            raise ConfigError("--tune measures on this machine's CPU, and fp16 is for GPUs; leave one of them out")
        if self.operators == "standard" and (self.tune or self.precision == "int8"):
            other = "--tune" if self.tune else "--precision int8"
            raise ConfigError(f"{other} uses operators of ONNX Runtime's own; leave it or --operators standard out")


@dataclass(frozen=True, kw_only=True, eq=False)
class _Graph:
    """A graph and how it came to be written as it is."""

    model: onnx.ModelProto
    form: Form
    trials: tuple[Trial, ...]
    weight_range: WeightRange | None


def export_bundle(
    config: ExportConfig, *, reduced_range: bool | None = None, limit_bytes: int = LIMIT_BYTES
) -> Manifest:
    """Write one bundle, replacing one that is there; when anything fails nothing is written.

    `reduced_range` says that the processor needs int8 weights of 7 bits; None asks this machine's.
    `limit_bytes` is the most that a graph may hold.
    Raises ConfigError, CheckpointError, ExportError or ParityError.
    """
    weight_range = _weight_range(config, reduced_range)
    checkpoint = load_checkpoint(config.checkpoint)
    check_words(checkpoint.tokenizer.get_vocab(), checkpoint.model.config.vocab_size)
    if checkpoint.run.weight_sparsity:
        logger.warning(
            "%.1f%% of the encoder's weights are 0 one by one, which makes a bundle neither smaller nor faster",
            100 * checkpoint.run.weight_sparsity,
        )
    small = compact(checkpoint.model, checkpoint.masks)
    tokenizer_json, kept_words = _tokenizer(config, checkpoint)
    if config.vocabulary is not None:
        small = keep_words(small, kept_words)
    with new_folder(config.target, marker=MANIFEST_FILE, kind="bundle") as folder:
        with writing(config.target):
            (folder / TOKENIZER_FILE).write_text(tokenizer_json, encoding="utf-8")
            if config.with_hf:
                _write_hf(folder, checkpoint, small)
        max_length = checkpoint.run.max_length
        calibration = encode_examples(folder / TOKENIZER_FILE, calibration_examples(checkpoint.calibration), max_length)
        weights = read_weights(small, max_length)
        check_size(weights, config.precision, len(words_of(calibration)), limit_bytes)
        graph = _write_graph(config, weights, calibration, weight_range)
        with writing(config.target):
            onnx.save(graph.model, folder / MODEL_FILE)
        texts = encode_examples(folder / TOKENIZER_FILE, checkpoint.examples, max_length)
        runner = OnnxRunner(folder / MODEL_FILE)
        logits_NC = _answer(runner, texts, config)
        proof = prove(checkpoint, small, runner, texts, logits_NC, config.precision, kept_words)
        chosen = spread(checkpoint.examples, GOLDEN_EXAMPLES)
        golden = make_golden([checkpoint.examples[i] for i in chosen], logits_NC[chosen].tolist(), config.precision)
        with writing(config.target):
            write_golden(folder, golden)
        quality = _quality(checkpoint, logits_NC)
        manifest = _describe(config, checkpoint, small, graph, proof, quality, digest_folder(folder))
        with writing(config.target):
            return write_manifest(folder, manifest)


def _tokenizer(config: ExportConfig, checkpoint: MaskedCheckpoint) -> tuple[str, NDArray[np.int64]]:
    """What stands in the bundle's `tokenizer.json`, and the checkpoint's token id for each of its ids."""
    if config.vocabulary is None:
        whole: str = checkpoint.tokenizer.backend_tokenizer.to_str(pretty=True)
        return whole, np.arange(checkpoint.model.config.vocab_size)
    shrunk = _shrink_vocabulary(checkpoint, config.vocabulary)
    return json.dumps(shrunk.tokenizer_json, ensure_ascii=False), shrunk.kept


def _write_hf(folder: Path, checkpoint: MaskedCheckpoint, small: SparseBertForSequenceClassification) -> None:
    """The compact model for Transformers, with the bundle's own tokenizer."""
    small.save_pretrained(folder / HF_FOLDER)
    checkpoint.tokenizer.save_pretrained(folder / HF_FOLDER)
    shutil.copyfile(folder / TOKENIZER_FILE, folder / HF_FOLDER / TOKENIZER_FILE)


def _shrink_vocabulary(checkpoint: MaskedCheckpoint, corpus: Path) -> Shrunk:
    """The tokenizer that the corpus and the checkpoint's own examples need."""
    examples = [
        text_or_pair(example) for example in (*checkpoint.examples, *calibration_examples(checkpoint.calibration))
    ]
    texts = [*read_texts(corpus), *examples]
    tokenizer = Tokenizer.from_str(checkpoint.tokenizer.backend_tokenizer.to_str())
    tokenizer.no_padding()
    tokenizer.no_truncation()
    with tqdm(total=2 * len(texts), desc="vocabulary", unit="text", disable=None) as bar:
        shrunk = shrink(tokenizer, texts, bar.update)
    rows, width = checkpoint.model.bert.embeddings.word_embeddings.weight.shape
    logger.info(
        "vocabulary: %d of %d rows kept, %.1f MB of 32-bit floats less",
        len(shrunk.kept), rows, 4e-6 * width * (rows - len(shrunk.kept)),
    )  # fmt: skip
    return shrunk


def _weight_range(config: ExportConfig, reduced_range: bool | None) -> WeightRange | None:
    if config.precision != "int8":
        return None
    needed = this_processor_needs_reduced_range() if reduced_range is None else reduced_range
    return choose_weight_range(config.weight_range, reduced_range=needed)


def _write_graph(
    config: ExportConfig,
    weights: ModelWeights,
    calibration: Sequence[EncodedText],
    weight_range: WeightRange | None,
) -> _Graph:
    """The graph in its default form, or in the one that is fastest here; with a `weight_range` in integers."""
    if weight_range is not None:
        assemble = int8_graphs(calibrate(weights, calibration), weight_range)
    else:
        assemble = float_graphs(weights, config.precision)
    form = STANDARD_FORM if config.operators == "standard" else DEFAULT_FORMS[config.precision]
    trials = tuple[Trial, ...]()
    if config.tune:
        tuned = fastest_form(assemble, form, TUNED_CHOICES[config.precision], typical_batches(calibration))
        form, trials = tuned.form, tuned.trials
        logger.info("tuned: %s; %.3f times as fast here as the default form", form.as_dict(), tuned.speedup)
    return _Graph(model=assemble(form), form=form, trials=trials, weight_range=weight_range)


def _answer(runner: OnnxRunner, texts: Sequence[EncodedText], config: ExportConfig) -> Float32:
    variant = config.target.name
    with tqdm(total=len(texts), desc=f"checking {variant}", unit="text", disable=None) as bar:
        return runner.all_logits(texts, bar.update)


def _quality(checkpoint: MaskedCheckpoint, logits_NC: Float32) -> Quality:
    labels_N = np.array([example.label for example in checkpoint.examples])
    accuracy = float((logits_NC.argmax(axis=1) == labels_N).mean())
    difference = accuracy - checkpoint.run.accuracy
    if -difference > ACCURACY_LOSS:
        logger.warning(
            "the graph's accuracy is %.2f points below the masked model's in PyTorch; compare with --precision fp32 "
            "before you serve it", -100 * difference,
        )  # fmt: skip
    return Quality(
        metric="accuracy",
        value=accuracy,
        data=checkpoint.run.data,
        num_examples=len(labels_N),
        difference=difference,
    )


def _describe(
    config: ExportConfig,
    checkpoint: MaskedCheckpoint,
    small: SparseBertForSequenceClassification,
    graph: _Graph,
    proof: Proof,
    quality: Quality,
    files: dict[str, FileDigest],
) -> Manifest:
    run = checkpoint.run
    dense = geometry_of(checkpoint.model)
    geometry = geometry_of(small)
    name, variant = bundle_name(config.target)
    versions = {package: importlib.metadata.version(package) for package in VERSIONED}
    return Manifest(
        name=name,
        variant=variant,
        version=bundle_version(files, run.labels),
        labels=run.labels,
        task=run.task,
        geometry=geometry,
        dense_geometry=dense,
        inputs=INPUTS,
        outputs=output_specs(dense.num_labels),
        max_sequence_length=run.max_length,
        precision=config.precision,
        weight_range=graph.weight_range,
        batch_invariant=proof.batch_difference <= SAME_LOGITS,
        batch_difference=proof.batch_difference,
        opset=OPSET,
        operators=count_operators(graph.model),
        form=graph.form.as_dict(),
        tuned=config.tune,
        trials=graph.trials,
        quality=quality,
        parity=proof.parity,
        parity_random_ids=proof.parity_random_ids,
        compact_difference=proof.compact_difference,
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
