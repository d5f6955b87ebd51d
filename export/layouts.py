"""Which rows do the linear layers compute: every position of the padded batch, or real tokens only?

Either way the graph's inputs are padded texts. Knows nothing about weights.

B texts, T positions, N rows, W values of a row.
"""

from typing import Literal, Protocol

from onnx import TensorProto

from export.builder import GraphBuilder


class Layout(Protocol):
    """Converts between texts and rows; the graph holds what is asked for twice only once."""

    def rows_of(self, graph_input: str) -> str:
        """The values of one of the graph's inputs, [N]."""

    def positions(self) -> str:
        """The position of each row in its text, [N]."""

    def to_texts(self, x_NW: str) -> str:
        """Rows as padded texts, [B, T, W]."""

    def to_rows(self, x_BTW: str) -> str:
        """The opposite, [N, W]."""

    def first_tokens(self, x_NW: str) -> str:
        """The first row of each text, [B, W]."""

    def key_mask(self, *, first_tokens: bool = False) -> str:
        """Which positions are tokens, as fused attention operators want it; for the queries of first tokens alone."""


class PaddedLayout:
    """Every position is a row."""

    def __init__(self, graph: GraphBuilder, mask: Literal["positions", "lengths"]) -> None:
        self._graph = graph
        self._mask = mask

    def rows_of(self, graph_input: str) -> str:
        return self._graph.node("Reshape", graph_input, self._graph.constant([-1]))

    def positions(self) -> str:
        graph = self._graph
        columns_T = graph.node(
            "Range", graph.constant(0), graph.node("Squeeze", self._num_positions()), graph.constant(1)
        )
        columns_BT = graph.node("Expand", columns_T, graph.node("Shape", "input_ids"))
        return graph.node("Reshape", columns_BT, graph.constant([-1]))

    def to_texts(self, x_NW: str) -> str:
        return self._graph.node("Reshape", x_NW, self._text_shape())

    def to_rows(self, x_BTW: str) -> str:
        return self._graph.node("Flatten", x_BTW, axis=2)

    def first_tokens(self, x_NW: str) -> str:
        return self._graph.node("Gather", self.to_texts(x_NW), self._graph.constant(0), axis=1)

    def key_mask(self, *, first_tokens: bool = False) -> str:
        if self._mask == "lengths":
            return self._lengths_and_starts(first_tokens)
        return self._graph.node("Cast", "attention_mask", to=TensorProto.INT32)

    def _lengths_and_starts(self, first_tokens: bool) -> str:
        """The number of keys of each text, then where its queries and its keys begin in the flattened batch."""
        graph, one = self._graph, self._graph.constant(1)
        num_texts = graph.node("Squeeze", graph.node("Shape", "input_ids", start=0, end=1))
        texts = graph.node("Range", graph.constant(0), graph.node("Add", num_texts, one), one)
        keys = graph.node("Mul", texts, self._num_positions())
        parts = graph.node("Concat", self._lengths(), texts if first_tokens else keys, keys, axis=0)
        return graph.node("Cast", parts, to=TensorProto.INT32)

    def _lengths(self) -> str:
        return self._graph.node("ReduceSum", "attention_mask", self._graph.constant([1]), keepdims=0)

    def _num_positions(self) -> str:
        return self._graph.node("Shape", "input_ids", start=1, end=2)

    def _text_shape(self) -> str:
        graph = self._graph
        return graph.node("Concat", graph.node("Shape", "input_ids"), graph.constant([-1]), axis=0)


class PackedLayout(PaddedLayout):
    """Real tokens are rows, one text after the other; padding exists in the attention only.

    Every text has at least one token.
    """

    def rows_of(self, graph_input: str) -> str:
        return self._graph.node("Gather", super().rows_of(graph_input), self._tokens())

    def positions(self) -> str:
        return self._graph.node("Mod", self._tokens(), self._num_positions())

    def to_texts(self, x_NW: str) -> str:
        """Padding repeats some token; the mask hides it."""
        return self._graph.node("Gather", x_NW, self._places())

    def to_rows(self, x_BTW: str) -> str:
        return self._graph.node("Gather", super().to_rows(x_BTW), self._tokens())

    def first_tokens(self, x_NW: str) -> str:
        graph = self._graph
        return graph.node("Gather", x_NW, graph.node("CumSum", self._lengths(), graph.constant(0), exclusive=1))

    def _tokens(self) -> str:
        """Where in the flattened batch the real tokens are, [N]."""
        graph = self._graph
        places_1N = graph.node("NonZero", super().rows_of("attention_mask"))
        return graph.node("Squeeze", places_1N, graph.constant([0]))

    def _places(self) -> str:
        """The row of every position, [B, T]; of padding, that of the token before it."""
        graph = self._graph
        count = graph.node("CumSum", super().rows_of("attention_mask"), graph.constant(0))
        return graph.node("Reshape", graph.node("Sub", count, graph.constant(1)), graph.node("Shape", "input_ids"))


LAYOUTS: dict[str, type[PaddedLayout]] = {"padded": PaddedLayout, "packed": PackedLayout}
