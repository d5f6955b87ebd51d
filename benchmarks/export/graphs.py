"""How fast is the exporter's graph against those of the standard tools, for the same model?

    python benchmarks/export/graphs.py runs/sst2/dense runs/sst2/sparse --bert-base

For each checkpoint: our fp32 and int8 graphs, packed (the default) and padded; torch.onnx (opset 17, eager and SDPA
attention) with ONNX Runtime's own optimisations; its transformer optimizer; its dynamic quantisation (of both, per
tensor and per channel); OpenVINO in fp32, bf16 and int8 when `pip install openvino nncf` is there. What a tool refuses
is printed. `--bert-base` adds a BERT-base of random weights in fp32. Every round runs each graph once, in turns; a
ratio is the median over rounds of the ratio within a round. Nothing else should run meanwhile.
"""

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers import optimizer

from export.assembly import float_graphs, int8_graphs
from export.calibration import calibrate
from export.forms import DEFAULT_FORMS
from export.texts import calibration_examples, encode_examples
from export.weights import read_weights
from sparsebert.processor import default_weight_range
from training.checkpoint import MaskedCheckpoint, load_checkpoint
from training.compaction import compact
from training.modeling import SparseBertConfig, SparseBertForSequenceClassification

Feeds = dict[str, np.ndarray]
Run = Callable[[Feeds], object]
NAMES = ("input_ids", "attention_mask", "token_type_ids")
OURS = ("ours fp32", "ours int8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--shapes", nargs="+", default=["1x32", "8x32", "8x128"], metavar="BATCHxTOKENS")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bert-base", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        files: dict[str, Path] = {}
        runs: dict[str, Run] = {}
        for path in options.checkpoints:
            made, run = graphs_of(path, Path(name), options.threads)
            files |= {f"{path.name} {tool}": file for tool, file in made.items()}
            runs |= {f"{path.name} {tool}": one for tool, one in run.items()}
        if options.bert_base:
            files["bert-base torch.onnx eager"] = bert_base(Path(name))
        onnxruntime.set_global_thread_pool_sizes(options.threads, 1)  # only now: calibration had a pool of its own
        runs = {tool: onnxruntime_run(file) for tool, file in files.items()} | runs
        for shape in options.shapes:
            batch, tokens = map(int, shape.split("x"))
            report(shape, measure(runs, batch, tokens, options.rounds))


def graphs_of(path: Path, folder: Path, threads: int) -> tuple[dict[str, Path], dict[str, Run]]:
    """Every ONNX file of one checkpoint's compact model, and what else runs it."""
    checkpoint = load_checkpoint(path)
    small = compact(checkpoint.model, checkpoint.masks)
    weights = read_weights(small)
    calibration = encode_examples(
        path / "tokenizer.json", calibration_examples(checkpoint.calibration), checkpoint.run.max_length
    )
    builders = {
        "fp32": float_graphs(weights, "fp32"),
        "int8": int8_graphs(calibrate(weights, calibration), default_weight_range()),
    }
    graphs = {}
    for precision, build in builders.items():
        form = DEFAULT_FORMS[precision]
        graphs[f"ours {precision}"] = build(form)
        graphs[f"ours {precision} padded"] = build(replace(form, layout="padded"))
    files = {}
    for tool, graph in graphs.items():
        files[tool] = folder / f"{path.name}-{tool.replace(' ', '-')}.onnx"
        onnx.save(graph, files[tool])
    exported = {}
    for attention in ("eager", "sdpa"):
        exported[attention] = folder / f"{path.name}-torch-{attention}.onnx"
        torch_onnx(small, exported[attention], attention)
        files[f"torch.onnx {attention}"] = exported[attention]
        optimized = folder / f"{path.name}-optimized-{attention}.onnx"
        optimizer.optimize_model(
            str(exported[attention]), model_type="bert", num_heads=0, hidden_size=0, opt_level=0
        ).save_model_to_file(str(optimized))
        files[f"optimizer {attention}"] = optimized
        for source, name in ((exported[attention], "dynamic int8"), (optimized, "optimizer + dynamic int8")):
            for per_channel in (False, True):
                tool = f"{name} {attention}{' per channel' if per_channel else ''}"
                target = folder / f"{path.name}-{tool.replace(' ', '-')}.onnx"
                try:
                    quantize_dynamic(source, target, weight_type=QuantType.QInt8, per_channel=per_channel)
                    files[tool] = target
                except Exception as error:  # noqa: BLE001 - a refusal is a result
                    print(f"{path.name} {tool}: refused: {str(error).splitlines()[0][:150]}")
    return files, openvino_runs(checkpoint, exported["sdpa"], threads)


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


