"""What do the manifests say once kustomize put them together? kubectl has kustomize in it; no cluster is asked."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

Resource = dict[str, Any]
K8S = Path(__file__).parents[3] / "deploy" / "k8s"


@dataclass(frozen=True)
class Rendered:
    """What `kubectl apply -k` would send."""

    resources: tuple[Resource, ...]

    def of(self, kind: str) -> Resource:
        """The one of a kind."""
        (found,) = (one for one in self.resources if one["kind"] == kind)
        return found

    @property
    def kinds(self) -> list[str]:
        return sorted(one["kind"] for one in self.resources)

    @property
    def pod(self) -> Resource:
        """A Deployment's pod, a lone one, or what KServe merges of runtime and predictor."""
        if "Deployment" in self.kinds:
            return self.of("Deployment")["spec"]["template"]
        if "Pod" in self.kinds:
            return {key: self.of("Pod")[key] for key in ("metadata", "spec")}
        runtime, predictor = self.of("ServingRuntime")["spec"], self.of("InferenceService")["spec"]["predictor"]
        ours = {"model", "minReplicas", "maxReplicas", "scaleMetric", "scaleTarget"}
        spec = {key: runtime[key] for key in ("containers", "volumes")}
        return {"metadata": {"name": "merged"}, "spec": spec | {key: predictor[key] for key in predictor.keys() - ours}}

    @property
    def container(self) -> Resource:
        (alone,) = self.pod["spec"]["containers"]
        return alone

    @property
    def environment(self) -> dict[str, str]:
        """What the container sees, out of its ConfigMap and its own variables."""
        seen: dict[str, str] = {}
        for source in self.container.get("envFrom", []):
            config = self.of("ConfigMap")
            assert source == {"configMapRef": {"name": config["metadata"]["name"]}}
            seen |= config["data"]
        return seen | {one["name"]: one["value"] for one in self.container.get("env", [])}


@cache
def render(folder: Path) -> Rendered:
    beside = Path(sys.executable).with_name("kubectl")
    kubectl = str(beside) if beside.exists() else shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl: for Linux it is in sparsebert[test], elsewhere install it yourself")
    done = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # there it warns of what its next release drops
    return Rendered(tuple(yaml.safe_load_all(done.stdout)))


@pytest.fixture(scope="session")
def rendered() -> Callable[[str | Path], Rendered]:
    """Renders a folder of deploy/k8s, or another one by its whole path."""
    return lambda place: render(K8S / place)
