"""On which device is computed, through which of ONNX Runtime's providers, and what can it compute there?

Pure: knows nothing about ONNX Runtime's objects, about files or HTTP.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from service.encoding import INPUT_NAMES
from sparsebert.manifest import Precision

DeviceName = Literal["cpu", "cuda", "tensorrt", "openvino"]
CPU_PROVIDER = "CPUExecutionProvider"
PROVIDERS: Mapping[DeviceName, str] = {
    "cpu": CPU_PROVIDER,
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
EXTRAS: Mapping[DeviceName, str] = {
    "cpu": "serve",
    "cuda": "serve-gpu",
    "tensorrt": "serve-tensorrt",
    "openvino": "serve-openvino",
}
# Of these exactly one may be installed: each writes the same folder `onnxruntime`.
WHEELS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino")
# One batch is computed while the next one is packed and copied; more would only cut batches into smaller ones.
GPU_WORKERS = 2
# A GPU is idle in small batches. Not measured: none was at hand.
MAX_BATCH_TOKENS: Mapping[DeviceName, int] = {"cpu": 512, "cuda": 16_384, "tensorrt": 16_384, "openvino": 512}
# What is compiled may be kept in a folder.
CACHING: frozenset[DeviceName] = frozenset({"tensorrt", "openvino"})
# Integers about shapes, which the providers for GPUs leave to the CPU on purpose.
SHAPE_OPERATORS = frozenset(
    {"Add", "Cast", "Concat", "Expand", "Gather", "Mul", "Range", "Reshape", "Shape", "Squeeze", "Unsqueeze"}
)
SHRINK_AFTER = 64


@dataclass(frozen=True)
class Device:
    """A processor, and the provider that computes on it."""

    name: DeviceName = "cpu"
    index: int = 0

    def __str__(self) -> str:
        return f"{self.name}:{self.index}" if self.on_gpu else self.name

    @property
    def on_gpu(self) -> bool:
        return self.name in ("cuda", "tensorrt")

    @property
    def provider(self) -> str:
        return PROVIDERS[self.name]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a provider is told before it opens a graph; `cache` is a folder of this graph alone, empty for none."""

    workers: int = 1
    threads: int = 1
    max_tokens: int = 512
    max_length: int = 512
    cache: str = ""


@dataclass(frozen=True)
class Placement:
    """Where a node of a graph is computed."""

    operator: str
    provider: str


Provider = tuple[str, dict[str, str]]


def providers(device: Device, work: Work) -> list[Provider]:
    """ONNX Runtime's providers with their options, the most wanted first; it adds the CPU's by itself."""
    if device.name == "openvino":
        streams = {"num_streams": str(work.workers), "num_of_threads": str(max(work.workers, work.threads))}
        cache = {"cache_dir": work.cache} if work.cache else {}
        return [(device.provider, {"device_type": "CPU", **streams, **cache})]
    if device.name == "cuda":
        return [_cuda(device)]
    if device.name == "tensorrt":
        return [(device.provider, _tensorrt(device, work)), _cuda(device)]
    return [(device.provider, {})]


def _cuda(device: Device) -> Provider:
    # TF32 would move logits by more than golden inputs allow; and an arena that doubles takes what others need.
    options = {"device_id": str(device.index), "use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}
    return (PROVIDERS["cuda"], options)


def _tensorrt(device: Device, work: Work) -> dict[str, str]:
    """With the shapes told, its engines are built when the graph is opened, and not in somebody's request."""
    longest = max_items(device, work.max_tokens, work.max_length)
    shapes = {"min": (1, 1), "opt": (-(-longest // 2), -(-work.max_length // 2)), "max": (longest, work.max_length)}
    profiles = {
        f"trt_profile_{kind}_shapes": ",".join(f"{name}:{items}x{tokens}" for name in INPUT_NAMES)
        for kind, (items, tokens) in shapes.items()
    }
    cache = {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": work.cache,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": work.cache,
    }
    return {"device_id": str(device.index), **profiles, **(cache if work.cache else {})}


def max_items(device: Device, max_tokens: int, max_length: int) -> int:
    """Texts that a batch may have: on TensorRT, whose shapes are told before, as many as fit at full length."""
    return max(1, max_tokens // max_length) if device.name == "tensorrt" else max_tokens


def wheels_problem(installed: Mapping[str, str], device: Device) -> str | None:
    """Why the installed builds of ONNX Runtime (name to version) are in each other's way, with the cure."""
    if len(installed) < 2:
        return None
    return (
        f"{' and '.join(installed)} are both installed and overwrite each other's files; {_install(installed, device)}"
    )


def provider_problem(available: Sequence[str], installed: Mapping[str, str], device: Device) -> str | None:
    """Why this ONNX Runtime cannot compute on the device at all, with the cure."""
    if device.provider in available:
        return None
    build = " and ".join(f"{name} {version}" for name, version in installed.items()) or "ONNX Runtime"
    return f"--device {device.name} needs {device.provider}, which {build} does not have; {_install(installed, device)}"


def _install(installed: Iterable[str], device: Device) -> str:
    install = f"pip install --force-reinstall 'sparsebert[{EXTRAS[device.name]}]'"
    remove = " ".join(installed)
    return f"pip uninstall -y {remove}, then {install}" if remove else install


def precision_problem(precision: Precision, device: Device) -> str | None:
    """Why the device cannot compute graphs of a precision, with the cure."""
    if precision == "fp16" and not device.on_gpu:
        cure = "export fp32 with --operators standard" if device.name == "openvino" else "export fp32 or int8"
        return (
            f"is in fp16, for GPUs, and the service computes on {device.name}; {cure}, or serve it with --device cuda"
        )
    if precision == "int8" and device.name != "cpu":
        fp16 = "--precision fp16" if device.on_gpu else "--precision fp32"
        cure = fp16 if device.name == "cuda" else f"{fp16} --operators standard"
        return (
            f"is in int8, whose operators only the CPU has, and the service computes on {device.name}; "
            f"export with {cure}, or serve it with --device cpu"
        )
    return None


def nodes_on_cpu(placements: Iterable[Placement], device: Device) -> int:
    """How many nodes of a graph the CPU computes, although another device was asked for."""
    return 0 if device.name == "cpu" else sum(one.provider == CPU_PROVIDER for one in placements)


def placement_problem(placements: Iterable[Placement], device: Device) -> str | None:
    """Which nodes the device leaves to another provider, with the cure; a GPU may leave numbers about shapes."""
    may_leave = SHAPE_OPERATORS if device.on_gpu else frozenset[str]()
    left = Counter(
        one.operator for one in placements if one.provider != device.provider and one.operator not in may_leave
    )
    if not left:
        return None
    told = ", ".join(f"{count} {operator}" for operator, count in sorted(left.items()))
    cure = "--precision fp16" if device.name == "cuda" else "--operators standard"
    return f"has nodes that {device.name} cannot compute ({told}); export with {cure}, or serve it with --device cpu"


class ArenaWatch:
    """Says when the memory that large batches took is to be given back: when only small ones came for long.

    Giving it back waits for the GPU, so it is not done after each large batch.
    """

    def __init__(self) -> None:
        self._peak_tokens = 0
        self._num_small = 0

    def shrink_after(self, num_tokens: int) -> bool:
        """Whether to shrink after a batch of so many tokens."""
        if num_tokens > self._peak_tokens // 4:
            self._peak_tokens, self._num_small = max(self._peak_tokens, num_tokens), 0
            return False
        self._num_small += 1
        if self._num_small < SHRINK_AFTER:
            return False
        self._peak_tokens, self._num_small = num_tokens, 0
        return True
