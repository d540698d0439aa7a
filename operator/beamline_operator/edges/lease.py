"""Who leads: a Lease of ``coordination.k8s.io``, with client-go's rules.

A candidate takes the Lease when nobody holds it, or when it has seen no renewal for ``duration_s`` *by its
own clock* (the timestamps in the Lease are another machine's and never compared). The holder renews every
``retry_s`` and gives up leading when it could not for ``renew_s``, three seconds before anybody else may take
over. A standby looks every ``retry_s`` as well, so a leader that vanishes is replaced after the duration and
twice that, which leaves three of 15 seconds for the new term to begin. Every write carries the
resourceVersion that was read, so two candidates can't both succeed.

The Lease alone does not stop a leader that sleeps past its end and wakes up: that is what the registry's
epoch is for, and :attr:`Lease.valid`, which every write to the API server asks first. It is monotonic time
since the last renewal *was sent*, so a process that was frozen knows at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from beamline_contract.names import FIELD_MANAGER
from beamline_sdk.deployment.kube_api import KubeApi, KubeError

DURATION_S: Final = 9.0
RENEW_S: Final = 6.0
RETRY_S: Final = 1.5
LABELS: Final = {"app.kubernetes.io/part-of": "beamline", "app.kubernetes.io/component": "operator"}
SCOPE: Final = "beamline.io/scope"
"""Annotation of a Lease: the namespaces that its holder serves, with commas; empty for all. What for is in
:mod:`.rivals`.
"""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """Seconds. ``duration`` > ``renew`` > ``retry``."""

    duration: float = DURATION_S
    renew: float = RENEW_S
    retry: float = RETRY_S


class Lease:
    """One candidate for one Lease."""

    def __init__(
        self,
        api: KubeApi,
        namespace: str,
        name: str,
        identity: str,
        *,
        scope: Sequence[str] = (),
        times: LeaseTimes | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.holder: str | None = None
        self.acquired = ""
        """``acquireTime`` of the term that this candidate began last."""
        self._api = api
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._name = name
        self._namespace = namespace
        self._identity = identity
        self._scope = ",".join(scope)
        self._times = times or LeaseTimes()
        self._clock = clock
        self._renewed: float | None = None
        self._seen: tuple[str, float] | None = None
        """(resourceVersion of the Lease as last seen, when it was first seen like that)."""

    @property
    def valid(self) -> bool:
        """Whether this process leads, and may write, at this very moment."""
        return self._renewed is not None and self._clock() - self._renewed < self._times.renew

    async def acquire(self) -> None:
        """Returns when this candidate leads; waits as long as it takes."""
        while not await self._try():  # noqa: ASYNC110 -- nobody tells when a Lease in etcd runs out
            await asyncio.sleep(self._times.retry)
        _log.info("lease.acquired", lease=self._name, identity=self._identity)

    async def hold(self) -> None:
        """Renews; returns when the lease is lost."""
        while True:
            await asyncio.sleep(self._times.retry)
            if not self.valid:
                break
            if not await self._try() and self.holder not in {None, self._identity}:
                break
        self._renewed = None
        _log.warning("lease.lost", lease=self._name, identity=self._identity, holder=self.holder)

    async def release(self) -> None:
        """Lets go, so that a standby need not wait; never raises."""
        if self._renewed is None:
            return
        self._renewed = None
        try:
            current = await self._api.find(f"{self._path}/{self._name}")
            if current is None or spec_of(current).get("holderIdentity") != self._identity:
                return
            spec = {**current["spec"], "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _stamp()}
            await self._write({**current, "spec": spec}, create=False)
            _log.info("lease.released", lease=self._name)
        except KubeError as error:
            _log.info("lease.not_released", error=str(error))

    async def _try(self) -> bool:
        """One attempt to take or renew. Whether this process leads now."""
        sent = self._clock()
        try:
            current = await self._api.find(f"{self._path}/{self._name}")
            if current is None:
                metadata = self._metadata({"name": self._name, "namespace": self._namespace})
                spec = self._spec({})
                await self._write({"metadata": metadata, "spec": spec}, create=True)
            elif self._may_take(current):
                metadata, spec = self._metadata(current["metadata"]), self._spec(spec_of(current))
                await self._write({**current, "metadata": metadata, "spec": spec}, create=False)
            else:
                return False
        except KubeError as error:
            if error.status != 409:
                _log.warning("lease.unreachable", error=str(error))
            return False
        self.holder, self.acquired = self._identity, spec["acquireTime"]
        self._renewed = sent
        return True

    def _may_take(self, current: Mapping[str, Any]) -> bool:
        spec = spec_of(current)
        self.holder = str(spec.get("holderIdentity") or "") or None
        version = str(current["metadata"]["resourceVersion"])
        now = self._clock()
        if self._seen is None or self._seen[0] != version:
            self._seen = (version, now)
        if self.holder in {None, self._identity}:
            return True
        duration = float(spec.get("leaseDurationSeconds") or self._times.duration)
        return now - self._seen[1] >= duration

    def _metadata(self, found: Mapping[str, Any]) -> dict[str, Any]:
        return {
            **found,
            "labels": {**(found.get("labels") or {}), **LABELS},
            "annotations": {**(found.get("annotations") or {}), SCOPE: self._scope},
        }

    def _spec(self, old: Mapping[str, Any]) -> dict[str, Any]:
        stamp = _stamp()
        mine = old.get("holderIdentity") == self._identity
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._times.duration)),
            "renewTime": stamp,
            "acquireTime": old["acquireTime"] if mine and "acquireTime" in old else stamp,
            "leaseTransitions": int(old.get("leaseTransitions") or 0) + (0 if mine or not old else 1),
        }

    async def _write(self, lease: Mapping[str, Any], *, create: bool) -> None:
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", **lease}
        path = self._path if create else f"{self._path}/{self._name}"
        await self._api.request(
            "POST" if create else "PUT", path, body=body, params={"fieldManager": FIELD_MANAGER}
        )


def spec_of(lease: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a Lease says; nothing where somebody made it beforehand, and left its spec to its first holder."""
    return lease.get("spec") or {}


def _stamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
