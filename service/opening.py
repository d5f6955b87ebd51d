"""How is a graph opened with the settings of the service, and how many batches are computed at the same time?

Knows nothing about which bundles there are.
"""

from functools import partial
from pathlib import Path

from service.bundles import OpenEngine
from service.devices import GPU_WORKERS, Device, Work, precision_problem
from service.engine import Engine
from service.gpus import CudaDriver, GpuMemory, watch_gpu
from service.onnx_engine import OnnxEngine
from service.provider import installed_wheels, prepare
from service.settings import Settings
from sparsebert.cpus import available_cpus
from sparsebert.errors import BundleError, ConfigError
from sparsebert.manifest import MODEL_FILE, Manifest, read_manifest


def device_of(settings: Settings) -> Device:
    """What computes with these settings."""
    return Device(settings.device, settings.device_id)


def num_workers(settings: Settings) -> int:
    """How many batches are computed at the same time with these settings."""
    return settings.threads or (GPU_WORKERS if device_of(settings).on_gpu else available_cpus())


def open_engine_with(settings: Settings) -> OpenEngine:
    """How a graph is opened with these settings. Raises ConfigError when their device cannot compute here."""
    driver, device = CudaDriver(), device_of(settings)
    prepare(device, installed_wheels(), driver)
    return partial(_open_engine, settings=settings, device=device, gpu=watch_gpu(device, driver))


def _open_engine(graph: Path, *, settings: Settings, device: Device, gpu: GpuMemory | None) -> Engine:
    manifest = read_manifest(graph.parent)
    problem = precision_problem(manifest.precision, device)
    if problem:
        raise BundleError(f"{graph.parent} {problem}")
    work = Work(
        workers=num_workers(settings),
        threads=settings.batch_threads or num_workers(settings),
        max_tokens=settings.max_batch_tokens,
        max_length=manifest.max_sequence_length,
        cache=cache_folder(settings, manifest),
    )
    return OnnxEngine(graph, threads=work.threads, device=device, work=work, gpu=gpu)


def cache_folder(settings: Settings, manifest: Manifest) -> str:
    """A folder of the graph's own, made if need be; empty when nothing is kept. Raises ConfigError.

    TensorRT would take an engine of other weights when the names in both graphs are the same.
    """
    if not settings.device_cache:
        return ""
    folder = Path(settings.device_cache) / manifest.files[MODEL_FILE].sha256[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--device-cache {settings.device_cache} cannot be written ({error.strerror})") from error
    return str(folder)
