import numpy as np
import pytest
import torch

from sparsebert.masks import MaskSet
from training.batching import EncodedExample, collate
from training.fisher import gate_fisher
from training.loading import load_dense
from training.masking import Gates

EXAMPLES = [EncodedExample([2, *range(5, 5 + n), 3], [0] * (n + 2), n % 2) for n in (1, 9, 4, 6)]


def test_it_is_the_sum_of_the_squared_gradients_of_single_examples(bert_dir):
    torch.manual_seed(0)
    model = load_dense(str(bert_dir))
    heads, neurons = np.zeros((3, 4)), np.zeros((3, 24))
    for index in range(len(EXAMPLES)):
        gates = Gates(MaskSet.dense(3, 4, 24))
        batch = collate(EXAMPLES, [index], pad_id=0)
        model(*batch[:3], labels=batch.labels_B, gates=gates(num_texts=1)).loss.backward()
        gradient = gates.backward().mean
        heads += gradient.heads_LH**2
        neurons += gradient.neurons_LF**2
    seen = []
    scores = gate_fisher(model, EXAMPLES, pad_id=0, batch_size=3, on_batch=seen.append)
    assert scores.heads_LH == pytest.approx(heads, rel=1e-3)
    assert scores.neurons_LF == pytest.approx(neurons, rel=1e-3)
    assert scores.heads_LH.min() > 0
    assert seen == [3, 1]


def test_the_size_of_batches_does_not_matter(bert_dir):
    torch.manual_seed(0)
    model = load_dense(str(bert_dir))
    one, all_ = (gate_fisher(model, EXAMPLES, pad_id=0, batch_size=size) for size in (1, 4))
    assert one.heads_LH == pytest.approx(all_.heads_LH, rel=1e-3)
    assert one.neurons_LF == pytest.approx(all_.neurons_LF, rel=1e-3)


def test_the_model_is_left_as_it_was(bert_dir):
    model = load_dense(str(bert_dir))
    gate_fisher(model, EXAMPLES, pad_id=0)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
