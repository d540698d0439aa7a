"""What a pod misses to start, in words that say what to create: from the kubelet's message and the pod's own
spec. No Secret is read for it.

The kubelet names a Secret that is not there, or the one key of it that is not; which other keys the pod will
ask for, and for which variables, stands in its spec.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

_OBJECT: Final = re.compile(r'^(secret|configmap) "([^"]+)" not found', re.IGNORECASE)
_KEY: Final = re.compile(r"^couldn't find key (\S+) in (Secret|ConfigMap) (?:[^/\s]+/)?(\S+)", re.IGNORECASE)


def missing_input(message: str, pod: Mapping[str, Any]) -> tuple[str, str] | None:
    """("Secret" or "ConfigMap", what to do about it); None where ``message`` speaks of something else."""
    if found := _KEY.match(message):
        key, kind, name = found[1], _kind(found[2]), found[3].rstrip(",.;")
        readers = [variable for wanted, variable in _keys(pod, kind, name) if wanted == key]
        return (
            kind,
            f"Put the key {key}{_for(readers)} into the {kind} {name}, or make the reference in "
            f"{_field(readers)} optional.",
        )
    if found := _OBJECT.match(message):
        kind, name = _kind(found[1]), found[2]
        asked = [f"{key}{_for([variable])}" for key, variable in _keys(pod, kind, name)]
        with_keys = f" with the key{'s' * (len(asked) > 1)} {', '.join(asked)}" if asked else ""
        return (
            kind,
            f"Create the {kind} {name}{with_keys}, or make the reference in {_field(asked)} optional.",
        )
    return None


def _kind(word: str) -> str:
    return "Secret" if word.lower() == "secret" else "ConfigMap"


def _keys(pod: Mapping[str, Any], kind: str, name: str) -> Iterator[tuple[str, str]]:
    """Every key of the object that the pod can't do without, and the variable that it becomes."""
    reference = "secretKeyRef" if kind == "Secret" else "configMapKeyRef"
    for container in pod.get("spec", {}).get("containers") or ():
        for variable in container.get("env") or ():
            ref = (variable.get("valueFrom") or {}).get(reference) or {}
            if ref.get("name") == name and not ref.get("optional"):
                yield str(ref.get("key")), str(variable.get("name"))


def _field(variables: list[str]) -> str:
    """Where it is referred to: single keys are named in variables, a whole object is not."""
    return "spec.workload.env" if variables else "spec.workload.envFrom"


def _for(variables: list[str]) -> str:
    return f" (for {', '.join(variables)})" if variables else ""
