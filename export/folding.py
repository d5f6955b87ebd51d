"""Which equal network needs fewer operators? Biases are moved to where they cost nothing.

A block computes norm(x + units @ W + b) with x from the norm (or projection) before it, which feeds this block
alone. So b can be added to the bias there; the block's first linear layer then sees x + b and takes b @ W back. The
sum of residual and product is then one matrix product that starts from the residual. Pure arithmetic on arrays.
"""

from dataclasses import replace

import numpy as np

from export.weights import (
    AttentionWeights,
    Block,
    EmbeddingWeights,
    Float32,
    Linear,
    ModelWeights,
    Norm,
    join,
    split_projections,
)


def fold_output_biases(weights: ModelWeights) -> ModelWeights:
    """The same function with zero biases in every block's output layer, up to the rounding of 32-bit floats."""
    embeddings, blocks = weights.embeddings, list(weights.blocks)
    for index, block in enumerate(weights.blocks):
        shift_D = block.output.bias_N
        if index:
            blocks[index - 1] = replace(blocks[index - 1], norm=_shift_norm(blocks[index - 1].norm, shift_D))
        else:
            embeddings = _shift_embeddings(embeddings, shift_D)
        blocks[index] = _without_output_bias(block)
    return replace(weights, embeddings=embeddings, blocks=tuple(blocks))


def with_two_heads(block: Block) -> Block:
    """The same function, an attention of one head with a second one of zeros."""
    if not isinstance(block, AttentionWeights) or block.num_heads > 1:
        return block
    size = len(block.output.weight_KN)
    parts = [
        replace(part, weight_KN=np.pad(part.weight_KN, ((0, 0), (0, size))), bias_N=np.pad(part.bias_N, (0, size)))
        for part in split_projections(block.projections)
    ]
    return replace(
        block,
        projections=replace(join(parts), name=block.projections.name),
        num_heads=2,
        output=replace(block.output, weight_KN=np.pad(block.output.weight_KN, ((0, size), (0, 0)))),
    )


def _shift_embeddings(embeddings: EmbeddingWeights, shift_D: Float32) -> EmbeddingWeights:
    projection = embeddings.projection
    if projection is None:
        return replace(embeddings, norm=_shift_norm(embeddings.norm, shift_D))
    return replace(embeddings, projection=replace(projection, bias_N=projection.bias_N + shift_D))


def _without_output_bias(block: Block) -> Block:
    shift_D = block.output.bias_N
    output = replace(block.output, bias_N=np.zeros_like(shift_D))
    if isinstance(block, AttentionWeights):
        return replace(block, projections=_expect_shift(block.projections, shift_D), output=output)
    return replace(block, hidden=_expect_shift(block.hidden, shift_D), output=output)


def _shift_norm(norm: Norm, shift_D: Float32) -> Norm:
    return replace(norm, bias_D=norm.bias_D + shift_D)


def _expect_shift(layer: Linear, shift_K: Float32) -> Linear:
    """The layer that gives the same for x + shift as `layer` for x."""
    moved_N = shift_K.astype(np.float64) @ layer.weight_KN.astype(np.float64)
    return replace(layer, bias_N=(layer.bias_N - moved_N).astype(np.float32))
