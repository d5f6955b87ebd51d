from dataclasses import replace
from typing import get_args, get_type_hints

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from export.assembly import float_graphs, int8_graphs
from export.builder import count_operators
from export.calibration import calibrate
from export.forms import CPU_FORM, DEFAULT_FORMS, GPU_FORM, Form
from export.graph import last_attention
from export.texts import random_texts
from export.weights import read_weights
from sparsebert.errors import ExportError
from sparsebert.masks import MaskSet
from sparsebert.processor import default_weight_range
from training.compaction import compact
from training.geometry import geometry_of
from training.masking import fixed_gates
from training.modeling import ACTIVATIONS, SparseBertConfig, SparseBertForSequenceClassification

LAYERS, HEADS, NEURONS = 3, 4, 24
WEIGHT_RANGES = ("reduced", default_weight_range())  # what this processor multiplies without error


def make_model(seed=0, **changes) -> SparseBertForSequenceClassification:
    torch.manual_seed(seed)
    values = {
        "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "intermediate_size": NEURONS, "max_position_embeddings": 32, "head_size": 4, "num_labels": 3,
        "initializer_range": 0.15,
    }  # fmt: skip
    model = SparseBertForSequenceClassification(SparseBertConfig(**(values | changes))).eval()
    with torch.no_grad():  # fresh biases are zero and would hide a lost one
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.3)
    return model


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


def alone(graph, inputs) -> np.ndarray:
    """Logits of each text without the others and without padding."""
    lengths = inputs["attention_mask"].sum(dim=1).tolist()
    rows = [{name: values[row : row + 1, :length] for name, values in inputs.items()}
            for row, length in enumerate(lengths)]  # fmt: skip
    return np.concatenate([run_graph(graph, row) for row in rows])


def float_graph(model, form=CPU_FORM, precision="fp32"):
    return float_graphs(read_weights(model), precision)(form)


def int8_graph(model, form=DEFAULT_FORMS["int8"], weight_range="reduced"):
    return int8_graphs(calibrate(read_weights(model), random_texts(5, 40, 20, 40)), weight_range)(form)


CHOICES = {name: get_args(values) for name, values in get_type_hints(Form).items()}


def forms():
    """Any form that computes the very same."""
    exact = CHOICES | {"gelu": ("exact",)}
    return st.builds(Form, **{name: st.sampled_from(values) for name, values in exact.items()})


