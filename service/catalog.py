"""What is known of the variants at one moment: which serve, which do not and why, and which answer by default?

Pure: each change makes a new one. Knows nothing about folders, queues or HTTP.
"""

from dataclasses import dataclass, replace
from functools import cached_property

from service.bundles import LoadedBundle
from service.routing import VariantName


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
