import numpy as np
import pytest

from sparsebert.errors import CheckpointError
from sparsebert.masks import MaskSet, load_masks, save_masks

MASKS = MaskSet(
    heads_LH=np.array([[True, False], [False, False]]), neurons_LF=np.array([[True, True, False], [False, True, False]])
)


def test_counts_per_layer():
    assert MASKS.kept_heads_L() == (1, 0)
    assert MASKS.kept_neurons_L() == (2, 1)
    assert MaskSet.dense(2, 3, 4).kept_neurons_L() == (4, 4)


def test_round_trip(tmp_path):
    save_masks(MASKS, tmp_path / "masks.safetensors")
    assert load_masks(tmp_path / "masks.safetensors").equals(MASKS)


def test_equals_tells_one_unit():
    other = MaskSet(heads_LH=MASKS.heads_LH, neurons_LF=~MASKS.neurons_LF)
    assert not MASKS.equals(other)


@pytest.mark.parametrize("content", [b"", b"garbage that is no safetensors file"])
def test_a_damaged_file_is_told(tmp_path, content):
    (tmp_path / "masks.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="is not a mask file"):
        load_masks(tmp_path / "masks.safetensors")


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(CheckpointError, match="is not a mask file"):
        load_masks(tmp_path / "masks.safetensors")


def test_shapes_and_types_are_checked():
    with pytest.raises(ValueError, match="boolean array of two dimensions"):
        MaskSet(heads_LH=np.ones((2, 2)), neurons_LF=np.ones((2, 2), bool))
    with pytest.raises(ValueError, match="heads_LH has 1 layers but neurons_LF has 2"):
        MaskSet(heads_LH=np.ones((1, 2), bool), neurons_LF=np.ones((2, 2), bool))
