"""What the operator may do: the one list of rights, each with its reason.

The preflight asks the API server for exactly these, the chart's roles and the table in docs/deployment.md
hold exactly these (tests compare), and the cluster suite runs an operator under an account with nothing else.
``python -m beamline_operator.rbac`` prints the rules as they stand in a Role, with those of the Lease.

No verb and no resource is ``*``. There is no ``escalate``, ``bind`` or ``impersonate``. Secrets and
ConfigMaps are in :data:`INPUTS` alone, which a cluster grants where rotated ones are to roll workloads.
Kubernetes knows no right to metadata only, so whoever grants it trusts the operator to ask for no more
(:mod:`.edges.inputs`).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, Final

import yaml

from beamline_contract.names import GROUP


@dataclass(frozen=True, slots=True)
class Right:
    """Verbs on resources of one API group, and why."""

    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    why: str

    def to_rule(self) -> dict[str, Any]:
        """As it stands in a Role."""
        return {"apiGroups": [self.group], "resources": list(self.resources), "verbs": list(self.verbs)}


DEFAULT_LEASE: Final = "beamline-operator"
_OWNED: Final = ("get", "list", "watch", "create", "patch", "delete")

RIGHTS: Final = (
    Right(
        GROUP,
        ("extensions", "routingpolicies"),
        ("get", "list", "watch", "patch"),
        "Reading desired state; `patch` only for the finalizer",
    ),
    Right(GROUP, ("extensions/status", "routingpolicies/status"), ("patch",), "Writing status"),
    Right("apps", ("deployments",), _OWNED, "Workloads, by server-side apply, which needs `create` too"),
    Right(
        "",
        ("serviceaccounts", "services"),
        _OWNED,
        "A workload's account without token, and its metrics Service",
    ),
    Right("networking.k8s.io", ("networkpolicies",), _OWNED, "A workload's network policy"),
    Right(
        "policy", ("poddisruptionbudgets",), _OWNED, "A workload's disruption budget, where it asks for one"
    ),
    Right(
        "autoscaling", ("horizontalpodautoscalers",), _OWNED, "A workload's autoscaler, where it asks for one"
    ),
    Right("", ("pods",), ("list",), "Why a rollout does not get on"),
    Right(
        "coordination.k8s.io", ("leases",), ("list",), "Whether another operator serves the same namespaces"
    ),
    Right(
        "events.k8s.io",
        ("events",),
        ("get", "list", "create", "patch"),
        "Events of transitions; a repeat counts up the one that is there. `list`: which Secret or ConfigMap "
        "a volume waits for",
    ),
)
"""In each namespace that it serves."""

INPUTS: Final = (
    Right(
        "",
        ("secrets", "configmaps"),
        ("list", "watch"),
        "Metadata of those labelled `beamline.io/roll`, so that a rotation rolls the pods",
    ),
)
"""Optional: without it rotated Secrets and ConfigMaps roll nothing."""


def rules() -> list[dict[str, Any]]:
    """The rules of a Role in a namespace that is served."""
    return [right.to_rule() for right in RIGHTS]


def lease_rules(name: str) -> list[dict[str, Any]]:
    """The rules of the Role in the namespace of the Lease ``name``."""
    lease = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"]}
    return [{**lease, "verbs": ["create"]}, {**lease, "resourceNames": [name], "verbs": ["get", "update"]}]


def main() -> None:
    """Prints the rules."""
    sys.stdout.write(yaml.safe_dump(rules() + lease_rules(DEFAULT_LEASE), sort_keys=False))


if __name__ == "__main__":
    main()
