import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from export.builder import count_operators
from export.compaction import compact
from export.graph import build_graph
from sparsebert.errors import ExportError
from sparsebert.masks import MaskSet
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
@given(masks=mask_sets(), seed=st.integers(0, 99), batch=st.integers(1, 4), tokens=st.integers(1, 20))
@torch.inference_mode()
def test_masked_is_compact_is_onnx(masks, seed, batch, tokens):
    model, inputs = make_model(seed), make_inputs(seed, batch, tokens)
    masked = model(**inputs, gates=fixed_gates(masks)).logits.numpy()
    small = compact(model, masks)
    assert small.num_parameters() == geometry_of(small).parameters()
    assert geometry_of(small).heads_L == masks.kept_heads_L()
    assert small(**inputs).logits.numpy() == pytest.approx(masked, abs=1e-4)
    assert run_graph(build_graph(small, "fp32"), inputs) == pytest.approx(masked, abs=1e-4)


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


@torch.inference_mode()
def test_int8_stays_near_and_is_four_times_smaller():
    model = make_model(hidden_size=64, head_size=16, intermediate_size=256, vocab_size=500)
    inputs = make_inputs(1, 4, 12)
    fp32, int8 = build_graph(model, "fp32"), build_graph(model, "int8")
    reference = model(**inputs).logits.numpy()
    assert np.abs(run_graph(int8, inputs) - reference).max() < 0.15 * np.abs(reference).max()
    assert int8.ByteSize() < 0.32 * fp32.ByteSize()


def test_operators_of_one_layer_without_attention():
    masks = MaskSet(heads_LH=np.zeros((LAYERS, HEADS), bool), neurons_LF=np.ones((LAYERS, NEURONS), bool))
    counts = count_operators(build_graph(compact(make_model(), masks), "fp32"))
    assert "MultiHeadAttention" not in counts
    assert (counts["LayerNormalization"], counts["Gelu"], counts["MatMul"]) == (4, 3, 8)


def test_an_activation_without_operator_is_told():
    with pytest.raises(ExportError, match="'silu' cannot be exported; known are gelu, relu"):
        build_graph(make_model(hidden_act="silu"), "fp32")


def test_relu_is_exported():
    model, inputs = make_model(hidden_act="relu"), make_inputs(3, 2, 5)
    with torch.inference_mode():
        expected = model(**inputs).logits.numpy()
    assert run_graph(build_graph(model, "fp32"), inputs) == pytest.approx(expected, abs=1e-4)
