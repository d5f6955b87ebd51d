"""Which versions of which variants lie in the models folder?"""

from service.routing import VariantName
from service.settings import Settings
from service.variants import find_bundles, select
from sparsebert.manifest import read_manifest


def read_versions(settings: Settings) -> dict[VariantName, str]:
    """Of those that the settings choose. Raises BundleError, also for a manifest that cannot be read, ConfigError."""
    found = find_bundles(settings.models)
    return {name: read_manifest(found[name]).version for name in select(list(found), settings.variants)}
