"""Do the manifests say what the service and its images understand, and do they fit each other?"""

import re
from pathlib import Path

import pytest
import yaml

from service.app import PATHS
from service.arguments import env_name
from service.cli import JOIN_S
from service.settings import Settings, read_settings
from sparsebert import __version__

ROOT = Path(__file__).parents[3]
K8S = ROOT / "deploy" / "k8s"
OVERLAYS = ["overlays/cpu", "overlays/gpu", "overlays/edge"]
SERVING = [*OVERLAYS, "kserve"]
PLACES = [*SERVING, "models", "overlays/edge/models"]
# What uvicorn waits between the requests' end and the workers'.
SERVER_S = 1


def test_every_file_is_used():
    used = {K8S / "prometheus-adapter" / "values.yaml"}
    for path in K8S.rglob("kustomization.yaml"):
        said = yaml.safe_load(path.read_text())
        patches = [one["path"] for one in said.get("patches", []) if "path" in one]
        used |= {path} | {path.parent / one for one in [*said.get("resources", []), *patches]}
    assert set(K8S.rglob("*.yaml")) <= used


@pytest.mark.parametrize("place", PLACES)
def test_image(rendered, place):
    name = "sparsebert-serve-gpu" if place == "overlays/gpu" else "sparsebert-serve"
    assert rendered(place).container["image"] == f"{name}:{__version__}"
    compose = ROOT / "docker-compose.yml"
    if compose.exists():
        assert f"image: {name}:{__version__}\n" in compose.read_text()


@pytest.mark.parametrize("place", PLACES)
def test_a_pod_may_do_nothing_that_it_does_not_need(rendered, place):
    """More than the Pod Security Standard `restricted`, which the namespace enforces, asks for."""
    spec = rendered(place).pod["spec"]
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "fsGroup": 10001,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert rendered(place).container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    kinds = {kind for volume in spec["volumes"] for kind in volume.keys() - {"name"}}
    assert kinds <= {"persistentVolumeClaim", "secret", "emptyDir"}


@pytest.mark.parametrize("place", PLACES)
def test_kubernetes_sets_no_variable_that_is_a_setting(rendered, place):
    """A Service named sparsebert would put SPARSEBERT_PORT=tcp://... into the pods of its namespace."""
    assert env_name("port") == "SPARSEBERT_PORT"
    assert rendered(place).pod["spec"]["enableServiceLinks"] is False


@pytest.mark.parametrize("place", SERVING)
def test_every_variable_is_a_setting_with_an_allowed_value(rendered, place):
    given = rendered(place).environment
    assert given.keys() - {env_name(field) for field in Settings.model_fields} == set()
    settings = read_settings([], given)
    assert settings.host == "0.0.0.0"
    assert settings.port == rendered(place).container["ports"][0]["containerPort"]


@pytest.mark.parametrize("place", SERVING)
def test_what_is_mounted_is_what_the_settings_name(rendered, place):
    given, container = rendered(place).environment, rendered(place).container
    mounts = {one["mountPath"]: one for one in container["volumeMounts"]}
    volumes = {one["name"]: one for one in rendered(place).pod["spec"]["volumes"]}
    assert all(one["name"] in volumes for one in mounts.values())
    if place == "kserve":
        assert given["SPARSEBERT_MODELS"] == "/mnt/models"  # KServe mounts it
    else:
        assert mounts[given["SPARSEBERT_MODELS"]] == {"name": "models", "mountPath": "/models", "readOnly": True}
    folder, _, name = given["SPARSEBERT_API_KEYS"].rpartition("/")
    assert mounts[folder] == {"name": "api-keys", "mountPath": folder, "readOnly": True}
    keys = volumes["api-keys"]["secret"]
    assert (keys["secretName"], keys["items"][0]["path"]) == ("sparsebert-api-keys", name)
    assert keys["defaultMode"] == 0o440  # nobody else may read it, and the group is fsGroup


