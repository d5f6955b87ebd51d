import numpy as np
import pytest
import torch

from export.calibration import calibrate, observe, with_words_of
from export.texts import EncodedText, random_texts
from export.weights import read_weights
from training.modeling import SparseBertConfig, SparseBertForSequenceClassification


@pytest.fixture(scope="module")
def model() -> SparseBertForSequenceClassification:
    torch.manual_seed(3)
    return SparseBertForSequenceClassification(
        SparseBertConfig(
            vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24,
            max_position_embeddings=32, head_size=4, initializer_range=0.3, heads_per_layer=[4, 1],
            neurons_per_layer=[0, 1],
        )
    ).eval()  # fmt: skip


def inputs_in_torch(model, module, texts):
    seen = []
    handle = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0].numpy()))
    with torch.inference_mode():
        for text in texts:
            model(input_ids=torch.tensor([text.token_ids]), token_type_ids=torch.tensor([text.segments]))
    handle.remove()
    return np.concatenate(seen)


def test_what_is_seen_is_what_pytorch_computes(model):
    texts = random_texts(1, 9, 20, 40)
    seen = observe(read_weights(model), texts)
    assert sorted(seen) == [
        "classifier", "layer.0.attention", "layer.0.projections", "layer.1.attention", "layer.1.hidden",
        "layer.1.output", "layer.1.projections", "pooler",
    ]  # fmt: skip
    for name, module in (
        ("layer.0.attention", model.bert.encoder.layer[0].attention.output.dense),
        # The last attention's queries read first tokens, but its keys read all of them.
        ("layer.1.projections", model.bert.encoder.layer[1].attention.self.key),
    ):
        rows_RK = inputs_in_torch(model, module, texts)
        assert seen[name].lowest_K == pytest.approx(rows_RK.min(axis=0), abs=1e-4)
        assert seen[name].highest_K == pytest.approx(rows_RK.max(axis=0), abs=1e-4)
        assert len(seen[name].sample_RK) == sum(len(text.token_ids) for text in texts)
    assert len(seen["layer.1.hidden"].sample_RK) == len(texts)


def test_a_large_sample_is_spread_over_all_texts(model, monkeypatch):
    monkeypatch.setattr("export.calibration.SAMPLED_ROWS", 10)
    texts = random_texts(1, 9, 20, 40)
    tokens = sum(len(text.token_ids) for text in texts)
    rows = len(observe(read_weights(model), texts)["layer.0.projections"].sample_RK)
    assert rows == -(-tokens // -(-tokens // 10))


def test_every_layer_has_a_range_that_holds_zero(model):
    weights = read_weights(model)
    calibrated = calibrate(weights, random_texts(1, 9, 20, 40))
    assert set(calibrated.ranges) == {layer.name for layer in weights.linears()}
    assert all(own.low <= 0 <= own.high and own.low < own.high for own in calibrated.ranges.values())
    divided = {layer.name for layer in calibrated.weights.linears() if layer.divisor_K is not None}
    assert divided == {"layer.1.hidden", "layer.1.output"}


def test_without_texts_there_is_nothing_to_see(model):
    with pytest.raises(ValueError, match="no text"):
        calibrate(read_weights(model), [])


def test_only_words_of_the_texts_are_computed_with(model):
    texts = [EncodedText([7, 3, 7], [0, 0, 0]), EncodedText([3, 39], [0, 1])]
    fewer, renumbered = with_words_of(read_weights(model), texts)
    table = model.bert.embeddings.word_embeddings.weight.detach().numpy()
    assert np.array_equal(fewer.embeddings.words_VE, table[[3, 7, 39]])
    assert renumbered == [EncodedText([1, 0, 1], [0, 0, 0]), EncodedText([0, 2], [0, 1])]
