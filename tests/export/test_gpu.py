"""Graphs for other devices than the CPU; what needs one is skipped with its reason where there is none."""

import re

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from starlette.testclient import TestClient

from export.assembly import float_graphs
from export.builder import count_operators
from export.forms import GPU_FORM
from export.pipeline import ExportConfig, export_bundle
from export.runtime import pad
from export.texts import EncodedText, random_texts
from export.weights import read_weights
from service.app import create_app
from service.settings import Settings
from sparsebert.errors import ConfigError
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


@pytest.mark.skipif(not HAS_CUDA, reason="needs a GPU and onnxruntime-gpu: pip install 'sparsebert[serve-gpu]'")
def test_half_floats_are_served_on_cuda(run_dir, tmp_path):
    """Opened by CUDA and by nothing else, golden inputs replayed, answered as fp32 does, memory told by NVML."""
    for precision in ("fp16", "fp32"):
        target = tmp_path / "models" / "demo" / precision
        export_bundle(ExportConfig(checkpoint=run_dir / "sparse", target=target, precision=precision))
    settings = Settings(models=tmp_path / "models", device="cuda")
    with TestClient(create_app(settings)) as client:
        for told in client.get("/v1/models").json()["variants"]:
            assert (told["state"], told["provider"]) == ("ready", "CUDAExecutionProvider"), told["error"]
            assert told["gpu_memory_bytes"] is not None
        compared = client.post("/v1/compare", json={"inputs": ["good film", "bad plot"], "baseline": "fp32"}).json()
        assert compared["variants"]["fp16"]["max_probability_difference"] < 0.02
        [used] = re.findall(r'gpu_memory_used_bytes{device="cuda:0",scope="device"} (.*)', client.get("/metrics").text)
        assert float(used) > 1e6


HAS_OPENVINO = "OpenVINOExecutionProvider" in onnxruntime.get_available_providers()


@pytest.mark.skipif(not HAS_OPENVINO, reason="needs OpenVINO: pip install 'sparsebert[serve-openvino]'")
def test_standard_operators_are_served_on_openvino_and_others_are_refused(run_dir, tmp_path):
    for variant, operators in (("fused", "fused"), ("standard", "standard")):
        target = tmp_path / "models" / "demo" / variant
        export_bundle(ExportConfig(checkpoint=run_dir / "sparse", target=target, operators=operators))
    settings = Settings(models=tmp_path / "models", device="openvino", threads=2, default_variant="standard")
    with TestClient(create_app(settings)) as client:
        fused, standard = client.get("/v1/models").json()["variants"]
        assert "export with --operators standard" in fused["error"]
        assert (standard["state"], standard["provider"]) == ("ready", "OpenVINOExecutionProvider")
        assert standard["nodes_on_cpu"] == 0
        assert client.post("/v1/predict", json={"inputs": ["good film", "bad"]}).status_code == 200


def test_standard_operators_are_those_of_onnx_alone(run_dir, tmp_path):
    for precision in ("fp32", "fp16"):
        target = tmp_path / "models" / "demo" / precision
        export_bundle(ExportConfig(checkpoint=run_dir / "sparse", target=target, precision=precision,
                                   operators="standard"))  # fmt: skip
        graph = onnx.load(target / "model.onnx")
        assert {node.domain for node in graph.graph.node} == {""}
        assert {one.domain for one in graph.opset_import} <= {"", "com.microsoft"}
        onnx.checker.check_model(graph, full_check=True)


@pytest.mark.parametrize(("words", "name"), [({"precision": "int8"}, "--precision int8"), ({"tune": True}, "--tune")])
def test_what_has_no_standard_operators_is_refused(tmp_path, words, name):
    with pytest.raises(ConfigError, match=f"{name} uses operators of ONNX Runtime's own; leave it or --operators"):
        ExportConfig(checkpoint=tmp_path, target=tmp_path / "m" / "v", operators="standard", **words)
