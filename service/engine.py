"""What computes the logits of a batch? The only file that imports ONNX Runtime.

Knows nothing about texts, queues or bundles.
"""

import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime as ort

from service.encoding import INPUT_NAMES, OUTPUT_NAME, EncodedBatch, FloatArray
from sparsebert.errors import BundleError, ConfigError

PROVIDER = "CPUExecutionProvider"
RUNTIME_VERSION: str = ort.__version__
SILENT = 4


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

    def run(self, batch: EncodedBatch, halt: Halt) -> FloatArray:
        """Logits of shape [B, labels], row for row. Raises whatever it likes soon after `halt` is requested."""


class OnnxEngine:
    """An ONNX Runtime session on the CPU."""

    def __init__(self, graph: Path, *, threads: int) -> None:
        if PROVIDER not in ort.get_available_providers():
            raise ConfigError(f"this ONNX Runtime has no {PROVIDER}; pip install --force-reinstall onnxruntime")
        try:
            _share_arena()
            # From the path and not from bytes: the file is then never a second time in memory.
            self._session = ort.InferenceSession(str(graph), _options(threads), providers=[PROVIDER])
        except Exception as error:
            sentence = str(error).partition("\n")[0]
            raise BundleError(f"{graph} cannot be opened by ONNX Runtime ({sentence}); export again") from error
        self._session.disable_fallback()
        self._check_signature(graph)

    @property
    def provider(self) -> str:
        return str(self._session.get_providers()[0])

    def run(self, batch: EncodedBatch, halt: Halt) -> FloatArray:
        arrays = (batch.input_ids_BS, batch.attention_mask_BS, batch.token_type_ids_BS)
        options = ort.RunOptions()
        options.log_severity_level = SILENT
        # Looked at before every node; the session is as good as new afterwards.
        halt.on_request(lambda: setattr(options, "terminate", True))
        feeds = dict(zip(INPUT_NAMES, arrays, strict=True))
        logits_BC: FloatArray = self._session.run([OUTPUT_NAME], feeds, options)[0]
        return logits_BC

    def _check_signature(self, graph: Path) -> None:
        reads = {node.name: node.type for node in self._session.get_inputs()}
        gives = {node.name: node.type for node in self._session.get_outputs()}
        if reads != dict.fromkeys(INPUT_NAMES, "tensor(int64)") or gives != {OUTPUT_NAME: "tensor(float)"}:
            raise BundleError(
                f"{graph} reads {', '.join(reads)} and gives {', '.join(gives)}; the service feeds "
                f"{', '.join(INPUT_NAMES)} and takes {OUTPUT_NAME}; export again"
            )


class EchoEngine:
    """A double without a model: logits tell the ids, so that a swapped answer is noticed.

    Row: (sum of ids × position, number of tokens). `before_run` is called with each batch and may raise or block.
    """

    provider = "EchoProvider"

    def __init__(self, before_run: Callable[[EncodedBatch], None] | None = None) -> None:
        self._before_run = before_run
        self.batches: list[EncodedBatch] = []

    def run(self, batch: EncodedBatch, halt: Halt) -> FloatArray:
        del halt
        self.batches.append(batch)
        if self._before_run is not None:
            self._before_run(batch)
        position_S = np.arange(1, batch.input_ids_BS.shape[1] + 1)
        weighted = (batch.input_ids_BS * batch.attention_mask_BS * position_S).sum(axis=1)
        return np.stack([weighted, batch.attention_mask_BS.sum(axis=1)], axis=1).astype(np.float32)


@cache
def _share_arena() -> None:
    """One arena for the sessions of all variants: each would keep what its own largest batches took."""
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(memory, ort.OrtArenaCfg({}))


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # Patterns are kept per input shape; with free shapes they only grow.
    options.enable_mem_pattern = False
    # What ONNX Runtime has to say at a failure is in the exception too.
    options.log_severity_level = SILENT
    # A spinning pool burns whole cores while nothing is asked.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.use_env_allocators", "1")
    # Weights stay out of the arena, which grows by powers of two.
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    return options
