"""How many milliseconds do heads and neurons cost on this machine, in the graph that export writes?

Times graphs of random weights that differ in their blocks only, in turns, and takes differences. Knows nothing about
checkpoints or files.

D hidden size, E head size, K and N inputs and outputs of a linear layer.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Never

import numpy as np
import onnx
from tqdm import tqdm

from export.assembly import float_graphs, int8_graphs
from export.calibration import Calibrated
from export.forms import DEFAULT_FORMS
from export.quantization import InputRange
from export.runtime import OnnxRunner
from export.texts import EncodedText
from export.weights import AttentionWeights, Block, EmbeddingWeights, FeedForwardWeights, Linear, ModelWeights, Norm
from sparsebert.errors import ConfigError
from sparsebert.geometry import Geometry
from sparsebert.latency import Curve, ShapeLatency, rising
from sparsebert.manifest import Precision
from sparsebert.processor import default_weight_range

REPEATED = 4  # blocks of one size in a row: the noise of a difference is divided by as much
VOCABULARY = 1000
Sizes = tuple[tuple[str, int], ...]  # ("heads", 3), ("neurons", 100), ... in the order in which they compute


@dataclass(frozen=True, kw_only=True)
class LatencyConfig:
    """What to measure: shapes are (batch, tokens); counts of units are chosen by `unit_counts`."""

    precisions: tuple[Precision, ...] = ("fp32", "int8")
    shapes: tuple[tuple[int, int], ...] = ((1, 32), (8, 32))
    rounds: int = 25
    threads: int = 0
    clock_s: Callable[[], float] = field(default=time.perf_counter)

    def __post_init__(self) -> None:
        if "fp16" in self.precisions:
            raise ConfigError("fp16 is for GPUs, and the table is measured on this CPU; choose fp32 and int8")
        if self.rounds < 1:
            raise ConfigError(f"--rounds is {self.rounds}; it must be at least 1")
        if self.threads < 0:
            raise ConfigError(f"--threads is {self.threads}; give 0 for all cores, or at least 1")


def unit_counts(largest: int) -> list[int]:
    """Where a curve is measured: at most eight points, denser where they are few."""
    shares = np.array([1 / 64, 1 / 16, 1 / 6, 1 / 3, 1 / 2, 3 / 4, 1])
    return sorted({max(1, round(largest * share)) for share in shares})


def measure(dense: Geometry, config: LatencyConfig) -> list[ShapeLatency]:
    """One entry for each precision and shape. Raises ConfigError for texts longer than the model's positions."""
    for _, tokens in config.shapes:
        if tokens > dense.max_positions:
            raise ConfigError(f"--shapes has {tokens} tokens, and the model reads at most {dense.max_positions}")
    heads, neurons = unit_counts(max(dense.heads_L)), unit_counts(max(dense.neurons_L))
    models = _models(heads, neurons)
    entries = []
    rounds = len(config.precisions) * len(config.shapes) * (config.rounds + 2)
    with tqdm(total=rounds, desc="measuring", unit="round", disable=None) as bar:
        for precision in config.precisions:
            runners = {
                sizes: OnnxRunner(graph_of(random_weights(dense, sizes), precision), config.threads)
                for sizes in dict.fromkeys(models.values())
            }
            for batch, tokens in config.shapes:
                times_ms = _median_times_ms(runners, batch, tokens, config, bar)
                of = {key: times_ms[sizes] for key, sizes in models.items()}
                entries.append(_entry(precision, batch, tokens, heads, neurons, of))
    return entries


def _models(heads: Sequence[int], neurons: Sequence[int]) -> dict[tuple[str, int], Sizes]:
    """The blocks of each model to time; the key says which point of which curve it is for."""
    one = (("heads", 1),)
    models: dict[tuple[str, int], Sizes] = {("rest", 0): (), ("last", 1): one}
    for count in heads:
        models["attention", count] = (("heads", count),) * REPEATED + one
        models["last_attention", count] = (("heads", count),)
    for count in neurons:
        models["ffn", count] = (("neurons", count),) * REPEATED + one
        models["last_ffn", count] = one + (("neurons", count),) * REPEATED
    return models


