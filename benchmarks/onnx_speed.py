"""How fast is each bundle's graph against the dense one? Medians and ratios from interleaved runs.

    python benchmarks/onnx_speed.py models/demo --shapes 1x32 8x32 32x32

Every round runs each variant once, in an order that turns, so that a drift of the machine's speed meets all
of them; the ratio is the median over rounds of dense / variant. Nothing else should run meanwhile.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import onnxruntime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of the variants' bundles, such as models/demo")
    parser.add_argument("--baseline", default="dense")
    parser.add_argument("--shapes", nargs="+", default=["1x32", "8x32"], metavar="BATCHxTOKENS")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--threads", type=int, default=0, help="0 lets ONNX Runtime choose")
    options = parser.parse_args()
    sessions = {
        path.parent.name: _session(path, options.threads) for path in sorted(options.model.glob("*/model.onnx"))
    }
    print(f"onnxruntime {onnxruntime.__version__}, {options.rounds} rounds, threads {options.threads or 'default'}")
    print(f"{'shape':>7}  {'variant':<12} {'median_ms':>9} {'p90_ms':>8} {'x ' + options.baseline:>8}")
    for shape in options.shapes:
        batch, tokens = map(int, shape.split("x"))
        times_ms = _measure(sessions, batch, tokens, options.rounds)
        for name, values in times_ms.items():
            ratios = [base / own for base, own in zip(times_ms[options.baseline], values, strict=True)]
            p90 = statistics.quantiles(values, n=10)[-1]
            print(
                f"{shape:>7}  {name:<12} {statistics.median(values):9.2f} {p90:8.2f} {statistics.median(ratios):8.2f}"
            )


def _session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), session_options, providers=["CPUExecutionProvider"])


def _measure(
    sessions: dict[str, onnxruntime.InferenceSession], batch: int, tokens: int, rounds: int
) -> dict[str, list[float]]:
    rng = np.random.default_rng(0)
    feeds = {
        "input_ids": rng.integers(1000, 20000, (batch, tokens)),
        "attention_mask": np.ones((batch, tokens), np.int64),
        "token_type_ids": np.zeros((batch, tokens), np.int64),
    }
    names = list(sessions)
    times_ms: dict[str, list[float]] = {name: [] for name in names}
    for step in range(-10, rounds):  # the first ten warm up
        for name in names[step % len(names) :] + names[: step % len(names)]:
            started_s = time.perf_counter()
            sessions[name].run(None, feeds)
            if step >= 0:
                times_ms[name].append(1000 * (time.perf_counter() - started_s))
    return times_ms


if __name__ == "__main__":
    main()
