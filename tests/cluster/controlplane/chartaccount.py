"""The operator's account as the chart makes it, for operators that a test starts.

``BEAMLINE_TEST_ACCOUNT`` says under which rights the operators of this suite run: ``cluster-role`` (the chart
as it comes) or ``roles`` (the chart with ``operator.namespaces``, which needs no ClusterRole). Unset: as
administrator. What Helm renders is applied to the real API server, and the token is one that it gave to the
ServiceAccount; the tests' own requests stay the administrator's.

Every operator of the suite runs under it, behind a scripted API server too, but for those of
:data:`OTHER_RIGHTS`.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from .binaries import CHART_TOOLS, HELM, HOW_TO_GET_CHART_TOOLS, find_or_build

OTHER_RIGHTS = {
    "test_operator_rights.py": "grants an account what `beamline_operator.rbac` declares, or less, itself",
    "test_operator_refusals.py": "starts operators with too few rights, and on CRDs of another release",
}
"""Files whose operators do not run under the chart's account, and why."""
MODE = "BEAMLINE_TEST_ACCOUNT"
MODES = ("cluster-role", "roles")
RELEASE = "beamline"
ACCOUNT = f"{RELEASE}-operator"
CHART = Path(__file__).resolve().parents[3] / "charts" / "beamline"
_FILES = ("serviceaccounts", "rbac")
_COLLECTIONS = {
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
}


def chosen_mode() -> str | None:
    """What the environment asks for. Raises ``ValueError`` for a word that it does not know."""
    mode = os.environ.get(MODE) or None
    if mode is not None and mode not in MODES:
        raise ValueError(f"{MODE} must be one of {', '.join(MODES)}, got {mode!r}")
    return mode


def rendered(mode: str, namespaces: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What Helm makes of the chart's accounts and rights for a release in the first of ``namespaces``."""
    values: dict[str, Any] = {
        "database": {"existingSecret": "registry"},
        "nats": {"url": "nats://nats.nats.svc:4222"},
        "operator": {"namespaces": list(namespaces) if mode == "roles" else [], "rollOnRotation": True},
    }
    helm = find_or_build(CHART_TOOLS, HOW_TO_GET_CHART_TOOLS).path(HELM)
    only = [f"--show-only=templates/{name}.yaml" for name in _FILES]
    command = [helm, "template", RELEASE, str(CHART), "--namespace", namespaces[0], "--values", "-", *only]
    done = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    yield from (found for found in yaml.safe_load_all(done.stdout) if found)


def make_account(rest: Any, mode: str, namespaces: Sequence[str]) -> str:
    """Applies the chart's account, in the first of ``namespaces``, and its rights; a token of the account."""
    namespace = namespaces[0]
    for document in rendered(mode, namespaces):
        home = document["metadata"].get("namespace", namespace)
        made = rest.request("POST", _COLLECTIONS[document["kind"]].format(home), document)
        assert made.accepted or made.status == 409, made.message
    path = f"{_COLLECTIONS['ServiceAccount'].format(namespace)}/{ACCOUNT}/token"
    token = rest.request("POST", path, {"spec": {"expirationSeconds": 3600}})
    assert token.accepted, token.message
    return str(token.body["status"]["token"])


def write_kubeconfig(admin: Path, token: str, path: Path) -> Path:
    """A kubeconfig like ``admin`` for whoever has the token."""
    config = yaml.safe_load(admin.read_text())
    config["users"] = [{"name": "operator", "user": {"token": token}}]
    config["contexts"][0]["context"]["user"] = "operator"
    path.write_text(yaml.safe_dump(config))
    return path
