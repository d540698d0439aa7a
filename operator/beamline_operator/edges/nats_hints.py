"""Hints over NATS: what changed goes out, what routers serve comes in.

Nothing here is truth. A hint that is lost costs a router's poll interval, a report that is lost the next one.
So NATS may be away at any time: :meth:`NatsHints.start` returns at once and connects in the background, and
after every reconnect, and on every connection that follows one which the server closed for good, the last
revision is told again and all routers are asked for their status.

A router that has not reported for :data:`STATUS_TTL_S` is forgotten, and ``on_report`` hears of it as a
report that it is leaving. One that is new, or comes back, is asked for its breakers: of those it tells
nothing while they stay as they are. Health reports are handed to ``on_health`` once each: a repeat is
recognised by instance and sequence. Acts on routers, which ask to be noted, are handed to ``on_act``, which
answers for a leader.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import structlog
from nats import errors as nats_errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from pydantic import ValidationError

from beamline_contract.acts import ActNoted
from beamline_contract.names import (
    SUBJECT_OPERATOR_ACT,
    SUBJECT_REGISTRY_CHANGED,
    SUBJECT_ROUTER_HEALTH,
    SUBJECT_ROUTER_PROBE,
    SUBJECT_ROUTER_STATUS,
)
from beamline_contract.reports import STATUS_TTL_S, Changed, Probe, Report, RouterHealth, RouterStatus
from beamline_sdk import link
from beamline_sdk.link import LinkSettings
from beamline_sdk.waiting import ended

from .schemas import PublishedSchemas

SWEEP_S: Final = 1.0
LISTEN_S: Final = 1.0
"""Routers answer a probe at once: whoever was asked so long ago and is alive has reported."""
HINT_PER_OBJECT_S: Final = 200e-6
"""Between two hints, for each object that there is: each makes every router build its table anew, which takes
as long as the table is large. So a change among few is told at once, one after a pause among thousands too,
and a stream of changes costs a router a tenth of its time however many objects there are.
"""
HINT_EVERY_S: Final = 1.0
"""The longest of these pauses."""

_R = TypeVar("_R", bound=Report)
_log = structlog.get_logger()


class NatsHints:
    """The hints port on NATS. ``clock`` is monotonic seconds."""

    def __init__(
        self,
        settings: LinkSettings,
        *,
        on_report: Callable[[RouterStatus], None] = lambda status: None,
        on_health: Callable[[RouterHealth], None] = lambda health: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.on_report = on_report
        self.on_health = on_health
        self.on_act: Callable[[bytes], Awaitable[ActNoted]] | None = None
        """Notes an act; None answers nothing, as in a process that does not lead."""
        self.objects: Callable[[], int] = lambda: 0
        """How many objects there are."""
        self.schemas = PublishedSchemas(clock=clock)
        self._settings = settings
        self._clock = clock
        self._routers: dict[str, tuple[float, RouterStatus]] = {}
        self._sequences: dict[str, int] = {}
        self._revision = 0
        self._told_at = float("-inf")
        self._trailing: asyncio.TimerHandle | None = None
        self._known_at = float("inf")
        """When every router that is alive has had the time to report."""
        self._nc: Client | None = None
        self._subscriptions: list[Subscription] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._telling: set[asyncio.Task[None]] = set()

    @property
    def connected(self) -> bool:
        """Whether NATS can be reached now."""
        return self._nc is not None and bool(self._nc.is_connected)

    async def start(self) -> None:
        """Starts connecting; never waits and never fails because NATS is away."""
        self._known_at = self._clock() + STATUS_TTL_S
        self._tasks = [
            asyncio.create_task(self._hold(), name="nats-connect"),
            asyncio.create_task(self._sweep(), name="router-ttl"),
        ]

    async def stop(self) -> None:
        """Closes the connection."""
        if self._trailing is not None:  # the last revision is told, a little earlier
            self._trailing.cancel()
            self._trail()
        await asyncio.gather(*self._telling, return_exceptions=True)
        await ended(*self._tasks)
        if self._nc is not None:
            await link.close(self._nc, subscriptions=self._subscriptions)
            self._nc = None

    async def changed(self, revision: int) -> None:
        """Tells every router, now, or soon where many were told lately; never raises."""
        self._revision = max(self._revision, revision)
        if self._trailing is not None:
            return
        pause = min(HINT_EVERY_S, HINT_PER_OBJECT_S * self.objects())
        wait = self._told_at + pause - self._clock()
        if wait > 0:
            self._trailing = asyncio.get_running_loop().call_later(wait, self._trail)
            return
        await self._tell()

    def _trail(self) -> None:
        self._trailing = None
        task = asyncio.create_task(self._tell(), name="registry-hint")
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self) -> None:
        self._told_at = self._clock()
        changed = Changed(revision=self._revision)
        await self._publish(SUBJECT_REGISTRY_CHANGED, changed.model_dump_json().encode())

    def routers(self) -> Sequence[RouterStatus]:
        """Routers that reported within the last :data:`STATUS_TTL_S`."""
        oldest = self._clock() - STATUS_TTL_S
        return [status for seen, status in self._routers.values() if seen >= oldest]

    def config_schema(self, subject: str) -> Mapping[str, Any] | None:
        """What the extension on ``subject`` publishes; None where none runs, or it publishes none."""
        return self.schemas.get(subject)

    def unheard(self) -> float:
        """Seconds until every router that is alive has had the time to report; 0 from then on."""
        return max(0.0, self._known_at - self._clock())

    async def probe(self, instance: str | None = None) -> None:
        """Asks one router, or every one, to report now, with the breakers that are not closed."""
        await self._publish(
            SUBJECT_ROUTER_PROBE, Probe(instance=instance).model_dump_json(exclude_none=True).encode()
        )

    def take_status(self, payload: bytes) -> None:
        """One message from a router; what can't be read is dropped."""
        status = _read(RouterStatus, payload)
        if status is None:
            return
        if status.leaving:
            self._routers.pop(status.instance, None)
            self._sequences.pop(status.instance, None)
        else:
            self._routers[status.instance] = (self._clock(), status)
        self.on_report(status)

    def take_health(self, payload: bytes) -> None:
        """One health report; a repeat is dropped."""
        health = _read(RouterHealth, payload)
        if health is None or health.sequence <= self._sequences.get(health.instance, -1):
            return
        self._sequences[health.instance] = health.sequence
        self.on_health(health)

    def forget_silent(self) -> None:
        """Forgets routers whose last report is too old, and says so."""
        oldest = self._clock() - STATUS_TTL_S
        for instance, (seen, status) in list(self._routers.items()):
            if seen < oldest:
                del self._routers[instance]
                self._sequences.pop(instance, None)
                _log.info("router.silent", instance=instance)
                self.on_report(status.model_copy(update={"leaving": True}))

    async def _hold(self) -> None:
        """Holds the connection: opens it, and opens another if the server closes it for good."""
        while True:
            closed = asyncio.Event()

            async def tell(closed: asyncio.Event = closed) -> None:
                closed.set()

            try:
                self._nc = await link.connect(self._settings, on_reconnect=self._greet, on_closed=tell)
                await self._serve(self._nc, closed)
            except (link.LinkError, nats_errors.Error) as error:
                _log.warning("nats.not_opened", error=str(error) or type(error).__name__)
            await asyncio.sleep(link.closed_delay())

    async def _serve(self, nc: Client, closed: asyncio.Event) -> None:
        self._subscriptions = [
            await nc.subscribe(SUBJECT_ROUTER_STATUS, cb=self._on_status),
            await nc.subscribe(SUBJECT_ROUTER_HEALTH, cb=self._on_health),
            await nc.subscribe(SUBJECT_OPERATOR_ACT, cb=self._on_act),
        ]
        survey = asyncio.create_task(self.schemas.survey(nc), name="config-schemas")
        try:
            await self._greet()
            await closed.wait()
        finally:
            await ended(survey)

    async def _greet(self) -> None:
        if self._revision:
            await self._tell()
        await self.probe()
        self._known_at = min(self._known_at, self._clock() + LISTEN_S)

    async def _on_status(self, message: Msg) -> None:
        known = set(self._routers)
        self.take_status(message.data)
        for instance in self._routers.keys() - known:
            await self.probe(instance)

    async def _on_health(self, message: Msg) -> None:
        self.take_health(message.data)

    async def _on_act(self, message: Msg) -> None:
        if self.on_act is None or not message.reply:
            return
        noted = await self.on_act(message.data)
        await self._publish(message.reply, noted.model_dump_json().encode())

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self.forget_silent()

    async def _publish(self, subject: str, payload: bytes) -> None:
        if self._nc is None:
            return
        with contextlib.suppress(nats_errors.Error, OSError):
            await self._nc.publish(subject, payload)


def _read(model: type[_R], payload: Any) -> _R | None:
    try:
        return model.model_validate_json(payload)
    except ValidationError as error:
        _log.warning("router.report_unreadable", model=model.__name__, faults=error.error_count())
        return None
