import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sparsebert.geometry import Geometry, attention_parameters, ffn_parameters, head_parameters, neuron_parameters

BERT_BASE = Geometry(
    hidden_size=768,
    head_size=64,
    heads_L=(12,) * 12,
    neurons_L=(3072,) * 12,
    vocabulary_size=30522,
    max_positions=512,
    token_types=2,
    num_labels=2,
)
TINY = Geometry(
    hidden_size=4, head_size=2, heads_L=(2, 0), neurons_L=(3, 1), vocabulary_size=10, max_positions=5, token_types=2,
    num_labels=3,
)  # fmt: skip


def test_bert_base_has_the_published_numbers():
    assert BERT_BASE.encoder_parameters() == 85_054_464  # 12 layers of 7,087,872
    assert BERT_BASE.embedding_parameters() == 23_837_184
    assert BERT_BASE.parameters() == 109_483_778  # BertForSequenceClassification with two labels


def test_tiny_geometry_against_a_table_made_by_hand():
    # layer 0: q, k, v 4->4 (3 * 20), output 4->4 (20), norm (8) = 88; FFN 4->3 (15), 3->4 (16), norm (8) = 39
    # layer 1: attention removed; FFN 4->1 (5), 1->4 (8), norm (8) = 21
    assert TINY.encoder_parameters() == 88 + 39 + 21
    assert TINY.embedding_parameters() == (10 + 5 + 2) * 4 + 8
    assert TINY.classifier_parameters() == 20 + 15
    assert TINY.parameters() == 148 + 76 + 35


def test_macs_of_the_tiny_geometry_at_three_tokens():
    # a token: projections 4 * 4 * 4 = 64, scores and context 2 * 3 * 4 = 24, FFN 2 * 4 * 3 = 24 and 2 * 4 * 1 = 8
    assert TINY.macs(3) == 3 * (64 + 24 + 24 + 8) + 4 * 4 + 4 * 3


def test_narrow_embeddings_and_their_projection_against_a_table_made_by_hand():
    narrow = TINY.model_copy(update={"embedding_size": 3})
    # 17 rows of 3, their norm (6), projection 3->4 (16); nothing else changes
    assert narrow.embedding_parameters() == 51 + 6 + 16
    assert narrow.parameters() == 148 + 73 + 35
    assert narrow.macs(3) == TINY.macs(3) + 3 * (3 * 4)


def test_electra_small_has_the_published_numbers():
    electra = BERT_BASE.model_copy(
        update={"hidden_size": 256, "embedding_size": 128, "heads_L": (4,) * 12, "neurons_L": (1024,) * 12}
    )
    assert electra.parameters() == 13_549_314  # ElectraForSequenceClassification with two labels


def test_a_geometry_without_an_embedding_size_does_not_name_one():
    """The seal of a manifest is over these values: one from before it was known must stay whole."""
    assert "embedding_size" not in TINY.model_dump(mode="json")
    assert Geometry.model_validate(TINY.model_dump()) == TINY
    assert TINY.model_copy(update={"embedding_size": 3}).model_dump()["embedding_size"] == 3


def test_a_removed_block_has_no_parameters():
    assert attention_parameters(0, 64, 768) == 0
    assert ffn_parameters(0, 768) == 0


@given(heads=st.integers(2, 16), head_size=st.integers(1, 64), neurons=st.integers(2, 99), hidden=st.integers(1, 99))
def test_one_unit_less_costs_one_unit(heads, head_size, neurons, hidden):
    fewer_heads = attention_parameters(heads - 1, head_size, hidden)
    assert attention_parameters(heads, head_size, hidden) - fewer_heads == head_parameters(head_size, hidden)
    assert ffn_parameters(neurons, hidden) - ffn_parameters(neurons - 1, hidden) == neuron_parameters(hidden)


def test_sparsity_is_relative_to_the_dense_encoder():
    half = BERT_BASE.model_copy(update={"heads_L": (12,) * 6 + (0,) * 6, "neurons_L": (3072,) * 6 + (0,) * 6})
    assert half.encoder_sparsity(BERT_BASE) == 0.5
    assert BERT_BASE.encoder_sparsity(BERT_BASE) == 0.0


def test_layers_must_match():
    with pytest.raises(ValidationError, match="heads_L has 1 layers but neurons_L has 2"):
        Geometry(**{**TINY.model_dump(), "heads_L": (1,)})
