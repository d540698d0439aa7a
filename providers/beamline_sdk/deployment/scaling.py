"""How many pods a workload has, where that is no plain number: autoscaler and disruption budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .port import DeploymentRequest


def autoscaler(request: DeploymentRequest) -> dict[str, Any] | None:
    """The spec of the HorizontalPodAutoscaler; None where none is asked for, or the workload is at zero."""
    asked = request.workload.autoscaling
    if asked is None or request.replicas == 0:
        return None
    targets = [("cpu", asked.cpu_percent), ("memory", asked.memory_percent)]
    return {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": request.name},
        "minReplicas": asked.min_replicas,
        "maxReplicas": asked.max_replicas,
        "metrics": [
            {
                "type": "Resource",
                "resource": {
                    "name": name,
                    "target": {"type": "Utilization", "averageUtilization": percent},
                },
            }
            for name, percent in targets
            if percent is not None
        ],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": asked.scale_down_stabilization_seconds}},
    }


def disruption_budget(request: DeploymentRequest, selector: Mapping[str, str]) -> dict[str, Any] | None:
    """The spec of the PodDisruptionBudget; None where none is asked for."""
    asked = request.workload.disruption
    if asked is None:
        return None
    share: dict[str, Any] = {"maxUnavailable": 1 if asked.max_unavailable is None else asked.max_unavailable}
    if asked.min_available is not None:
        share = {"minAvailable": asked.min_available}
    return {
        "selector": {"matchLabels": dict(selector)},
        **share,
        # A pod that never becomes ready must not keep a node from being drained.
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
