"""mosec: a front in Rust, and processes of Python that it fills batches for.

Settings: `workers` processes, `threads` of a session, `batch` texts at most, `wait_ms` for them.
"""

import os

from classifier import load, port, settings
from mosec import Server, Worker


class Predict(Worker):
    """The model in one process."""

    def __init__(self) -> None:
        self._classifier = load()

    def forward(self, data: list[dict] | dict) -> list[dict] | dict:
        if isinstance(data, dict):  # as mosec calls it when a batch is one
            return self._classifier.predict([data["text"]])[0]
        return self._classifier.predict([one["text"] for one in data])


if __name__ == "__main__":
    chosen = settings()
    os.environ |= {"MOSEC_PORT": str(port()), "MOSEC_ADDRESS": "127.0.0.1", "MOSEC_LOG_LEVEL": "warning"}
    os.environ |= {"MOSEC_TIMEOUT": "60000", "MOSEC_CAPACITY": "4096"}
    server = Server()
    server.append_worker(
        Predict, num=chosen["workers"], max_batch_size=chosen["batch"], max_wait_time=chosen["wait_ms"], timeout=60
    )
    server.run()
