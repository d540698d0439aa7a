"""Which fields a CRD has: a server that lacks one drops it silently, so an older CRD has to be noticed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .names import VERSION


def schema_of(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of our version in a CustomResourceDefinition; empty where it has no such version."""
    versions = document["spec"]["versions"]
    found = (one["schema"]["openAPIV3Schema"] for one in versions if one["name"] == VERSION)
    return next(found, {})


def fields_of(schema: Mapping[str, Any]) -> set[str]:
    """Paths of every field of a schema, without ``metadata``, whose fields are Kubernetes' own."""
    found: set[str] = set()
    pending: list[tuple[str, Mapping[str, Any]]] = [("", schema)]
    while pending:
        at, node = pending.pop()
        for name, child in (node.get("properties") or {}).items():
            path = f"{at}.{name}".lstrip(".")
            if path != "metadata":
                found.add(path)
                pending.append((path, child))
        inner = (node.get(name) for name in ("items", "additionalProperties"))
        pending.extend((at, child) for child in inner if isinstance(child, Mapping))
    return found
