"""Which variants are in the models folder, and which of them can serve?

A bad bundle does not take the others down: it is kept with the sentence that says why. Knows nothing about
queues or HTTP.
"""

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from service.bundles import LoadedBundle, OpenEngine, open_bundle
from service.catalog import Catalog, FailedBundle
from service.routing import VariantName, choose_defaults
from service.settings import Settings
from sparsebert.errors import BundleError, ConfigError

log = logging.getLogger(__name__)

CURE = "run `make models`, or `sparsebert export`, or name another folder with --models"


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
