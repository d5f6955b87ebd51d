"""What computes the logits of a batch? The only file that imports ONNX Runtime.

Knows nothing about texts, queues or bundles.
"""

import contextlib
import ctypes
import importlib.util
import io
import logging
import threading
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime as ort

from service.devices import (
    EXTRAS,
    WHEELS,
    ArenaWatch,
    Device,
    Placement,
    Work,
    nodes_on_cpu,
    placement_problem,
    provider_problem,
    providers,
    wheels_problem,
)
from service.encoding import INPUT_NAMES, OUTPUT_NAME, EncodedBatch, FloatArray, IntArray
from service.gpus import Driver, GpuMemory, check_gpu
from sparsebert.errors import BundleError, ConfigError

log = logging.getLogger(__name__)

RUNTIME_VERSION: str = ort.__version__
SILENT = 4
CPU = Device()
# The smallest graph there is: one Abs.
PROBE = (
    b'\x08\x08\x12\x00:2\n\x0b\n\x01x\x12\x01y"\x03Abs\x12\x01pZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\x11"
)
TENSORRT_LIBRARIES = ("libnvinfer.so.10", "libnvinfer_plugin.so.10", "libnvonnxparser.so.10")


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


class OnnxEngine:
    """An ONNX Runtime session on one device, whole: what the device cannot compute is refused, not moved to the CPU.

    On a GPU tensors are bound to its memory (`bind_to` says so elsewhere too, for tests).
    """

    def __init__(
        self,
        graph: Path,
        *,
        threads: int,
        device: Device = CPU,
        work: Work | None = None,
        gpu: GpuMemory | None = None,
        bind_to: str = "",
    ) -> None:
        self.gpu = gpu
        self._gpu_before = gpu.used() if gpu else None
        self._bind_to = bind_to or ("cuda" if device.on_gpu else "")
        self._device = device
        self._arena = ArenaWatch()
        wanted = providers(device, work or Work(threads=threads))
        try:
            # From the path and not from bytes: the file is then never a second time in memory.
            # Without `enable_fallback=0` a provider that fails is replaced by the CPU's, in silence.
            self._session = ort.InferenceSession(
                str(graph), _options(threads, device), providers=wanted, enable_fallback=0
            )
        except Exception as error:
            sentence = str(error).partition("\n")[0]
            raise BundleError(f"{graph} cannot be opened by ONNX Runtime ({sentence}); export again") from error
        self._session.disable_fallback()
        self._check_signature(graph)
        self.nodes_on_cpu = self._check_placements(graph)

    @property
    def provider(self) -> str:
        return str(self._session.get_providers()[0])

    def gpu_growth_bytes(self) -> int | None:
        now = self.gpu.used() if self.gpu else None
        if now is None or self._gpu_before is None:
            return None
        return max(0, now.own_bytes - self._gpu_before.own_bytes)

    def run(self, batch: EncodedBatch, halt: Halt) -> FloatArray:
        arrays = (batch.input_ids_BS, batch.attention_mask_BS, batch.token_type_ids_BS)
        options = ort.RunOptions()
        options.log_severity_level = SILENT
        # Looked at before every node; the session is as good as new afterwards.
        halt.on_request(lambda: setattr(options, "terminate", True))
        feeds = dict(zip(INPUT_NAMES, arrays, strict=True))
        if self._bind_to:
            return self._run_bound(feeds, options, batch.input_ids_BS.size)
        logits_BC: FloatArray = self._session.run([OUTPUT_NAME], feeds, options)[0]
        return logits_BC

    def _run_bound(self, feeds: Mapping[str, IntArray], options: ort.RunOptions, num_tokens: int) -> FloatArray:
        """Inputs are copied to the device once, logits back once."""
        if self._device.on_gpu and self._arena.shrink_after(num_tokens):
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", f"gpu:{self._device.index}")
        binding = self._session.io_binding()
        for name, values in feeds.items():
            value = ort.OrtValue.ortvalue_from_numpy(values, self._bind_to, self._device.index)
            binding.bind_ortvalue_input(name, value)
        binding.bind_output(OUTPUT_NAME, self._bind_to, self._device.index)
        self._session.run_with_iobinding(binding, options)
        logits_BC: FloatArray = binding.copy_outputs_to_cpu()[0]
        return logits_BC

    def _check_placements(self, graph: Path) -> int:
        """How many nodes are on the CPU. Raises BundleError when any are that must not be."""
        if self._device.name == "cpu":
            return 0
        if self.provider != self._device.provider:
            raise BundleError(
                f"{graph} was opened by {self.provider} in place of {self._device.provider}; start again, or serve it "
                "with --device cpu"
            )
        placements = [
            Placement(node.op_type, part.ep_name)
            for part in self._session.get_provider_graph_assignment_info()
            for node in part.get_nodes()
        ]
        problem = placement_problem(placements, self._device)
        if problem:
            raise BundleError(f"{graph} {problem}")
        return nodes_on_cpu(placements, self._device)

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


