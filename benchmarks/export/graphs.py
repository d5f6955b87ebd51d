"""How fast is the exporter's graph against those of the standard tools, for the same model?

    python benchmarks/export/graphs.py runs/sst2/dense runs/sst2/sparse --bert-base
    python benchmarks/export/graphs.py --bert-base

The first checkpoint is the dense one, the last the sparse one. Without checkpoints: MiniLM's sizes with random
weights, dense and with 67% of the encoder's parameters removed as training removes them. For each: our fp32 and int8
graphs in the default form and in its neighbours that --tune would try; torch.onnx (opset 17, eager and SDPA attention)
with ONNX Runtime's own optimisations; its transformer optimizer; its dynamic quantisation (of both, per tensor and per
channel); OpenVINO in fp32, bf16 and int8 when `pip install openvino nncf` is there. `--bert-base` adds a BERT-base of
random weights in fp32. Every round runs each graph once, in turns; a ratio is the median over rounds of the ratio
within a round. At the end stands the table of targets. Nothing else should run meanwhile; where something must,
`--cpu-time --threads 1` counts the time of the one thread that computes.
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
from standard_tools import NAMES, Feeds, Run, openvino_runs, standard_files, torch_onnx

from export.assembly import float_graphs, int8_graphs
from export.calibration import calibrate
from export.forms import DEFAULT_FORMS
from export.texts import EncodedText, calibration_examples, encode_examples, random_texts
from export.weights import read_weights
from sparsebert.processor import default_weight_range
from training.checkpoint import load_checkpoint
from training.compaction import compact
from training.modeling import SparseBertConfig, SparseBertForSequenceClassification

VARIANTS = {
    "": {},
    " padded": {"layout": "padded"},
    " inside": {"projections": "inside"},
    " padded inside": {"layout": "padded", "projections": "inside"},
    " last projected": {"last": "projected"},
}
FP32_TOOLS, INT8_TOOLS = ("torch.onnx", "optimizer"), ("dynamic int8", "optimizer + dynamic int8")
BERT_BASE = "bert-base torch.onnx"
# 67% of the encoder's parameters removed from MiniLM on SST-2, docs/results.md.
SPARSE = {"heads_per_layer": [9, 9, 7, 5, 1, 3], "neurons_per_layer": [1072, 864, 362, 63, 13, 0]}

Times = dict[str, list[float]]
Model = tuple[SparseBertForSequenceClassification, list[EncodedText]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=Path, nargs="*")
    parser.add_argument("--shapes", nargs="+", default=["1x32", "8x32", "8x128"], metavar="BATCHxTOKENS")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bert-base", action="store_true")
    parser.add_argument("--cpu-time", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    models = {path.name: of_checkpoint(path) for path in options.checkpoints} or random_models()
    with tempfile.TemporaryDirectory() as name:
        files: dict[str, Path] = {}
        runs: dict[str, Run] = {}
        for model, (small, calibration) in models.items():
            folder = Path(name) / model
            folder.mkdir()
            made = our_files(small, calibration, folder) | standard_files(small, folder)
            files |= {f"{model} {tool}": file for tool, file in made.items()}
            openvino = openvino_runs(made["torch.onnx sdpa"], calibration, options.threads)
            runs |= {f"{model} {tool}": one for tool, one in openvino.items()}
        if options.bert_base:
            files[BERT_BASE] = bert_base(Path(name))
        onnxruntime.set_global_thread_pool_sizes(options.threads, 1)  # only now: calibration had a pool of its own
        runs = {tool: onnxruntime_run(file) for tool, file in files.items()} | runs
        clock_s = time.thread_time if options.cpu_time else time.perf_counter
        measured = {}
        for shape in options.shapes:
            batch, tokens = map(int, shape.split("x"))
            measured[shape] = measure(runs, batch, tokens, options.rounds, clock_s)
            report(shape, measured[shape])
        targets(measured, next(iter(models)), list(models)[-1])


def of_checkpoint(path: Path) -> Model:
    checkpoint = load_checkpoint(path)
    examples = calibration_examples(checkpoint.calibration)
    calibration = encode_examples(path / "tokenizer.json", examples, checkpoint.run.max_length)
    return compact(checkpoint.model, checkpoint.masks), calibration


def random_models() -> dict[str, Model]:
    """MiniLM's sizes, dense and sparse."""
    sizes = {
        "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536,
        "head_size": 32, "num_labels": 2,
    }  # fmt: skip
    texts = random_texts(0, 64, 64, SparseBertConfig().vocab_size)
    return {
        name: (SparseBertForSequenceClassification(SparseBertConfig(**(sizes | units))).eval(), texts)
        for name, units in (("dense", {}), ("sparse", SPARSE))
    }


