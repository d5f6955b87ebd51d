"""The config file for Ray Serve: the code knows what it names. Ray's own schema is asked where Ray is installed."""

import ast
import importlib.util
from pathlib import Path

import pytest
import yaml

from service.arguments import checked
from service.cluster.planning import GRACE_S
from service.cluster.proxy import PROXY_ENVIRONMENT
from service.cluster.settings import ClusterSettings

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy" / "ray" / "serve.yaml"
HAS_RAY = importlib.util.find_spec("ray") is not None


def read() -> dict:
    return yaml.safe_load(FILE.read_text())


def test_its_arguments_are_settings():
    settings = checked(ClusterSettings, read()["applications"][0]["args"])
    assert (settings.models, settings.ray_replicas, settings.ray_max_replicas) == (Path("/models"), 2, 8)


def test_it_gives_replicas_the_time_to_answer_themselves():
    config = read()
    settings = checked(ClusterSettings, config["applications"][0]["args"])
    assert config["http_options"]["request_timeout_s"] == settings.request_timeout_s + GRACE_S
    assert config["http_options"]["port"] == settings.port


def test_it_names_what_is_there():
    module, _, name = read()["applications"][0]["import_path"].partition(":")
    tree = ast.parse((ROOT / module.replace(".", "/")).with_suffix(".py").read_text())
    assert name in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    [[variable, value]] = PROXY_ENVIRONMENT.items()
    assert f"#     {variable}={value}\n" in FILE.read_text()
    module, _, name = value.partition(":")
    assert callable(getattr(importlib.import_module(module), name))


@pytest.mark.skipif(not HAS_RAY, reason="ray is not installed (pip install 'sparsebert[cluster]')")
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_ray_takes_it():
    from ray.serve.schema import ServeDeploySchema

    config = ServeDeploySchema.model_validate(read())
    [application] = config.applications
    assert (application.name, application.route_prefix) == ("sparsebert", "/")
