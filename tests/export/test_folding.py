from dataclasses import replace

import numpy as np
import pytest

from export.folding import fold_output_biases, with_two_heads
from export.weights import (
    AttentionWeights,
    EmbeddingWeights,
    FeedForwardWeights,
    Linear,
    ModelWeights,
    Norm,
    base_name,
    join,
    split_projections,
)

D, W, F = 4, 2, 3


def linear(rng, name, inputs, outputs):
    return Linear(name=name, weight_KN=rng.normal(size=(inputs, outputs)).astype(np.float32),
                  bias_N=rng.normal(size=outputs).astype(np.float32))  # fmt: skip


def norm(rng, name):
    return Norm(name=name, weight_D=rng.normal(size=D).astype(np.float32),
                bias_D=rng.normal(size=D).astype(np.float32), epsilon=1e-12)  # fmt: skip


def make_weights(seed=0) -> ModelWeights:
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(5, D)).astype(np.float32)
    return ModelWeights(
        embeddings=EmbeddingWeights(
            words_VE=table, positions_VE=table, types_VE=table, norm=norm(rng, "e"), projection=None
        ),
        blocks=(
            AttentionWeights(projections=linear(rng, "p", D, 3 * W), num_heads=1, scale=1.0,
                             output=linear(rng, "a", W, D), norm=norm(rng, "n")),
            FeedForwardWeights(hidden=linear(rng, "h", D, F), output=linear(rng, "o", F, D), norm=norm(rng, "m")),
        ),
        pooler=linear(rng, "pooler", D, D), classifier=linear(rng, "classifier", D, 2), activation="gelu",
        pooler_activation="tanh",
    )  # fmt: skip


def run_norm(x, norm):
    centred = x - x.mean(axis=1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + norm.epsilon) * norm.weight_D + norm.bias_D


def apply(x, layer):
    return x @ layer.weight_KN + layer.bias_N


def run(weights, x_ND):
    """The blocks with an attention that reads its own row only."""
    x = run_norm(x_ND, weights.embeddings.norm)
    x = x if weights.embeddings.projection is None else apply(x, weights.embeddings.projection)
    for block in weights.blocks:
        if isinstance(block, AttentionWeights):
            units = apply(x, split_projections(block.projections)[2])
        else:
            units = np.maximum(apply(x, block.hidden), 0)
        x = run_norm(apply(units, block.output) + x, block.norm)
    return x


@pytest.mark.parametrize("projected", [False, True])
def test_folding_changes_nothing_and_leaves_no_output_bias(projected):
    weights = make_weights()
    if projected:
        projection = linear(np.random.default_rng(9), "embeddings.projection", D, D)
        weights = replace(weights, embeddings=replace(weights.embeddings, projection=projection))
    folded = fold_output_biases(weights)
    x_ND = np.random.default_rng(1).normal(size=(7, D)).astype(np.float32)
    assert run(folded, x_ND) == pytest.approx(run(weights, x_ND), abs=1e-4)
    assert [block.output.bias_N.any() for block in folded.blocks] == [False, False]
    assert weights.blocks[0].output.bias_N.any()


def test_a_model_without_blocks_stays():
    weights = replace(make_weights(), blocks=())
    assert fold_output_biases(weights).embeddings.norm is weights.embeddings.norm


def test_projections_come_apart_and_together():
    projections = make_weights().blocks[0].projections
    queries, keys, values = split_projections(projections)
    assert (queries.weight_KN == projections.weight_KN[:, :W]).all()
    assert (values.bias_N == projections.bias_N[-W:]).all()
    both = join([keys, values])
    assert (both.name, base_name(both)) == ("p/keys_values", "p")
    assert (both.weight_KN == projections.weight_KN[:, W:]).all()


def test_linear_layers_are_listed_in_order():
    assert [layer.name for layer in make_weights().linears()] == ["p", "a", "h", "o", "pooler", "classifier"]


def test_a_second_head_of_zeros_changes_nothing():
    weights = make_weights()
    attention, ffn = weights.blocks
    two = with_two_heads(attention)
    assert (two.num_heads, two.projections.weight_KN.shape, two.projections.name) == (2, (D, 6 * W), "p")
    for old, new in zip(split_projections(attention.projections), split_projections(two.projections), strict=True):
        assert np.array_equal(new.weight_KN, np.pad(old.weight_KN, ((0, 0), (0, W))))
        assert np.array_equal(new.bias_N, np.pad(old.bias_N, (0, W)))
    assert np.array_equal(two.output.weight_KN, np.pad(attention.output.weight_KN, ((0, W), (0, 0))))
    assert with_two_heads(two) is two
    assert with_two_heads(ffn) is ffn
