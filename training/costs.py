"""What do the blocks of an encoder cost: parameters, multiply-accumulates, or milliseconds measured where it will run.

Pure; knows nothing about scores or masks. L layers, H heads in a layer, F neurons; K is a number of units, from 0 to
H or F.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from sparsebert.geometry import Geometry, attention_parameters, ffn_parameters
from sparsebert.latency import ShapeLatency

CostName = Literal["parameters", "macs", "latency"]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockCosts:
    """The cost of each block by its number of units: `attention_LK` [L, H + 1], `ffn_LK` [L, F + 1]; inf: not allowed.

    `rest` is what the model costs besides, whatever is pruned.
    """

    attention_LK: Floats
    ffn_LK: Floats
    rest: float = 0.0


class CostModel(Protocol):
    """A currency in which a budget is given."""

    def cost(self, geometry: Geometry) -> float:
        """What a model of these sizes costs."""

    def scenarios(self, dense: Geometry) -> Sequence[BlockCosts]:
        """Tables whose sums are costs; every model is allowed in one of them."""

    def told(self, share: float) -> str:
        """What it is to remove `share` of the cost, as in "... is asked for"."""


class ParameterCost:
    """Encoder parameters, LayerNorms included."""

    def told(self, share: float) -> str:
        return f"removing {share:.1%} of the encoder's parameters"

    def cost(self, geometry: Geometry) -> float:
        return float(geometry.encoder_parameters())

    def scenarios(self, dense: Geometry) -> Sequence[BlockCosts]:
        attention_K = [attention_parameters(k, dense.head_size, dense.hidden_size) for k in range(_heads(dense) + 1)]
        ffn_K = [ffn_parameters(k, dense.hidden_size) for k in range(_neurons(dense) + 1)]
        return [_same_in_all_layers(dense, attention_K, ffn_K)]


@dataclass(frozen=True)
class MacCost:
    """Multiply-accumulates of one text of so many tokens; embeddings and classifier are the rest."""

    tokens: int

    def told(self, share: float) -> str:
        return f"removing {share:.1%} of the multiply-accumulates"

    def cost(self, geometry: Geometry) -> float:
        return float(geometry.macs(self.tokens))

    def scenarios(self, dense: Geometry) -> Sequence[BlockCosts]:
        empty = dense.model_copy(update={"heads_L": (0,), "neurons_L": (0,)})
        rest = empty.macs(self.tokens)

        def block(**units: tuple[int, ...]) -> float:
            return float(empty.model_copy(update=units).macs(self.tokens) - rest)

        attention_K = [block(heads_L=(k,)) for k in range(_heads(dense) + 1)]
        ffn_K = [block(neurons_L=(k,)) for k in range(_neurons(dense) + 1)]
        return [_same_in_all_layers(dense, attention_K, ffn_K, rest)]


@dataclass(frozen=True)
class LatencyCost:
    """Milliseconds by a latency table; after the last attention blocks are cheaper, so each place for it is tried."""

    shape: ShapeLatency

    def told(self, share: float) -> str:
        return f"a speedup of {1 / (1 - share):.3g}" if share < 1 else "any speedup"

    def cost(self, geometry: Geometry) -> float:
        return self.shape.predict_ms(geometry)

    def scenarios(self, dense: Geometry) -> Sequence[BlockCosts]:
        return [self._last_attention_in(layer, dense) for layer in reversed(range(-1, dense.num_layers))]

    def _last_attention_in(self, last: int, dense: Geometry) -> BlockCosts:
        shape, heads, neurons = self.shape, np.arange(_heads(dense) + 1), np.arange(_neurons(dense) + 1)
        inner_K, final_K = (np.interp(heads, c.units, c.times_ms) for c in (shape.attention, shape.last_attention))
        attention_LK = np.tile(inner_K, (dense.num_layers, 1))
        if last >= 0:
            attention_LK[last] = final_K
            attention_LK[last, 0] = np.inf
        attention_LK[last + 1 :, 1:] = np.inf
        before_K, after_K = (np.interp(neurons, curve.units, curve.times_ms) for curve in (shape.ffn, shape.last_ffn))
        ffn_LK = np.stack([before_K if layer < last else after_K for layer in range(dense.num_layers)])
        return BlockCosts(attention_LK=attention_LK, ffn_LK=ffn_LK, rest=shape.rest_ms)


def _heads(dense: Geometry) -> int:
    return max(dense.heads_L)


def _neurons(dense: Geometry) -> int:
    return max(dense.neurons_L)


def _same_in_all_layers(
    dense: Geometry, attention_K: Sequence[float], ffn_K: Sequence[float], rest: float = 0.0
) -> BlockCosts:
    return BlockCosts(
        attention_LK=np.tile(np.array(attention_K, np.float64), (dense.num_layers, 1)),
        ffn_LK=np.tile(np.array(ffn_K, np.float64), (dense.num_layers, 1)),
        rest=float(rest),
    )
