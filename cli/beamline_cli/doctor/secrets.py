"""The check of providers' keys: the Secrets that Extensions name are there and hold what is asked of them.

A value is never shown and never kept: of a Secret that these credentials may read, only the names of its keys
are looked at. Kubernetes knows no right to those names alone, so where `get` is not granted the metadata of
`list` tells whether the Secret exists, and else the condition that the workload itself caused
(``CredentialsMissing``) is all there is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from beamline_sdk.deployment.kube_api import METADATA_LIST, KubeApi, KubeError

from .patient import Finding, Patient, condition, failed, first, name_of, ok, warning

_MISSING: Final = "CredentialsMissing"


async def provider_keys(patient: Patient) -> Finding:
    """Every Secret that an Extension names exists and holds the key that it names."""
    items = [item for item in await patient.objects() if item["kind"] == "Extension"]
    said = [
        name_of(item)
        for item in items
        if any(condition(item, kind).get("reason") == _MISSING for kind in ("WorkloadReady", "Ready"))
    ]
    if said:
        return failed(
            f"started without its key: {first(said)}",
            "`workload.env[].valueFrom.secretKeyRef`, or the Secret's content",
        )
    if patient.api is None:
        return ok("no extension lacks a key")
    wanted = {
        (item["metadata"]["namespace"], secret, key): name_of(item)
        for item in items
        if item["spec"].get("enabled", True)
        for secret, key in _named(item["spec"].get("workload") or {})
    }
    faults: list[str] = []
    unsure: list[str] = []
    known: dict[tuple[str, str], set[str] | bool | None] = {}
    for (namespace, secret, key), user in sorted(wanted.items()):
        if (namespace, secret) not in known:
            known[namespace, secret] = await _keys_of(patient.api, namespace, secret)
        found = known[namespace, secret]
        if found is False:
            faults.append(f"{user} names the Secret {secret}, which is not there")
        elif isinstance(found, set) and key and key not in found:
            faults.append(f"{user} names the key {key} of the Secret {secret}, which does not hold it")
        elif found is None or (found is True and key):
            unsure.append(f"{namespace}/{secret}")
    if faults:
        return failed("; ".join(faults[:5]), "`kubectl create secret generic NAME --from-literal=KEY=...`")
    if unsure:
        return warning(
            f"these credentials may not read {first(sorted(set(unsure)))}, "
            "so whether the keys are there is not known",
            "`get` on secrets, in that namespace",
        )
    return ok(f"{len(wanted)} keys are named, and all are there" if wanted else "no Extension names a Secret")


def _named(workload: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(Secret, key) that must be there; the key is empty where the whole Secret is meant."""
    for variable in workload.get("env") or ():
        ref = (variable.get("valueFrom") or {}).get("secretKeyRef")
        if ref and not ref.get("optional"):
            yield ref["name"], ref["key"]
    for source in workload.get("envFrom") or ():
        ref = source.get("secretRef")
        if ref and not ref.get("optional"):
            yield ref["name"], ""


async def _keys_of(api: KubeApi, namespace: str, name: str) -> set[str] | bool | None:
    """Names of a Secret's keys; True where it is there but they may not be seen, False where it is not, None
    where nothing may be seen. Raises ``KubeError``.
    """
    root = f"/api/v1/namespaces/{namespace}/secrets"
    try:
        found = await api.find(f"{root}/{name}")
        return False if found is None else set(found.get("data") or ())
    except KubeError as error:
        if error.status != 403:
            raise
    try:
        chosen = {"fieldSelector": f"metadata.name={name}"}
        return bool([item async for item in api.items(root, chosen, accept=METADATA_LIST)])
    except KubeError as error:
        if error.status != 403:
            raise
    return None
