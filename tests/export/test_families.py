"""Masked = compact = ONNX, for every family of backbones."""

from functools import cache
from typing import get_args, get_type_hints

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from export.assembly import float_graphs, int8_graphs
from export.calibration import calibrate
from export.forms import DEFAULT_FORMS, Form
from export.texts import random_texts
from export.weights import read_weights
from sparsebert.masks import MaskSet
from training.compaction import compact
from training.geometry import geometry_of
from training.loading import load_dense
from training.masking import fixed_gates

LAYERS, HEADS, NEURONS = 3, 4, 24
EXACT = {name: st.sampled_from(get_args(values)) for name, values in get_type_hints(Form).items()} | {
    "gelu": st.just("exact")
}


@pytest.fixture(scope="module")
def load(make_classifier, tmp_path_factory):
    @cache
    def load_family(model_type):
        folder = tmp_path_factory.mktemp(model_type)
        make_classifier(model_type).save_pretrained(folder)
        return load_dense(str(folder))

    return load_family


def random_masks(seed: int) -> MaskSet:
    """Units at random; each block is removed whole with a chance of its own."""
    rng = np.random.default_rng(seed)
    heads = (rng.random((LAYERS, HEADS)) < 0.6) & (rng.random((LAYERS, 1)) < 0.8)
    neurons = (rng.random((LAYERS, NEURONS)) < 0.6) & (rng.random((LAYERS, 1)) < 0.8)
    return MaskSet(heads_LH=heads, neurons_LF=neurons)


def make_inputs(seed: int, batch: int, tokens: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, tokens + 1, (batch, 1), generator=generator)
    lengths[0] = tokens
    return {
        "input_ids": torch.randint(0, 40, (batch, tokens), generator=generator),
        "attention_mask": (torch.arange(tokens) < lengths).long(),
        "token_type_ids": torch.randint(0, 2, (batch, tokens), generator=generator),
    }


def run_graph(graph, inputs) -> np.ndarray:
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {name: tensor.numpy() for name, tensor in inputs.items()})[0]


@pytest.mark.parametrize("model_type", ["bert", "roberta", "distilbert", "electra"])
@settings(max_examples=8)
@given(
    form=st.builds(Form, **EXACT), seed=st.integers(0, 2**32 - 1), batch=st.integers(1, 4), tokens=st.integers(1, 12)
)
@torch.inference_mode()
def test_masked_is_compact_is_onnx_in_every_form(load, model_type, form, seed, batch, tokens):
    model, masks, inputs = load(model_type), random_masks(seed), make_inputs(seed, batch, tokens)
    masked = model(**inputs, gates=fixed_gates(masks)).logits.numpy()
    small = compact(model, masks)
    assert small.num_parameters() == geometry_of(small).parameters()
    assert geometry_of(small).heads_L == masks.kept_heads_L()
    assert small(**inputs).logits.numpy() == pytest.approx(masked, abs=1e-4)
    assert run_graph(float_graphs(read_weights(small), "fp32")(form), inputs) == pytest.approx(masked, abs=1e-4)


@pytest.mark.parametrize("model_type", ["bert", "roberta", "distilbert", "electra"])
@torch.inference_mode()
def test_int8_stays_near(load, model_type):
    model, inputs = load(model_type), make_inputs(1, 4, 12)
    reference = model(**inputs).logits.numpy()
    calibrated = calibrate(read_weights(model), random_texts(5, 40, 12, 40))
    found = run_graph(int8_graphs(calibrated, "reduced")(DEFAULT_FORMS["int8"]), inputs)
    assert np.abs(found - reference).max() < 0.2 * np.abs(reference).max()
