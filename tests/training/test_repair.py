import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparsebert.masks import MaskSet
from training.batching import EncodedExample
from training.blocks import blocks_of
from training.evaluation import predict_logits
from training.loading import load_dense
from training.masking import fixed_gates
from training.modeling import SparseBertForSequenceClassification
from training.repair import repaired


def make_examples(count=40, seed=3):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 14, count)
    return [EncodedExample([2, *rng.integers(5, 23, n).tolist(), 3], [0] * (n + 2), int(n % 2)) for n in lengths]


EXAMPLES = make_examples()
DENSE = MaskSet.dense(3, 4, 24)


@pytest.fixture
def model(bert_dir) -> SparseBertForSequenceClassification:
    torch.manual_seed(0)
    return load_dense(str(bert_dir))


def masks_without(heads=(), neurons=()):
    masks = MaskSet.dense(3, 4, 24)
    for layer, head in heads:
        masks.heads_LH[layer, head] = False
    for layer, neuron in neurons:
        masks.neurons_LF[layer, neuron] = False
    return masks


def logits(model, masks, examples=EXAMPLES):
    return predict_logits(model, examples, 0, fixed_gates(masks))


def test_with_nothing_pruned_the_weights_do_not_change(model):
    new, repairs = repaired(model, DENSE, EXAMPLES, pad_id=0)
    before, after = model.state_dict(), new.state_dict()
    assert all(torch.allclose(before[name], after[name], atol=1e-7) for name in before)
    assert [(repair.layer, repair.kind) for repair in repairs] == [
        (0, "attention"), (0, "ffn"), (1, "attention"), (1, "ffn"), (2, "attention"), (2, "ffn"),
    ]  # fmt: skip
    assert all(repair.error_before == pytest.approx(0.0, abs=1e-9) for repair in repairs)


@pytest.mark.parametrize("layer", [0, 2])
def test_a_duplicated_neuron_is_made_up_for(model, layer):
    block = model.bert.encoder.layer[layer]
    with torch.no_grad():
        block.intermediate.dense.weight[5] = block.intermediate.dense.weight[2]
        block.intermediate.dense.bias[5] = block.intermediate.dense.bias[2]
    masks = masks_without(neurons=[(layer, 5)])
    wanted = logits(model, DENSE)
    assert not torch.allclose(logits(model, masks), wanted, atol=1e-3)
    new, _ = repaired(model, masks, EXAMPLES, pad_id=0, ridge=1e-10)
    assert torch.allclose(logits(new, masks), wanted, atol=1e-4)


def test_a_duplicated_head_is_made_up_for(model):
    attention = model.bert.encoder.layer[1].attention.self
    with torch.no_grad():
        for projection in (attention.query, attention.key, attention.value):
            projection.weight[12:16] = projection.weight[4:8]
            projection.bias[12:16] = projection.bias[4:8]
    masks = masks_without(heads=[(1, 3)])
    new, _ = repaired(model, masks, EXAMPLES, pad_id=0, ridge=1e-10)
    assert torch.allclose(logits(new, masks), logits(model, DENSE), atol=1e-4)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1))
def test_no_block_is_further_from_the_dense_one_than_before(model, seed):
    rng = np.random.default_rng(seed)
    masks = MaskSet(heads_LH=rng.random((3, 4)) < 0.4, neurons_LF=rng.random((3, 24)) < rng.random())
    masks.heads_LH[rng.integers(3)] = False  # a whole block
    _, repairs = repaired(model, masks, EXAMPLES, pad_id=0)
    assert all(repair.error_after <= repair.error_before + 1e-9 for repair in repairs)
    assert len(repairs) == masks.heads_LH.any(axis=1).sum() + masks.neurons_LF.any(axis=1).sum()


def test_a_repaired_model_is_closer_on_other_texts_too(model):
    masks = masks_without(heads=[(0, 1), (1, 2)], neurons=[(layer, n) for layer in range(3) for n in range(0, 24, 3)])
    new, _ = repaired(model, masks, make_examples(200), pad_id=0)
    others = make_examples(50, seed=4)
    wanted = logits(model, DENSE, others)
    unrepaired, mended = (float((logits(m, masks, others) - wanted).square().mean()) for m in (model, new))
    assert mended < 0.3 * unrepaired


def test_only_kept_columns_and_biases_of_output_projections_change(model):
    masks = masks_without(heads=[(0, 0)], neurons=[(0, 3)])
    new, _ = repaired(model, masks, EXAMPLES, pad_id=0)
    before, after = model.state_dict(), new.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert all(".output.dense." in name for name in changed)
    name = "bert.encoder.layer.0.output.dense.weight"
    assert torch.equal(before[name][:, 3], after[name][:, 3])
    assert not torch.equal(before[name][:, 4], after[name][:, 4])


def test_padding_and_the_size_of_batches_change_nothing(model, monkeypatch):
    masks = masks_without(heads=[(1, 0)], neurons=[(0, 3)])
    padded, _ = repaired(model, masks, EXAMPLES, pad_id=0)
    monkeypatch.setattr("training.repair.BATCH_SIZE", 1)
    alone, _ = repaired(model, masks, EXAMPLES, pad_id=0)
    assert torch.allclose(logits(padded, masks), logits(alone, masks), atol=1e-4)


def test_what_is_read_on_follows_from_the_last_attention_that_is_kept(model):
    assert [block.is_read_whole for block in blocks_of(model)] == [True] * 4 + [False] * 2
    masks = masks_without(heads=[(2, head) for head in range(4)])
    assert [block.is_read_whole for block in blocks_of(model, masks)] == [True] * 2 + [False] * 4
    nothing = masks_without(heads=[(layer, head) for layer in range(3) for head in range(4)])
    assert [block.is_read_whole for block in blocks_of(model, nothing)] == [False] * 6


def test_what_was_pruned_before_is_no_lack(model):
    before = masks_without(heads=[(0, 1)], neurons=[(1, 3)])
    new, repairs = repaired(model, before, EXAMPLES, pad_id=0, before=before)
    assert all(repair.error_before == pytest.approx(0.0, abs=1e-9) for repair in repairs)
    assert torch.allclose(logits(new, before), logits(model, before), atol=1e-5)


def test_a_block_that_was_gone_stays_gone(model):
    before = masks_without(heads=[(1, head) for head in range(4)])
    after = masks_without(heads=[(1, head) for head in range(4)], neurons=[(2, 5)])
    new, repairs = repaired(model, after, EXAMPLES, pad_id=0, before=before)
    assert [(repair.layer, repair.kind) for repair in repairs][2] == (1, "ffn")
    gap, gap_before = (float((logits(one, after) - logits(model, before)).abs().mean()) for one in (new, model))
    assert gap <= gap_before
