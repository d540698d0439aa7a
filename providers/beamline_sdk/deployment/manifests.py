"""What a workload looks like in a cluster: pure functions from a request to Kubernetes objects.

Everything obeys Pod Security "restricted". Pods get no ServiceAccount token. The network policy lets in only
what scrapes or probes the metrics port, and lets out DNS, NATS (its ports) and HTTPS, because providers call
upstreams on the internet; who wants it narrower adds a policy of their own (policies add up, so a stricter
one needs the workload's labels in a default-deny namespace).
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final
from urllib.parse import urlsplit

from beamline_contract.names import API_VERSION, GROUP

from .ownership import RETAINED_ANNOTATION
from .pod_spec import METRICS_PORT, pod_metadata, pod_spec
from .port import DeploymentRequest
from .scaling import autoscaler, disruption_budget

CONFIG_VARIABLE: Final = "BEAMLINE_CONFIG"
HASH_ANNOTATION: Final = f"{GROUP}/workload-hash"
POD_HASH_ANNOTATION: Final = f"{GROUP}/pod-hash"
PATHS: Final[dict[str, str]] = {
    "ServiceAccount": "/api/v1/namespaces/{namespace}/serviceaccounts/{name}",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies/{name}",
    "Service": "/api/v1/namespaces/{namespace}/services/{name}",
    "Deployment": "/apis/apps/v1/namespaces/{namespace}/deployments/{name}",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets/{name}",
    "HorizontalPodAutoscaler": "/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers/{name}",
}
"""In the order in which they are applied; deleted in the opposite one."""
OPTIONAL: Final = frozenset({"ServiceAccount", "PodDisruptionBudget", "HorizontalPodAutoscaler"})
"""Kinds that a workload may do without: one that is no longer wanted is deleted."""
API_VERSIONS: Final[dict[str, str]] = {
    kind: path.removeprefix("/apis/").removeprefix("/api/").partition("/namespaces/")[0]
    for kind, path in PATHS.items()
}


def path_of(kind: str, namespace: str, name: str) -> str:
    """The API path of one of the objects."""
    return PATHS[kind].format(namespace=namespace, name=name)


def resource_of(kind: str) -> tuple[str, str, str]:
    """(group, version, plural) of one of the kinds; the group of the core is empty."""
    group, _, version = API_VERSIONS[kind].rpartition("/")
    return group, version, PATHS[kind].rsplit("/", 2)[1]


def collection_of(kind: str, namespace: str = "") -> str:
    """The API path of all objects of a kind, of one namespace or of all."""
    whole = PATHS[kind].removesuffix("/{name}")
    return whole.format(namespace=namespace) if namespace else whole.replace("/namespaces/{namespace}", "")


def selector_of(name: str) -> dict[str, str]:
    """Labels that pick the pods of one workload; a Deployment's selector can never change."""
    return {"app.kubernetes.io/instance": name, "app.kubernetes.io/part-of": "beamline"}


def manifests(request: DeploymentRequest, start_config: str | None = None) -> list[dict[str, Any]]:
    """All objects of a workload, in the order in which they are applied.

    ``start_config`` replaces the value of ``BEAMLINE_CONFIG``: what the running pods started with.
    """
    bodies: dict[str, dict[str, Any] | None] = {
        "ServiceAccount": {"automountServiceAccountToken": False},
        "NetworkPolicy": {"spec": _network(request)},
        "Service": {"spec": _service(request)},
        "Deployment": {"spec": _deployment(request, start_config)},
        "PodDisruptionBudget": _spec(disruption_budget(request, selector_of(request.name))),
        "HorizontalPodAutoscaler": _spec(autoscaler(request)),
    }
    if request.workload.service_account_name is not None:
        bodies["ServiceAccount"] = None
    return [
        {"apiVersion": API_VERSIONS[kind], "kind": kind, **_meta(request, kind), **body}
        for kind in PATHS
        if (body := bodies[kind]) is not None
    ]


def _spec(spec: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if spec is None else {"spec": spec}


def pod_hash(request: DeploymentRequest) -> str:
    """16 hex digits over the pods without their start configuration: a change here rolls them."""
    bare = {name: value for name, value in request.env.items() if name != CONFIG_VARIABLE}
    document = [pod_spec(request, bare, selector_of(request.name)), pod_metadata(request)]
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


def _meta(request: DeploymentRequest, kind: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "name": request.name,
        "namespace": request.namespace,
        "labels": dict(request.labels),
    }
    if kind == "Deployment":
        metadata["annotations"] = {HASH_ANNOTATION: request.hash, POD_HASH_ANNOTATION: pod_hash(request)}
    if not request.owner_uid:
        metadata["annotations"] = {**metadata.get("annotations", {}), RETAINED_ANNOTATION: "true"}
    else:
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
    workload = request.workload
    selector = selector_of(request.name)
    template = pod_metadata(request)
    spec: dict[str, Any] = {
        "revisionHistoryLimit": workload.revision_history_limit,
        "progressDeadlineSeconds": workload.progress_deadline_seconds,
        "strategy": _strategy(request),
        "selector": {"matchLabels": selector},
        "template": {
            "metadata": {
                "labels": {**template["labels"], **selector},
                "annotations": {**template["annotations"], POD_HASH_ANNOTATION: pod_hash(request)},
            },
            "spec": pod_spec(request, env, selector),
        },
    }
    if workload.autoscaling is None or request.replicas == 0:
        spec["replicas"] = request.replicas
    return spec


def _strategy(request: DeploymentRequest) -> dict[str, Any]:
    chosen = request.workload.update_strategy
    if chosen.type == "Recreate":
        return {"type": "Recreate"}
    unavailable = 0 if chosen.max_unavailable is None else chosen.max_unavailable
    surge = 1 if chosen.max_surge is None else chosen.max_surge
    return {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge},
    }
