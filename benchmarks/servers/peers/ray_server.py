"""Ray Serve: a proxy, and replicas that batch.

Settings: `workers` replicas, `threads` of a session, `batch` texts at most, `wait_ms` for them,
`loops`: 1 for event loops of their own for router and user code, as Ray's default is, 0 for one loop.
"""

import os
import signal

from classifier import here, load, port, settings

CHOSEN = settings()
os.environ |= {
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": str(CHOSEN["loops"]),
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": str(CHOSEN["loops"]),
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1000",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    "RAY_worker_niceness": "0",  # 15 by default: whoever else runs would go first
}

import ray  # noqa: E402 - reads the environment when it is imported
from ray import serve  # noqa: E402
from starlette.requests import Request  # noqa: E402

STORE_BYTES = 80_000_000  # the least that Ray takes is 75 MB; no object of this benchmark is in it


@serve.deployment(
    num_replicas=CHOSEN["workers"], max_ongoing_requests=1000, ray_actor_options={"num_cpus": 2 / CHOSEN["workers"]}
)
class Predict:
    """One replica."""

    def __init__(self) -> None:
        self._classifier = load()

    @serve.batch(max_batch_size=CHOSEN["batch"], batch_wait_timeout_s=CHOSEN["wait_ms"] / 1000)
    async def predict(self, texts: list[str]) -> list[dict]:
        return self._classifier.predict(texts)

    async def __call__(self, request: Request) -> dict:
        return await self.predict((await request.json())["text"])


if __name__ == "__main__":
    ray.init(
        num_cpus=2,
        object_store_memory=STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": here()}},
    )
    serve.start(http_options={"host": "127.0.0.1", "port": port()}, logging_config={"enable_access_log": False})
    serve.run(Predict.bind(), route_prefix="/predict")
    signal.pause()
