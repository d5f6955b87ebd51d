"""What are the rules for the Prometheus operator? Those of rules/, as one resource of Kubernetes.

After a change of a rule run `python deploy/prometheus/operator_rules.py`: kustomize cannot wrap the files itself.
"""

from pathlib import Path

import yaml

HERE = Path(__file__).parent
MANIFEST = HERE.parent / "k8s" / "components" / "monitoring" / "prometheusrule.yaml"
LABELS = {"app.kubernetes.io/name": "sparsebert", "app.kubernetes.io/part-of": "sparsebert"}


class Readable(yaml.SafeDumper):
    """Keeps the lines of an expression."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


Readable.add_representer(str, _text)


def build(rules: Path) -> str:
    """The manifest with the groups of every file of a folder."""
    files = sorted(rules.glob("*.yml"))
    resource = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "sparsebert", "labels": LABELS},
        "spec": {"groups": [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]},
    }
    made = "# Made of deploy/prometheus/rules by deploy/prometheus/operator_rules.py; change those, and run it again.\n"
    return made + yaml.dump(resource, Dumper=Readable, sort_keys=False, width=120)


if __name__ == "__main__":
    MANIFEST.write_text(build(HERE / "rules"))
