"""From a valid Extension to what shall run for it (contract.md, "What a workload gets").

``BEAMLINE_CONFIG`` is what the workload starts with; every request carries the current configuration. So it
is in the environment but not in the hash: a change of ``spec.config`` alone restarts nothing, and the running
workload keeps the value it started with until something else rolls it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace

from beamline_contract.names import GROUP, MANAGED_BY
from beamline_contract.objects import Extension
from beamline_contract.placement import VolumeSource
from beamline_contract.workload import KeyRef, LocalRef
from beamline_sdk.deployment.port import DeploymentRequest

from .ports import Inputs
from .settings import ReconcileSettings

CONFIG_VARIABLE = "BEAMLINE_CONFIG"


def environment(extension: Extension, settings: ReconcileSettings) -> dict[str, str]:
    """The variables that Beamline gives to a workload. All replicas share one queue group, the id."""
    variables = {name: value for name, value in settings.passed_env.items() if name.startswith("OTEL_")}
    variables |= {
        "NATS_URL": settings.nats_url,
        "NATS_SUBJECT": extension.subject,
        "NATS_QUEUE_GROUP": extension.id,
        "BEAMLINE_EXTENSION_ID": extension.id,
        "BEAMLINE_EXTENSION_TYPE": extension.spec.type,
        CONFIG_VARIABLE: json.dumps(
            extension.spec.config, sort_keys=True, separators=(",", ":"), ensure_ascii=False
        ),
        "METRICS_PORT": str(settings.metrics_port),
        "LOG_LEVEL": settings.log_level,
    }
    if settings.nats_credentials_file is not None:
        variables["NATS_CREDENTIALS_FILE"] = settings.nats_credentials_file
    if settings.log_silent:
        variables["LOG_SILENT"] = "1"
    return variables


def labels(extension: Extension) -> dict[str, str]:
    """The recommended labels, and our own for looking up by id."""
    return {
        "app.kubernetes.io/name": extension.metadata.name,
        "app.kubernetes.io/instance": extension.metadata.name,
        "app.kubernetes.io/component": extension.spec.type,
        "app.kubernetes.io/part-of": "beamline",
        "app.kubernetes.io/managed-by": MANAGED_BY,
        f"{GROUP}/extension-id": extension.id,
    }


def read_by(extension: Extension) -> set[tuple[str, str]]:
    """(kind, name) of every Secret and ConfigMap that the workload reads, as variables or as files."""
    workload = extension.spec.workload
    if workload is None:
        return set()
    secrets: list[KeyRef | LocalRef | VolumeSource | None] = []
    maps: list[KeyRef | LocalRef | VolumeSource | None] = []
    for variable in workload.env:
        if variable.value_from is not None:
            secrets.append(variable.value_from.secret_key_ref)
            maps.append(variable.value_from.config_map_key_ref)
    for source in workload.env_from:
        secrets.append(source.secret_ref)
        maps.append(source.config_map_ref)
    for volume in workload.volumes:
        secrets.append(volume.secret)
        maps.append(volume.config_map)
    return {("Secret", ref.name) for ref in secrets if ref} | {("ConfigMap", ref.name) for ref in maps if ref}


def inputs_digest(extension: Extension, inputs: Inputs) -> str:
    """16 hex digits over the versions of what the workload reads and somebody watches; empty without any."""
    home = extension.metadata.namespace
    versions = {
        f"{kind}/{name}": version
        for kind, name in read_by(extension)
        if (version := inputs.version(kind, home, name)) is not None
    }
    return _digest(versions) if versions else ""


def desired_workload(
    extension: Extension, settings: ReconcileSettings, inputs: Inputs | None = None
) -> DeploymentRequest | None:
    """What shall run, or None for an extension that runs elsewhere. A disabled extension keeps it at zero
    replicas.
    """
    workload = extension.spec.workload
    if workload is None:
        return None
    request = DeploymentRequest(
        namespace=extension.metadata.namespace,
        name=extension.metadata.name,
        owner_uid=extension.metadata.uid,
        generation=extension.metadata.generation,
        workload=workload,
        replicas=workload.replicas if extension.spec.enabled else 0,
        env=environment(extension, settings),
        hash="",
        labels=labels(extension),
        inputs=inputs_digest(extension, inputs) if inputs is not None else "",
    )
    return replace(request, hash=workload_hash(request))


def workload_hash(request: DeploymentRequest) -> str:
    """16 hex digits over everything that a change of must reach the running workload."""
    return _digest(
        {
            "name": request.name,
            "namespace": request.namespace,
            "owner": request.owner_uid,
            "workload": request.workload.to_manifest(),
            "replicas": request.replicas,
            "env": {name: value for name, value in request.env.items() if name != CONFIG_VARIABLE},
            "labels": dict(request.labels),
            **({"inputs": request.inputs} if request.inputs else {}),
        }
    )


def _digest(document: Mapping[str, object]) -> str:
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