def onnxruntime_run(path: Path) -> Run:
    session_options = onnxruntime.SessionOptions()
    session_options.use_per_session_threads = False  # spinning pools of their own would take each other's cores
    session_options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), session_options, providers=["CPUExecutionProvider"])
    return lambda feeds: session.run(None, feeds)


def openvino_runs(checkpoint: MaskedCheckpoint, path: Path, threads: int) -> dict[str, Run]:
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

        texts = [example.text for example in checkpoint.calibration]
        tokenizer = checkpoint.tokenizer
        feeds = [dict(tokenizer(text, return_tensors="np", truncation=True)) for text in texts]
        data = nncf.Dataset([{name: one[name] for name in NAMES} for one in feeds])
        quantized = nncf.quantize(plain, data, model_type=nncf.ModelType.TRANSFORMER)
        models["OpenVINO int8"] = core.compile_model(quantized, "CPU", hints)
    except Exception as error:  # noqa: BLE001 - a refusal is a result
        print(f"OpenVINO int8: refused: {str(error).splitlines()[0][:150]}")
    return {name: request_of(model) for name, model in models.items()}


def request_of(model) -> Run:  # noqa: ANN001
    request = model.create_infer_request()
    return lambda feeds: request.infer(feeds)


def bert_base(folder: Path) -> Path:
    path = folder / "bert-base.onnx"
    torch_onnx(SparseBertForSequenceClassification(SparseBertConfig(num_labels=2)).eval(), path, "eager")
    return path


def measure(runs: dict[str, Run], batch: int, tokens: int, rounds: int) -> dict[str, list[float]]:
    rng = np.random.default_rng(0)
    feeds = {
        "input_ids": rng.integers(1000, 20000, (batch, tokens)),
        "attention_mask": np.ones((batch, tokens), np.int64),
        "token_type_ids": np.zeros((batch, tokens), np.int64),
    }
    names, times_ms = list(runs), {name: [] for name in runs}
    for step in range(-3, rounds):  # the first ones warm up
        turn = step % len(names)
        for name in names[turn:] + names[:turn]:
            runs[name](feeds)  # its weights into the caches, its threads awake
            began_s = time.perf_counter()
            runs[name](feeds)
            if step >= 0:
                times_ms[name].append(1000 * (time.perf_counter() - began_s))
    return times_ms


def report(shape: str, times_ms: dict[str, list[float]]) -> None:
    """The median time of each graph, and of the same round how many times slower it is than each of ours."""
    print(f"\n{shape:<8}{'graph':<55}{'median_ms':>10}{'x ours fp32':>13}{'x ours int8':>13}")
    for name, values in times_ms.items():
        ratios = [
            statistics.median(
                own / base for own, base in zip(values, times_ms[f"{_model(name, times_ms)} {ours}"], strict=True)
            )
            for ours in OURS
        ]
        print(f"{shape:<8}{name:<55}{statistics.median(values):10.2f}{ratios[0]:13.2f}{ratios[1]:13.2f}", flush=True)


def _model(name: str, times_ms: dict[str, list[float]]) -> str:
    """Whose graph it is; BERT-base is compared with the last checkpoint's."""
    own = name.split(" ", maxsplit=1)[0]
    models = [other.removesuffix(f" {OURS[0]}") for other in times_ms if other.endswith(OURS[0])]
    return own if own in models else models[-1]


if __name__ == "__main__":
    main()
