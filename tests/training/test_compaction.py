import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsebert.masks import MaskSet
from training.compaction import compact, expand
from training.masking import fixed_gates
from training.modeling import SparseBertConfig, SparseBertForSequenceClassification

IDS = torch.tensor([[1, 2, 3, 4], [4, 3, 2, 1]])


def make_model(seed: int) -> SparseBertForSequenceClassification:
    torch.manual_seed(seed)
    return SparseBertForSequenceClassification(
        SparseBertConfig(
            vocab_size=9,
            hidden_size=8,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=6,
            head_size=4,
            num_labels=2,
            max_position_embeddings=8,
            embedding_size=4,
        )
    ).eval()


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_what_the_smaller_model_learned_is_what_the_masked_one_knows(seed):
    rng = np.random.default_rng(seed)
    masks = MaskSet(heads_LH=rng.random((2, 2)) < 0.6, neurons_LF=rng.random((2, 6)) < 0.5)
    dense = make_model(seed)
    untouched = dense.bert.encoder.layer[0].intermediate.dense.weight[~masks.neurons_LF[0]].clone()
    small = compact(dense, masks)
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    expand(small, masks, dense)
    with torch.inference_mode():
        masked = dense(IDS, gates=fixed_gates(masks)).logits
        assert torch.allclose(masked, small(IDS).logits, atol=1e-5)
    assert torch.equal(dense.bert.encoder.layer[0].intermediate.dense.weight[~masks.neurons_LF[0]], untouched)