@pytest.mark.parametrize("place", SERVING)
def test_probes_ask_routes_that_are_there(rendered, place):
    container = rendered(place).container
    (port,) = container["ports"]
    live, ready = ("/v2/health/live", "/v2/health/ready") if place == "kserve" else ("/healthz", "/readyz")
    for probe, path in {"startupProbe": live, "livenessProbe": live, "readinessProbe": ready}.items():
        assert container[probe]["httpGet"]["path"] == path
        assert ("GET", path) in PATHS
        assert container[probe]["httpGet"]["port"] in (port["name"], port["containerPort"])


@pytest.mark.parametrize("place", SERVING)
def test_a_pod_drains_before_it_is_killed(rendered, place):
    pre_stop_s = rendered(place).container["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain_s = read_settings([], rendered(place).environment).drain_timeout_s
    needed_s = pre_stop_s + drain_s + SERVER_S + JOIN_S
    assert rendered(place).pod["spec"]["terminationGracePeriodSeconds"] > needed_s


@pytest.mark.parametrize("place", SERVING)
def test_whole_cpus_and_nothing_that_others_are_promised_too(rendered, place):
    resources = rendered(place).container["resources"]
    assert resources["requests"] == resources["limits"]
    assert resources["limits"]["cpu"].isdecimal()  # as many batches are computed at once


def test_edge_is_one_small_pod(rendered):
    place = rendered("overlays/edge")
    assert place.kinds == ["ConfigMap", "Deployment", "NetworkPolicy", "Service", "ServiceAccount"]
    assert place.container["resources"]["limits"] == {"cpu": "1", "memory": "512Mi"}
    assert read_settings([], place.environment).variants == ("sparse-int8",)
    assert place.of("Deployment")["spec"]["replicas"] == 1
    annotations = place.pod["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == place.environment["SPARSEBERT_PORT"]
    assert ("GET", annotations["prometheus.io/path"]) in PATHS
    assert rendered("overlays/edge/models").of("PersistentVolumeClaim")["spec"]["accessModes"] == ["ReadWriteOnce"]


def test_gpu_is_one_gpu_for_each_pod(rendered):
    place = rendered("overlays/gpu")
    assert place.container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert place.environment["SPARSEBERT_DEVICE"] == "cuda"
    assert read_settings([], place.environment).variants == ("dense", "sparse")  # no int8
    (toleration,) = place.pod["spec"]["tolerations"]
    assert toleration["key"] == "nvidia.com/gpu"
    assert place.of("Deployment")["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


@pytest.mark.parametrize("place", OVERLAYS)
def test_all_speak_of_the_same_pods(rendered, place):
    labels = rendered(place).pod["metadata"]["labels"]
    for one in rendered(place).resources:
        assert one["metadata"]["namespace"] == "sparsebert"
        said = one.get("spec", {})
        if one["kind"] in ("Deployment", "PodDisruptionBudget"):
            assert said["selector"]["matchLabels"].items() <= labels.items()
        if one["kind"] == "NetworkPolicy":
            assert said["podSelector"]["matchLabels"].items() <= labels.items()
        if one["kind"] == "Service":
            assert said["selector"].items() <= labels.items()


@pytest.mark.parametrize("place", OVERLAYS)
def test_nobody_is_called_and_only_one_port_answers(rendered, place):
    policy = rendered(place).of("NetworkPolicy")["spec"]
    assert (sorted(policy["policyTypes"]), policy["egress"]) == (["Egress", "Ingress"], [])
    (ports,) = [rule["ports"] for rule in policy["ingress"]]
    (service_port,) = rendered(place).of("Service")["spec"]["ports"]
    name = rendered(place).container["ports"][0]["name"]
    assert (ports, service_port["targetPort"]) == ([{"port": name}], name)


@pytest.mark.parametrize("place", ["overlays/cpu", "overlays/gpu"])
def test_prometheus_finds_the_service(rendered, place):
    service, monitor = rendered(place).of("Service"), rendered(place).of("ServiceMonitor")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert service["metadata"]["labels"][monitor["jobLabel"]] == "sparsebert"
    (endpoint,) = monitor["endpoints"]
    assert endpoint["port"] == service["spec"]["ports"][0]["name"]
    assert ("GET", endpoint["path"]) in PATHS


def test_prometheus_finds_the_pods_that_kserve_makes(rendered):
    """By their annotations, where nothing overwrites them; and by the operator's PodMonitor, with the alerts' job."""
    served, (port,) = rendered("kserve"), rendered("kserve").container["ports"]
    annotations = served.of("ServingRuntime")["spec"]["annotations"]
    assert annotations == {
        "prometheus.io/scrape": "true", "prometheus.io/port": str(port["containerPort"]),
        "prometheus.io/path": "/metrics",
    }  # fmt: skip
    asked = served.of("InferenceService")["metadata"]
    assert asked["annotations"]["serving.kserve.io/enable-prometheus-scraping"] == "false"
    watching = rendered("kserve/monitoring")
    assert watching.kinds == ["PodMonitor", "PrometheusRule"]
    monitor = watching.of("PodMonitor")
    assert monitor["metadata"]["namespace"] == asked["namespace"]
    assert monitor["spec"]["selector"]["matchLabels"] == {"serving.kserve.io/inferenceservice": asked["name"]}
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert (endpoint["port"], ("GET", endpoint["path"]) in PATHS) == (port["name"], True)
    assert endpoint["relabelings"] == [{"targetLabel": "job", "replacement": "sparsebert"}]


@pytest.mark.parametrize(("place", "most"), [("overlays/cpu", 10), ("overlays/gpu", 4)])
def test_autoscaler(rendered, place, most):
    scaler, deployment = rendered(place).of("HorizontalPodAutoscaler")["spec"], rendered(place).of("Deployment")
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, most)
    target = scaler["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    assert "replicas" not in deployment["spec"]  # or each apply would undo what the autoscaler did
    queue, cpu = scaler["metrics"]
    assert (queue["pods"]["metric"]["name"], cpu["resource"]["name"]) == ("sparsebert_queue_depth", "cpu")
    assert rendered(place).of("PodDisruptionBudget")["spec"]["maxUnavailable"] < scaler["minReplicas"]


def test_the_adapter_gives_the_autoscaler_its_metric():
    (rule,) = yaml.safe_load((K8S / "prometheus-adapter" / "values.yaml").read_text())["rules"]["custom"]
    series = rule["seriesQuery"].partition("{")[0]
    assert re.sub(rule["name"]["matches"], rule["name"]["as"], series) == "sparsebert_queue_depth"
    assert f"| `{series}` | gauge | model, variant |" in (ROOT / "docs" / "service.md").read_text()
    assert rule["resources"]["overrides"] == {"namespace": {"resource": "namespace"}, "pod": {"resource": "pod"}}
    query = rule["metricsQuery"].replace("<<.Series>>", series).replace("<<.GroupBy>>", "pod")
    assert query.replace("<<.LabelMatchers>>", 'namespace="n",pod=~"a|b"') == (
        'sum by (pod) (avg_over_time(sparsebert_queue_depth{namespace="n",pod=~"a|b"}[1m]))'
    )


def test_models_are_where_all_look(rendered):
    claim, space = rendered("models").of("PersistentVolumeClaim")["metadata"], rendered("models").of("Namespace")
    assert (claim["name"], claim["namespace"]) == ("sparsebert-models", space["metadata"]["name"])
    for place in (*OVERLAYS, "models"):
        volumes = {one["name"]: one for one in rendered(place).pod["spec"]["volumes"]}
        assert volumes["models"]["persistentVolumeClaim"]["claimName"] == claim["name"]
    model = rendered("kserve").of("InferenceService")["spec"]["predictor"]["model"]
    assert model["storageUri"] == f"pvc://{claim['name']}"
    runtime = rendered("kserve").of("ServingRuntime")
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["modelFormat"]["name"] == runtime["spec"]["supportedModelFormats"][0]["name"]


def test_the_manual_applies_what_is_there():
    applied = re.findall(r"kubectl \w+ -k ([\w/-]+)", (K8S / "README.md").read_text())
    assert set(applied) == {f"deploy/k8s/{place}" for place in (*PLACES, "kserve/monitoring")}
