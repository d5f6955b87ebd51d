"""How does the plan become a Ray Serve application? The only file that imports Ray.

`application` is what a config file of Ray Serve names as its `import_path`.
"""

import asyncio
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from socket import gethostname
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.context import _get_global_client
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp, Receive, Scope, Send

from service.arguments import checked
from service.cluster.calling import Answered, Asked
from service.cluster.forwarding import Ask
from service.cluster.gathering import merged
from service.cluster.planning import GRACE_S, Deployment, Plan, plan
from service.cluster.proxy import PROXY_ENVIRONMENT
from service.cluster.reaching import reach
from service.cluster.refusing import BUSY, LOST, NONE_THERE
from service.cluster.replica import Replica, Told
from service.cluster.settings import ClusterSettings
from service.cluster.versions import read_versions
from service.cluster.words import LOCAL
from service.errors import NotReadyError, QueueFullError
from service.settings import Settings
from sparsebert.errors import BundleError, ConfigError, SparseBertError

APP = "sparsebert"
# Prometheus gives up after 10 s.
TELL_S = 5.0
DEPLOYED_S = 60.0
STORE_BYTES = 80_000_000  # the least that Ray takes is 75 MB, and nothing of the service is in it
# Ray tells nobody of us, and what answers requests does not stand back behind other processes.
LOCAL_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
OURS = re.compile(r"(?:sparsebert|service)\.errors\.\w+: (.+)")


class RayReplica:
    """What Ray calls; `deployments` are all of the application, `handles` those that have a variant of their own."""

    async def __init__(  # type: ignore[misc] # Ray waits for it
        self, settings: Mapping[str, Any], deployments: list[str], handles: Mapping[str, DeploymentHandle]
    ) -> None:
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
        context = serve.get_replica_context()
        name = f"{context.deployment}#{context.replica_id.unique_id}"
        gather = partial(_gather, context.app_name, deployments)
        asks = {name: _asking(handle) for name, handle in handles.items()}
        try:
            self._replica = await Replica.open(Settings(**settings), name, gather, asks)
        except SparseBertError as error:
            raise type(error)(f"on {gethostname()}: {error}") from error

    def __serve_build_asgi_app__(self) -> ASGIApp:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                await _lifespan(receive, send)
            elif scope["type"] == "http":
                await self._replica(scope, receive, send)

        return app

    async def answer(self, asked: Asked) -> Answered:
        return await self._replica.answer(asked)

    async def check_health(self) -> None:
        self._replica.check_health()

    async def numbers(self) -> bytes:
        return await self._replica.numbers()

    async def told(self) -> Told:
        return self._replica.told()

    async def __del__(self) -> None:
        if hasattr(self, "_replica"):
            await self._replica.close()


def application(args: dict[str, Any]) -> serve.Application:
    """The application of a config file, whose `args` are settings by the names of their fields.

    Raises ConfigError, BundleError.
    """
    settings = checked(ClusterSettings, args)
    return build(plan(settings, read_versions(settings)))


def build(planned: Plan) -> serve.Application:
    """What Ray deploys."""
    handles = {
        name: serve.deployment(RayReplica, name=one.name, **one.options).bind(one.settings, planned.names, {})
        for name, one in planned.variants.items()
    }
    front: Deployment = planned.front
    ingress = serve.ingress()(RayReplica)
    return serve.deployment(ingress, name=front.name, **front.options).bind(front.settings, planned.names, handles)


@contextmanager
def connected(settings: ClusterSettings) -> Iterator[None]:
    """The block has a cluster; one of this machine alone ends with it. Raises ConfigError."""
    local = settings.ray == LOCAL
    if local:
        for name, value in LOCAL_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
    try:
        reach(settings.ray)
        ray.init(
            address=settings.ray,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": PROXY_ENVIRONMENT},
            **({"include_dashboard": False, "object_store_memory": STORE_BYTES} if local else {}),
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"--ray {settings.ray} cannot be had: {_first_line(error)}; give the address of a running cluster whose "
            "token Ray can find, or `local`"
        ) from error
    try:
        yield
    finally:
        if local:
            serve.shutdown()
        ray.shutdown()


