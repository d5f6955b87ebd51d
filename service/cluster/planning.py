"""Which deployments does the cluster get, what is each of its replicas told, and what is Ray told of it?

Pure: settings and the versions in the models folder in, values of plain types out. The words in `options` are Ray's.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.cluster.settings import ClusterSettings
from service.draining import REFUSAL_S
from service.errors import OverloadError
from service.routing import VariantName
from service.settings import Settings

FRONT = "front"
# Ray's default is every 10 s, and three in a row must fail before a replica is replaced.
HEALTH_CHECK_PERIOD_S = 2.0
# How often a replica that cannot start is tried again; Ray's default is 20 times.
STARTS = 3
# Answers that a replica gives itself, 504 above all, come before Ray's.
GRACE_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """Replicas that are all alike; `settings` is what each of them is told, as JSON has it.

    `versions` is what lies in the models folder for them, by variant (`model/variant`).
    """

    name: str
    settings: dict[str, Any]
    versions: dict[str, str]
    options: dict[str, Any]

    @property
    def num_replicas(self) -> int:
        """How many there are at least."""
        scaled = self.options.get("autoscaling_config")
        return int(scaled["min_replicas"] if scaled else self.options["num_replicas"])


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The deployment that gets every request, and those that it hands requests on to, by variant (`model/variant`)."""

    front: Deployment
    variants: dict[str, Deployment]
    http_options: dict[str, Any]

    @property
    def deployments(self) -> list[Deployment]:
        """All of them."""
        return [self.front, *self.variants.values()]

    @property
    def names(self) -> list[str]:
        """How they are called."""
        return [one.name for one in self.deployments]

    @property
    def num_replicas(self) -> int:
        """How many replicas there are at least."""
        return sum(one.num_replicas for one in self.deployments)


def plan(settings: ClusterSettings, versions: Mapping[VariantName, str]) -> Plan:
    """What to deploy; `versions` are those of the bundles in the models folder that are to be served."""
    told = {str(name): version for name, version in versions.items()}
    per_variant = {}
    for name, version in told.items() if settings.ray_per_variant else ():
        own = _replica_settings(settings) | {"variants": [name], "default_variant": ""}
        per_variant[name] = Deployment(
            name=deployment_name(name), settings=own, versions={name: version}, options=_options(settings)
        )
    return Plan(
        front=Deployment(name=FRONT, settings=_replica_settings(settings), versions=told, options=_options(settings)),
        variants=per_variant,
        http_options={
            "host": settings.host,
            "port": settings.port,
            "request_timeout_s": settings.request_timeout_s + GRACE_S,
        },
    )


def deployment_name(variant: str) -> str:
    """Ray writes it into names of files, so without the slash; no name of a bundle has a colon in it."""
    return variant.replace("/", ":")


def _replica_settings(settings: ClusterSettings) -> dict[str, Any]:
    own = {name: value for name, value in settings.model_dump(mode="json").items() if name in Settings.model_fields}
    return own | {"threads": settings.threads or max(1, math.floor(settings.ray_cpus))}


def _options(settings: ClusterSettings) -> dict[str, Any]:
    return {
        **_number(settings),
        # A replica refuses what its queue does not hold; more than that it could not admit.
        "max_ongoing_requests": settings.max_queue_items,
        "max_queued_requests": settings.max_queue_items,
        "backpressure_config": {"status_code": 429, "retry_after_s": float(OverloadError.retry_after_s)},
        "health_check_period_s": HEALTH_CHECK_PERIOD_S,
        "graceful_shutdown_timeout_s": settings.drain_timeout_s + REFUSAL_S,
        "max_constructor_retry_count": STARTS,
        "ray_actor_options": {"num_cpus": settings.ray_cpus, "num_gpus": settings.ray_gpus},
        # The service's own says more, where it is asked for.
        "logging_config": {"enable_access_log": False},
    }


def _number(settings: ClusterSettings) -> dict[str, Any]:
    if settings.ray_max_replicas <= settings.ray_replicas:
        return {"num_replicas": settings.ray_replicas}
    return {
        "autoscaling_config": {
            "min_replicas": settings.ray_replicas,
            "max_replicas": settings.ray_max_replicas,
            "target_ongoing_requests": settings.ray_target_requests,
        }
    }
