"""BentoML: a service whose method takes batches, which its dispatcher forms by a model of their latency.

Settings: `workers` processes, `threads` of a session, `batch` texts at most, and `latency_ms` that it aims at:
what would take longer is refused with 503.
"""

import os
import sys

from classifier import here, load, port, settings

if __name__ == "__main__":
    os.chdir(here())
    command = ["-m", "bentoml", "serve", "bentoml_server:Predict", "--host", "127.0.0.1", "--port", str(port())]
    os.execv(sys.executable, [sys.executable, *command])

import bentoml

CHOSEN = settings()


@bentoml.service(
    workers=CHOSEN["workers"],
    traffic={"timeout": 60},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
class Predict:
    """The service."""

    def __init__(self) -> None:
        self._classifier = load()

    @bentoml.api(batchable=True, max_batch_size=CHOSEN["batch"], max_latency_ms=CHOSEN["latency_ms"])
    def predict(self, texts: list[str]) -> list[dict]:
        return self._classifier.predict(texts)
