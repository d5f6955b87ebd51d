"""MLServer: the Open Inference Protocol, and batches that it forms inside its process.

Settings: `workers` processes (0 computes in the server's own), `threads` of a session, `batch` texts at most,
`wait_ms` for them.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

from classifier import here, load, port, settings
from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Predict(MLModel):
    """The model as a runtime of MLServer."""

    async def load(self) -> bool:
        self._classifier = load()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        answers = self._classifier.predict(StringCodec.decode_input(payload.inputs[0]))
        labels = StringCodec.encode_output("label", [one["label"] for one in answers])
        scores = ResponseOutput(
            name="score", shape=[len(answers), 1], datatype="FP32", data=[one["score"] for one in answers]
        )
        return InferenceResponse(model_name=self.name, outputs=[labels, scores])


def write_settings(folder: Path) -> None:
    chosen = settings()
    server = {
        "host": "127.0.0.1",
        "http_port": port(),
        "grpc_port": port() + 1,
        "metrics_port": port() + 2,
        "parallel_workers": chosen["workers"],
        "use_structured_logging": False,
        "debug": False,
        "metrics_endpoint": None,
    }
    model = {
        "name": "model",
        "implementation": "mlserver_server.Predict",
        "max_batch_size": chosen["batch"],
        "max_batch_time": chosen["wait_ms"] / 1000,
    }
    (folder / "settings.json").write_text(json.dumps(server))
    (folder / "model-settings.json").write_text(json.dumps(model))


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = here()
    folder = Path(tempfile.mkdtemp(prefix="mlserver-"))
    write_settings(folder)
    program = str(Path(sys.executable).with_name("mlserver"))
    os.execv(program, [program, "start", str(folder)])
