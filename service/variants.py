"""Which variants are in the models folder, and which of them can serve?

A bad bundle does not take the others down: it is kept with the sentence that says why. Knows nothing about
queues or HTTP.
"""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from service.bundles import LoadedBundle, OpenEngine, open_bundle
from service.devices import GPU_WORKERS, Device, Work, precision_problem
from service.engine import Engine, OnnxEngine, installed_wheels, prepare
from service.gpus import CudaDriver, GpuMemory, watch_gpu
from service.routing import VariantName, choose_defaults
from service.settings import Settings
from sparsebert.cpus import available_cpus
from sparsebert.errors import BundleError, ConfigError
from sparsebert.manifest import MODEL_FILE, Manifest, read_manifest

log = logging.getLogger(__name__)

CURE = "run `make models`, or `sparsebert export`, or name another folder with --models"


@dataclass(frozen=True, kw_only=True)
class FailedBundle:
    """A bundle that could not be loaded, and why."""

    name: VariantName
    error: str


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """What is known at one moment: the bundles that serve, the last load of each that failed, what is not loaded.

    `defaults` has one variant of each model, which answers when a request names none, and first the service's own.
    A variant of `failed` alone did not load at the start; another load that failed changed nothing else.
    """

    loaded: tuple[LoadedBundle, ...]
    failed: tuple[FailedBundle, ...]
    defaults: tuple[VariantName, ...]
    unloaded: frozenset[VariantName] = frozenset()

    @property
    def default(self) -> VariantName:
        """Answers when a request names nothing."""
        return self.defaults[0]

    @cached_property
    def names(self) -> list[VariantName]:
        """Every variant, able to serve or not, in alphabetical order."""
        return sorted({*(one.name for one in self.loaded), *(one.name for one in self.failed), *self.unloaded})

    @cached_property
    def errors(self) -> dict[VariantName, str]:
        """Why the last load of a variant failed, for those of which it did."""
        return {bundle.name: bundle.error for bundle in self.failed}

    def with_loaded(self, bundle: LoadedBundle) -> "Catalog":
        """The same with this bundle, in place of a former one."""
        others = self._without(bundle.name)
        return replace(others, loaded=(*others.loaded, bundle), defaults=self._defaults_with(bundle.name))

    def with_unloaded(self, name: VariantName) -> "Catalog":
        """The same without its bundle; its name stays known."""
        return replace(self._without(name), unloaded=self.unloaded | {name}, defaults=self._defaults_with(name))

    def with_failed(self, failed: FailedBundle) -> "Catalog":
        """The same, with why its load failed; what was never loaded is known from now on."""
        known = self if failed.name in self.names else self.with_unloaded(failed.name)
        return replace(known, failed=(*(one for one in known.failed if one.name != failed.name), failed))

    def _without(self, name: VariantName) -> "Catalog":
        return replace(
            self,
            loaded=tuple(bundle for bundle in self.loaded if bundle.name != name),
            failed=tuple(bundle for bundle in self.failed if bundle.name != name),
            unloaded=self.unloaded - {name},
        )

    def _defaults_with(self, name: VariantName) -> tuple[VariantName, ...]:
        """A variant that comes later is the default only of a model that had none."""
        return self.defaults if any(one.model == name.model for one in self.defaults) else (*self.defaults, name)


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


def find_bundles(models: Path) -> dict[VariantName, Path]:
    """The folders <models>/<model>/<variant>, in alphabetical order.

    Passes over names that begin with a dot: an interrupted write leaves them. Raises BundleError when there is none.
    """
    if not models.is_dir():
        raise BundleError(f"there is no models folder {models}; {CURE}")
    found = scan(models)
    if not found:
        raise BundleError(f"the models folder {models} has no bundle in it; {CURE}")
    return found


def scan(models: Path) -> dict[VariantName, Path]:
    """The same, and nothing where there is nothing."""
    return {
        VariantName(model=folder.parent.name, variant=folder.name): folder
        for folder in sorted(models.glob("*/*"))
        if folder.is_dir() and not folder.name.startswith(".") and not folder.parent.name.startswith(".")
    }


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
    defaults = choose_defaults(settings.default_variant, names)
    opened = [try_bundle(name, found[name], settings, open_engine, clock_s) for name in names]
    loaded = tuple(one for one in opened if isinstance(one, LoadedBundle))
    failed = tuple(one for one in opened if isinstance(one, FailedBundle))
    if not loaded:
        raise BundleError(f"no bundle in {settings.models} can serve, the first because: {failed[0].error}; {CURE}")
    return Catalog(loaded=loaded, failed=failed, defaults=defaults)


def try_bundle(
    name: VariantName, folder: Path, settings: Settings, open_engine: OpenEngine, clock_s: Callable[[], float]
) -> LoadedBundle | FailedBundle:
    """Open a bundle, or say why it cannot serve."""
    try:
        return open_bundle(folder, open_engine, max_batch_tokens=settings.max_batch_tokens, clock_s=clock_s)
    except (BundleError, OSError) as error:
        # Not the error itself, which holds what was opened until then.
        sentence = str(error)
    log.error("variant %s failed: %s", name, sentence)
    # Clients read this one: it names the bundle's file, not where on this machine the bundles lie.
    return FailedBundle(name=name, error=sentence.replace(f"{settings.models}{os.sep}", ""))
