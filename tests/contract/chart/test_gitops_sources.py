"""What lies below deploy/ is valid, fresh, and comes in the order that it must."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from beamline_contract import __version__

from .rendering import ROOT, Chart

DEPLOY = ROOT / "deploy"
OVERLAYS = sorted((DEPLOY / "kustomize" / "overlays").iterdir())
APPS = sorted((DEPLOY / "argocd" / "apps").glob("*.yaml"))


def _documents(path: Path) -> Iterator[dict[str, Any]]:
    yield from (found for found in yaml.safe_load_all(path.read_text()) if found)


def _everything() -> list[dict[str, Any]]:
    return [found for path in sorted((DEPLOY / "flux").rglob("*.yaml")) for found in _documents(path)]


def _flux(kind: str, name: str) -> dict[str, Any]:
    (found,) = (
        entry
        for entry in _everything()
        if entry["kind"] == kind and entry.get("metadata", {}).get("name") == name
    )
    return found


def test_the_base_of_kustomize_is_what_helm_renders(chart: Chart) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "kustomize_base.py"), "--check", "--helm", chart.helm]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_an_overlay_is_rendered_and_its_parts_fit(overlay: Path, kubectl: str) -> None:
    done = subprocess.run([kubectl, "kustomize", str(overlay)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    objects = list(yaml.safe_load_all(done.stdout))
    assert {entry["metadata"].get("namespace", "beamline") for entry in objects} == {"beamline"}
    for entry in (found for found in objects if found["kind"] == "Deployment"):
        pod = entry["spec"]["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            names = [variable["name"] for variable in container["env"]]
            assert len(names) == len(set(names))


def test_the_overlay_for_production_asks_for_keys_and_the_one_for_a_try_does_not(kubectl: str) -> None:
    def env(overlay: str) -> dict[str, Any]:
        command = [kubectl, "kustomize", str(DEPLOY / "kustomize" / "overlays" / overlay)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        (router,) = (
            entry
            for entry in yaml.safe_load_all(text)
            if (entry["kind"], entry["metadata"]["name"]) == ("Deployment", "beamline-router")
        )
        variables = router["spec"]["template"]["spec"]["containers"][0]["env"]
        return {variable["name"]: variable.get("value") for variable in variables}

    production, trial = env("production"), env("trial")
    assert production["NATS_URL"] == "tls://nats.nats.svc:4222"
    assert production["NATS_CA_FILE"] == "/etc/beamline/nats-ca/ca.crt"
    assert "BEAMLINE_API_KEYS" in production
    assert "BEAMLINE_ANONYMOUS" not in production
    assert trial["BEAMLINE_ANONYMOUS"] == "true"


def test_argo_cd_brings_definitions_before_the_chart_before_the_objects() -> None:
    apps = [next(_documents(path)) for path in APPS]
    waves = [int(app["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"]) for app in apps]
    sources = [app["spec"]["source"].get("path") or app["spec"]["source"]["chart"] for app in apps]
    assert sources == ["crds", "beamline", "examples/quickstart"]
    assert waves == sorted(set(waves))
    assert apps[1]["spec"]["source"]["helm"]["valuesObject"]["crds"] == {"enabled": False}
    assert apps[0]["spec"]["syncPolicy"]["automated"]["prune"] is False
    assert all("ServerSideApply=true" in app["spec"]["syncPolicy"]["syncOptions"] for app in apps)
    options = {app["metadata"]["annotations"]["argocd.argoproj.io/compare-options"] for app in apps}
    assert options == {"ServerSideDiff=true"}, "without it defaults inside lists differ for ever"
    root = next(_documents(DEPLOY / "argocd" / "root.yaml"))
    assert (ROOT / root["spec"]["source"]["path"]) == APPS[0].parent


def test_argo_cd_is_told_the_health_of_both_kinds_and_of_applications() -> None:
    config = next(_documents(DEPLOY / "argocd" / "argocd-cm.yaml"))["data"]
    script = (DEPLOY / "argocd" / "health.lua").read_text()
    for kind in ("Extension", "RoutingPolicy"):
        assert config[f"resource.customizations.health.beamline.io_{kind}"].strip() == script.strip()
    assert "obj.status.health" in config["resource.customizations.health.argoproj.io_Application"]


@pytest.mark.parametrize("name", ["argocd", "flux"])
def test_the_values_that_gitops_gives_are_values_of_the_chart(chart: Chart, name: str) -> None:
    if name == "flux":
        values = _flux("HelmRelease", "beamline")["spec"]["values"]
    else:
        values = next(_documents(APPS[1]))["spec"]["source"]["helm"]["valuesObject"]
    assert "Deployment" in {found["kind"] for found in chart.render(values).objects}


def test_flux_waits_for_the_release_before_the_objects_and_for_the_objects_themselves() -> None:
    objects = _flux("Kustomization", "beamline-objects")["spec"]
    assert objects["dependsOn"] == [{"name": "beamline-release"}]
    assert objects["wait"] is True
    release = _flux("Kustomization", "beamline-release")["spec"]
    checked = {(check["kind"], check["name"]) for check in release["healthChecks"]}
    assert ("HelmRelease", "beamline") in checked
    for folder in (release["path"], objects["path"]):
        assert (ROOT / folder).is_dir()


def test_the_release_of_gitops_is_the_one_of_this_chart() -> None:
    assert next(_documents(APPS[1]))["spec"]["source"]["targetRevision"] == __version__
    assert _flux("OCIRepository", "beamline-chart")["spec"]["ref"]["tag"] == __version__


def test_the_compose_file_is_one_by_its_specification() -> None:
    text = (DEPLOY / "compose" / "docker-compose.yml").read_text()
    compose = PyCompose.from_yaml(text)
    compose.validate_volumes()
    assert compose.service_names() == ["beamline"]
    service = yaml.safe_load(text)["services"]["beamline"]
    for volume in service["volumes"]:
        source = volume.split(":")[0]
        assert not source.startswith(".") or (DEPLOY / "compose" / source).resolve().is_dir()
    assert all(port.startswith("127.0.0.1:") for port in service["ports"]), "it serves callers without a key"


@pytest.mark.parametrize(
    ("was", "is_now"),
    [
        ("    cap_drop: [ALL]", "    cap_drops: [ALL]"),
        ("    restart: unless-stopped", "    restart: sometimes"),
    ],
    ids=["an unknown key", "an unknown word"],
)
def test_a_compose_file_that_is_none_is_found(was: str, is_now: str) -> None:
    text = (DEPLOY / "compose" / "docker-compose.yml").read_text()
    assert was in text
    with pytest.raises(ValueError):  # noqa: PT011 -- its only class; the wording is the package's
        PyCompose.from_yaml(text.replace(was, is_now)).validate_volumes()
