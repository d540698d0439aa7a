"""The objects that Beamline made, listed from the API server: what a watch may have missed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from beamline_sdk.deployment.kube_api import KubeApi, KubeError
from beamline_sdk.deployment.kubernetes import LABEL_SELECTOR, KubernetesDeployments
from beamline_sdk.deployment.manifests import PATHS, collection_of

from ..core.ports import StoreError


async def relist_owned(
    api: KubeApi, deployments: KubernetesDeployments, namespaces: Sequence[str]
) -> set[tuple[str, str]]:
    """Reads every kind, page by page, into ``deployments``. Returns namespace and name of the workloads that
    changed unseen. Raises :class:`StoreError`.
    """
    changed: set[tuple[str, str]] = set()
    for kind in PATHS:
        found: list[Mapping[str, Any]] = []
        for namespace in namespaces or ("",):
            path = collection_of(kind, namespace)
            try:
                found += [item async for item in api.items(path, {"labelSelector": LABEL_SELECTOR})]
            except KubeError as error:
                raise StoreError(
                    f"objects of kind {kind} can't be listed: {error}", retryable=error.retryable
                ) from error
        changed |= deployments.relist(kind, found)
    return changed