def cpus() -> float:
    """How many the machines have that are there now."""
    return float(ray.cluster_resources().get("CPU", 0))


def deploy(planned: Plan) -> list[Told]:
    """Tell Ray, wait until every replica is there, and tell what each serves. Raises BundleError, ConfigError."""
    _listen(planned.http_options)
    try:
        serve.run(build(planned), name=APP, route_prefix="/")
    except RuntimeError as error:
        raise BundleError(f"the cluster cannot serve this: {_reason()}") from error
    except RayActorError as error:
        raise _not_started(error) from error
    handles = [serve.get_deployment_handle(name, APP) for name in planned.names]
    try:
        return [one for handle in handles for one in handle.broadcast("told").results(timeout_s=DEPLOYED_S)]
    except (TimeoutError, RayActorError) as error:
        raise BundleError("a replica that started does not tell what it serves; run this again") from error


def _listen(wanted: Mapping[str, Any]) -> None:
    """Start the proxies; where Serve ran already Ray passes over what it is told of them. Raises ConfigError."""
    try:
        serve.start(http_options=wanted)
    except (RuntimeError, TimeoutError) as error:
        serve.shutdown()  # it was not there before
        raise ConfigError(
            f"Ray's proxy cannot listen on {wanted['host']}:{wanted['port']} of every machine: "
            f"{str(error).splitlines()[-1]} Stop what listens there or choose another --port"
        ) from error
    except RayActorError as error:
        raise _not_started(error) from error
    there = _get_global_client().http_config
    differing = [f"{name} {getattr(there, name)}" for name, value in wanted.items() if getattr(there, name) != value]
    if differing:
        raise ConfigError(
            f"Ray Serve runs on this cluster already, and its proxies have {', '.join(differing)}; give --host, --port "
            f"and --request-timeout-s (which is {GRACE_S:g} s less) to fit, or end it first: serve shutdown"
        )


def _not_started(error: RayActorError) -> ConfigError:
    return ConfigError(
        f"Ray Serve does not start on this cluster: {_first_line(error)}. Why is in the logs of the head machine "
        "(/tmp/ray/session_latest/logs); run this again"
    )


def _reason() -> str:
    """What our own error says, which Ray tells at the end of a traceback."""
    found = serve.status().applications.get(APP)
    messages = [one.message for one in found.deployments.values()] + [found.message] if found else []
    told = [match[1] for message in messages for match in OURS.finditer(message)]
    return told[-1] if told else "; ".join(message for message in messages if message) or "Ray does not tell why"


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


async def _gather(app_name: str, deployments: list[str]) -> bytes:
    texts: list[bytes] = await _of_all(app_name, deployments, "numbers")
    return merged(sorted(texts))


async def _of_all(app_name: str, deployments: list[str], method: str) -> list[Any]:
    """What every replica answers. Raises NotReadyError when one that is alive does not."""
    handles = [serve.get_deployment_handle(name, app_name) for name in deployments]
    calls = [handle.broadcast(method).results_async(timeout_s=TELL_S, return_exceptions=True) for handle in handles]
    try:
        answers = [one for of_one in await asyncio.gather(*calls) for one in of_one]
    except (TimeoutError, DeploymentUnavailableError) as error:
        raise NotReadyError(f"a replica does not tell how it fares within {TELL_S:g} s; ask again") from error
    for answer in answers:
        if isinstance(answer, Exception) and not isinstance(answer, RayActorError):
            raise answer
    return [answer for answer in answers if not isinstance(answer, Exception)]


def _asking(handle: DeploymentHandle) -> Ask:
    return partial(_ask, handle)


async def _ask(handle: DeploymentHandle, asked: Asked) -> Answered:
    try:
        answered: Answered = await handle.answer.remote(asked)
    except BackPressureError as error:
        raise QueueFullError(BUSY) from error
    except DeploymentUnavailableError as error:
        raise NotReadyError(NONE_THERE) from error
    except RayActorError as error:
        raise NotReadyError(LOST) from error
    return answered


async def _lifespan(receive: Receive, send: Send) -> None:
    """The replica began when it was made, and ends in its `__del__`."""
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