def installed_wheels() -> dict[str, str]:
    """The builds of ONNX Runtime in this environment, and their versions."""
    found = {}
    for name in WHEELS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def prepare(device: Device, wheels: Mapping[str, str], driver: Driver) -> None:
    """Make ready to compute on a device. Raises ConfigError, with the cure, when that is not possible here."""
    problem = wheels_problem(wheels, device) or provider_problem(ort.get_available_providers(), wheels, device)
    if problem:
        raise ConfigError(problem)
    if device.on_gpu:
        check_gpu(device, driver)
        _load_libraries(device)
    if device.name != "cpu":
        _probe(device)


def _probe(device: Device) -> None:
    """Open the smallest graph: a provider that is built in may still not start."""
    ort.set_default_logger_severity(SILENT)
    try:
        session = ort.InferenceSession(PROBE, providers=providers(device, Work()), enable_fallback=0)
    except Exception as error:
        raise ConfigError(_cannot_start(device, _reason(device) or str(error).partition("\n")[0])) from error
    if session.get_providers()[0] != device.provider:
        raise ConfigError(_cannot_start(device, _reason(device) or "ONNX Runtime does not say why"))


def _cannot_start(device: Device, reason: str) -> str:
    return (
        f"{device.provider} cannot start ({reason}); "
        f"pip install 'sparsebert[{EXTRAS[device.name]}]' brings its libraries, or serve with --device cpu"
    )


def _load_libraries(device: Device) -> None:
    """Those that pip installed are not where the loader looks."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        ort.preload_dlls()
    log.debug("CUDA libraries: %s", said.getvalue().strip())
    found = importlib.util.find_spec("tensorrt_libs") if device.name == "tensorrt" else None
    for folder in (found.submodule_search_locations or []) if found else []:
        for name in TENSORRT_LIBRARIES:
            with contextlib.suppress(OSError):  # what is missing is told by the provider's own library
                ctypes.CDLL(str(Path(folder) / name))


def _reason(device: Device) -> str:
    """What the loader says of the provider's library; empty when nothing. ONNX Runtime only logs it."""
    folder = Path(ort.__file__).parent / "capi"
    try:
        # Its symbols are what the other needs, as when ONNX Runtime itself loads both.
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / f"libonnxruntime_providers_{device.name}.so"))
    except OSError as error:
        return str(error)
    return ""


def _options(threads: int, device: Device) -> ort.SessionOptions:
    options = ort.SessionOptions()
    if device.name != "cpu":
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    # On another device they would have nothing to compute.
    options.intra_op_num_threads = threads if device.name == "cpu" else 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # Patterns are kept per input shape; with free shapes they only grow.
    options.enable_mem_pattern = False
    # What ONNX Runtime has to say at a failure is in the exception too.
    options.log_severity_level = SILENT
    # A spinning pool burns whole cores while nothing is asked.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Weights stay out of the arena, which grows by powers of two.
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    return options
