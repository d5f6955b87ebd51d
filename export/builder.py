"""How an ONNX graph is put together node by node. Knows nothing about BERT."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 20
IR_VERSION = 10
MICROSOFT = "com.microsoft"

TensorType = tuple[str, tuple[int | str, ...]]  # dtype and shape; a str is a free dimension
DTYPES = {"int64": TensorProto.INT64}


class GraphBuilder:
    """Collects nodes and weights; every method returns the name of the tensor it makes."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, onnx.TensorProto] = {}
        self._outputs: list[onnx.ValueInfoProto] = []
        self._made: dict[tuple[object, ...], list[str]] = {}

    def node(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add an operator with one output; an empty input name leaves an optional input out."""
        return self.nodes(operator, inputs, 1, domain=domain, **attributes)[0]

    def nodes(
        self, operator: str, inputs: Sequence[str], count: int, *, domain: str = "", **attributes: Any
    ) -> list[str]:
        """Add an operator with several outputs. The same operator on the same inputs is added once."""
        key = (operator, *inputs, domain, count, repr(sorted(attributes.items())))
        if key in self._made:
            return self._made[key]
        name = f"{operator}_{len(self._nodes)}"
        outputs = [name] if count == 1 else [f"{name}_{index}" for index in range(count)]
        self._nodes.append(helper.make_node(operator, list(inputs), outputs, name=name, domain=domain, **attributes))
        self._made[key] = outputs
        return outputs

    def weight(self, name: str, values: NDArray[np.generic]) -> str:
        """Add a constant tensor, once for each name."""
        if name not in self._weights:
            self._weights[name] = numpy_helper.from_array(np.asarray(values, order="C"), name)
        return name

    def constant(self, values: Sequence[int] | int) -> str:
        """Add a small int64 constant (axes, shapes, indices)."""
        array = np.array(values, np.int64)
        return self.weight(f"int64_{array.ndim}d_{'_'.join(map(str, array.ravel()))}", array)

    def output(self, tensor: str, name: str, shape: tuple[int | str, ...]) -> None:
        """Make a tensor of 32-bit floats an output of the graph, under a public name; the old name is gone."""
        for node in self._nodes:
            node.output[:] = [name if output == tensor else output for output in node.output]
            node.input[:] = [name if source == tensor else source for source in node.input]
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def model(self, inputs: Mapping[str, TensorType]) -> onnx.ModelProto:
        """The finished, checked model."""
        graph = helper.make_graph(
            self._nodes,
            "sparsebert",
            [helper.make_tensor_value_info(name, DTYPES[d], shape) for name, (d, shape) in inputs.items()],
            self._outputs,
            list(self._weights.values()),
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="sparsebert")
        onnx.checker.check_model(model)
        return model


def count_operators(model: onnx.ModelProto) -> dict[str, int]:
    """How often each operator stands in the graph, by name."""
    return dict(sorted(Counter(node.op_type for node in model.graph.node).items()))
