from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from export.assembly import float_graphs, int8_graphs
from export.builder import count_operators
from export.calibration import calibrate
from export.forms import CPU_FORM, GPU_FORM, Form
from export.graph import last_attention
from export.texts import random_texts
from export.weights import read_weights
from sparsebert.errors import ExportError
from sparsebert.masks import MaskSet
from training.compaction import compact
from training.geometry import geometry_of
from training.masking import fixed_gates
from training.modeling import SparseBertConfig, SparseBertForSequenceClassification

LAYERS, HEADS, NEURONS = 3, 4, 24


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


def float_graph(model, form=CPU_FORM, precision="fp32"):
    return float_graphs(read_weights(model), precision)(form)


def int8_graph(model, form=CPU_FORM, weight_range="full"):
    return int8_graphs(calibrate(read_weights(model), random_texts(5, 40, 20, 40)), weight_range)(form)


def forms():
    return st.builds(
        Form,
        layout=st.sampled_from(["padded", "packed"]),
        projections=st.sampled_from(["joined", "separate"]),
        products=st.sampled_from(["gemm", "matmul"]),
        norms=st.sampled_from(["plain", "fused"]),
    )


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


@settings(deadline=None, max_examples=40)
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


@settings(deadline=None, max_examples=15)
@given(masks=mask_sets(), form=forms(), seed=st.integers(0, 99), weight_range=st.sampled_from(["full", "reduced"]))
@torch.inference_mode()
def test_int8_stays_near_and_does_not_depend_on_batch_mates(masks, form, seed, weight_range):
    model, inputs = make_model(seed), make_inputs(seed, 6, 20)
    masked = model(**inputs, gates=fixed_gates(masks)).logits.numpy()
    graph = int8_graph(compact(model, masks), form, weight_range)
    together = run_graph(graph, inputs)
    assert np.abs(together - masked).max() < 0.3 * np.abs(masked).max()
    for row in range(6):
        length = int(inputs["attention_mask"][row].sum())
        alone = {name: values[row : row + 1, :length] for name, values in inputs.items()}
        assert run_graph(graph, alone)[0] == pytest.approx(together[row], abs=1e-5)


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
    assert int8_graph(model).ByteSize() < 0.32 * float_graph(model).ByteSize()


def test_operators_of_a_model_without_attention():
    masks = MaskSet(heads_LH=np.zeros((LAYERS, HEADS), bool), neurons_LF=np.ones((LAYERS, NEURONS), bool))
    counts = count_operators(float_graph(compact(make_model(), masks)))
    assert "MultiHeadAttention" not in counts
    assert (counts["LayerNormalization"], counts["Gelu"], counts["Gemm"]) == (4, 3, 8)


def test_residuals_are_added_inside_the_products():
    counts = count_operators(float_graph(make_model()))
    assert counts["Add"] == 2  # of embeddings, and of what they are looked up by
    assert count_operators(float_graph(make_model(), replace(CPU_FORM, products="matmul")))["Add"] > 20


def test_an_activation_without_operator_is_told():
    with pytest.raises(ExportError, match="'silu' cannot be exported; known are gelu, relu"):
        float_graph(make_model(hidden_act="silu"))


def test_relu_is_exported():
    model, inputs = make_model(hidden_act="relu"), make_inputs(3, 2, 5)
    with torch.inference_mode():
        expected = model(**inputs).logits.numpy()
    assert run_graph(float_graph(model), inputs) == pytest.approx(expected, abs=1e-4)


def test_only_the_first_token_is_computed_after_the_last_attention():
    heads = np.ones((LAYERS, HEADS), bool)
    heads[2] = False
    weights = read_weights(compact(make_model(), MaskSet(heads_LH=heads, neurons_LF=np.ones((LAYERS, NEURONS), bool))))
    assert last_attention(weights.blocks) == 2  # attention, FFN, attention, FFN, FFN
    assert last_attention(weights.blocks[-1:]) == 0
