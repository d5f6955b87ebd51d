"""`sparsebert serve --ray`: how is the application brought to a cluster, and how does a local one end?

Run again it tells the cluster what to serve now: replicas change one after the other. Knows Ray by `on_ray` only.
"""

import importlib
import logging
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType, ModuleType

from service.arguments import read
from service.cli import bind, set_up_logs
from service.cluster.planning import Plan, plan
from service.cluster.replica import Told
from service.cluster.settings import ClusterSettings
from service.cluster.versions import read_versions
from service.cluster.words import LOCAL, with_address
from service.hangups import on_hangup
from sparsebert.errors import BundleError, ConfigError, MissingExtraError

log = logging.getLogger(__name__)


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Serve on a cluster. Raises ConfigError, BundleError, MissingExtraError."""
    settings = read(ClusterSettings, with_address(arguments), environment)
    set_up_logs(settings)
    ray = import_ray()
    settings = settings.model_copy(update=absolute(settings))
    planned = plan(settings, read_versions(settings))
    if settings.ray == LOCAL:
        bind(settings.host, settings.port).close()
    with ray.connected(settings):
        for one in (signal.SIGTERM, signal.SIGINT):
            signal.signal(one, _end)
        if settings.api_keys:
            on_hangup(_pass_over)
        check_room(settings, planned, ray.cpus())
        _tell(planned, ray.deploy(planned))
        log.info("serving on http://%s:%d/ of every machine that has a replica", settings.host, settings.port)
        if settings.ray == LOCAL:
            threading.Event().wait()


def import_ray() -> ModuleType:
    """What knows Ray. Raises MissingExtraError."""
    try:
        return importlib.import_module("service.cluster.on_ray")
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"--ray needs: pip install 'sparsebert[cluster]', on every machine of the cluster "
            f"(the package {error.name!r} is missing)"
        ) from error


def absolute(settings: ClusterSettings) -> dict[str, object]:
    """What names files, as replicas find them, which run elsewhere."""
    words = {name: getattr(settings, name) for name in ("api_keys", "device_cache")}
    named: dict[str, object] = {name: str(Path(word).resolve()) for name, word in words.items() if word}
    return {"models": settings.models.resolve(), **named}


def _tell(planned: Plan, told: Sequence[Told]) -> None:
    for one in told:
        versions = ", ".join(f"{name} {version}" for name, version in sorted(one.versions.items()))
        log.info("replica %s serves %s", one.replica, versions or "nothing")
    differing = differences(planned, told)
    if differing:
        raise BundleError(
            f"{len(differing)} of {len(told)} replicas do not serve what is in the models folder, the first: "
            f"{differing[0]}; bring the same bundles to every machine, and run this again"
        )


def differences(planned: Plan, told: Sequence[Told]) -> list[str]:
    """A sentence for each replica that serves something else than it was told to."""
    wanted = {one.name: one.versions for one in planned.deployments}
    sentences = []
    for one in told:
        for name, version in wanted[one.deployment].items():
            if one.versions.get(name) != version:
                sentences.append(f"{one.replica} serves {one.versions.get(name, 'no')} of {name}, not {version}")
                break
    return sentences


def check_room(settings: ClusterSettings, planned: Plan, cpus: float) -> None:
    """A cluster may grow when it has no room, and this machine does not. Raises ConfigError."""
    needed = planned.num_replicas * settings.ray_cpus
    if needed <= cpus:
        return
    told = (
        f"{planned.num_replicas} replicas of {settings.ray_cpus:g} CPUs need {needed:g}, and Ray has {cpus:g}; "
        "lower --ray-cpus or --ray-replicas"
    )
    if settings.ray == LOCAL:
        raise ConfigError(told)
    log.warning("%s, or add machines: until then replicas wait", told)


def _pass_over(number: int, frame: FrameType | None) -> None:
    """It would end the process, and a local Ray with it."""
    del number, frame
    log.warning("replicas read their keys when they start; to replace them run `sparsebert serve --ray` again")


def _end(number: int, frame: FrameType | None) -> None:
    del frame
    log.info("stopping on %s", signal.Signals(number).name)
    sys.exit(0)
