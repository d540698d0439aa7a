"""The chart's sources agree with each other, with the CRDs and with Kubernetes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from controlplane.schemas import LOCATION, custom_resource

from beamline_contract import __version__

from .rendering import BUNDLED, CHART, EXISTING, ROOT, Chart, merged

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
SWITCHED_ON: dict[str, Any] = {
    "imagePullSecrets": [{"name": "regcred"}],
    "database": {"caSecret": {"name": "ca"}},
    "nats": {
        "url": "tls://nats:4222",
        "credentialsSecret": {"name": "creds"},
        "tls": {"caSecret": {"name": "ca"}, "clientSecret": "us", "first": True},
    },
    "admin": {"enabled": True, "tokenSecret": {"name": "token"}},
    "monitoring": {name: {"enabled": True} for name in ("serviceMonitor", "prometheusRule", "dashboard")},
    "operator": {"namespaces": ["red"], "tolerations": [{"key": "k", "operator": "Exists"}]},
    "router": {
        "autoscaling": {"enabled": True},
        "priorityClassName": "high",
        "extraEnv": [{"name": "A", "value": "b"}],
    },
}
VOLUME = {"bundled": {"postgres": {"persistence": {"enabled": True, "storageClassName": "fast"}}}}


@pytest.fixture
def schemas(kubernetes_schemas: Path, tmp_path: Path) -> Path:
    """The kinds of Kubernetes and our own."""
    folder = tmp_path / "schemas"
    shutil.copytree(kubernetes_schemas, folder)
    for crd in sorted((ROOT / "crds").glob("*.yaml")):
        name, schema = custom_resource(yaml.safe_load(crd.read_text()))
        (folder / name).write_text(json.dumps(schema))
    for path in (Path(__file__).parent / "schemas").glob("*.json"):
        shutil.copy(path, folder)
    return folder


def _check(kubeconform: str, schemas: Path, text: str) -> subprocess.CompletedProcess[str]:
    command = [kubeconform, "-strict", "-summary", "-schema-location", str(schemas / LOCATION), "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "values",
    [BUNDLED, EXISTING, merged(EXISTING, SWITCHED_ON), merged(BUNDLED, VOLUME)],
    ids=["bundled", "existing", "everything switched on", "bundled with a volume"],
)
def test_every_object_is_one_that_kubernetes_knows_field_by_field(
    chart: Chart, kubeconform: str, schemas: Path, values: dict[str, Any]
) -> None:
    done = _check(kubeconform, schemas, chart.text(values))
    assert done.returncode == 0, done.stdout
    assert "Skipped: 0" in done.stdout


@pytest.mark.parametrize("overlay", ["production", "trial"])
def test_what_kustomize_makes_of_an_overlay_is_what_kubernetes_knows(
    kubectl: str, kubeconform: str, schemas: Path, overlay: str
) -> None:
    command = [kubectl, "kustomize", str(ROOT / "deploy" / "kustomize" / "overlays" / overlay)]
    built = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    done = _check(kubeconform, schemas, built)
    assert done.returncode == 0, done.stdout
    assert "Skipped: 0" in done.stdout
    assert _check(kubeconform, schemas, built.replace("replicas:", "replica:")).returncode != 0


@pytest.mark.parametrize("example", sorted((ROOT / "examples").rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_is_valid_by_the_schema_of_our_own_resources(
    kubeconform: str, schemas: Path, example: Path
) -> None:
    done = _check(kubeconform, schemas, example.read_text())
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("was", "is_now"),
    [
        ("terminationGracePeriodSeconds", "terminationGraceSeconds"),
        ("replicas: 2", "replicas: two"),
        ("apps/v1", "apps/v2"),
    ],
    ids=["an unknown field", "a word for a number", "an unknown version"],
)
def test_the_check_finds_what_is_wrong(
    chart: Chart, kubeconform: str, schemas: Path, was: str, is_now: str
) -> None:
    text = chart.text(EXISTING)
    assert was in text
    assert _check(kubeconform, schemas, text.replace(was, is_now)).returncode != 0


@pytest.mark.parametrize("values", sorted((CHART / "ci").glob("*.yaml")), ids=lambda path: path.stem)
def test_helm_finds_nothing_to_complain_of(chart: Chart, values: Path) -> None:
    command = [
        chart.helm,
        "lint",
        "--strict",
        "--kube-version",
        "1.34.2",
        "--values",
        str(values),
        str(CHART),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", ["sync_chart_crds.py", "chart_readme.py", "observability.py"])
def test_what_is_generated_into_the_chart_is_fresh(script: str) -> None:
    command = [sys.executable, str(ROOT / "scripts" / script), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_crds_of_the_chart_are_those_of_the_repository(chart: Chart) -> None:
    rendered = chart.render(merged(EXISTING, {"crds": {"keep": False}}))
    found = {o["metadata"]["name"]: o for o in rendered.objects if o["kind"] == "CustomResourceDefinition"}
    wanted = [yaml.safe_load(path.read_text()) for path in (ROOT / "crds").glob("*.yaml")]
    assert found == {crd["metadata"]["name"]: crd for crd in wanted}


def test_chart_and_program_have_one_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == __version__
    assert chart["version"] == __version__


def _leaves(node: dict[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    for name, child in node.items():
        if isinstance(child, dict) and child and name not in {"requests", "limits"}:
            yield from _leaves(child, f"{at}{name}.")
        else:
            yield f"{at}{name}", child


def _schema_of(path: str) -> dict[str, Any] | None:
    node: dict[str, Any] = SCHEMA
    for word in path.split("."):
        if word not in node.get("properties", {}):
            return None
        node = node["properties"][word]
    return node


def test_schema_and_values_name_the_same_things() -> None:
    named = {path for path, _ in _leaves(VALUES)}
    assert [path for path in named if _schema_of(path) is None] == []

    def paths(node: dict[str, Any], at: str = "") -> Iterator[str]:
        for name, child in node.get("properties", {}).items():
            if "properties" in child:
                yield from paths(child, f"{at}{name}.")
            else:
                yield f"{at}{name}"

    optional = {"global"}  # Helm's own
    assert {path for path in paths(SCHEMA) if path not in named and not path.endswith(".claims")} == optional


def test_no_object_of_the_schema_takes_what_it_does_not_name() -> None:
    def open_objects(node: Any, at: str) -> Iterator[str]:
        if isinstance(node, dict):
            if "properties" in node and node.get("additionalProperties") is not False:
                yield at
            for name, child in node.items():
                yield from open_objects(child, f"{at}/{name}")

    assert list(open_objects(SCHEMA, "")) == []
