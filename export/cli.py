"""`sparsebert export`: the command line's words become a configuration, and the bundle is made.

Knows nothing about how exporting works.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from transformers.utils import logging as transformers_logging

from export.forms import Operators
from export.pipeline import ExportConfig, export_bundle
from sparsebert.manifest import Precision, WeightRange

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> None:
    """Run `sparsebert export` with the words after it."""
    options = build_parser().parse_args(arguments)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    manifest = export_bundle(
        ExportConfig(
            checkpoint=options.checkpoint,
            target=options.output,
            precision=options.precision,
            weight_range=options.weight_range,
            operators=options.operators,
            tune=options.tune,
            vocabulary=options.vocabulary,
            with_hf=options.hf,
        )
    )
    size_bytes = manifest.files["model.onnx"].size_bytes
    logger.info(
        "%s/%s: %s, %.1f MB, %.1f%% of encoder parameters removed, accuracy %.2f%% on %d examples "
        "(%+.2f points against PyTorch), "
        "largest logit difference to PyTorch %.1e, labels agree %.1f%% -> %s",
        manifest.name, manifest.variant, manifest.precision, size_bytes / 1e6, 100 * manifest.size.encoder_sparsity,
        100 * manifest.quality.value, manifest.quality.num_examples,
        100 * (manifest.quality.difference or 0.0), manifest.parity.max_logit_difference,
        100 * manifest.parity.label_agreement, options.output,
    )  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    """The flags of `sparsebert export`."""
    parser = argparse.ArgumentParser(
        prog="sparsebert export",
        description="Cut the masked units out of a checkpoint, write the ONNX graph, prove that it computes what "
        "PyTorch computes, measure it on the checkpoint's validation examples and bundle it for 'sparsebert serve'.",
    )
    parser.add_argument("checkpoint", type=Path, help="folder that 'sparsebert train' wrote, such as runs/demo/sparse")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="bundle folder, ending in MODEL/VARIANT"
    )
    parser.add_argument(
        "--precision",
        choices=get_args(Precision),
        default="fp32",
        help="numbers in the graph: fp32 or int8 for CPUs, fp16 for GPUs (default: fp32)",
    )
    parser.add_argument(
        "--weight-range",
        choices=get_args(WeightRange),
        help="bits of int8 weights: 8 (full), or 7 (reduced) for x86 processors without VNNI, on which 8 would "
        "saturate (default: what this machine's processor needs)",
    )
    parser.add_argument(
        "--operators",
        choices=get_args(Operators),
        default="fused",
        help="fused: with operators of ONNX Runtime's own, for its CPU and CUDA providers; standard: those of ONNX "
        "alone, which OpenVINO and TensorRT compute whole (default: fused)",
    )
    parser.add_argument(
        "--tune", action="store_true", help="measure the equivalent forms of the graph here and take the fastest"
    )
    parser.add_argument(
        "--vocabulary",
        type=Path,
        metavar="FILE",
        help="keep only the embedding rows that these texts (one a line) and the checkpoint's own examples need; "
        "other words are spelt with smaller pieces",
    )
    parser.add_argument("--hf", action="store_true", help="add hf/, the compact model for Transformers")
    return parser
