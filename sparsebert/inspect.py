"""`sparsebert inspect`: what is this folder, a bundle or a masked checkpoint, and is it whole?

Knows nothing about running models.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparsebert.checkpoint import (
    CALIBRATION_FILE,
    CHECKPOINT_FILES,
    EXAMPLES_FILE,
    MASKS_FILE,
    RUN_FILE,
    read_examples,
    read_run,
)
from sparsebert.digests import unlisted_files, verify_files
from sparsebert.errors import BundleError, CheckpointError
from sparsebert.geometry import Geometry
from sparsebert.manifest import MANIFEST_FILE, Trial, read_golden, read_manifest
from sparsebert.masks import load_masks


def main(arguments: Sequence[str]) -> None:
    """Run `sparsebert inspect` with the words after it."""
    parser = argparse.ArgumentParser(
        prog="sparsebert inspect", description="Say what a model bundle or a masked checkpoint is; check its digests."
    )
    parser.add_argument("folder", type=Path, help="a bundle such as models/demo/sparse, or a checkpoint")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    options = parser.parse_args(arguments)
    report = describe(options.folder)
    sys.stdout.write(json.dumps(report, indent=1) + "\n" if options.json else render(report))


def describe(folder: Path) -> dict[str, Any]:
    """Plain values that say what `folder` is.

    Raises BundleError or CheckpointError when it is incomplete or altered, BundleError when it is neither.
    """
    if (folder / MANIFEST_FILE).exists():
        return _describe_bundle(folder)
    if (folder / RUN_FILE).exists():
        return _describe_checkpoint(folder)
    raise BundleError(
        f"{folder} is neither a model bundle (no {MANIFEST_FILE}) nor a masked checkpoint (no {RUN_FILE}); "
        "give a folder that 'sparsebert train' or 'sparsebert export' wrote"
    )


def _describe_bundle(folder: Path) -> dict[str, Any]:
    manifest = read_manifest(folder)
    verify_files(folder, manifest)
    read_golden(folder)
    unlisted = unlisted_files(folder, manifest)
    return {"kind": "bundle", "digests": "verified", "unlisted_files": unlisted} | manifest.model_dump(mode="json")


def _describe_checkpoint(folder: Path) -> dict[str, Any]:
    run = read_run(folder)
    missing = [name for name in CHECKPOINT_FILES if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(f"{folder} has no {missing[0]}; copy the whole folder again, or train again")
    masks = load_masks(folder / MASKS_FILE)
    dense = run.dense_geometry
    if (masks.heads_LH.shape, masks.neurons_LF.shape) != (
        (dense.num_layers, dense.heads_L[0]),
        (dense.num_layers, dense.neurons_L[0]),
    ):
        raise CheckpointError(f"{folder / MASKS_FILE} is of another model; copy the whole folder again, or train again")
    for name in (EXAMPLES_FILE, CALIBRATION_FILE):
        read_examples(folder, name, run.labels)
    geometry = run.dense_geometry.model_copy(
        update={"heads_L": masks.kept_heads_L(), "neurons_L": masks.kept_neurons_L()}
    )
    return {"kind": "checkpoint", "geometry": geometry.model_dump(mode="json")} | run.model_dump(mode="json")


def render(report: dict[str, Any]) -> str:
    """The report for a reader: a few lines and a table of layers."""
    geometry = Geometry.model_validate(report["geometry"])
    dense = Geometry.model_validate(report["dense_geometry"])
    facts = _bundle_facts(report) if report["kind"] == "bundle" else _checkpoint_facts(report)
    facts["parameters"] = (
        f"{geometry.parameters():,} (dense {dense.parameters():,}); encoder {geometry.encoder_parameters():,}, "
        f"{100 * geometry.encoder_sparsity(dense):.1f}% removed"
    )
    if geometry.vocabulary_size < dense.vocabulary_size:
        facts["vocabulary"] = f"{geometry.vocabulary_size:,} of {dense.vocabulary_size:,} rows kept"
    lines = [f"{name + ':':<13}{value}" for name, value in facts.items()]
    return "\n".join([*lines, "", *_layer_table(geometry, dense)]) + "\n"


def _bundle_facts(report: dict[str, Any]) -> dict[str, str]:
    quality, parity, weights = report["quality"], report["parity"], report["weight_range"]
    operators = ", ".join(f"{count} {name}" for name, count in report["operators"].items())
    return {
        "bundle": f"{report['name']}/{report['variant']} version {report['version']}, digests verified",
        "task": f"{report['task']['name']}: {', '.join(report['labels'])}",
        "precision": report["precision"] + (f", weights in the {weights} range" if weights else ""),
        "quality": f"{quality['metric']} {100 * quality['value']:.2f}% on {quality['num_examples']} examples"
        + ("" if quality["difference"] is None else f", {100 * quality['difference']:+.2f} points against PyTorch"),
        "parity": f"logits within {parity['max_logit_difference']:.1e} of PyTorch, "
        f"{100 * parity['label_agreement']:.1f}% of labels agree ({parity['num_examples']} examples); "
        f"on random ids within {report['parity_random_ids']['max_logit_difference']:.1e}; "
        f"masked and compact within {report['compact_difference']:.1e}",
        "batches": f"logits {'do not depend' if report['batch_invariant'] else 'depend'} on the other texts of a batch"
        + ("" if report["batch_difference"] is None else f" (largest difference {report['batch_difference']:.1e})"),
        "form": ", ".join(f"{name} {choice}" for name, choice in report["form"].items())
        + (" (fastest where it was exported)" if report["tuned"] else ""),
        **{f"trial {number}": str(Trial(**trial)) for number, trial in enumerate(report["trials"], start=1)},
        "file": f"{report['files']['model.onnx']['size_bytes'] / 1e6:.1f} MB",
        "operators": f"{operators} (opset {report['opset']})",
        **({"warning": _warning(report["unlisted_files"])} if report["unlisted_files"] else {}),
    }


def _warning(unlisted: list[str]) -> str:
    return f"the manifest does not know {', '.join(unlisted)}; remove what you did not put there, above all code in hf/"


def _checkpoint_facts(report: dict[str, Any]) -> dict[str, str]:
    returned = sum(sum(e["heads_returned_L"]) + sum(e["neurons_returned_L"]) for e in report["events"])
    facts = {
        "checkpoint": f"{report['stage']} stage of {report['model']}, seed {report['seed']}",
        "task": f"{report['task']['name']}: {', '.join(report['labels'])}",
        "quality": "; ".join(_judged(split, metrics) for split, metrics in report["metrics"].items()),
        "pruning": f"{len(report['events'])} changes of the masks, {returned} units came back",
    }
    if report["weight_sparsity"]:
        zeros = f"{report['weight_sparsity']:.1%} of the encoder's are 0 one by one"
        facts["weights"] = f"{zeros}: not smaller, not faster"
    if report["missed_budget"]:
        facts["budget"] = report["missed_budget"]
    return facts


def _judged(split: str, metrics: dict[str, Any]) -> str:
    text = f"accuracy {100 * metrics['accuracy']:.2f}% on {metrics['num_examples']} {split} examples"
    if metrics["f1"] is not None:
        text += f", F1 {100 * metrics['f1']:.2f}%"
    if metrics["difference"] is not None:
        low, high = 100 * metrics["difference_low"], 100 * metrics["difference_high"]
        text += f", {100 * metrics['difference']:+.2f} points against dense (95% interval {low:+.2f} to {high:+.2f})"
    return text


def _layer_table(geometry: Geometry, dense: Geometry) -> list[str]:
    rows = zip(geometry.heads_L, dense.heads_L, geometry.neurons_L, dense.neurons_L, strict=True)
    table = [f"{'layer':>5}  {'heads':>7}  {'neurons':>11}"]
    for layer, (heads, all_heads, neurons, all_neurons) in enumerate(rows):
        table.append(f"{layer:>5}  {heads:>3}/{all_heads:<3}  {neurons:>5}/{all_neurons:<5}")
    return table
