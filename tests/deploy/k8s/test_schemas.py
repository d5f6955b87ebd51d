"""Does Kubernetes know every field of the manifests? Judged by the schemas of one of its releases."""

import os
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

K8S = Path(__file__).parents[3] / "deploy" / "k8s"
KUBERNETES = "1.37"
PLACES = ["overlays/cpu", "overlays/gpu", "overlays/edge", "models", "overlays/edge/models", "kserve"]
WATCHING = "kserve/monitoring"


def closed(**fields):
    """An object with these fields and no other."""
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def every(item):
    return {"type": "array", "items": item, "minItems": 1}


TEXT, COUNT, PART = {"type": "string"}, {"type": "integer", "minimum": 1}, {"type": "object"}
TIME = {"type": "string", "pattern": "^[0-9]+s$"}
PREDICTOR = {
    "model": closed(modelFormat=closed(name=TEXT), runtime=TEXT, protocolVersion={"const": "v2"}, storageUri=TEXT),
    "minReplicas": COUNT,
    "maxReplicas": COUNT,
    "scaleMetric": {"enum": ["cpu", "memory"]},
    "scaleTarget": COUNT,
}
TEXTS = {"type": "object", "additionalProperties": TEXT}
RECORD = closed(record=TEXT, expr=TEXT)
RECORD["properties"]["labels"] = TEXTS
ALERT = closed(alert=TEXT, expr=TEXT, labels=TEXTS, annotations=TEXTS)
ALERT["properties"]["for"] = {"type": "string", "pattern": "^[0-9]+[mh]$"}
# No package has strict schemas of these resources, so the fields that are used are written down, named as in the
# Prometheus operator 0.80 and KServe 0.21. What else a predictor and a runtime have is a pod's, and judged as such.
CUSTOM = {
    ("monitoring.coreos.com/v1", "ServiceMonitor"): closed(
        jobLabel=TEXT,
        selector=closed(matchLabels=TEXTS),
        endpoints=every(
            closed(
                port=TEXT,
                path=TEXT,
                interval=TIME,
                scrapeTimeout=TIME,
                relabelings=every(closed(sourceLabels=every(TEXT), regex=TEXT, action={"const": "drop"})),
            )
        ),
    ),
    ("monitoring.coreos.com/v1", "PodMonitor"): closed(
        selector=closed(matchLabels=TEXTS),
        podMetricsEndpoints=every(
            closed(
                port=TEXT,
                path=TEXT,
                interval=TIME,
                scrapeTimeout=TIME,
                relabelings=every(closed(targetLabel=TEXT, replacement=TEXT)),
            )
        ),
    ),
    ("monitoring.coreos.com/v1", "PrometheusRule"): closed(
        groups=every(closed(name=TEXT, rules=every({"anyOf": [RECORD, ALERT]})))
    ),
    ("serving.kserve.io/v1alpha1", "ServingRuntime"): closed(
        annotations=TEXTS,
        supportedModelFormats=every(closed(name=TEXT, version=TEXT, autoSelect={"const": True})),
        protocolVersions={"const": ["v2"]},
        multiModel={"const": False},
        containers=every(PART),
        volumes=every(PART),
    ),
    ("serving.kserve.io/v1beta1", "InferenceService"): closed(
        predictor={"type": "object", "properties": PREDICTOR, "required": list(PREDICTOR)}
    ),
}


def judge(resource):
    assert kubernetes_validate.validate(resource, KUBERNETES, strict=True) == KUBERNETES


@pytest.mark.parametrize("place", [*PLACES, WATCHING])
def test_every_field_is_known(rendered, place):
    for one in rendered(place).resources:
        schema = CUSTOM.get((one["apiVersion"], one["kind"]))
        if schema is None:
            judge(one)
        else:
            assert one.keys() == {"apiVersion", "kind", "metadata", "spec"}
            judge({"apiVersion": "v1", "kind": "ConfigMap", "metadata": one["metadata"]})
            jsonschema.validate(one["spec"], schema)


@pytest.mark.parametrize("place", PLACES)
def test_a_pod_is_a_pod_also_where_kserve_makes_it(rendered, place):
    judge({"apiVersion": "v1", "kind": "Pod"} | rendered(place).pod | {"metadata": {"name": "any"}})


@pytest.mark.parametrize(("kind", "field"), [("Service", "typ"), ("Deployment", "replica"), ("NetworkPolicy", "from")])
def test_an_unknown_field_is_noticed(rendered, kind, field):
    right = rendered("overlays/cpu").of(kind)
    with pytest.raises(kubernetes_validate.ValidationError, match=field):
        judge(right | {"spec": right["spec"] | {field: 1}})


@pytest.mark.parametrize(("place", "kind"), [("overlays/cpu", "ServiceMonitor"), ("kserve", "ServingRuntime")])
def test_an_unknown_field_of_a_custom_resource_is_noticed(rendered, place, kind):
    right = rendered(place).of(kind)
    with pytest.raises(jsonschema.ValidationError, match="endpoint"):
        jsonschema.validate(right["spec"] | {"endpoint": 1}, CUSTOM[right["apiVersion"], kind])


def test_models_of_an_image(rendered, tmp_path):
    """The component that no overlay has, added to one."""
    mine = {"resources": ["overlays/cpu"], "components": ["components/models-image"]}
    relative = {key: [os.path.relpath(K8S / name, tmp_path) for name in names] for key, names in mine.items()}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(relative))
    place = rendered(tmp_path)
    judge(place.of("Deployment"))
    (models,) = (one for one in place.pod["spec"]["volumes"] if one["name"] == "models")
    assert models == {"name": "models", "image": {"reference": "sparsebert-models:1", "pullPolicy": "IfNotPresent"}}
