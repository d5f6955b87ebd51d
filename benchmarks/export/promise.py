"""Does the latency table keep its promise? Predicted and measured speed-ups of whole bundles against the dense one.

    sparsebert latency-table runs/sst2/dense --out table.json
    python benchmarks/export/promise.py table.json models/sst2 --dense dense-fp32

Bundles of one model, each at its own precision; the dense bundle is the base of all ratios.
"""

import argparse
import statistics
import time
from pathlib import Path

from export.runtime import OnnxRunner
from export.texts import EncodedText
from sparsebert.latency import read_latency_table
from sparsebert.manifest import MODEL_FILE, read_manifest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("model", type=Path, help="folder of the variants' bundles")
    parser.add_argument("--dense", default="dense")
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    table = read_latency_table(options.table)
    manifests = {path.parent.name: read_manifest(path.parent) for path in sorted(options.model.glob("*/manifest.json"))}
    runners = {name: OnnxRunner(options.model / name / MODEL_FILE, table.threads) for name in manifests}
    print(f"{'shape':<8}{'bundle':<16}{'predicted':>10}{'measured':>10}{'off by':>8}")
    for batch, tokens in dict.fromkeys((entry.batch, entry.tokens) for entry in table.shapes):
        texts = [EncodedText(list(range(1000, 1000 + tokens)), [0] * tokens)] * batch
        times_s: dict[str, list[float]] = {name: [] for name in runners}
        for step in range(-3, options.rounds):
            for name, runner in runners.items():
                runner.padded_logits(texts)  # into the caches
                began_s = time.perf_counter()
                runner.padded_logits(texts)
                if step >= 0:
                    times_s[name].append(time.perf_counter() - began_s)
        predicted_ms = {
            name: table.find(one.precision, batch, tokens).predict_ms(one.geometry) for name, one in manifests.items()
        }
        for name in manifests:
            predicted = predicted_ms[options.dense] / predicted_ms[name]
            pairs = zip(times_s[options.dense], times_s[name], strict=True)
            measured = statistics.median(dense / own for dense, own in pairs)
            print(f"{batch}x{tokens:<6}{name:<16}{predicted:10.2f}{measured:10.2f}{predicted / measured - 1:8.0%}")


if __name__ == "__main__":
    main()
