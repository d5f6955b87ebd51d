"""LitServe: FastAPI in front, processes that batch behind.

Settings: `workers` processes, `threads` of a session, `batch` texts at most, `wait_ms` for them,
`zmq` between the processes instead of queues of multiprocessing.
"""

from typing import Any

import litserve
from classifier import load, port, settings


class Api(litserve.LitAPI):
    """The model behind LitServe's processes."""

    def setup(self, device: str) -> None:
        del device
        self._classifier = load()

    def decode_request(self, request: dict[str, Any]) -> str:
        return request["text"]

    def batch(self, inputs: list[str]) -> list[str]:
        return list(inputs)

    def predict(self, x: list[str] | str) -> list[dict] | dict:
        return self._classifier.predict(x) if isinstance(x, list) else self._classifier.predict([x])[0]

    def unbatch(self, output: list[dict]) -> list[dict]:
        return output

    def encode_response(self, output: dict) -> dict:
        return output


if __name__ == "__main__":
    chosen = settings()
    api = Api(max_batch_size=chosen["batch"], batch_timeout=chosen["wait_ms"] / 1000)
    server = litserve.LitServer(
        api, accelerator="cpu", workers_per_device=chosen["workers"], timeout=60, fast_queue=bool(chosen["zmq"])
    )
    server.run(host="127.0.0.1", port=port(), log_level="warning", generate_client_file=False, access_log=False)
