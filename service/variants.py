"""Which variants are in the models folder, and which of them can serve?

A bad bundle does not take the others down: it is kept with the sentence that says why. Knows nothing about
queues or HTTP.
"""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from service.bundles import LoadedBundle, OpenEngine, open_bundle
from service.devices import GPU_WORKERS, Device, Work, precision_problem
from service.engine import Engine, OnnxEngine, installed_wheels, prepare
from service.gpus import CudaDriver, GpuMemory, watch_gpu
from service.routing import VariantName, choose_default
from service.settings import Settings
from sparsebert.cpus import available_cpus
from sparsebert.errors import BundleError, ConfigError
from sparsebert.manifest import MODEL_FILE, Manifest, read_manifest

log = logging.getLogger(__name__)

CURE = "run `make models`, or `sparsebert export`, or name another folder with --models"


@dataclass(frozen=True, kw_only=True)
class FailedBundle:
    """A bundle that cannot serve, and why."""

    name: VariantName
    error: str


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """What the models folder holds; `default` answers when a request names nothing."""

    loaded: tuple[LoadedBundle, ...]
    failed: tuple[FailedBundle, ...]
    default: VariantName

    @property
    def names(self) -> list[VariantName]:
        """Every variant, able to serve or not, in alphabetical order."""
        return sorted([bundle.name for bundle in self.loaded] + [bundle.name for bundle in self.failed])


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
        threads=settings.batch_threads or available_cpus(),
        max_tokens=settings.max_batch_tokens,
        max_length=manifest.max_sequence_length,
        cache=cache_folder(settings, manifest),
    )
    return OnnxEngine(graph, threads=settings.batch_threads or num_workers(settings), device=device, work=work, gpu=gpu)


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


def find_bundles(models: Path) -> dict[VariantName, Path]:
    """The folders <models>/<model>/<variant>, in alphabetical order.

    Passes over names that begin with a dot: an interrupted write leaves them. Raises BundleError when there is none.
    """
    if not models.is_dir():
        raise BundleError(f"there is no models folder {models}; {CURE}")
    found = {
        VariantName(model=folder.parent.name, variant=folder.name): folder
        for folder in sorted(models.glob("*/*"))
        if folder.is_dir() and not folder.name.startswith(".") and not folder.parent.name.startswith(".")
    }
    if not found:
        raise BundleError(f"the models folder {models} has no bundle in it; {CURE}")
    return found


def select(found: Sequence[VariantName], wanted: Sequence[str]) -> list[VariantName]:
    """The variants that `wanted` names (`variant` or `model/variant`), or all when it is empty.

    Raises ConfigError for a name that is not there.
    """
    for word in wanted:
        if not any(word in (name.variant, str(name)) for name in found):
            there = ", ".join(str(name) for name in found)
            raise ConfigError(f"--variants names {word!r}, which is not there: choose among {there}")
    return [name for name in found if not wanted or name.variant in wanted or str(name) in wanted]


def load_catalog(settings: Settings, open_engine: OpenEngine, clock_s: Callable[[], float]) -> Catalog:
    """Open every selected bundle. Raises BundleError when not a single one can serve."""
    found = find_bundles(settings.models)
    names = select(list(found), settings.variants)
    default = choose_default(settings.default_variant, names)
    loaded, failed = [], []
    for name in names:
        try:
            bundle = open_bundle(found[name], open_engine, max_batch_tokens=settings.max_batch_tokens, clock_s=clock_s)
        except (BundleError, OSError) as error:
            log.error("variant %s failed: %s", name, error)
            # Clients read this one: it names the bundle's file, not where on this machine the bundles lie.
            failed.append(FailedBundle(name=name, error=str(error).replace(f"{settings.models}{os.sep}", "")))
        else:
            loaded.append(bundle)
    if not loaded:
        raise BundleError(f"no bundle in {settings.models} can serve, the first because: {failed[0].error}; {CURE}")
    return Catalog(loaded=tuple(loaded), failed=tuple(failed), default=default)
