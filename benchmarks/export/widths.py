"""Do FFN sizes that are multiples of something compute faster? So whether `--neuron-multiple` is worth its neurons.

    python benchmarks/export/widths.py --around 384 1024

Times encoders of six random feed-forward blocks in the graph that export writes; all widths take turns. The ratio is
to the first of each row, a multiple of 64; above 1 is slower, though the block is smaller. Nothing else should run
meanwhile.
"""

import argparse
import statistics
import time
from typing import get_args

import numpy as np

from export.latency import VOCABULARY, graph_of, random_weights
from export.runtime import OnnxRunner
from export.texts import EncodedText
from sparsebert.geometry import Geometry
from sparsebert.manifest import Precision

LAYERS = 6
LESS = (0, 1, 2, 4, 8, 16, 32)  # than the multiple of 64
MINILM = Geometry(
    hidden_size=384, head_size=32, vocabulary_size=VOCABULARY, max_positions=512, num_labels=2, token_types=2,
    heads_L=(12,) * LAYERS, neurons_L=(1536,) * LAYERS,
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--around", type=int, nargs="+", default=[384, 1024])
    parser.add_argument("--precisions", nargs="+", choices=get_args(Precision), default=["fp32", "int8"])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    widths = [around - less for around in options.around for less in LESS]
    print("precision  shape  " + "  ".join(f"{width:>6}" for width in widths))
    for precision in options.precisions:
        runners = {
            width: OnnxRunner(
                graph_of(random_weights(MINILM, (("heads", 1),) + (("neurons", width),) * LAYERS), precision),
                options.threads,
            )
            for width in widths
        }
        for batch, tokens in ((1, 32), (8, 32)):
            times_s = time_in_turns(runners, batch, tokens, options.rounds)
            base_s = {width: times_s[around] for around in options.around for width in (around - less for less in LESS)}
            cells = [f"{times_s[width] / base_s[width]:>6.3f}" for width in widths]
            print(f"{precision:<9}  {batch}x{tokens:<4} " + "  ".join(cells))


def time_in_turns(runners: dict[int, OnnxRunner], batch: int, tokens: int, rounds: int) -> dict[int, float]:
    """The median seconds of each width."""
    rng = np.random.default_rng(0)
    texts = [EncodedText(rng.integers(0, VOCABULARY, tokens).tolist(), [0] * tokens) for _ in range(batch)]
    times_s: dict[int, list[float]] = {width: [] for width in runners}
    for step in range(-3, rounds):
        for width, runner in runners.items():
            runner.padded_logits(texts)  # into the caches
            began_s = time.perf_counter()
            runner.padded_logits(texts)
            if step >= 0:
                times_s[width].append(time.perf_counter() - began_s)
    return {width: statistics.median(values) for width, values in times_s.items()}


if __name__ == "__main__":
    main()