def _entry(
    precision: Precision,
    batch: int,
    tokens: int,
    heads: list[int],
    neurons: list[int],
    of: dict[tuple[str, int], float],
) -> ShapeLatency:
    rest_ms, one_ms = of["rest", 0], of["last", 1]

    def curve(name: str, counts: list[int], base_ms: float, repeated: int) -> Curve:
        times_ms = [(of[name, count] - base_ms) / repeated for count in counts]
        return Curve(units=(0, *counts), times_ms=rising(times_ms))

    return ShapeLatency(
        precision=precision,
        batch=batch,
        tokens=tokens,
        rest_ms=rest_ms,
        attention=curve("attention", heads, one_ms, REPEATED),
        ffn=curve("ffn", neurons, one_ms, REPEATED),
        last_attention=curve("last_attention", heads, rest_ms, 1),
        last_ffn=curve("last_ffn", neurons, one_ms, REPEATED),
    )


def _median_times_ms(
    runners: dict[Sizes, OnnxRunner], batch: int, tokens: int, config: LatencyConfig, bar: "tqdm[Never]"
) -> dict[Sizes, float]:
    rng = np.random.default_rng(0)
    texts = [EncodedText(rng.integers(0, VOCABULARY, tokens).tolist(), [0] * tokens) for _ in range(batch)]
    times_ms: dict[Sizes, list[float]] = {sizes: [] for sizes in runners}
    for step in range(-2, config.rounds):  # the first two warm up
        for sizes, runner in runners.items():
            runner.padded_logits(texts)  # its weights come back into the caches, where a server has them
            began_s = config.clock_s()
            runner.padded_logits(texts)
            if step >= 0:
                times_ms[sizes].append(1000 * (config.clock_s() - began_s))
        bar.update()
    return {sizes: median(values) for sizes, values in times_ms.items()}


def graph_of(weights: ModelWeights, precision: Precision) -> onnx.ModelProto:
    """The graph in its default form; int8 in this processor's range, for inputs of a range that any have."""
    form = DEFAULT_FORMS[precision]
    if precision != "int8":
        return float_graphs(weights, precision)(form)
    ranges = {layer.name: InputRange(low=-4.0, high=4.0) for layer in weights.linears()}
    return int8_graphs(Calibrated(weights=weights, ranges=ranges), default_weight_range())(form)


def random_weights(dense: Geometry, sizes: Sizes) -> ModelWeights:
    """A model with the embeddings, hidden size, head size and positions of `dense` and these blocks."""
    rng, width = np.random.default_rng(0), dense.hidden_size

    def linear(name: str, inputs: int, outputs: int) -> Linear:
        weight_KN = rng.normal(0, 0.05, (inputs, outputs)).astype(np.float32)
        return Linear(name=name, weight_KN=weight_KN, bias_N=np.full(outputs, 0.1, np.float32))

    def divided(layer: Linear) -> Linear:
        return replace(layer, divisor_K=np.full(len(layer.weight_KN), 2, np.float32))

    def norm(name: str, size: int = width) -> Norm:
        return Norm(name=name, weight_D=np.ones(size, np.float32), bias_D=np.zeros(size, np.float32), epsilon=1e-12)

    def block(index: int, kind: str, count: int) -> Block:
        name, units = f"block.{index}", count * dense.head_size if kind == "heads" else count
        output, own_norm = linear(f"{name}.output", units, width), norm(f"{name}.norm")
        if kind == "neurons":
            # Calibration smooths both layers; floats leave the division out.
            return FeedForwardWeights(
                hidden=divided(linear(f"{name}.hidden", width, units)), output=divided(output), norm=own_norm
            )
        projections = linear(f"{name}.projections", width, 3 * units)
        return AttentionWeights(
            projections=projections, num_heads=count, scale=dense.head_size**-0.5, output=output, norm=own_norm
        )

    own = dense.embedding_size or width
    tables = [rng.normal(size=(rows, own)).astype(np.float32) for rows in (VOCABULARY, dense.max_positions, 2)]
    return ModelWeights(
        embeddings=EmbeddingWeights(
            words_VE=tables[0],
            positions_VE=tables[1],
            types_VE=tables[2],
            norm=norm("embeddings.norm", own),
            projection=None if dense.embedding_size is None else linear("embeddings.projection", own, width),
        ),
        blocks=tuple(block(index, kind, count) for index, (kind, count) in enumerate(sizes)),
        pooler=linear("pooler", width, width),
        classifier=linear("classifier", width, dense.num_labels),
        activation="gelu",
        pooler_activation="tanh",
    )
