"""Another operator that serves the same namespaces under a Lease of its own, as two releases would.

Where they share a registry its epoch fences one of them off; where they don't, nothing else would ever tell:
they would overwrite each other's status and workloads for ever. So every Lease of ours says which namespaces
its holder serves, and who starts looks for others first. Of two that start in the same moment neither finds
the other's; so who leads goes on looking, and the one that leads for a shorter time gives way.

A Lease whose holder is gone looks like one that is about to be renewed, and times in it are another
machine's. So it counts as held only once it has been seen to change, within the duration that it states.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import structlog

from beamline_sdk.deployment.kube_api import KubeApi

from .lease import DURATION_S, LABELS, RETRY_S, SCOPE, spec_of

_LONGEST_S: Final = 60.0
_SELECTOR: Final = ",".join(f"{name}={value}" for name, value in LABELS.items())

_log = structlog.get_logger()


async def rival(
    api: KubeApi,
    namespaces: Sequence[str],
    own: tuple[str, str],
    *,
    since: str | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> str | None:
    """Who leads in one of ``namespaces`` (empty: all of them) under another Lease than ``own``, as "holder
    (Lease namespace/name)"; None where nobody does. ``own`` is namespace and name; ``since`` its
    ``acquireTime`` where it is held already: only who acquired before that counts then.

    Returns at once where there is no such Lease. Raises ``KubeError``.
    """
    began, seen, said = clock(), dict[str, str](), False
    while True:
        left = False
        async for lease in _others(api, namespaces, own):
            if since is not None and _term(lease) > (since, *own):
                continue
            uid, version = lease["metadata"]["uid"], lease["metadata"]["resourceVersion"]
            if seen.setdefault(uid, version) != version:
                home, name = lease["metadata"]["namespace"], lease["metadata"]["name"]
                return f"{lease['spec']['holderIdentity']} (Lease {home}/{name})"
            duration = float(lease["spec"].get("leaseDurationSeconds") or DURATION_S)
            left = left or clock() - began < min(duration, _LONGEST_S)
        if not left:
            return None
        if not said:
            _log.info("operator.looking_for_rivals", leases=len(seen))
            said = True
        await sleep(RETRY_S / 2)


def _term(lease: Mapping[str, Any]) -> tuple[str, str, str]:
    """When it began; what no two have in common decides where that is the same."""
    metadata = lease["metadata"]
    return str(lease["spec"].get("acquireTime") or ""), metadata["namespace"], metadata["name"]


async def _others(
    api: KubeApi, namespaces: Sequence[str], own: tuple[str, str]
) -> AsyncIterator[Mapping[str, Any]]:
    places = [f"/namespaces/{namespace}" for namespace in namespaces] or [""]
    for place in places:
        path = f"/apis/coordination.k8s.io/v1{place}/leases"
        async for lease in api.items(path, params={"labelSelector": _SELECTOR}):
            metadata = lease["metadata"]
            served = (metadata.get("annotations") or {}).get(SCOPE, "")
            if (metadata["namespace"], metadata["name"]) == own or not spec_of(lease).get("holderIdentity"):
                continue
            if not namespaces or not served or set(namespaces) & set(served.split(",")):
                yield lease
