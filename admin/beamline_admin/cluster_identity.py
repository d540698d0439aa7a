"""Tokens of a cluster: the API server says whose they are (TokenReview) and what they may
(SubjectAccessReview).

Roles and tenants are ordinary RBAC, on two resources of our group that exist for this alone: who may
``use`` ``adminroles/viewer`` (``operator``, ``admin``) has that role, and who may ``use`` ``tenants``
(all, or by name) is bound to those. So ``kubectl auth can-i use adminroles/admin.beamline.io --as ada``
answers the same.

Answers are kept for :data:`CACHE_S` at most, so a right that is taken away ends within a minute; refusals
are kept shorter. A review asks for the names of tenants that policies mention, because RBAC can't be
listed.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

import structlog

from beamline_contract.names import GROUP
from beamline_sdk.deployment.kube_api import KubeApi, KubeError

from .identity import Client, Identity, Role, VerifierError

log = structlog.get_logger()

CACHE_S: Final = 60.0
REFUSAL_S: Final = 5.0
MAX_CACHED: Final = 1_024
MAX_TENANTS: Final = 64
"""Tenants that one identity is asked about."""


class ClusterVerifier:
    """:class:`.identity.Verifier` by one API server. ``tenants`` tells which tenants there are."""

    def __init__(
        self,
        api: KubeApi,
        *,
        audience: str = "",
        clock: Callable[[], float],
        tenants: Callable[[], Awaitable[Iterable[str]]],
    ) -> None:
        self._api = api
        self._audience = audience
        self._clock = clock
        self._tenants = tenants
        self._cache: OrderedDict[bytes, tuple[Identity | None, float]] = OrderedDict()

    async def verify(self, token: str, client: Client) -> Identity | None:
        """See :class:`.identity.Verifier`."""
        digest = hashlib.sha256(token.encode(errors="surrogatepass")).digest()
        known = self._cache.get(digest)
        if known is not None and self._clock() < known[1]:
            return known[0]
        began = self._clock()
        try:
            identity = await self._ask(token)
        except KubeError as error:
            log.warning("admin.review_failed", status=error.status, error=str(error)[:200])
            raise VerifierError("the cluster can't say whose token this is") from error
        self._cache[digest] = (identity, began + (REFUSAL_S if identity is None else CACHE_S))
        self._cache.move_to_end(digest)
        while len(self._cache) > MAX_CACHED:
            self._cache.popitem(last=False)
        return identity

    async def _ask(self, token: str) -> Identity | None:
        spec: dict[str, Any] = {"token": token}
        if self._audience:
            spec["audiences"] = [self._audience]
        status = await self._review("authentication.k8s.io", "TokenReview", spec)
        if status.get("authenticated") is not True or status.get("error"):
            return None
        if self._audience and self._audience not in (status.get("audiences") or ()):
            return None
        user = status.get("user") or {}
        if not user.get("username"):
            return None
        for role in reversed(Role):
            if await self._may(user, "adminroles", role.value):
                return Identity(str(user["username"])[:253], role, tenants=await self._bound_to(user))
        return None

    async def _bound_to(self, user: Mapping[str, Any]) -> frozenset[str] | None:
        if await self._may(user, "tenants", ""):
            return None
        names = sorted(set(await self._tenants()))[:MAX_TENANTS]
        allowed = await asyncio.gather(*(self._may(user, "tenants", name) for name in names))
        return frozenset(name for name, may in zip(names, allowed, strict=True) if may)

    async def _may(self, user: Mapping[str, Any], resource: str, name: str) -> bool:
        attributes = {"group": GROUP, "resource": resource, "verb": "use"} | ({"name": name} if name else {})
        spec: dict[str, Any] = {"user": user["username"], "resourceAttributes": attributes}
        for field in ("groups", "uid", "extra"):
            if user.get(field):
                spec[field] = user[field]
        status = await self._review("authorization.k8s.io", "SubjectAccessReview", spec)
        return status.get("allowed") is True and not status.get("denied")

    async def _review(self, group: str, kind: str, spec: Mapping[str, Any]) -> dict[str, Any]:
        path = f"/apis/{group}/v1/{kind.lower()}s"
        body = {"apiVersion": f"{group}/v1", "kind": kind, "spec": spec}
        answer = await self._api.request("POST", path, body=body)
        found = answer.get("status")
        return found if isinstance(found, dict) else {}
