"""Files that a pod waits for: Secrets and ConfigMaps of its volumes that are not there.

A pod that lacks one shows nothing of it in its status: it is being created, for ever. Only the kubelet's
events tell (``FailedMount``), so they are asked for, but of a pod alone that can't be waiting for much else.
No Secret is read for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

REASON: Final = "FailedMount"
TMP: Final = "tmp"
"""Beamline's own volume, before those of the author."""
FRESH_S: Final = 180.0
"""Of a volume that is still missing the kubelet says so again within this: it tries every two minutes."""
_MISSING: Final = re.compile(r'volume "([^"]+)".*?\b(?:secret|configmap)s? "[^"]+" not found', re.IGNORECASE)
_CREATING: Final = frozenset({"", "ContainerCreating", "PodInitializing"})
_SOURCES: Final = (("secret", "secretName", "Secret"), ("configMap", "name", "ConfigMap"))
_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Files:
    """A volume that the pod can't do without."""

    volume: str
    field: str
    kind: str
    name: str
    mount_path: str

    def wanted(self) -> str:
        """What is missing, and what to do about it."""
        return (
            f"{self.field}: the {self.kind} {self.name} does not exist, so nothing can be mounted at "
            f"{self.mount_path}: create it, or make the volume optional."
        )


def waits_for_files(pod: Mapping[str, Any]) -> bool:
    """Whether a node has it, nothing of it runs yet, and it needs some Secret or ConfigMap as files."""
    status = pod.get("status", {})
    held = {str(one.get("type")): one.get("status") for one in status.get("conditions") or ()}
    if held.get("PodScheduled") != "True" or held.get("PodReadyToStartContainers") == "True":
        return False
    states = [container.get("state", {}) for container in status.get("containerStatuses") or ()]
    created = all(
        (state.get("waiting") or {"reason": "?"}).get("reason", "") in _CREATING for state in states
    )
    return created and any(_files(pod))


def missing_files(events: Iterable[Mapping[str, Any]], pod: Mapping[str, Any]) -> tuple[str, str] | None:
    """("Secret" or "ConfigMap", what to do about it), None where ``events`` of the kubelet name no volume of
    ``pod`` whose object is not there. A Secret goes before a ConfigMap.
    """
    name = pod.get("metadata", {}).get("name")
    told: dict[str, datetime] = {}
    for event in events:
        found = _MISSING.search(str(event.get("note") or ""))
        if found and (event.get("regarding") or {}).get("name") == name:
            told[found[1]] = max(_seen(event), told.get(found[1], _LONG_AGO))
    newest = max(told.values(), default=_LONG_AGO)
    missing = [
        files
        for files in _files(pod)
        if files.volume in told and (newest - told[files.volume]).total_seconds() <= FRESH_S
    ]
    if not missing:
        return None
    kinds = {files.kind for files in missing}
    return ("Secret" if "Secret" in kinds else "ConfigMap", " ".join(files.wanted() for files in missing))


def _files(pod: Mapping[str, Any]) -> Iterator[_Files]:
    spec = pod.get("spec", {})
    paths = {
        str(mount.get("name")): str(mount.get("mountPath"))
        for container in spec.get("containers") or ()
        for mount in container.get("volumeMounts") or ()
    }
    asked = [volume for volume in spec.get("volumes") or () if volume.get("name") != TMP]
    for index, volume in enumerate(asked):
        for source, field, kind in _SOURCES:
            ref = volume.get(source) or {}
            if field in ref and not ref.get("optional"):
                path = f"spec.workload.volumes[{index}].{source}.name"
                yield _Files(volume["name"], path, kind, ref[field], paths.get(volume["name"], "its path"))


def _seen(event: Mapping[str, Any]) -> datetime:
    stamp = (
        (event.get("series") or {}).get("lastObservedTime")
        or event.get("deprecatedLastTimestamp")
        or event.get("eventTime")
    )
    try:
        return datetime.fromisoformat(str(stamp)).astimezone(UTC)
    except ValueError:
        return _LONG_AGO
