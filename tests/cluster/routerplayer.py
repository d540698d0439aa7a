"""Plays routers: what they report over NATS, as the operator hears it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg

from beamline_contract.names import SUBJECT_ROUTER_HEALTH, SUBJECT_ROUTER_PROBE, SUBJECT_ROUTER_STATUS
from beamline_contract.reports import HealthDelta, RouterHealth, RouterStatus

NEWEST = 1_000_000
"""A revision above every one that a test writes."""


class RouterPlayer:
    """Routers ``r1``, ``r2`` and so on; each serves the newest revision unless it is told otherwise.

    Inside ``async with`` it is connected, the last status of each is repeated and probes are answered, as
    routers do; :meth:`silent` ends that. Its connection ends with the block, however that ends.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._nc = Client()
        self._sequences: dict[str, int] = {}
        self._last: dict[str, RouterStatus] = {}
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> RouterPlayer:
        await self._nc.connect(self._url)
        self._task = asyncio.create_task(self._repeat())
        await self._nc.subscribe(SUBJECT_ROUTER_PROBE, cb=self._probed)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        try:
            with suppress(asyncio.CancelledError):
                await self._task
        finally:
            await self._nc.close()

    def silent(self, instance: str) -> None:
        """This one reports no more, without a word."""
        self._last.pop(instance, None)

    async def _repeat(self) -> None:
        while True:
            await asyncio.sleep(2)
            await self._report_all()

    async def _probed(self, _: Msg) -> None:
        await self._report_all()

    async def _report_all(self) -> None:
        for report in list(self._last.values()):
            await self._nc.publish(SUBJECT_ROUTER_STATUS, report.model_dump_json().encode())

    async def status(self, instance: str = "r1", *, revision: int = NEWEST, **fields: Any) -> None:
        report = RouterStatus(
            instance=instance, revision=revision, started_at="2030-01-01T00:00:00Z", **fields
        )
        self._last[instance] = report
        if report.leaving:
            self.silent(instance)
        await self._publish(SUBJECT_ROUTER_STATUS, report.model_dump_json())

    async def health(self, extension_id: str, instance: str = "r1", **fields: Any) -> None:
        sequence = self._sequences[instance] = self._sequences.get(instance, 0) + 1
        delta = HealthDelta(extension_id=extension_id, **fields)
        report = RouterHealth(instance=instance, sequence=sequence, deltas=[delta])
        await self._publish(SUBJECT_ROUTER_HEALTH, report.model_dump_json())

    async def _publish(self, subject: str, document: str) -> None:
        await self._nc.publish(subject, document.encode())
        await self._nc.flush()
