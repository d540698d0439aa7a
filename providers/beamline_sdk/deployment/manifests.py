"""What a workload looks like in a cluster: pure functions from a request to Kubernetes objects.

Everything obeys Pod Security "restricted". Pods get no ServiceAccount token. The network policy lets in only
what scrapes or probes the metrics port, and lets out DNS, NATS (its ports) and HTTPS, because providers call
upstreams on the internet; who wants it narrower adds a policy of their own (policies add up, so a stricter
one needs the workload's labels in a default-deny namespace).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from beamline_contract.names import API_VERSION, GROUP

from .port import DeploymentRequest

CONFIG_VARIABLE: Final = "BEAMLINE_CONFIG"
METRICS_PORT: Final = 9090
HASH_ANNOTATION: Final = f"{GROUP}/workload-hash"
POD_HASH_ANNOTATION: Final = f"{GROUP}/pod-hash"
CONTAINER: Final = "extension"
PATHS: Final[dict[str, str]] = {
    "ServiceAccount": "/api/v1/namespaces/{namespace}/serviceaccounts/{name}",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies/{name}",
    "Service": "/api/v1/namespaces/{namespace}/services/{name}",
    "Deployment": "/apis/apps/v1/namespaces/{namespace}/deployments/{name}",
}
"""In the order in which they are applied; deleted in the opposite one."""
_RUN_AS: Final = 65532
"""The "nonroot" user of distroless images; any number but 0 satisfies Pod Security."""


def path_of(kind: str, namespace: str, name: str) -> str:
    """The API path of one of the objects."""
    return PATHS[kind].format(namespace=namespace, name=name)


def selector_of(name: str) -> dict[str, str]:
    """Labels that pick the pods of one workload; a Deployment's selector can never change."""
    return {"app.kubernetes.io/instance": name, "app.kubernetes.io/part-of": "beamline"}


def manifests(request: DeploymentRequest, start_config: str | None = None) -> list[dict[str, Any]]:
    """All objects of a workload, in the order in which they are applied.

    ``start_config`` replaces the value of ``BEAMLINE_CONFIG``: what the running pods started with.
    """
    return [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            **_meta(request),
            "automountServiceAccountToken": False,
        },
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            **_meta(request),
            "spec": _network(request),
        },
        {"apiVersion": "v1", "kind": "Service", **_meta(request), "spec": _service(request)},
        _deployment(request, start_config),
    ]


def pod_hash(request: DeploymentRequest) -> str:
    """16 hex digits over the pods without their start configuration: a change here rolls them."""
    bare = {name: value for name, value in request.env.items() if name != CONFIG_VARIABLE}
    document = [_pod_spec(request, bare), dict(request.labels)]
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


def _meta(request: DeploymentRequest, annotations: Mapping[str, str] | None = None) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "name": request.name,
        "namespace": request.namespace,
        "labels": dict(request.labels),
    }
    if annotations:
        metadata["annotations"] = dict(annotations)
    if request.owner_uid:
        metadata["ownerReferences"] = [
            {
                "apiVersion": API_VERSION,
                "kind": "Extension",
                "name": request.name,
                "uid": request.owner_uid,
                "controller": True,
                "blockOwnerDeletion": False,
            }
        ]
    return {"metadata": metadata}


def _network(request: DeploymentRequest) -> dict[str, Any]:
    nats_ports = sorted(
        {_port(url) for url in request.env.get("NATS_URL", "").split(",") if url.strip()} or {4222}
    )
    return {
        "podSelector": {"matchLabels": selector_of(request.name)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"ports": [{"protocol": "TCP", "port": METRICS_PORT}]}],
        "egress": [
            {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]},
            {"ports": [{"protocol": "TCP", "port": port} for port in nats_ports]},
            {"ports": [{"protocol": "TCP", "port": 443}]},
        ],
    }


def _port(url: str) -> int:
    try:
        return urlsplit(url.strip()).port or 4222
    except ValueError:
        return 4222


def _service(request: DeploymentRequest) -> dict[str, Any]:
    return {
        "type": "ClusterIP",
        "selector": selector_of(request.name),
        "ports": [{"name": "metrics", "protocol": "TCP", "port": METRICS_PORT, "targetPort": "metrics"}],
    }


def _deployment(request: DeploymentRequest, start_config: str | None) -> dict[str, Any]:
    env = dict(request.env)
    if start_config is not None:
        env[CONFIG_VARIABLE] = start_config
    pods = pod_hash(request)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        **_meta(request, {HASH_ANNOTATION: request.hash, POD_HASH_ANNOTATION: pods}),
        "spec": {
            "replicas": request.replicas,
            "revisionHistoryLimit": 5,
            "progressDeadlineSeconds": 300,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "selector": {"matchLabels": selector_of(request.name)},
            "template": {
                "metadata": {
                    "labels": {**request.labels, **selector_of(request.name)},
                    "annotations": {POD_HASH_ANNOTATION: pods},
                },
                "spec": _pod_spec(request, env),
            },
        },
    }


def _pod_spec(request: DeploymentRequest, env: Mapping[str, str]) -> dict[str, Any]:
    workload = request.workload
    spec: dict[str, Any] = {
        "serviceAccountName": request.name,
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
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}],
    }
    if workload.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": secret.name} for secret in workload.image_pull_secrets]
    return spec


def _container(request: DeploymentRequest, env: Mapping[str, str]) -> dict[str, Any]:
    workload = request.workload
    own = [entry.to_manifest() for entry in workload.env]
    overridden = {entry["name"] for entry in own}
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
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 -- a path inside the container
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
