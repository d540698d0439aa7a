"""Measures how long work waits in front of this router, for :class:`..core.overload.Shedder`.

Two ways, whichever is longer: how late a timer of the event loop fires (what arrives over HTTP waits as
long), and how long a PING takes to NATS and back, which travels behind everything that NATS has for us on the
same connection. While little is in flight it is looked at five times a second, else fifty times.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog
from nats import errors
from nats.aio.client import Client

from ..core.overload import FLOOR, Shedder

log = structlog.get_logger()

_BUSY_S: Final = 0.02
_IDLE_S: Final = 0.2
_ROUND_TRIP_S: Final = 1
_SAY_EVERY_S: Final = 10.0


class OverloadProbe:
    """Samples until cancelled. ``in_flight``: requests being served; ``nc``: the connection, if any."""

    def __init__(
        self, shedder: Shedder, in_flight: Callable[[], int], nc: Callable[[], Client | None]
    ) -> None:
        self._shedder = shedder
        self._in_flight = in_flight
        self._nc = nc
        self._said_at = float("-inf")

    async def run(self) -> None:
        """Never ends by itself."""
        while True:
            busy = self._in_flight() >= FLOOR // 4 or self._shedder.share > 0.0
            wait = _BUSY_S if busy else _IDLE_S
            began = time.monotonic()
            await asyncio.sleep(wait)
            late = time.monotonic() - began - wait
            round_trip = await self._round_trip()
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                # On Python 3.11 asyncio.wait_for, inside of nats-py, forgets a cancellation that arrives
                # together with the PONG; without this the router's end would wait for ever.
                raise asyncio.CancelledError
            now = time.monotonic()
            self._shedder.sample(max(late, round_trip), now)
            in_flight = self._in_flight()
            if self._shedder.share > 0.1 and in_flight >= FLOOR and now - self._said_at > _SAY_EVERY_S:
                self._said_at = now
                log.warning(
                    "router.overloaded",
                    refused_share=round(self._shedder.share, 2),
                    delay_ms=round(self._shedder.delay_s * 1000, 1),
                    in_flight=in_flight,
                )

    async def _round_trip(self) -> float:
        """Seconds; 0 where there is no connection, or its server does not answer: that is no overload."""
        nc = self._nc()
        if nc is None or not nc.is_connected:
            return 0.0
        began = time.monotonic()
        try:
            await nc.flush(_ROUND_TRIP_S)
        except (errors.Error, OSError, ValueError):
            return 0.0
        return time.monotonic() - began
