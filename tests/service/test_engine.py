"""ONNX Runtime computes what the graph says, from several threads at once, and stops when it is told to."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.encoding import Encoding, pad
from service.engine import Halt
from service.memory import resident_bytes
from service.onnx_engine import OnnxEngine

TEXT = (2, 4, 8, 3)
BATCH = pad([Encoding(input_ids=TEXT, token_type_ids=(0,) * len(TEXT), num_tokens_full=len(TEXT))])


@pytest.fixture
def engine(tmp_path: Path, write_bundle: Callable[..., Path]) -> OnnxEngine:
    return OnnxEngine(write_bundle(tmp_path) / "model.onnx", threads=1)


@pytest.fixture
def slow_engine(tmp_path: Path) -> OnnxEngine:
    """Multiplies matrices for many seconds unless it is stopped; what depends on an input is not folded."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"]) for name in names]
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
        helper.make_node("Mul", ["top", "square"], ["y0"]),
        *(helper.make_node("MatMul", [f"y{step}", "square"], [f"y{step + 1}"]) for step in range(200)),
        helper.make_node("ReduceMax", ["y200", "axis"], ["row"], keepdims=1),
        helper.make_node("Slice", ["row", "zero", "one"], ["logits"]),
    ]
    constants = [
        numpy_helper.from_array(np.full((1024, 1024), 1e-3, np.float32), "square"),
        numpy_helper.from_array(np.array([1]), "axis"),
        numpy_helper.from_array(np.array([0]), "zero"),
        numpy_helper.from_array(np.array([1]), "one"),
    ]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1])
    graph = helper.make_graph(nodes, "slow", inputs, [logits], constants)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "slow.onnx"
    )
    return OnnxEngine(tmp_path / "slow.onnx", threads=1)


def test_several_threads_at_once(engine: OnnxEngine) -> None:
    with ThreadPoolExecutor(4) as threads:
        runs = [threads.submit(engine.run, BATCH, Halt()) for _ in range(50)]
        for run in runs:
            assert run.result().shape == (1, 2)
            assert np.allclose(run.result(), runs[0].result())


def test_a_batch_that_is_halted_beforehand_does_not_run_and_harms_no_other(engine: OnnxEngine) -> None:
    expected = engine.run(BATCH, Halt())
    halt = Halt()
    halt.request()
    for _ in range(3):
        with pytest.raises(Exception, match="terminate flag"):
            engine.run(BATCH, halt)
        assert engine.run(BATCH, Halt()).tolist() == expected.tolist()


def test_a_running_batch_is_stopped(slow_engine: OnnxEngine) -> None:
    halt, began = Halt(), threading.Event()

    class Telling(Halt):
        def on_request(self, end: Callable[[], None]) -> None:
            halt.on_request(end)
            began.set()

    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(slow_engine.run, BATCH, Telling())
        assert began.wait(timeout=30)
        halt.request()
        with pytest.raises(Exception, match="terminate flag"):
            running.result(timeout=30)


def test_sessions_share_what_their_batches_take(tmp_path: Path, write_bundle: Callable[..., Path]) -> None:
    """A row of 16 MB in one session is there for the next: the second takes no memory of its own."""
    engines = [OnnxEngine(write_bundle(tmp_path, variant=name) / "model.onnx", threads=1) for name in "abcd"]
    large = pad([Encoding(input_ids=(2,) * 500_000, token_type_ids=(0,) * 500_000, num_tokens_full=500_000)])
    engines[0].run(large, Halt())
    before = resident_bytes()
    for engine in engines[1:]:
        engine.run(large, Halt())
    assert resident_bytes() - before < 8_000_000
