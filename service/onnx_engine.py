"""How does ONNX Runtime compute the logits of a batch?

With `service.provider` the only file that imports ONNX Runtime. Knows nothing about texts, queues or bundles.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import onnxruntime as ort

from service.devices import ArenaWatch, Device, Placement, Work, nodes_on_cpu, placement_problem, providers
from service.encoding import INPUT_NAMES, OUTPUT_NAME, EncodedBatch, FloatArray, IntArray
from service.engine import Halt
from service.gpus import GpuMemory
from sparsebert.errors import BundleError

RUNTIME_VERSION: str = ort.__version__
SILENT = 4
CPU = Device()


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
            if device.name == "cpu":
                _share_arena()
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


@cache
def _share_arena() -> None:
    """One arena for the sessions of all variants: each would keep what its own largest batches took."""
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(memory, ort.OrtArenaCfg({}))


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
    options.add_session_config_entry("session.use_env_allocators", "1")
    # Weights stay out of the arena, which grows by powers of two.
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    return options
