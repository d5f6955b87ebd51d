"""Which ONNX Runtime operators are worth writing on this CPU? One thread, the fastest of many runs.

    python benchmarks/export/operators.py

256 rows (8 texts of 32 tokens) of 384 values: norms, rounding to integers, a linear layer of 1,536 outputs in every
way that 8-bit weights can be multiplied, and GELUs.
"""

import time
from collections.abc import Sequence

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import NodeProto, ValueInfoProto, helper, numpy_helper

ROWS, WIDTH, OUTPUTS = 256, 384, 1536
MICROSOFT = "com.microsoft"
RUNS = 200
Array = NDArray[np.generic]


def node(operator: str, inputs: str, output: str, domain: str = "", **attributes: object) -> NodeProto:
    """Inputs are separated by spaces; a dash leaves one out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(operator, names, [output], domain=domain, **attributes)


def fastest_us(nodes: Sequence[NodeProto], constants: dict[str, Array], x: Array) -> float:
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    graph = helper.make_graph(
        list(nodes), "g", [helper.make_tensor_value_info("x", kind, [None, x.shape[1]])],
        [ValueInfoProto(name="y")],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    times_s = []
    for _ in range(RUNS):
        began_s = time.perf_counter()
        session.run(None, {"x": x})
        times_s.append(time.perf_counter() - began_s)
    return 1e6 * min(times_s)


def report(title: str, times_us: dict[str, float]) -> None:
    base = next(iter(times_us.values()))
    print(f"\n{title}")
    for name, time_us in times_us.items():
        print(f"  {name:<58}{time_us:9.0f} us{time_us / base:8.2f} x")


def main() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, WIDTH)).astype(np.float32)
    ones = np.ones(WIDTH, np.float32)
    add_norm = [node("Add", "x x", "s"), node("LayerNormalization", "s w w", "y", axis=-1)]
    report("residual and norm", {
        "Add + LayerNormalization": fastest_us(add_norm, {"w": ones}, x),
        "SkipLayerNormalization": fastest_us(
            [node("SkipLayerNormalization", "x x w w", "y", MICROSOFT)], {"w": ones}, x
        ),
    })  # fmt: skip
    scalar = {"s": np.float32(0.05), "z": np.uint8(128)}
    channel = {"s": np.full(WIDTH, 0.05, np.float32), "z": np.full(WIDTH, 128, np.uint8)}
    report("rounding to 8 bits", {
        "QuantizeLinear, one scale": fastest_us([node("QuantizeLinear", "x s z", "y")], scalar, x),
        "Mul by a scale per channel, then QuantizeLinear": fastest_us(
            [node("Mul", "x w", "m"), node("QuantizeLinear", "m s z", "y")], scalar | {"w": ones}, x
        ),
        "QuantizeLinear, a scale per channel": fastest_us([node("QuantizeLinear", "x s z", "y", axis=1)], channel, x),
    })  # fmt: skip
    report("384 to 1,536 outputs, 8-bit weights, float to float", products(rng, x))
    report("GELU of 1,536 values in each row", gelus(rng))


def products(rng: np.random.Generator, x: Array) -> dict[str, float]:
    weight = rng.integers(-127, 128, (WIDTH, OUTPUTS)).astype(np.int8)
    constants = {
        "w": weight, "ws": np.full(OUTPUTS, 0.01, np.float32), "s": np.float32(0.05), "z": np.uint8(128),
        "b": np.ones(OUTPUTS, np.float32),
    }  # fmt: skip
    times_us = {
        "one constant scale (QuantizeLinear, MatMulIntegerToFloat)": fastest_us(
            [node("QuantizeLinear", "x s z", "q"), node("MatMulIntegerToFloat", "q w s ws z - b", "y", MICROSOFT)],
            constants, x,
        ),
        "one scale per batch (DynamicQuantizeMatMul)": fastest_us(
            [node("DynamicQuantizeMatMul", "x w ws - b", "y", MICROSOFT)],
            {name: constants[name] for name in ("w", "ws", "b")}, x,
        ),
        "one scale per row": fastest_us(per_row(), constants | {
            "axis": np.array([-1]), "small": np.float32(1e-9), "part": np.float32(1 / 127), "one": np.float32(1),
            "flat": np.array([-1]), "z1": np.array([128], np.uint8),
        }, x),
        "one constant scale, signed activations": fastest_us(
            [node("QuantizeLinear", "x s z", "q"), node("MatMulIntegerToFloat", "q w s ws z - b", "y", MICROSOFT)],
            constants | {"z": np.int8(0)}, x,
        ),
    }  # fmt: skip
    for block in (32, 128):
        times_us[f"MatMulNBits, 8 bits, blocks of {block}"] = fastest_us(
            [node("MatMulNBits", "x w ws - - b", "y", MICROSOFT, K=WIDTH, N=OUTPUTS, bits=8, block_size=block,
                  accuracy_level=4)],
            {"w": (weight.T.reshape(OUTPUTS, -1, block).astype(np.int16) + 128).astype(np.uint8),
             "ws": np.full((OUTPUTS, WIDTH // block), 0.01, np.float32), "b": constants["b"]}, x,
        )  # fmt: skip
    floats = {"w": weight.astype(np.float32), "b": constants["b"]}
    return times_us | {"32-bit floats (Gemm)": fastest_us([node("Gemm", "x w b", "y")], floats, x)}


def gelus(rng: np.random.Generator) -> dict[str, float]:
    x, bias = rng.normal(size=(ROWS, OUTPUTS)).astype(np.float32), {"b": np.ones(OUTPUTS, np.float32)}
    return {
        "Gelu": fastest_us([node("Gelu", "x", "y")], {}, x),
        "Gelu by tanh": fastest_us([node("Gelu", "x", "y", approximate="tanh")], {}, x),
        "BiasGelu, which would take the bias out of the product": fastest_us(
            [node("BiasGelu", "x b", "y", MICROSOFT)], bias, x
        ),
        "FastGelu with a bias": fastest_us([node("FastGelu", "x b", "y", MICROSOFT)], bias, x),
    }


def per_row() -> list[NodeProto]:
    return [
        node("ReduceMax", "x axis", "high"), node("ReduceMin", "x axis", "low"), node("Neg", "low", "nlow"),
        node("Max", "high nlow small", "most"), node("Mul", "most part", "rs"), node("Reshape", "rs flat", "rs1"),
        node("Shape", "rs1", "count"), node("Expand", "z1 count", "zs"),
        node("QuantizeLinear", "x rs1 zs", "q", axis=0),
        node("MatMulIntegerToFloat", "q w one ws z", "p", MICROSOFT), node("Mul", "p rs", "scaled"),
        node("Add", "scaled b", "y"),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
