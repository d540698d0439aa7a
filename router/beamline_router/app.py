"""The router process: what runs, in which order it starts, and in which order it ends.

It starts without waiting for anybody. HTTP listens first, so that probes have an answer; a snapshot file,
where there is one, serves at once; the registry and NATS are reached by two tasks that try for ever. The
NATS door opens when there is both a connection and a table: before that, other routers answer better.

What runs then, all on one event loop: the HTTP server, the NATS client, the :class:`Refresher`, the
:class:`Reporter`, what follows keys and limits, what measures overload, and a task per request. If one of the
long ones ends by a fault, the process ends with it, and whoever supervises it starts it anew.

It ends in the opposite order, so that no answer is lost: not ready; both doors closed to new requests;
requests under way finished; the last health and a status that says ``leaving``; NATS drained; the
registry's pool closed.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from nats import errors
from nats.aio.client import Client

from beamline_contract import __version__
from beamline_registry.port import RegistryError, SchemaError
from beamline_sdk import link, logs, signals
from beamline_sdk.listening import ListenError
from beamline_sdk.loops import loop_factory
from beamline_sdk.waiting import ended, first_of

from .core.pipeline import Pipeline
from .core.state import Runtime
from .edges.access_log import AccessLog
from .edges.admin import Admin
from .edges.door_settings import DoorSettings
from .edges.fast_nats import FastLine, FastTransport
from .edges.gate import Gate, default_limits
from .edges.http import HttpDoor
from .edges.http_refusals import Shedding
from .edges.http_server import HttpServer
from .edges.key_files import SourceError
from .edges.nats_door import NatsDoor, PlainLine
from .edges.nats_streams import NatsStreams
from .edges.nats_transport import NatsTransport
from .edges.overload_probe import OverloadProbe
from .edges.refresh import Refresher
from .edges.registry import Registry
from .edges.reports import Reporter
from .edges.serving import Serving
from .edges.telemetry import Telemetry
from .edges.traces import traces_of
from .edges.traffic import with_state
from .edges.trails import Trails
from .settings import RouterSettings

log = structlog.get_logger()

EXIT_CONFIG: Final = 78
"""sysexits.h EX_CONFIG: starting again will not help until somebody changes something."""
_SAY_WAITING_AFTER_S: Final = 2.0
_DRAIN_S: Final = 5.0
_MAX_LISTED: Final = 200


class StartError(RuntimeError):
    """The router can't run; the message is one sentence for the person who started it."""

    exit_code: Final = EXIT_CONFIG


@dataclass(frozen=True, slots=True)
class RunningRouter:
    """A router that serves, for whoever started it in their own process."""

    settings: RouterSettings
    http_url: str
    refresher: Refresher
    runtime: Runtime
    telemetry: Telemetry


