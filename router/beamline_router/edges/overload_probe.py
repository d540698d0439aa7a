"""Measures how long work waits in front of this router, for :class:`..core.overload.Shedder`.

Two ways, whichever is longer: how late a timer of the event loop fires (what arrives over HTTP waits as
long), and how long a PING takes to NATS and back, which travels behind everything that NATS has for us on the
same connection. How long that takes without a queue is measured before any request comes through a new
connection: a router that starts into an overload would take what it finds for the distance. While little is
in flight it is looked at five times a second, else fifty times.

Whether the process ran out of work in between is what the system counts as voluntary context switches: an
event loop with anything left to do never sleeps. On Linux they are those of the loop's own thread, elsewhere
of the whole process.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Callable
from typing import Final, Protocol

import structlog
from nats import errors
from nats.aio.client import Client

from ..core.overload import Shedder

log = structlog.get_logger()

_BUSY_S: Final = 0.02
_IDLE_S: Final = 0.2
_ROUND_TRIP_S: Final = 1
_SAY_EVERY_S: Final = 10.0
_BUSY_FROM: Final = 16
"""Requests in flight from which it is looked at often."""
_TRIES: Final = 3
"""Round trips through a new connection; the smallest is its distance."""
_SLEEPS: Final = 2
"""So many context switches are the loop waiting for work; a single one may be a lock or a page."""


class Load(Protocol):
    """What is known of the requests. Implementation: :class:`.serving.Serving`."""

    @property
    def in_flight(self) -> int:
        """Requests being served now."""
        ...

    @property
    def ended(self) -> int:
        """Requests that ended since the start."""
        ...


class OverloadProbe:
    """Samples until cancelled. ``nc``: the connection, if any; ``sleeps``: how often the loop's thread has
    waited for something since it began.
    """

    def __init__(
        self,
        shedder: Shedder,
        load: Load,
        nc: Callable[[], Client | None],
        sleeps: Callable[[], int] | None = None,
    ) -> None:
        self._shedder = shedder
        self._load = load
        self._nc = nc
        self._sleeps = sleeps or thread_sleeps
        self._said_at = float("-inf")
        self._server: str | None = None
        self._distance_s: float | None = None

    async def opened(self) -> None:
        """A new connection, on which nothing waits yet."""
        trips = [await self._round_trip() for _ in range(_TRIES)]
        self._server = self._connected_to()
        self._distance_s = min((trip for trip in trips if trip > 0.0), default=None)
        self._shedder.forget(self._distance_s)

    def reconnected(self) -> None:
        """The connection is back, and so are all requests: only to the same server the distance is known."""
        same = self._server is not None and self._connected_to() == self._server
        self._shedder.forget(self._distance_s if same else None)

    async def run(self) -> None:
        """Never ends by itself."""
        slept = self._sleeps()
        while True:
            busy = self._load.in_flight >= _BUSY_FROM or self._shedder.share > 0.0
            wait = _BUSY_S if busy else _IDLE_S
            began = time.monotonic()
            await asyncio.sleep(wait)
            late = time.monotonic() - began - wait
            round_trip = await self._round_trip()
            now = time.monotonic()
            before, slept = slept, self._sleeps()
            in_flight = self._load.in_flight
            self._shedder.sample(
                max(late, round_trip),
                now,
                in_flight=in_flight,
                ended=self._load.ended,
                idle=slept - before >= _SLEEPS,
            )
            if self._shedder.share > 0.1 and now - self._said_at > _SAY_EVERY_S:
                self._said_at = now
                log.warning(
                    "router.overloaded",
                    refused_share=round(self._shedder.share, 2),
                    delay_ms=round(self._shedder.delay_s * 1000, 1),
                    in_flight=in_flight,
                )

    def _connected_to(self) -> str | None:
        nc = self._nc()
        return nc.connected_url.netloc if nc is not None and nc.connected_url is not None else None

    async def _round_trip(self) -> float:
        """Seconds; 0 where there is no connection, or its server does not answer: that is no overload."""
        nc = self._nc()
        if nc is None or not nc.is_connected:
            return 0.0
        began = time.monotonic()
        try:
            await nc.flush(_ROUND_TRIP_S)
            took = time.monotonic() - began
        except (errors.Error, OSError, ValueError):
            took = 0.0
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            # On Python 3.11 asyncio.wait_for, inside of nats-py, forgets a cancellation that arrives
            # together with the PONG; without this the router's end would wait for ever.
            raise asyncio.CancelledError
        return took


def thread_sleeps() -> int:
    """Voluntary context switches of this thread; elsewhere than on Linux, of this process."""
    return resource.getrusage(getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)).ru_nvcsw