@st.composite
def mask_sets(draw) -> MaskSet:
    """Random masks; each block is removed whole with a chance of its own."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    removed = draw(st.lists(st.booleans(), min_size=2 * LAYERS, max_size=2 * LAYERS))
    density = draw(st.floats(0.1, 1.0))
    heads, neurons = rng.random((LAYERS, HEADS)) < density, rng.random((LAYERS, NEURONS)) < density
    heads[removed[:LAYERS]] = False
    neurons[removed[LAYERS:]] = False
    return MaskSet(heads_LH=heads, neurons_LF=neurons)


@settings(max_examples=40)
@given(masks=mask_sets(), form=forms(), seed=st.integers(0, 99), batch=st.integers(1, 4), tokens=st.integers(1, 20))
@torch.inference_mode()
def test_masked_is_compact_is_onnx_in_every_form(masks, form, seed, batch, tokens):
    model, inputs = make_model(seed), make_inputs(seed, batch, tokens)
    masked = model(**inputs, gates=fixed_gates(masks)).logits.numpy()
    small = compact(model, masks)
    assert small.num_parameters() == geometry_of(small).parameters()
    assert geometry_of(small).heads_L == masks.kept_heads_L()
    assert small(**inputs).logits.numpy() == pytest.approx(masked, abs=1e-4)
    assert run_graph(float_graph(small, form), inputs) == pytest.approx(masked, abs=1e-4)


@settings(max_examples=15)
@given(masks=mask_sets(), form=forms(), seed=st.integers(0, 99), weight_range=st.sampled_from(WEIGHT_RANGES))
@torch.inference_mode()
def test_int8_stays_near_and_does_not_depend_on_batch_mates(masks, form, seed, weight_range):
    model, inputs = make_model(seed), make_inputs(seed, 6, 20)
    masked = model(**inputs, gates=fixed_gates(masks)).logits.numpy()
    graph = int8_graph(compact(model, masks), form, weight_range)
    together = run_graph(graph, inputs)
    assert np.abs(together - masked).max() < 0.3 * np.abs(masked).max()
    assert np.array_equal(alone(graph, inputs), together)


EVERY_CHOICE = [replace(CPU_FORM, **{name: value}) for name, values in CHOICES.items() for value in values]


@pytest.mark.parametrize("form", EVERY_CHOICE, ids=lambda form: "-".join(form.as_dict().values()))
@pytest.mark.parametrize("last_heads", [0, 1, 3])
@torch.inference_mode()
def test_every_choice_with_any_number_of_last_heads(form, last_heads):
    model, inputs = make_model(7), make_inputs(7, 5, 20)
    heads = np.ones((LAYERS, HEADS), bool)
    heads[2] = np.arange(HEADS) < last_heads
    masks = MaskSet(heads_LH=heads, neurons_LF=np.ones((LAYERS, NEURONS), bool))
    small, masked = compact(model, masks), model(**inputs, gates=fixed_gates(masks)).logits.numpy()
    tolerance = 1e-4 if form.gelu == "exact" else 1e-2
    assert run_graph(float_graph(small, form), inputs) == pytest.approx(masked, abs=tolerance)
    assert run_graph(float_graph(small, form, "fp16"), inputs) == pytest.approx(masked, abs=0.02)
    graph = int8_graph(small, form)
    together = run_graph(graph, inputs)
    assert np.abs(together - masked).max() < 0.1 * np.abs(masked).max()
    assert np.array_equal(alone(graph, inputs), together)


@torch.inference_mode()
def test_half_floats_stay_near_and_give_floats():
    model, inputs = make_model(), make_inputs(0, 3, 9)
    graph = float_graph(model, GPU_FORM, "fp16")
    found = run_graph(graph, inputs)
    assert found.dtype == np.float32
    assert found == pytest.approx(model(**inputs).logits.numpy(), abs=0.02)
    assert graph.ByteSize() < 0.75 * float_graph(model).ByteSize()


@torch.inference_mode()
def test_masks_change_the_function():
    model, inputs = make_model(), make_inputs(0, 2, 9)
    heads = np.ones((LAYERS, HEADS), bool)
    heads[1, 2] = False
    masks = MaskSet(heads_LH=heads, neurons_LF=np.ones((LAYERS, NEURONS), bool))
    difference = model(**inputs, gates=fixed_gates(masks)).logits - model(**inputs).logits
    assert difference.abs().max() > 1e-3


@torch.inference_mode()
def test_compaction_leaves_the_model_alone():
    model, inputs = make_model(), make_inputs(0, 2, 9)
    before = model(**inputs).logits
    compact(model, MaskSet(heads_LH=np.eye(LAYERS, HEADS, dtype=bool), neurons_LF=np.eye(LAYERS, NEURONS, dtype=bool)))
    assert torch.equal(model(**inputs).logits, before)
    assert geometry_of(model).heads_L == (HEADS,) * LAYERS


def test_masks_must_fit():
    with pytest.raises(ValueError, match="do not fit"):
        compact(make_model(), MaskSet.dense(LAYERS, HEADS + 1, NEURONS))


def test_int8_is_four_times_smaller():
    model = make_model(hidden_size=64, head_size=16, intermediate_size=256, vocab_size=500)
    assert int8_graph(model).ByteSize() < 0.35 * float_graph(model).ByteSize()


def test_operators_of_a_model_without_attention():
    masks = MaskSet(heads_LH=np.zeros((LAYERS, HEADS), bool), neurons_LF=np.ones((LAYERS, NEURONS), bool))
    counts = count_operators(float_graph(compact(make_model(), masks)))
    assert "MultiHeadAttention" not in counts
    assert (counts["LayerNormalization"], counts["Gelu"], counts["Gemm"]) == (4, 3, 8)


def test_residuals_are_added_inside_the_products():
    counts = count_operators(float_graph(make_model()))
    assert counts["Add"] == 3  # of embeddings, of what they are looked up by, of the last values' biases
    assert count_operators(float_graph(make_model(), replace(CPU_FORM, products="matmul")))["Add"] > 20


def test_an_activation_without_operator_is_told():
    with pytest.raises(ExportError, match="'silu' cannot be exported; known are gelu, .*, relu"):
        float_graph(make_model(hidden_act="silu"))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_are_exported(activation):
    model, inputs = make_model(hidden_act=activation), make_inputs(3, 2, 5)
    with torch.inference_mode():
        expected = model(**inputs).logits.numpy()
    assert run_graph(float_graph(model), inputs) == pytest.approx(expected, abs=1e-4)


def test_only_the_first_token_is_computed_after_the_last_attention():
    heads = np.ones((LAYERS, HEADS), bool)
    heads[2] = False
    weights = read_weights(compact(make_model(), MaskSet(heads_LH=heads, neurons_LF=np.ones((LAYERS, NEURONS), bool))))
    assert last_attention(weights.blocks) == 2  # attention, FFN, attention, FFN, FFN
    assert last_attention(weights.blocks[-1:]) == 0