async def run(
    settings: RouterSettings,
    *,
    ready: Callable[[RunningRouter], None] | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Runs a router until ``stop`` is set or SIGTERM or SIGINT arrives; SIGHUP reads the registry anew.

    ``ready`` is called once, when a table serves and NATS is connected. Raises :class:`StartError` where it
    can't run: the HTTP address is taken, or the database's schema is not this program's.
    """
    await _Router(settings, ready, stop or asyncio.Event()).run()


def main() -> int:
    """``python -m beamline_router``: settings from the environment; returns the exit code."""
    settings = RouterSettings()
    try:
        logs.configure("router", level=settings.log_level, silent=settings.log_silent, exception_text=False)
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(run(settings))
    except (StartError, link.LinkError, ValueError) as error:
        sys.stderr.write(f"beamline router: {error}\n")
        return EXIT_CONFIG
    return 0


def _door_settings(gate: Gate, settings: RouterSettings) -> DoorSettings:
    default = default_limits(
        settings.tenant_requests_per_second, settings.tenant_burst, settings.tenant_concurrency
    )
    try:
        return DoorSettings(gate, keys=settings.api_keys, limits=settings.limits_file, default=default)
    except SourceError as error:
        raise StartError(str(error)) from error


class _Router:
    def __init__(
        self, settings: RouterSettings, ready: Callable[[RunningRouter], None] | None, stop: asyncio.Event
    ) -> None:
        rng = random.Random()  # noqa: S311 -- jitter, choice of providers, ids: no secrets
        self._settings = settings
        self._ready = ready
        self._stop = stop
        self._nc: Client | None = None
        self._link_closed = asyncio.Event()
        self._has_table = asyncio.Event()
        self._began = time.monotonic()
        self._settled = False  # NATS was reached, or has been waited for long enough
        self._tasks: list[asyncio.Task[None]] = []
        self._telemetry = Telemetry()
        self._access_log = AccessLog(enabled=settings.logs_requests, share=settings.access_log_share)
        fast = settings.transport == "fast"
        self._transport = (FastTransport if fast else NatsTransport)(on_late=self._telemetry.late_reply)
        self._streams = NatsStreams()
        self._runtime = Runtime(time.monotonic, rng, self._telemetry)
        self._pipeline = Pipeline(
            self._transport,
            self._runtime,
            self._telemetry,
            time.monotonic,
            asyncio.sleep,
            rng,
            streams=self._streams,
        )
        self._registry = Registry(settings.database_url)
        self._refresher = Refresher(
            self._registry,
            self._telemetry,
            draw=rng.random,
            poll_s=settings.poll_seconds,
            file=settings.snapshot_file,
            on_swap=self._swapped,
        )
        self._gate = Gate(
            self._telemetry,
            limit=settings.max_in_flight,
            anonymous=settings.anonymous,
            nats_keys=settings.nats_keys == "required",
        )
        self._trails = Trails(
            settings.instance,
            snapshot=lambda: self._refresher.snapshot,
            clock=time.monotonic,
            wall=time.time,
            draw=rng.random,
            kept=settings.trails,
            content=settings.trail_content,
        )
        self._traces = traces_of(
            self._telemetry,
            settings.instance,
            rng.getrandbits,
            tail=settings.trace_tail,
            slow_ms=settings.trace_slow_ms,
        )
        self._serving = Serving(
            run=self._pipeline.run,
            snapshot=lambda: self._refresher.snapshot,
            telemetry=self._telemetry,
            access_log=self._access_log,
            bits=rng.getrandbits,
            gate=self._gate,
            trails=self._trails,
            traces=self._traces,
        )
        self._probe = OverloadProbe(self._gate.shedder, self._serving, lambda: self._nc)
        self._reporter = Reporter(
            self._refresher,
            self._telemetry,
            instance=settings.instance,
            started_at=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        )
        self._admin = Admin(
            settings.instance,
            snapshot=lambda: self._refresher.snapshot,
            runtime=self._runtime,
            status=self._status,
            traffic=self._traffic,
            trails=self._trails,
            now=time.monotonic,
        )
        self._door = NatsDoor(self._serving, FastLine if fast else PlainLine)

    async def run(self) -> None:
        self._door_settings = _door_settings(self._gate, self._settings)
        try:
            await self._registry.open()
        except RegistryError as error:
            raise StartError(str(error)) from error
        door = HttpDoor(self._serving, self._telemetry, self._readiness)
        try:
            shedding = Shedding(self._serving.shed, self._serving.id_of, self._gate.shedder.rest_s)
            http = HttpServer(door, shedding, self._settings.http_host, self._settings.http_port)
        except ListenError as error:
            raise StartError(str(error)) from error
        http_url = f"http://{self._settings.http_host}:{http.port}"
        with signals.handled(self._stop, self._read_anew):
            try:
                await http.begin()
                log.info("router.listening", url=http_url, instance=self._settings.instance)
                self._refresher.load_file()
                if self._refresher.snapshot is not None:
                    self._has_table.set()
                self._start(self._refresher.run(), "refresh")
                self._start(self._connect(http_url), "link")
                self._start(self._reporter.run(), "reports")
                self._start(self._trails.run(), "trails")
                self._start(self._door_settings.run(), "door settings")
                self._start(self._probe.run(), "overload")
                self._start(self._say_waiting(), "waiting")
                await self._until_stopped()
            finally:
                await self._shut_down(http)

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(asyncio.create_task(work, name=name))

    async def _until_stopped(self) -> None:
        stopped = asyncio.create_task(self._stop.wait(), name="stop")
        lasting: set[asyncio.Task[Any]] = {task for task in self._tasks if task.get_name() != "waiting"}
        try:
            done, _ = await asyncio.wait({stopped, *lasting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
        for task in done & lasting:
            error = task.exception()
            if isinstance(error, SchemaError):
                raise StartError(str(error)) from error
            if error is not None:
                raise error

    async def _connect(self, http_url: str) -> None:
        """Holds the NATS connection: opens it, and opens another if the server closes it for good."""
        name, credentials = f"beamline-router {self._settings.instance}", self._settings.nats_credentials_file
        settings = link.LinkSettings(self._settings.nats_url, name, credentials)
        while True:
            self._link_closed.clear()
            try:
                self._nc = await link.connect(
                    settings,
                    on_reconnect=self._reconnected,
                    on_disconnect=self._disconnected,
                    on_closed=self._closed,
                )
            except link.LinkError as error:
                if self._nc is None:  # settings that can't be right
                    raise
                log.warning("nats.not_reopened", error=str(error))
            else:
                for user in (self._transport, self._streams, self._trails):
                    user.attach(self._nc)
                with suppress(errors.ConnectionClosedError):  # of which _link_closed tells as well
                    await self._open(self._nc, http_url)
                await self._link_closed.wait()
            await asyncio.sleep(link.closed_delay())  # it may do so each time: a limit of the account

    async def _open(self, nc: Client, http_url: str) -> None:
        """All that is subscribed to. Raises ConnectionClosedError where the connection ends meanwhile."""
        await self._reporter.open(nc)
        self._reporter.subscriptions.append(await self._admin.open(nc))
        await first_of(self._has_table, self._link_closed)
        await self._probe.opened()
        await self._door.open(nc)
        self._settled = True
        log.info("router.ready", url=http_url, revision=self._refresher.revision)
        if self._ready is not None:
            ready, self._ready = self._ready, None
            ready(RunningRouter(self._settings, http_url, self._refresher, self._runtime, self._telemetry))

    async def _swapped(self) -> None:
        snapshot = self._refresher.snapshot
        if snapshot is not None:
            self._runtime.adopt(snapshot)
        self._has_table.set()
        await self._reporter.status()

    def _read_anew(self) -> None:
        self._refresher.read_anew()
        self._door_settings.read_anew()

    async def _reconnected(self) -> None:
        self._probe.reconnected()
        self._refresher.wake()
        await self._reporter.status()

    async def _disconnected(self) -> None:
        self._streams.disconnected()

    async def _closed(self) -> None:
        self._link_closed.set()

    async def _say_waiting(self) -> None:
        """One line for the person who wonders why nothing happens."""
        await asyncio.sleep(_SAY_WAITING_AFTER_S)
        self._settled = True
        missing = [] if self._transport.connected else ["nats"]
        if not self._refresher.registry_answers:
            missing.append("registry")
        if missing:
            log.warning("router.waiting", missing=missing, serving=self._refresher.snapshot is not None)

    def _readiness(self) -> tuple[bool, dict[str, Any]]:
        """Ready with a table, even a stale one: without its neighbours a router still answers, in errors.

        Only at its start it gives NATS a moment first, so that nobody who waited for it meets a 503.
        """
        refresher = self._refresher
        connected, current = self._transport.connected, refresher.registry_answers
        loaded = refresher.snapshot is not None and self._settled
        if self._serving.closing:
            status = "stopping"
        elif not loaded:
            status = "starting"
        else:
            status = "ready" if connected and current else "stale"
        stats = refresher.stats
        body = {
            "status": status,
            "revision": refresher.revision,
            "age_seconds": round(refresher.age(), 1),
            "stale": {"registry": not current, "nats": not connected, "from_file": refresher.from_file},
            "cache": {
                "last_reload": stats.last_reload,
                "load_count": stats.load_count,
                "error_count": stats.error_count,
                "total_extensions": stats.total_extensions,
                "enabled_extensions": stats.enabled_extensions,
            },
        }
        return loaded and not self._serving.closing, body

    def _status(self) -> dict[str, Any]:
        """What the admin subject's verb of that name answers."""
        _, readiness = self._readiness()
        return {
            **readiness,
            "version": __version__,
            "unix_ms": round(time.time() * 1000),
            **self._gate.status(self._serving.in_flight),
            "breakers": self._runtime.breaker_states(),
            "refused": [refused.model_dump() for refused in self._refresher.refused[:_MAX_LISTED]],
            "notices": [notice.model_dump() for notice in self._refresher.notices[:_MAX_LISTED]],
        }

    def _traffic(self) -> dict[str, Any]:
        """What the admin subject's verb of that name answers."""
        snapshot = self._refresher.snapshot
        now = {"age_s": round(time.monotonic() - self._began, 3), "in_flight": self._serving.in_flight}
        counts = self._telemetry.traffic(snapshot)
        return with_state(counts, snapshot, self._runtime, revision=self._refresher.revision, **now)

    async def _shut_down(self, http: HttpServer) -> None:
        started, grace_s = time.monotonic(), self._settings.grace_seconds
        self._serving.closing = True
        log.info("router.stopping", in_flight=self._serving.in_flight)
        await asyncio.gather(http.stop(grace_s), self._door.drain(grace_s))
        await ended(*self._tasks)
        await self._refresher.save()
        await self._pipeline.close()
        await self._reporter.health()
        await self._reporter.status(leaving=True)
        if self._nc is not None:
            await link.close(self._nc, subscriptions=self._reporter.subscriptions, grace_s=_DRAIN_S)
        await self._registry.close()
        if self._traces is not None:
            await self._traces.close()
        self._access_log.flush()
        log.info("router.stopped", seconds=round(time.monotonic() - started, 3))
