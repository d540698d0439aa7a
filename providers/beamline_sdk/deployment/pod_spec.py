"""The pods of a workload: pure functions from a request to a pod template.

Everything obeys Pod Security "restricted", whatever the author asks for: there is no field that could loosen
it. Pods get no ServiceAccount token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from beamline_contract.names import GROUP

from .port import DeploymentRequest

METRICS_PORT: Final = 9090
CONTAINER: Final = "extension"
INPUTS_ANNOTATION: Final = f"{GROUP}/inputs"
"""Versions of the Secrets and ConfigMaps that the pods read."""
_RUN_AS: Final = 65532
"""The "nonroot" user of distroless images; any number but 0 satisfies Pod Security."""


def pod_metadata(request: DeploymentRequest) -> dict[str, dict[str, str]]:
    """Labels and annotations of a pod; Beamline's own win."""
    annotations = dict(request.workload.pod_annotations)
    if request.inputs:
        annotations[INPUTS_ANNOTATION] = request.inputs
    return {
        "labels": {**request.workload.pod_labels, **request.labels},
        "annotations": annotations,
    }


def pod_spec(
    request: DeploymentRequest, env: Mapping[str, str], selector: Mapping[str, str]
) -> dict[str, Any]:
    """The spec of one pod. ``selector`` picks all pods of the workload."""
    workload = request.workload
    spec: dict[str, Any] = {
        "serviceAccountName": workload.service_account_name or request.name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 30,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _RUN_AS,
            "runAsGroup": _RUN_AS,
            "fsGroup": _RUN_AS,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(request, env)],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}, *_volumes(request)],
    }
    if workload.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": secret.name} for secret in workload.image_pull_secrets]
    return spec | _placement(request, selector)


def _placement(request: DeploymentRequest, selector: Mapping[str, str]) -> dict[str, Any]:
    workload = request.workload
    spec: dict[str, Any] = {}
    if workload.node_selector:
        spec["nodeSelector"] = dict(workload.node_selector)
    if workload.tolerations:
        spec["tolerations"] = [toleration.to_manifest() for toleration in workload.tolerations]
    if workload.priority_class_name is not None:
        spec["priorityClassName"] = workload.priority_class_name
    if workload.topology_spread:
        spec["topologySpreadConstraints"] = [
            {**spread.to_manifest(), "labelSelector": {"matchLabels": dict(selector)}}
            for spread in workload.topology_spread
        ]
    affinity = _affinity(request, selector)
    if affinity:
        spec["affinity"] = affinity
    return spec


def _affinity(request: DeploymentRequest, selector: Mapping[str, str]) -> dict[str, Any]:
    asked = request.workload.affinity
    if asked is None:
        return {}
    affinity: dict[str, Any] = {}
    if asked.nodes:
        terms = [{"matchExpressions": [node.to_manifest() for node in asked.nodes]}]
        affinity["nodeAffinity"] = {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}
        }
    if asked.apart is not None:
        term = {
            "topologyKey": asked.apart.topology_key,
            "labelSelector": {"matchLabels": dict(selector)},
        }
        affinity["podAntiAffinity"] = (
            {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
            if asked.apart.required
            else {
                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]
            }
        )
    return affinity


def _volumes(request: DeploymentRequest) -> list[dict[str, Any]]:
    volumes = []
    for volume in request.workload.volumes:
        source: dict[str, Any] = {}
        if volume.config_map is not None:
            source = {"configMap": volume.config_map.to_manifest()}
        elif volume.secret is not None:
            secret = volume.secret.to_manifest()
            source = {"secret": {"secretName": secret.pop("name"), **secret}}
        elif volume.empty_dir is not None:
            source = {"emptyDir": volume.empty_dir.to_manifest()}
        volumes.append({"name": volume.name, **source})
    return volumes


def _container(request: DeploymentRequest, env: Mapping[str, str]) -> dict[str, Any]:
    workload = request.workload
    own = [entry.to_manifest() for entry in workload.env]
    overridden = {entry["name"] for entry in own}
    mounts: list[dict[str, Any]] = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108 -- inside the container
    mounts += [
        {
            "name": volume.name,
            "mountPath": volume.mount_path,
            **({} if volume.empty_dir is not None else {"readOnly": True}),
        }
        for volume in workload.volumes
    ]
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": workload.image,
        "env": [
            *(
                {"name": name, "value": value}
                for name, value in sorted(env.items())
                if name not in overridden
            ),
            *own,
        ],
        "resources": workload.resources.to_manifest(),
        "ports": [{"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"}],
        "volumeMounts": mounts,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    if workload.image_pull_policy is not None:
        container["imagePullPolicy"] = workload.image_pull_policy
    if workload.command:
        container["command"] = list(workload.command)
    if workload.args:
        container["args"] = list(workload.args)
    if workload.env_from:
        container["envFrom"] = [entry.to_manifest() for entry in workload.env_from]
    if workload.probes.enabled:
        container |= _probes(request)
    return container


def _probes(request: DeploymentRequest) -> dict[str, Any]:
    """Startup shields a slow start from liveness for a minute; readiness follows NATS within seconds."""
    probes = request.workload.probes
    live = {"httpGet": {"path": probes.liveness_path, "port": probes.port}}
    ready = {"httpGet": {"path": probes.readiness_path, "port": probes.port}}
    return {
        "startupProbe": {**live, "periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 30},
        "livenessProbe": {**live, "periodSeconds": 10, "timeoutSeconds": 3, "failureThreshold": 3},
        "readinessProbe": {**ready, "periodSeconds": 3, "timeoutSeconds": 2, "failureThreshold": 2},
    }
