"""What does the service ask of what computes the logits of a batch, and how does it have a batch end early?

Knows nothing about texts, queues or bundles, nor about ONNX Runtime.
"""

import threading
from collections.abc import Callable
from typing import Protocol

import numpy as np

from service.encoding import EncodedBatch, FloatArray
from service.gpus import GpuMemory


class Halt:
    """Asks a batch that runs to end early, because nobody waits for it any more; safe from every thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requested = False
        self._end: Callable[[], None] | None = None

    @property
    def requested(self) -> bool:
        return self._requested

    def request(self) -> None:
        """End the batch soon."""
        with self._lock:
            self._requested = True
            if self._end is not None:
                self._end()

    def on_request(self, end: Callable[[], None]) -> None:
        """Call `end` when it is requested, or now when it was; for engines."""
        with self._lock:
            self._end = end
            if self._requested:
                end()


class Engine(Protocol):
    """Computes logits; `run` blocks, is called from several threads and gives one row for each text."""

    @property
    def provider(self) -> str:
        """What executes the graph."""

    @property
    def nodes_on_cpu(self) -> int:
        """How many nodes the CPU computes although another device was asked for."""

    @property
    def gpu(self) -> GpuMemory | None:
        """The memory of the GPU that it computes on, if it does and that can be told."""

    def gpu_growth_bytes(self) -> int | None:
        """By how much the used memory of the GPU grew since the graph began to be opened; None as above."""

    def run(self, batch: EncodedBatch, halt: Halt) -> FloatArray:
        """Logits of shape [B, labels], row for row. Raises whatever it likes soon after `halt` is requested."""


class EchoEngine:
    """A double without a model: logits tell the ids, so that a swapped answer is noticed.

    Row: (sum of ids × position, number of tokens). `before_run` is called with each batch and may raise or block.
    """

    provider = "EchoProvider"
    nodes_on_cpu = 0

    def __init__(self, before_run: Callable[[EncodedBatch], None] | None = None) -> None:
        self.gpu: GpuMemory | None = None
        self._before_run = before_run
        self.batches: list[EncodedBatch] = []

    def gpu_growth_bytes(self) -> int | None:
        return None

    def run(self, batch: EncodedBatch, halt: Halt) -> FloatArray:
        del halt
        self.batches.append(batch)
        if self._before_run is not None:
            self._before_run(batch)
        position_S = np.arange(1, batch.input_ids_BS.shape[1] + 1)
        weighted = (batch.input_ids_BS * batch.attention_mask_BS * position_S).sum(axis=1)
        return np.stack([weighted, batch.attention_mask_BS.sum(axis=1)], axis=1).astype(np.float32)
