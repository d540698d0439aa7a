"""What lies below deploy/argocd and deploy/flux is what the definitions of Argo CD and Flux allow, to the
last field: an unknown one would be dropped by the API server without a word.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from .rendering import ROOT

SCHEMAS = Path(__file__).parent / "schemas" / "gitops"
FOLDERS = ("argocd", "flux")
THEIRS = ("argoproj.io", "toolkit.fluxcd.io")


def manifests() -> Iterator[tuple[str, dict[str, Any]]]:
    """(name of the case, manifest) of every object of theirs; Kustomize's own files are none."""
    for folder in FOLDERS:
        for path in sorted((ROOT / "deploy" / folder).rglob("*.yaml")):
            for document in yaml.safe_load_all(path.read_text()):
                if document and str(document.get("apiVersion", "")).partition("/")[0].endswith(THEIRS):
                    where = path.relative_to(ROOT / "deploy")
                    yield f"{document['kind']} {document['metadata']['name']} of {where}", document


MANIFESTS = dict(manifests())


def faults(document: dict[str, Any]) -> list[str]:
    group = document["apiVersion"].partition("/")[0]
    schema = json.loads((SCHEMAS / f"{document['kind'].lower()}-{group}.json").read_text())
    return [
        f"{error.json_path}: {error.message}"
        for error in jsonschema.Draft202012Validator(schema).iter_errors(document)
    ]


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_is_what_its_definition_allows(name: str) -> None:
    assert faults(MANIFESTS[name]) == []


def test_every_kind_of_both_tools_is_among_them() -> None:
    kinds = {document["kind"] for document in MANIFESTS.values()}
    assert kinds == {"Application", "OCIRepository", "GitRepository", "HelmRelease", "Kustomization"}


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("Application", "spec.syncPolicy.automated.selfheal", True),
        ("Application", "spec.destination", "in-cluster"),
        ("HelmRelease", "spec.install.retries", 3),
        ("HelmRelease", "spec.interval", 10),
        ("Kustomization", "spec.dependsOn", "beamline-release"),
        ("Kustomization", "spec.heathChecks", []),
        ("OCIRepository", "spec.ref.version", "0.1.0"),
        ("GitRepository", "spec.interval", "often"),
    ],
    ids=str,
)
def test_a_typing_error_is_found(kind: str, path: str, value: Any) -> None:
    document = copy.deepcopy(next(found for found in MANIFESTS.values() if found["kind"] == kind))
    assert faults(document) == []
    *parents, last = path.split(".")
    inner = document
    for name in parents:
        inner = inner.setdefault(name, {})
    inner[last] = value
    assert faults(document)
