"""What needs a GPU: skipped with its reason where ONNX Runtime has no CUDA."""

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from export.assembly import float_graphs
from export.builder import count_operators
from export.forms import GPU_FORM
from export.runtime import pad
from export.texts import EncodedText, random_texts
from export.weights import read_weights
from training.modeling import SparseBertConfig, SparseBertForSequenceClassification

HAS_CUDA = torch.cuda.is_available() and "CUDAExecutionProvider" in onnxruntime.get_available_providers()


@pytest.mark.skipif(not HAS_CUDA, reason="needs a GPU and onnxruntime-gpu: pip install 'sparsebert[serve-gpu]'")
def test_half_floats_on_cuda_are_near_pytorch():
    torch.manual_seed(0)
    config = SparseBertConfig(
        vocab_size=1000, hidden_size=384, num_hidden_layers=3, num_attention_heads=12, intermediate_size=1536,
        head_size=32, heads_per_layer=[12, 5, 1], neurons_per_layer=[1536, 33, 0],
    )  # fmt: skip
    model = SparseBertForSequenceClassification(config).eval()
    graph = float_graphs(read_weights(model), "fp16")(GPU_FORM)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CUDAExecutionProvider"])
    session.disable_fallback()
    assert session.get_providers()[0] == "CUDAExecutionProvider"  # it is compiled in, but was it opened?
    feeds = pad(random_texts(0, 16, 64, 1000))
    with torch.inference_mode():
        expected = model(**{name: torch.from_numpy(values) for name, values in feeds.items()}).logits.numpy()
    assert np.abs(session.run(["logits"], feeds)[0] - expected).max() < 0.02


def test_attention_is_told_lengths_and_beginnings():
    """The mask that the CUDA provider's memory-efficient kernel takes; with positions there is no fused kernel."""
    config = SparseBertConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=8,
                              head_size=4, vocab_size=9)  # fmt: skip
    graph = float_graphs(read_weights(SparseBertForSequenceClassification(config)), "fp16")(GPU_FORM)
    masks = [node.input[4] for node in graph.graph.node if node.op_type == "MultiHeadAttention"]
    graph.graph.output.extend(helper.make_tensor_value_info(mask, TensorProto.INT32, [None]) for mask in masks)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    texts = [EncodedText([1] * length, [0] * length) for length in (3, 7, 1)]
    every, first = session.run(masks, pad(texts))
    assert every.tolist() == [3, 7, 1, 0, 7, 14, 21, 0, 7, 14, 21]  # keys, beginnings of queries and of keys
    assert first.tolist() == [3, 7, 1, 0, 1, 2, 3, 0, 7, 14, 21]  # the last attention has one query for each text


def test_the_form_for_gpus_has_fused_attention_and_norms():
    config = SparseBertConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=8,
                              head_size=4, vocab_size=9)  # fmt: skip
    counts = count_operators(float_graphs(read_weights(SparseBertForSequenceClassification(config)), "fp16")(GPU_FORM))
    assert (counts["MultiHeadAttention"], counts["SkipLayerNormalization"]) == (2, 4)
