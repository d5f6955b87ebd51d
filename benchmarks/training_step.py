"""Which attention implementation makes a training step cheapest on this CPU? Medians and ratios, interleaved.

    python benchmarks/training_step.py --shapes 32x27 32x128

One step is forward, backward and fused AdamW on the demo's backbone with frozen embeddings and gates, at the
precision that `sparsebert train` would take here. The ratio is the median over rounds of sdpa / this one at the
same dropout. Nothing else should run meanwhile.
"""

import argparse
import statistics
import time
from itertools import product

import torch

from sparsebert.masks import MaskSet
from training.backbone import EMBEDDED, resolve_backbone
from training.geometry import geometry_of
from training.loading import load_dense
from training.masking import Gates
from training.precision import resolve

PRECISION = resolve("auto")
Case = tuple[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["32x27", "32x128"], metavar="BATCHxTOKENS")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    cases = list(product(("sdpa", "eager"), (0.1, 0.0)))
    steps = {case: _Step(*case) for case in cases}
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, precision {PRECISION}")
    print(f"{'shape':>7}  {'attention':<9} {'dropout':>7} {'median_ms':>9} {'x sdpa':>7}")
    for shape in options.shapes:
        batch, tokens = map(int, shape.split("x"))
        times_ms = _measure(steps, batch, tokens, options.rounds)
        for (attention, dropout), values in times_ms.items():
            sdpa = times_ms["sdpa", dropout]
            ratio = statistics.median(base / own for base, own in zip(sdpa, values, strict=True))
            print(f"{shape:>7}  {attention:<9} {dropout:7.1f} {statistics.median(values):9.1f} {ratio:7.2f}")


class _Step:
    """A model of its own that does one training step when called."""

    def __init__(self, attention: str, dropout: float) -> None:
        self._model = load_dense(resolve_backbone(EMBEDDED)).train()
        self._model.set_attn_implementation(attention)
        self._model.set_dropout(dropout)
        self._model.bert.embeddings.requires_grad_(False)
        geometry = geometry_of(self._model)
        self._gates = Gates(MaskSet.dense(geometry.num_layers, geometry.heads_L[0], geometry.neurons_L[0]))
        self._optimizer = torch.optim.AdamW((p for p in self._model.parameters() if p.requires_grad), fused=True)

    def __call__(self, ids_BT: torch.Tensor, labels_B: torch.Tensor) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=PRECISION == "bf16"):
            logits_BC = self._model(
                input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT), gates=self._gates(len(ids_BT))
            ).logits
        torch.nn.functional.cross_entropy(logits_BC.float(), labels_B).backward()
        self._gates.backward()
        self._optimizer.step()
        self._optimizer.zero_grad()


def _measure(steps: dict[Case, _Step], batch: int, tokens: int, rounds: int) -> dict[Case, list[float]]:
    generator = torch.Generator().manual_seed(0)
    ids_BT = torch.randint(1000, 20000, (batch, tokens), generator=generator)
    labels_B = torch.randint(0, 2, (batch,), generator=generator)
    cases = list(steps)
    times_ms: dict[Case, list[float]] = {case: [] for case in cases}
    for turn in range(-2, rounds):  # the first two warm up
        for case in cases[turn % len(cases) :] + cases[: turn % len(cases)]:
            started_s = time.perf_counter()
            steps[case](ids_BT, labels_B)
            if turn >= 0:
                times_ms[case].append(1000 * (time.perf_counter() - started_s))
    return times_ms


if __name__ == "__main__":
    main()
