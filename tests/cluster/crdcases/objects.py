"""Objects that set every field their schema has: what the tables of wrong objects are made from."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

_BREAKER: dict[str, Any] = {
    "failureThreshold": 3,
    "monitoringPeriodMs": 10_000,
    "minFailureRatio": 0.25,
    "recoveryTimeoutMs": 1_000,
    "maxRecoveryTimeoutMs": 60_000,
    "halfOpenSuccesses": 2,
    "slowCall": {"ratio": 0.5, "minCalls": 20, "thresholdRatio": 0.9},
}

_EXTENSION: dict[str, Any] = {
    "apiVersion": "beamline.io/v1alpha1",
    "kind": "Extension",
    "metadata": {"name": "full", "labels": {"team": "red"}, "annotations": {"note": "x"}},
    "spec": {
        "type": "pre",
        "subject": "acme.pre.full.v1",
        "timeoutMs": 250,
        "retry": 2,
        "retryOnTimeout": True,
        "enabled": True,
        "suspend": False,
        "failureMode": "fallback",
        "fallbackRef": {"name": "other", "namespace": "shared"},
        "config": {"nested": {"list": [1, None, {"deep": True}]}, "nothing": None},
        "configSchema": {"type": "object"},
        "metadata": {"owner": "team-red"},
        "circuitBreaker": _BREAKER,
        "concurrency": 8,
        "retryBudget": {"tokens": 20, "refill": 0.25, "threshold": 4},
        "version": "v2",
        "versionOf": "fuller",
        "stickyKey": "header:x-user",
        "canary": {
            "steps": [{"weight": 5, "pauseSeconds": 300}, {"weight": 50, "pauseSeconds": 0}],
            "gates": {"maxErrorRate": 0.01, "maxLatencyMs": 900, "minSamples": 50},
        },
        "weight": 10,
        "allowedNamespaces": ["team-a", "team-b"],
        "deletionPolicy": "Retain",
        "workload": {
            "image": "ghcr.io/acme/full:1.0",
            "imagePullPolicy": "IfNotPresent",
            "imagePullSecrets": [{"name": "registry", "optional": False}],
            "command": ["full"],
            "args": ["--fast"],
            "replicas": 2,
            "env": [
                {"name": "MODE", "value": "fast"},
                {
                    "name": "API_KEY",
                    "valueFrom": {"secretKeyRef": {"name": "keys", "key": "api-key", "optional": False}},
                },
                {
                    "name": "REGION",
                    "valueFrom": {"configMapKeyRef": {"name": "where", "key": "region", "optional": True}},
                },
                {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            ],
            "envFrom": [
                {"prefix": "A_", "secretRef": {"name": "more", "optional": True}},
                {"configMapRef": {"name": "settings", "optional": True}},
            ],
            "resources": {
                "requests": {"cpu": 1, "memory": "64Mi", "ephemeral-storage": "1G"},
                "limits": {"cpu": "1.5", "memory": "1e9", "ephemeral-storage": "2Gi"},
            },
            "probes": {"enabled": True, "livenessPath": "/live", "readinessPath": "/ready", "port": 8080},
            "autoscaling": {
                "minReplicas": 2,
                "maxReplicas": 5,
                "cpuPercent": 60,
                "memoryPercent": 70,
                "scaleDownStabilizationSeconds": 60,
            },
            "disruption": {"maxUnavailable": "50%"},
            "volumes": [
                {
                    "name": "prompts",
                    "mountPath": "/etc/prompts",
                    "configMap": {"name": "prompts", "optional": True},
                },
                {"name": "keys", "mountPath": "/etc/keys", "secret": {"name": "keys", "optional": False}},
                {
                    "name": "scratch",
                    "mountPath": "/var/scratch",
                    "emptyDir": {"sizeLimit": "1Gi", "medium": "Memory"},
                },
            ],
            "nodeSelector": {"kubernetes.io/arch": "amd64"},
            "tolerations": [
                {
                    "key": "gpu",
                    "operator": "Equal",
                    "value": "yes",
                    "effect": "NoExecute",
                    "tolerationSeconds": 60,
                },
                {"operator": "Exists"},
            ],
            "affinity": {
                "nodes": [{"key": "zone", "operator": "In", "values": ["a", "b"]}],
                "apart": {"topologyKey": "kubernetes.io/hostname", "required": True},
            },
            "topologySpread": [
                {
                    "topologyKey": "topology.kubernetes.io/zone",
                    "maxSkew": 2,
                    "whenUnsatisfiable": "DoNotSchedule",
                }
            ],
            "priorityClassName": "important",
            "serviceAccountName": "own-account",
            "updateStrategy": {"type": "RollingUpdate", "maxUnavailable": 1, "maxSurge": "25%"},
            "revisionHistoryLimit": 3,
            "progressDeadlineSeconds": 120,
            "rollback": "auto",
            "podLabels": {"team": "red"},
            "podAnnotations": {"example.com/note": "anything at all"},
        },
    },
}

_POLICY: dict[str, Any] = {
    "apiVersion": "beamline.io/v1alpha1",
    "kind": "RoutingPolicy",
    "metadata": {"name": "full"},
    "spec": {
        "match": {
            "tenants": ["acme"],
            "environments": ["prod"],
            "models": ["gpt-4*"],
            "headers": {"x-team": "red"},
            "percent": 50,
        },
        "priority": 7,
        "deadlineMs": 5_000,
        "retryBudget": {"tokens": 20, "refill": 0.25, "threshold": 4},
        "suspend": False,
        "steps": [
            {
                "action": "extension_pre",
                "name": "normalise",
                "extensionRef": {"name": "normalize-text", "namespace": "shared"},
                "config": {"lowercase": False},
                "timeoutMs": 100,
                "retry": 0,
                "retryOnTimeout": False,
                "failureMode": "fallback",
                "fallbackRef": {"name": "other", "namespace": "shared"},
                "mode": "shadow",
                "overlap": False,
                "circuitBreaker": _BREAKER,
                "concurrency": 16,
                "retryBudget": {"tokens": 20, "refill": 0.25, "threshold": 4},
            },
            {"action": "extension_validator", "extensionRef": {"name": "pii-guard"}, "group": "checks"},
            {
                "action": "select_provider",
                "strategy": "score",
                "stickyKey": "header:x-user",
                "score": {"quality": 2, "cost": 0.5, "latency": 0},
                "providers": [
                    {"extensionRef": {"name": "openai-gpt4", "namespace": "shared"}, "weight": 90},
                    {"extensionRef": {"name": "anthropic-claude"}, "weight": 0},
                ],
                "fallback": [{"extensionRef": {"name": "mock-provider", "namespace": "shared"}}],
                "canary": {
                    "extensionRef": {"name": "openai-gpt5", "namespace": "shared"},
                    "percent": 5,
                    "stickyKey": "tenant",
                },
            },
            {"action": "extension_post", "extensionRef": {"name": "mask-sensitive-data"}},
        ],
        "fallback": [{"extensionRef": {"name": "mock-provider", "namespace": "shared"}}],
    },
}

_SMALL: dict[str, dict[str, Any]] = {
    "Extension": {"type": "provider"},
    "RoutingPolicy": {
        "steps": [{"action": "select_provider", "providers": [{"extensionRef": {"name": "mock-provider"}}]}]
    },
}


def full(kind: str) -> dict[str, Any]:
    """A valid object with every field set."""
    return deepcopy(_EXTENSION if kind == "Extension" else _POLICY)


def small(kind: str, **spec: Any) -> dict[str, Any]:
    """A valid object with nothing but what is required, and ``spec`` laid over it."""
    document = {"apiVersion": "beamline.io/v1alpha1", "kind": kind, "metadata": {"name": "small"}}
    return {**document, "spec": {**deepcopy(_SMALL[kind]), **spec}}
