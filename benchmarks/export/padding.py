"""Does it pay to take padding out of the batch, on real texts? Padded and packed graphs side by side.

    python benchmarks/export/padding.py runs/sst2/dense runs/sst2/sparse

The checkpoint's validation texts, in batches of 8 and 32, sorted by length and in the order of the file. Every round
runs each graph over all batches, in turns.
"""

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path

from export.assembly import float_graphs, int8_graphs
from export.calibration import calibrate
from export.forms import DEFAULT_FORMS
from export.runtime import OnnxRunner
from export.texts import EncodedText, calibration_examples, encode_examples
from export.weights import read_weights
from sparsebert.processor import default_weight_range
from training.checkpoint import load_checkpoint
from training.compaction import compact


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    print(f"{'model':<10}{'precision':<11}{'batches':<18}{'padding':>8}{'padded/s':>10}{'packed/s':>10}{'ratio':>7}")
    for path in options.checkpoints:
        checkpoint = load_checkpoint(path)
        weights = read_weights(compact(checkpoint.model, checkpoint.masks))
        length = checkpoint.run.max_length
        texts = encode_examples(path / "tokenizer.json", checkpoint.examples[: options.texts], length)
        calibration = encode_examples(path / "tokenizer.json", calibration_examples(checkpoint.calibration), length)
        int8 = int8_graphs(calibrate(weights, calibration), default_weight_range())
        for precision, assemble in (("fp32", float_graphs(weights, "fp32")), ("int8", int8)):
            runners = {
                layout: OnnxRunner(assemble(replace(DEFAULT_FORMS[precision], layout=layout)), options.threads)
                for layout in ("padded", "packed")
            }
            for name, batches in batchings(texts).items():
                compare(path.name, precision, name, batches, runners, options.rounds)


def batchings(texts: list[EncodedText]) -> dict[str, list[list[EncodedText]]]:
    ordered = sorted(texts, key=lambda text: len(text.token_ids))
    return {
        f"{size} {name}": [some[start : start + size] for start in range(0, len(some), size)]
        for size in (8, 32)
        for name, some in (("sorted", ordered), ("as they come", texts))
    } | {"1 alone": [[text] for text in texts]}


def compare(
    model: str, precision: str, name: str, batches: list[list[EncodedText]], runners: dict[str, OnnxRunner], rounds: int
) -> None:
    times_s: dict[str, list[float]] = {layout: [] for layout in runners}
    for step in range(-1, rounds):
        for layout, runner in runners.items():
            began_s = time.perf_counter()
            for batch in batches:
                runner.padded_logits(batch)
            if step >= 0:
                times_s[layout].append(time.perf_counter() - began_s)
    positions = sum(len(batch) * max(len(text.token_ids) for text in batch) for batch in batches)
    tokens = sum(len(text.token_ids) for batch in batches for text in batch)
    num_texts = sum(map(len, batches))
    rates = [num_texts / statistics.median(values) for values in times_s.values()]
    ratio = statistics.median(a / b for a, b in zip(times_s["padded"], times_s["packed"], strict=True))
    row = f"{model:<10}{precision:<11}{name:<18}{1 - tokens / positions:8.0%}{rates[0]:10.0f}{rates[1]:10.0f}"
    print(f"{row}{ratio:7.2f}", flush=True)


if __name__ == "__main__":
    main()
