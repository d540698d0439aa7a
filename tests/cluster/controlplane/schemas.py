"""JSON schemas of every Kubernetes kind for kubeconform, from the pinned Kubernetes' own OpenAPI document.

kubeconform would fetch them from the internet, from a mirror of another version. ``swagger.json`` lies in the
module that ``go.mod`` pins, so what is checked against is what the API server of these tests serves. The
result is kept beside the binaries. It is strict: a field that the kind does not have is a fault.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .binaries import MODULES, NoControlPlaneError, cache_folder, file_lock, go_environment, say

HOW_TO_GET_SCHEMAS = (
    "no Kubernetes schemas: install Go to have them taken from the pinned module (seconds, once)"
)
LOCATION = "{{.ResourceKind}}{{.KindSuffix}}.json"
"""kubeconform's template for file names: ``deployment-apps-v1.json``, ``service-v1.json``."""


def schemas_folder() -> Path:
    """Where one file per kind lies. Raises :class:`NoControlPlaneError`."""
    cache = cache_folder()
    folder = cache / "schemas"
    cache.mkdir(parents=True, exist_ok=True)
    with file_lock(cache / ".schemas.lock"):
        if not folder.is_dir():
            part = cache / ".schemas.part"
            part.mkdir(exist_ok=True)
            for name, schema in kinds(json.loads(_swagger().read_text())):
                (part / name).write_text(json.dumps(schema))
            part.rename(folder)
            say(f"wrote the schemas of {len(list(folder.iterdir()))} kinds")
    return folder


def kinds(swagger: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file name, schema) of each kind of a Kubernetes OpenAPI v2 document."""
    definitions = {name: _strict(name, definition) for name, definition in swagger["definitions"].items()}
    for name, definition in swagger["definitions"].items():
        for kind in definition.get("x-kubernetes-group-version-kind", ()):
            group = kind["group"].split(".")[0]
            file = "-".join(part for part in (kind["kind"].lower(), group, kind["version"]) if part)
            reachable = {
                reached: definitions[reached] for reached in _reachable(name, swagger["definitions"])
            }
            yield f"{file}.json", {"$ref": f"#/definitions/{name}", "definitions": reachable}


def custom_resource(crd: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """(file name, strict schema) of a CustomResourceDefinition with one version."""
    (version,) = crd["spec"]["versions"]
    schema = _closed(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    group = crd["spec"]["group"].split(".")[0]
    return f"{crd['spec']['names']['singular']}-{group}-{version['name']}.json", schema


def _swagger() -> Path:
    command = ["go", "mod", "download", "-json", "k8s.io/kubernetes"]
    try:
        done = subprocess.run(
            command, cwd=MODULES, env=go_environment(), capture_output=True, text=True, check=True
        )
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        raise NoControlPlaneError(f"{HOW_TO_GET_SCHEMAS}: {error}") from error
    return Path(json.loads(done.stdout)["Dir"]) / "api" / "openapi-spec" / "swagger.json"


def _strict(name: str, definition: Mapping[str, Any]) -> dict[str, Any]:
    if name.endswith((".Quantity", ".IntOrString")):
        return {"type": ["string", "number"]}
    return _closed(definition)


def _closed(node: Mapping[str, Any]) -> dict[str, Any]:
    """A copy in which an object that lists its fields has no others."""
    closed = dict(node)
    if "properties" in node:
        closed["properties"] = {field: _closed(child) for field, child in node["properties"].items()}
        if not node.get("x-kubernetes-preserve-unknown-fields"):
            closed.setdefault("additionalProperties", False)
    if isinstance(node.get("items"), Mapping):
        closed["items"] = _closed(node["items"])
    return closed


def _reachable(start: str, definitions: Mapping[str, Any]) -> set[str]:
    found: set[str] = set()
    open_ends = [start]
    while open_ends:
        name = open_ends.pop()
        if name not in found:
            found.add(name)
            open_ends.extend(_references(definitions[name]))
    return found


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == "$ref" and isinstance(value, str):
                yield value.removeprefix("#/definitions/")
            else:
                yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)
