"""Objects that can't go because our finalizer holds them, and how they are let go without an operator.

The operator takes its finalizer off once the registry is clean. Without an operator nobody does, and a
deleted object, or its whole namespace, stays for good. A row that stays behind in the registry is removed by
the orphan sweep of the next operator.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from beamline_contract.names import FINALIZER, GROUP, VERSION
from beamline_contract.objects import KINDS, PLURAL
from beamline_sdk.deployment.kube_api import MERGE, KubeApi, KubeError

STUCK_AFTER: Final = timedelta(seconds=60)
"""An operator needs seconds; a deletion that is older than this hangs."""
_QUIET_LOOKS: Final = 2
_MAX_LOOKS: Final = 24
_CONFLICT: Final = 409


async def held(api: KubeApi, namespaces: Sequence[str]) -> AsyncIterator[dict[str, Any]]:
    """Every object with our finalizer, with its ``kind``. Raises ``KubeError``; no CRDs are no objects."""
    for kind in KINDS:
        for namespace in namespaces or ("",):
            root = f"/apis/{GROUP}/{VERSION}"
            path = f"{root}/namespaces/{namespace}/{PLURAL[kind]}" if namespace else f"{root}/{PLURAL[kind]}"
            try:
                async for item in api.items(path):
                    if FINALIZER in (item["metadata"].get("finalizers") or ()):
                        yield {**item, "kind": kind}
            except KubeError as error:
                if error.status != 404:
                    raise


async def stuck(api: KubeApi, namespaces: Sequence[str], now: datetime) -> list[str]:
    """``Kind namespace/name`` of what has been on its way out for too long. Raises ``KubeError``."""
    return [name_of(item) async for item in held(api, namespaces) if _since(item, now) > STUCK_AFTER]


async def release(api: KubeApi, namespaces: Sequence[str], *, everything: bool) -> list[str]:
    """Takes our finalizer off what is being deleted, with ``everything`` off every object. Returns their
    names. Raises ``KubeError``.
    """
    released = []
    items = [item async for item in held(api, namespaces)]
    for item in items:
        meta = item["metadata"]
        if not everything and not meta.get("deletionTimestamp"):
            continue
        path = f"/apis/{GROUP}/{VERSION}/namespaces/{meta['namespace']}/{PLURAL[item['kind']]}/{meta['name']}"
        others = [name for name in meta["finalizers"] if name != FINALIZER]
        body = {"metadata": {"finalizers": others, "resourceVersion": meta["resourceVersion"]}}
        try:
            await api.request("PATCH", path, body=body, content_type=MERGE)
        except KubeError as error:
            if error.status not in {404, _CONFLICT}:
                raise
            continue  # gone, or changed meanwhile: the next look sees it
        released.append(name_of(item))
    return released


async def release_for_good(api: KubeApi, namespaces: Sequence[str], *, pause_s: float = 3.0) -> list[str]:
    """Takes our finalizer off every object until nobody puts it back: an operator that is being stopped may
    still be at work. Raises ``KubeError``, and ``TimeoutError`` where it never ends.
    """
    released: list[str] = []
    quiet = 0
    for _ in range(_MAX_LOOKS):
        found = await release(api, namespaces, everything=True)
        released += found
        quiet = 0 if found else quiet + 1
        if quiet >= _QUIET_LOOKS:
            return sorted(set(released))
        await asyncio.sleep(pause_s)
    raise TimeoutError("somebody puts the finalizer back: is an operator still running?")


async def stop_operator(api: KubeApi, deployment: str) -> None:
    """Scales ``NAMESPACE/NAME`` to zero; one that is gone is fine. Raises ``KubeError``."""
    namespace, _, name = deployment.partition("/")
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"
    try:
        await api.request("PATCH", path, body={"spec": {"replicas": 0}}, content_type=MERGE)
    except KubeError as error:
        if error.status != 404:
            raise


async def forget_lease(api: KubeApi, deployment: str) -> None:
    """Deletes the Lease of a stopped operator, which bears its Deployment's name. One that is gone is fine,
    and so is a release whose hook may not do it: then the Lease stays. Raises ``KubeError`` for all else.
    """
    namespace, _, name = deployment.partition("/")
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}"
    try:
        await api.request("DELETE", path)
    except KubeError as error:
        if error.status not in {403, 404}:
            raise


def name_of(item: dict[str, Any]) -> str:
    """``Kind namespace/name``."""
    return f"{item['kind']} {item['metadata']['namespace']}/{item['metadata']['name']}"


def _since(item: dict[str, Any], now: datetime) -> timedelta:
    stamp = item["metadata"].get("deletionTimestamp")
    return now - datetime.fromisoformat(stamp) if stamp else timedelta()