def our_files(
    small: SparseBertForSequenceClassification, calibration: list[EncodedText], folder: Path
) -> dict[str, Path]:
    weights = read_weights(small)
    builders = {
        "fp32": float_graphs(weights, "fp32"),
        "int8": int8_graphs(calibrate(weights, calibration), default_weight_range()),
    }
    files = {}
    for precision, build in builders.items():
        for variant, changes in VARIANTS.items():
            tool = f"ours {precision}{variant}"
            files[tool] = folder / f"{tool.replace(' ', '-')}.onnx"
            onnx.save(build(replace(DEFAULT_FORMS[precision], **changes)), files[tool])
    return files


def bert_base(folder: Path) -> Path:
    path = folder / "bert-base.onnx"
    torch_onnx(SparseBertForSequenceClassification(SparseBertConfig(num_labels=2)).eval(), path, "eager")
    return path


def onnxruntime_run(path: Path) -> Run:
    session_options = onnxruntime.SessionOptions()
    session_options.use_per_session_threads = False  # spinning pools of their own would take each other's cores
    session_options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), session_options, providers=["CPUExecutionProvider"])
    return lambda feeds: session.run(None, feeds)


def measure(runs: dict[str, Run], batch: int, tokens: int, rounds: int, clock_s: Callable[[], float]) -> Times:
    rng = np.random.default_rng(0)
    feeds: Feeds = dict.fromkeys(NAMES, np.zeros((batch, tokens), np.int64)) | {
        "input_ids": rng.integers(1000, 20000, (batch, tokens)),
        "attention_mask": np.ones((batch, tokens), np.int64),
    }
    names, times_ms = list(runs), {name: [] for name in runs}
    for step in range(-3, rounds):  # the first ones warm up
        turn = step % len(names)
        for name in names[turn:] + names[:turn]:
            runs[name](feeds)  # its weights into the caches, its threads awake
            began_s = clock_s()
            runs[name](feeds)
            if step >= 0:
                times_ms[name].append(1000 * (clock_s() - began_s))
    return times_ms


def ratio(times_ms: Times, slow: str, fast: str) -> float:
    """How many times faster `fast` is, within a round."""
    return statistics.median(a / b for a, b in zip(times_ms[slow], times_ms[fast], strict=True))


def report(shape: str, times_ms: Times) -> None:
    """The median time of each graph, and how many times slower it is than each of ours for the same model."""
    print(f"\n{shape:<8}{'graph':<55}{'median_ms':>10}{'x ours fp32':>13}{'x ours int8':>13}")
    for name, values in times_ms.items():
        ours = name.split(" ", maxsplit=1)[0]
        cells = [f"{ratio(times_ms, name, f'{ours} ours {p}'):13.2f}" for p in ("fp32", "int8") if name != BERT_BASE]
        print(f"{shape:<8}{name:<55}{statistics.median(values):10.2f}{''.join(cells)}", flush=True)


def targets(measured: dict[str, Times], dense: str, sparse: str) -> None:
    """What the exporter promises, and what was measured at each shape."""
    rows: dict[str, Callable[[Times], float]] = {
        "dense fp32 against the best of torch.onnx and optimizer (1.0)": lambda t: against(t, dense, "fp32"),
        "sparse fp32 against the best of torch.onnx and optimizer (1.1)": lambda t: against(t, sparse, "fp32"),
        "dense int8 against the best dynamic int8 (1.15)": lambda t: against(t, dense, "int8"),
        "sparse int8 against the best dynamic int8 (1.15)": lambda t: against(t, sparse, "int8"),
        "sparse int8 against our dense fp32 (8x32: 6)": lambda t: ratio(t, f"{dense} ours fp32", f"{sparse} ours int8"),
        "sparse int8 against the best other dense fp32": lambda t: ratio(
            t, best(t, dense, FP32_TOOLS), f"{sparse} ours int8"
        ),
    }
    if BERT_BASE in next(iter(measured.values())):
        rows["sparse int8 against BERT-base fp32 (8x32: 40, 1x32: 25)"] = lambda t: ratio(
            t, BERT_BASE, f"{sparse} ours int8"
        )
    print(f"\n{'times faster (target)':<68}" + "".join(f"{shape:>9}" for shape in measured))
    for row, value in rows.items():
        print(f"{row:<68}" + "".join(f"{value(times_ms):9.2f}" for times_ms in measured.values()))


def against(times_ms: Times, model: str, precision: str) -> float:
    """Our default form against the best of the standard tools."""
    tools = FP32_TOOLS if precision == "fp32" else INT8_TOOLS
    return ratio(times_ms, best(times_ms, model, tools), f"{model} ours {precision}")


def best(times_ms: Times, model: str, tools: tuple[str, ...]) -> str:
    """The fastest of the graphs that these tools made of a model."""
    made = [name for name in times_ms if name.startswith(tuple(f"{model} {tool}" for tool in tools))]
    return min(made, key=lambda name: statistics.median(times_ms[name]))


if __name__ == "__main__":
    main()
