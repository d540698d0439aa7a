"""An account with the admin process's rights, or with fewer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

RBAC = "/apis/rbac.authorization.k8s.io/v1"


def kubeconfig_of(
    rest: Any, cluster: Any, namespace: str, rules: Sequence[dict[str, Any]], folder: Path
) -> str:
    """A kubeconfig of a new account that may do ``rules`` in the whole cluster."""
    name = f"{namespace}-admin"

    def make(path: str, body: dict[str, Any]) -> Any:
        made = rest.request("POST", path, body)
        assert made.accepted, made.message
        return made.body

    make(f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": name}})
    make(f"{RBAC}/clusterroles", {"metadata": {"name": name}, "rules": list(rules)})
    binding = {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
    }
    make(f"{RBAC}/clusterrolebindings", binding)
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
    token = make(path, {"spec": {"expirationSeconds": 3600}})["status"]["token"]
    config = yaml.safe_load(Path(cluster.kubeconfig).read_text())
    config["users"] = [{"name": "admin", "user": {"token": token}}]
    config["contexts"][0]["context"]["user"] = "admin"
    target = folder / f"{name}.yaml"
    target.write_text(yaml.safe_dump(config))
    return str(target)


def forget(rest: Any, namespace: str) -> None:
    """Removes what belongs to no namespace."""
    for kind in ("clusterrolebindings", "clusterroles"):
        rest.request("DELETE", f"{RBAC}/{kind}/{namespace}-admin")
