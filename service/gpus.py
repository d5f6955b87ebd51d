"""Which GPUs may this process use, and how much of their memory is in use?

The only file that talks to NVIDIA's driver and to NVML. Knows nothing about models.
"""

import ctypes
import logging
import os
from dataclasses import dataclass
from typing import Any, Protocol

from service.devices import Device
from sparsebert.errors import ConfigError

log = logging.getLogger(__name__)

DRIVER = "libcuda.so.1"
NO_GPU = "or serve with --device cpu"


@dataclass(frozen=True, kw_only=True)
class GpuUse:
    """Used memory of a GPU by everybody, and by this process where NVML tells (in some containers it does not)."""

    device_bytes: int
    process_bytes: int | None

    @property
    def own_bytes(self) -> int:
        """The better of the two for how much a model takes."""
        return self.device_bytes if self.process_bytes is None else self.process_bytes


class GpuMemory(Protocol):
    """The memory of one GPU."""

    def used(self) -> GpuUse | None:
        """What is used now; None when it cannot be told. Does not raise."""


class FixedGpuMemory:
    """A double: tells one use after the other, and the last one for ever."""

    def __init__(self, *uses: GpuUse | None) -> None:
        self._uses = list(uses)

    def used(self) -> GpuUse | None:
        return self._uses.pop(0) if len(self._uses) > 1 else self._uses[0]


class Driver(Protocol):
    """NVIDIA's driver, as far as it concerns who is asked for."""

    def count(self) -> int:
        """GPUs that this process may use. Raises ConfigError when there is no driver."""

    def pci_bus_id(self, index: int) -> str:
        """By which name NVML knows the GPU: its own numbers pass over CUDA_VISIBLE_DEVICES."""


class CudaDriver:
    """The driver itself, asked without any CUDA library."""

    def __init__(self, library: str = DRIVER) -> None:
        self._library = library

    def count(self) -> int:
        count = ctypes.c_int()
        self._call(self._open(), "cuDeviceGetCount", ctypes.byref(count))
        return count.value

    def pci_bus_id(self, index: int) -> str:
        driver, gpu, name = self._open(), ctypes.c_int(), ctypes.create_string_buffer(64)
        self._call(driver, "cuDeviceGet", ctypes.byref(gpu), index)
        self._call(driver, "cuDeviceGetPCIBusId", name, len(name), gpu)
        return name.value.decode()

    def _open(self) -> ctypes.CDLL:
        try:
            driver = ctypes.CDLL(self._library)
        except OSError as error:
            raise ConfigError(
                f"there is no NVIDIA driver ({error}); install it, in a container start with --gpus all, {NO_GPU}"
            ) from error
        self._call(driver, "cuInit", 0)
        return driver

    @staticmethod
    def _call(driver: ctypes.CDLL, function: str, *arguments: Any) -> None:
        code = driver[function](*arguments)
        if code != 0:
            raise ConfigError(
                f"NVIDIA's driver finds no GPU ({function} gives {code}); see what nvidia-smi says, {NO_GPU}"
            )


class NvmlMemory:
    """NVML's numbers of the GPU with a PCI bus id. Raises ConfigError when NVML cannot be had."""

    def __init__(self, pci_bus_id: str, *, process_id: int) -> None:
        try:
            import pynvml  # here, since only an extra for GPUs brings it
        except ImportError as error:
            raise ConfigError("nvidia-ml-py is not installed; pip install 'sparsebert[serve-gpu]'") from error
        self._nvml = pynvml
        self._process_id = process_id
        try:
            pynvml.nvmlInit()
            self._handle = pynvml.nvmlDeviceGetHandleByPciBusId(pci_bus_id.encode())
        except pynvml.NVMLError as error:
            raise ConfigError(f"NVML cannot be asked ({error}); see what nvidia-smi says") from error

    def used(self) -> GpuUse | None:
        nvml = self._nvml
        try:
            device_bytes = int(nvml.nvmlDeviceGetMemoryInfo(self._handle).used)
            processes = nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
        except nvml.NVMLError as error:
            log.warning("NVML does not tell the memory of the GPU: %s", error)
            return None
        own = [one.usedGpuMemory for one in processes if one.pid == self._process_id]
        return GpuUse(device_bytes=device_bytes, process_bytes=next((int(one) for one in own if one is not None), None))


def check_gpu(device: Device, driver: Driver) -> None:
    """Raise ConfigError when the GPU asked for is not there."""
    count = driver.count()
    if device.index >= count:
        there = f"only {', '.join(str(index) for index in range(count))}" if count else "none"
        raise ConfigError(
            f"--device-id is {device.index}, but of the GPUs that this process may use there is {there}; choose "
            f"another, look at CUDA_VISIBLE_DEVICES, {NO_GPU}"
        )


def watch_gpu(device: Device, driver: Driver) -> GpuMemory | None:
    """The memory of the device's GPU; None, and a warning in words, when NVML does not tell it."""
    if not device.on_gpu:
        return None
    try:
        return NvmlMemory(driver.pci_bus_id(device.index), process_id=os.getpid())
    except ConfigError as error:
        log.warning("GPU memory is not told in the metrics: %s", error)
        return None
