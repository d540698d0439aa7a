"""What the router tells the operator over NATS: what it serves (status), and how calls went (health).

Both are observations and may be lost: status is repeated every few seconds and after every swap, and health
is taken out of the next report only once a report has been handed to a live connection. A probe (an
operator that has just become leader, or that had given this router up) is answered with a status and every
breaker that is not closed, at once. The last status says ``leaving``,
so that nobody waits for a router that has gone. A server that carries less than NATS' default gets shorter
lists in a status, and health in more messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import orjson
import structlog
from nats import errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from pydantic import BaseModel

from beamline_contract.names import (
    SUBJECT_REGISTRY_CHANGED,
    SUBJECT_ROUTER_HEALTH,
    SUBJECT_ROUTER_PROBE,
    SUBJECT_ROUTER_STATUS,
)
from beamline_contract.reports import HEALTH_INTERVAL_S, STATUS_INTERVAL_S, RouterHealth, RouterStatus

from .refresh import Refresher
from .telemetry import Telemetry

log = structlog.get_logger()

_MAX_LISTED: Final = 1000
_MAX_DELTAS: Final = 500  # per message, so that it stays far below NATS' limit


class Reporter:
    """Publishes for one router. ``instance`` is unique per process start, ``started_at`` RFC 3339."""

    def __init__(
        self,
        refresher: Refresher,
        telemetry: Telemetry,
        *,
        instance: str,
        started_at: str,
        status_s: float = STATUS_INTERVAL_S,
        health_s: float = HEALTH_INTERVAL_S,
    ) -> None:
        self._refresher = refresher
        self._telemetry = telemetry
        self._instance = instance
        self._started_at = started_at
        self._status_s = status_s
        self._health_s = health_s
        self._nc: Client | None = None
        self._sequence = 0
        self.subscriptions: list[Subscription] = []

    async def open(self, nc: Client) -> None:
        """Listens for hints and probes, and reports for the first time."""
        self._nc = nc
        self.subscriptions = [
            await nc.subscribe(SUBJECT_REGISTRY_CHANGED, cb=self._hinted),
            await nc.subscribe(SUBJECT_ROUTER_PROBE, cb=self._probed),
        ]
        await self.status()

    async def run(self) -> None:
        """Reports at its intervals until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(_every(self._status_s, self.status))
            group.create_task(_every(self._health_s, self.health))

    async def status(self, *, leaving: bool = False) -> None:
        """Publishes what this router serves; nothing before its first table."""
        snapshot, nc = self._refresher.snapshot, self._nc
        if snapshot is None or nc is None:
            return
        listed = _MAX_LISTED
        while True:
            body = _json(
                RouterStatus(
                    instance=self._instance,
                    revision=snapshot.revision,
                    started_at=self._started_at,
                    refused=list(self._refresher.refused[:listed]),
                    notices=list(self._refresher.notices[:listed]),
                    extensions=snapshot.extensions,
                    policies=snapshot.policies,
                    leaving=leaving,
                )
            )
            if len(body) <= nc.max_payload or not listed:
                break
            listed //= 2
        await self._publish(SUBJECT_ROUTER_STATUS, body)

    async def health(self) -> None:
        """Publishes what changed since the last report; nothing where nothing did."""
        deltas, nc, most = self._telemetry.health(), self._nc, _MAX_DELTAS
        while deltas and nc is not None:
            part = deltas[:most]
            body = _json(RouterHealth(instance=self._instance, sequence=self._sequence + 1, deltas=part))
            if len(body) > nc.max_payload and most > 1:
                most //= 2
                continue
            if not await self._publish(SUBJECT_ROUTER_HEALTH, body):
                return
            self._sequence += 1
            self._telemetry.forget(part)
            deltas = deltas[most:]

    async def _publish(self, subject: str, body: bytes) -> bool:
        if self._nc is None or not self._nc.is_connected:
            return False
        try:
            await self._nc.publish(subject, body)
        except errors.Error as error:
            log.debug("report.not_sent", subject=subject, error=type(error).__name__)
            return False
        return True

    async def _hinted(self, message: Msg) -> None:
        with suppress(orjson.JSONDecodeError, TypeError, KeyError):
            revision = orjson.loads(message.data)["revision"]
            if isinstance(revision, int):
                self._refresher.hint(revision)

    async def _probed(self, message: Msg) -> None:
        """Somebody knows nothing of the routers, or of the one that the message names."""
        with suppress(orjson.JSONDecodeError, AttributeError):
            if orjson.loads(message.data).get("instance", self._instance) != self._instance:
                return
        await self.status()
        self._telemetry.restate()
        await self.health()


def _json(message: BaseModel) -> bytes:
    return message.model_dump_json(exclude_none=True).encode()


async def _every(seconds: float, act: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        await act()
