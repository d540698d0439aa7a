"""What the API server of the tests writes down: each answer about Secrets and ConfigMaps to an account.

The operator has no right to either as it comes, and asks for metadata alone where it has one. The log holds
the kind of each answer, so one look at the end of a run tells whether any operator of any test was ever given
more. A watch has no single answer: what it asks for is recorded in front of the API server
(``test_operator_secrets.py``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

LOG, POLICY = "audit.log", "audit-policy.yaml"
_INPUTS = [{"group": "", "resources": ["secrets", "configmaps"]}]
_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
        {"level": "RequestResponse", "userGroups": ["system:serviceaccounts"], "resources": _INPUTS},
        {"level": "None"},
    ],
}


def arguments(folder: Path) -> list[str]:
    """Writes the policy; what the API server is started with."""
    (folder / POLICY).write_text(yaml.safe_dump(_POLICY))
    return [f"--audit-policy-file={folder / POLICY}", f"--audit-log-path={folder / LOG}"]


def answers(folder: Path) -> Iterator[dict[str, Any]]:
    """The entries so far."""
    log = folder / LOG
    if log.exists():
        yield from (json.loads(line) for line in log.read_text().splitlines() if line.endswith("}"))


def more_than_metadata(folder: Path) -> list[str]:
    """The requests that were answered with a Secret's or a ConfigMap's content."""
    return [
        f"{entry['user']['username']}: {entry['verb']} {entry['requestURI']}"
        for entry in answers(folder)
        if entry.get("responseObject", {}).get("kind", "Status")
        not in {"Status", "PartialObjectMetadata", "PartialObjectMetadataList"}
    ]
