"""Which heads and neurons are kept: two boolean arrays, and the file that holds them.

Knows nothing about models or scores. L layers, H heads in a layer, F neurons in a layer's FFN.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from sparsebert.errors import CheckpointError

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskSet:
    """True where a unit is kept: `heads_LH` of shape [L, H], `neurons_LF` of shape [L, F]."""

    heads_LH: BoolArray
    neurons_LF: BoolArray

    def __post_init__(self) -> None:
        for name in ("heads_LH", "neurons_LF"):
            array = getattr(self, name)
            if array.dtype != np.bool_ or array.ndim != 2:
                raise ValueError(f"{name} must be a boolean array of two dimensions, not {array.dtype} {array.shape}")
        if len(self.heads_LH) != len(self.neurons_LF):
            raise ValueError(f"heads_LH has {len(self.heads_LH)} layers but neurons_LF has {len(self.neurons_LF)}")

    @classmethod
    def dense(cls, num_layers: int, heads: int, neurons: int) -> Self:
        """The mask that keeps everything."""
        return cls(heads_LH=np.ones((num_layers, heads), bool), neurons_LF=np.ones((num_layers, neurons), bool))

    @property
    def num_layers(self) -> int:
        return len(self.heads_LH)

    def kept_heads_L(self) -> tuple[int, ...]:
        """Heads kept in each layer."""
        return tuple(int(n) for n in self.heads_LH.sum(axis=1))

    def kept_neurons_L(self) -> tuple[int, ...]:
        """FFN neurons kept in each layer."""
        return tuple(int(n) for n in self.neurons_LF.sum(axis=1))

    def equals(self, other: "MaskSet") -> bool:
        """Whether both keep the same units."""
        return np.array_equal(self.heads_LH, other.heads_LH) and np.array_equal(self.neurons_LF, other.neurons_LF)


def save_masks(masks: MaskSet, path: Path) -> None:
    """Write `masks` as safetensors."""
    arrays = {
        "heads_LH": np.ascontiguousarray(masks.heads_LH),
        "neurons_LF": np.ascontiguousarray(masks.neurons_LF),
    }
    save_file(arrays, path)


def load_masks(path: Path) -> MaskSet:
    """Read what `save_masks` wrote.

    Raises CheckpointError when the file is missing or is not a mask file.
    """
    try:
        arrays = load_file(path)
        return MaskSet(heads_LH=arrays["heads_LH"], neurons_LF=arrays["neurons_LF"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is not a mask file ({error}); train again or copy the whole folder") from error
