"""Ray Serve: a proxy, and replicas that batch.

Settings: `workers` replicas, `threads` of a session, `batch` texts at most, `wait_ms` for them.
"""

import signal

import ray
from classifier import here, load, port, settings
from ray import serve
from starlette.requests import Request

CHOSEN = settings()
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
