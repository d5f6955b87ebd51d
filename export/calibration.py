"""Which ranges do the activations of this model have on real texts?

Runs the model in 32-bit floats on the checkpoint's calibration texts and looks at what goes into each linear layer.
Knows nothing about files or accuracy.

K inputs of a linear layer, R rows (tokens) that were kept as a sample.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from export.forms import CPU_FORM
from export.graph import build_graph
from export.products import ObservingProducts
from export.quantization import InputRange, best_range, smooth
from export.runtime import OnnxRunner
from export.texts import EncodedText
from export.weights import Block, FeedForwardWeights, Float32, Linear, ModelWeights

Ids = NDArray[np.int64]
SAMPLED_ROWS = 1024
OBSERVING_FORM = replace(CPU_FORM, last="projected", products="matmul")  # biases where the 8-bit graph has them


@dataclass(frozen=True, kw_only=True, eq=False)
class Observed:
    """What went into one layer: the extremes of each input over all tokens, and some whole rows."""

    lowest_K: Float32
    highest_K: Float32
    sample_RK: Float32

    @property
    def largest_K(self) -> Float32:
        """Largest absolute inputs."""
        return np.maximum(-self.lowest_K, self.highest_K)

    def range(self, layer: Linear) -> InputRange:
        """The best range for the inputs of `layer`, divided as it wants them."""
        divisor_K = np.float32(1) if layer.divisor_K is None else layer.divisor_K
        low, high = float((self.lowest_K / divisor_K).min()), float((self.highest_K / divisor_K).max())
        return best_range((self.sample_RK / divisor_K).ravel(), low, high)


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibrated:
    """The model, made easier to round, and the range of the inputs of each of its layers, by layer name."""

    weights: ModelWeights
    ranges: dict[str, InputRange]


def calibrate(weights: ModelWeights, texts: Sequence[EncodedText]) -> Calibrated:
    """Smooth the FFN layers and find all ranges. Raises ValueError without texts."""
    seen = observe(weights, texts)
    blocks = tuple(_smoothed(block, seen) for block in weights.blocks)
    smoothed = replace(weights, blocks=blocks)
    return Calibrated(
        weights=smoothed, ranges={layer.name: seen[layer.name].range(layer) for layer in smoothed.linears()}
    )


def observe(weights: ModelWeights, texts: Sequence[EncodedText]) -> dict[str, Observed]:
    """What goes into each linear layer, by layer name, each text alone in its batch."""
    if not texts:
        raise ValueError("no text to calibrate with")
    weights, texts = with_words_of(weights, texts)
    runner = OnnxRunner(build_graph(weights, ObservingProducts(OBSERVING_FORM), OBSERVING_FORM))
    names = [layer.name for layer in weights.linears()]
    rows: dict[str, list[Float32]] = {name: [] for name in names}
    extremes: dict[str, tuple[Float32, Float32]] = {}
    stride, passed = -(-sum(len(text.token_ids) for text in texts) // SAMPLED_ROWS), 0
    for text in tqdm(texts, desc="calibrating", unit="text", disable=None):
        for name, values_RK in zip(names, runner.outputs([text], names), strict=True):
            low_K, high_K = values_RK.min(axis=0), values_RK.max(axis=0)
            old = extremes.get(name, (low_K, high_K))
            extremes[name] = (np.minimum(old[0], low_K), np.maximum(old[1], high_K))
            # Layers after the last attention see one token of each text, which are few enough to keep all.
            every_token = len(values_RK) == len(text.token_ids)
            rows[name].append(values_RK[-passed % stride :: stride] if every_token else values_RK)
        passed += len(text.token_ids)
    return {
        name: Observed(lowest_K=low_K, highest_K=high_K, sample_RK=np.concatenate(rows[name]))
        for name, (low_K, high_K) in extremes.items()
    }


def words_of(texts: Sequence[EncodedText]) -> Ids:
    """The token ids of some texts, sorted."""
    return np.unique(np.concatenate([np.array(text.token_ids, np.int64) for text in texts]))


def with_words_of(weights: ModelWeights, texts: Sequence[EncodedText]) -> tuple[ModelWeights, list[EncodedText]]:
    """The same model and texts with no more word rows than these need, which are most of a multilingual model."""
    words = words_of(texts)
    embeddings = replace(weights.embeddings, words_VE=weights.embeddings.words_VE[words])
    renumbered = [replace(text, token_ids=np.searchsorted(words, text.token_ids).tolist()) for text in texts]
    return replace(weights, embeddings=embeddings), renumbered


def _smoothed(block: Block, seen: dict[str, Observed]) -> Block:
    """FFN layers have the inputs with the largest outliers (measured, docs/results.md)."""
    if not isinstance(block, FeedForwardWeights):
        return block
    return replace(
        block,
        hidden=smooth(block.hidden, seen[block.hidden.name].largest_K),
        output=smooth(block.output, seen[block.output.name].largest_K),
    )
