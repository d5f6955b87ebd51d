"""What do the standard tools make of a classifier? Graphs of torch.onnx and ONNX Runtime's tools, and OpenVINO.

Used by `graphs.py`. What a tool refuses is printed.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers import optimizer
from tqdm import tqdm

from export.runtime import pad
from export.texts import EncodedText
from training.modeling import SparseBertForSequenceClassification

Feeds = dict[str, np.ndarray]
Run = Callable[[Feeds], object]
NAMES = ("input_ids", "attention_mask", "token_type_ids")


def standard_files(model: SparseBertForSequenceClassification, folder: Path) -> dict[str, Path]:
    """ONNX files by what made them: torch.onnx, the transformer optimizer, and dynamic quantisation of both."""
    files = {}
    for attention in ("eager", "sdpa"):
        exported, optimized = folder / f"torch-{attention}.onnx", folder / f"optimized-{attention}.onnx"
        torch_onnx(model, exported, attention)
        optimizer.optimize_model(
            str(exported), model_type="bert", num_heads=0, hidden_size=0, opt_level=0
        ).save_model_to_file(str(optimized))
        files |= {f"torch.onnx {attention}": exported, f"optimizer {attention}": optimized}
        for source, name in ((exported, "dynamic int8"), (optimized, "optimizer + dynamic int8")):
            for per_channel in (False, True):
                tool = f"{name} {attention}{' per channel' if per_channel else ''}"
                target = folder / f"{tool.replace(' ', '-')}.onnx"
                try:
                    quantize_dynamic(source, target, weight_type=QuantType.QInt8, per_channel=per_channel)
                    files[tool] = target
                except Exception as error:  # noqa: BLE001 - a refusal is a result
                    print(f"{folder.name} {tool}: refused: {str(error).splitlines()[0][:150]}")
    return files


def torch_onnx(model: SparseBertForSequenceClassification, path: Path, attention: str) -> None:
    """What most users do."""

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask, token_type_ids):  # noqa: ANN001, ANN202
            return self.model(input_ids, attention_mask, token_type_ids).logits

    model.config._attn_implementation = attention
    ids = torch.ones(2, 8, dtype=torch.long)
    mask = ids.clone()
    mask[1, 5:] = 0
    torch.onnx.export(
        Logits().eval(), (ids, mask, ids * 0), str(path), input_names=list(NAMES), output_names=["logits"],
        dynamic_axes={name: {0: "batch", 1: "sequence"} for name in NAMES}, opset_version=17, dynamo=False,
    )  # fmt: skip


def openvino_runs(path: Path, calibration: list[EncodedText], threads: int) -> dict[str, Run]:
    """OpenVINO's own precisions of the graph of torch.onnx; none where OpenVINO is not installed."""
    try:
        import openvino
    except ModuleNotFoundError:
        return {}
    core = openvino.Core()
    plain = core.read_model(path)
    hints = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    models = {
        "OpenVINO fp32": core.compile_model(plain, "CPU", hints | {"INFERENCE_PRECISION_HINT": "f32"}),
        "OpenVINO bf16": core.compile_model(plain, "CPU", hints | {"INFERENCE_PRECISION_HINT": "bf16"}),
    }
    try:
        import nncf

        data = nncf.Dataset([pad([text]) for text in tqdm(calibration, desc="nncf", disable=None)])
        quantized = nncf.quantize(plain, data, model_type=nncf.ModelType.TRANSFORMER)
        models["OpenVINO int8"] = core.compile_model(quantized, "CPU", hints)
    except Exception as error:  # noqa: BLE001 - a refusal is a result
        print(f"OpenVINO int8: refused: {str(error).splitlines()[0][:150]}")
    return {name: _request_of(model) for name, model in models.items()}


def _request_of(model) -> Run:  # noqa: ANN001
    request = model.create_infer_request()
    return lambda feeds: request.infer(feeds)
