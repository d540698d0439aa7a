"""An extension as a process: from start to the last answer.

What runs, and in which order:

1. The health port opens first, so that probes are answered while the rest is still missing.
2. ``initialize``, again and again until it succeeds: a missing key is a reason on ``/readyz``, not a crash
loop. 3. The connection, waited for without limit. Then the subscription (always in a queue group) and
``$SRV``. 4. Requests, until the stop event; beside them, without a queue group, word of calls that their
caller has given up. A connection that the server closes for good is replaced by a new one; answers still
   in work go out over that.
5. On stop: not ready; the subscription drains, the requests in work finish, the connection drains, within the
grace
   time; then ``stop`` of the extension, then the health port. This order loses nothing: work ends after its
   source and before its way out.

Everything runs on one event loop, without threads.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar

import structlog
from nats import errors as nats_errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from beamline_contract.names import cancel_subject
from beamline_contract.wire import MAX_REPLY_BYTES

from . import logs, signals
from .calls import Calls
from .discovery import Service, Verb
from .extension import Extension, Setup
from .health import HealthServer, HealthServerError
from .link import LinkError, LinkSettings, close, connect
from .metrics import RuntimeMetrics
from .results import NotReadyError
from .settings import RuntimeSettings, SettingsError

log = structlog.get_logger()
T = TypeVar("T")

INITIALIZE_SECONDS: Final = 60.0
INITIALIZE_RETRY_SECONDS: Final = 5.0
HEALTH_INTERVAL_SECONDS: Final = 10.0
HEALTH_TIMEOUT_SECONDS: Final = 5.0
STOP_SECONDS: Final = 4.0
RESUBSCRIBE_SECONDS: Final = 0.5
PENDING_MESSAGES: Final = 65_536
EXIT_SETTINGS: Final = 2


def run(extension: Extension[Any, Any]) -> None:
    """Serves ``extension`` with the settings of the environment until SIGTERM or SIGINT.

    Exits with status 2, after one clear line, where the environment is not usable.
    """
    try:
        settings = RuntimeSettings.from_environment().for_extension(extension)
    except SettingsError as error:
        logs.configure("extension", exception_text=False)
        log.critical("extension.refused", extension_id=extension.name, error=str(error))
        sys.exit(EXIT_SETTINGS)
    logs.configure("extension", level=settings.log_level, silent=settings.log_silent, exception_text=False)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(serve(extension, settings))
    except (HealthServerError, LinkError, SettingsError) as error:
        log.critical("extension.refused", extension_id=settings.extension_id, error=str(error))
        sys.exit(EXIT_SETTINGS)


async def serve(
    extension: Extension[Any, Any],
    settings: RuntimeSettings,
    *,
    stop: asyncio.Event | None = None,
    ready: Callable[[], None] | None = None,
    on_listening: Callable[[int], None] | None = None,
) -> None:
    """Serves ``extension`` until ``stop`` is set (by SIGTERM and SIGINT where none is given).

    ``ready`` is called once, when the first request can be answered; ``on_listening`` with the health port.
    Raises :class:`SettingsError`, :class:`HealthServerError` or :class:`LinkError` where it can't begin.
    """
    instance = _Instance(extension, settings.for_extension(extension), ready)
    if stop is not None:
        await instance.run(stop, on_listening)
        return
    stop = asyncio.Event()
    with signals.handled(stop):
        await instance.run(stop, on_listening)


class _Instance:
    """One run of one extension. ``_reason`` is why it is not ready, None while it serves."""

    def __init__(
        self, extension: Extension[Any, Any], settings: RuntimeSettings, ready: Callable[[], None] | None
    ) -> None:
        self._extension = extension
        self._settings = settings
        self._ready = ready
        self._reason: str | None = "Starting: not initialized yet"
        self._unhealthy: str | None = None
        self._nc: Client | None = None
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._calls = Calls(
            extension,
            extension_id=settings.extension_id,
            publish=self._publish,
            metrics=RuntimeMetrics(self._registry, settings.extension_id, extension.kind, extension.version),
            default_config=settings.config,
            concurrency=settings.concurrency,
            backlog=settings.backlog,
            clock_skew_ms=settings.clock_skew_ms,
        )
        self._service = Service(
            extension,
            settings.extension_id,
            settings.nats_subject,
            settings.nats_queue_group,
            self._calls.stats,
        )
        self._link = LinkSettings(
            settings.nats_url, f"extension {settings.extension_id}", settings.nats_credentials_file
        )

    async def run(self, stop: asyncio.Event, on_listening: Callable[[int], None] | None) -> None:
        """The whole life, as the module describes it."""
        health = HealthServer(
            self._settings.metrics_port,
            host=self._settings.metrics_host or "0.0.0.0",  # noqa: S104 -- probes come from outside the pod
            ready=self._why_not_ready,
            live=lambda: None,
            registry=self._registry,
        )
        await health.start()
        if on_listening is not None:
            on_listening(health.port)
        log.info("extension.starting", **self._who(), port=health.port)
        checks: asyncio.Task[None] | None = None
        try:
            if await self._initialized(stop):
                checks = asyncio.create_task(self._check_health())
                await self._extension.start()
                while not stop.is_set():
                    await self._connection(stop)
        finally:
            self._reason = "Stopping: no more requests are taken"
            if checks is not None:
                checks.cancel()
                await asyncio.wait([checks])
            await self._cleanup()
            await health.stop()
            log.info("extension.stopped", **self._who(), requests=self._calls.stats.requests)

    async def _initialized(self, stop: asyncio.Event) -> bool:
        """Initializes until it succeeds (True) or the process shall stop (False). Each new reason is one
        line.
        """
        setup = Setup(self._settings.extension_id, self._settings.config, self._registry)
        said = None
        while not stop.is_set():
            try:
                async with asyncio.timeout(INITIALIZE_SECONDS):
                    done, _ = await _unless(stop, self._extension.initialize(setup))
                if done:
                    self._reason = "Connecting: no connection to NATS yet"
                return done
            except NotReadyError as error:
                reason, at = str(error), None
            except Exception as error:  # noqa: BLE001 -- an author's code may raise anything
                reason, at = f"InitializeFailed: {type(error).__name__}", logs.place_of(error)
            self._reason = reason
            if reason != said:
                said = reason
                log.error("extension.not_ready", **self._who(), error=reason, at=at)
            await _sleep_unless(stop, INITIALIZE_RETRY_SECONDS)
        return False

    async def _connection(self, stop: asyncio.Event) -> None:
        """One connection: subscribe, serve, leave in order. Returns on stop, or when a new one is needed."""
        lost = asyncio.Event()

        async def on_closed() -> None:
            lost.set()

        self._reason = f"Connecting: no NATS server answers at {self._link.shown}"
        connected, nc = await _unless(stop, connect(self._link, on_closed=on_closed))
        if not connected or nc is None:
            return
        self._nc = nc
        subscriptions = []
        try:
            subscriptions.append(
                await nc.subscribe(
                    self._settings.nats_subject,
                    queue=self._settings.nats_queue_group,
                    cb=self._on_message,
                    pending_msgs_limit=PENDING_MESSAGES,
                )
            )
            # Without a queue group: only the instance that has the call can end it, and no other knows which.
            await nc.subscribe(cancel_subject(self._settings.nats_subject), cb=self._on_cancel)
            for subject, verb in self._service.subjects():
                await nc.subscribe(subject, cb=self._responder(verb))
            controls = nc.new_inbox()
            await nc.subscribe(f"{controls}.*", cb=self._on_control, pending_msgs_limit=PENDING_MESSAGES)
            self._calls.streams.control_prefix = controls
            await nc.flush(timeout=5)
            self._calls.max_reply_bytes = min(MAX_REPLY_BYTES, nc.max_payload)
            self._reason = None
            log.info("extension.ready", **self._who(), subject=self._settings.nats_subject)
            ready, self._ready = self._ready, None
            if ready is not None:
                ready()
            await _first_of(stop, lost)
        except (nats_errors.Error, OSError) as error:
            log.warning("extension.subscribe_failed", **self._who(), error=type(error).__name__)
            await _sleep_unless(stop, RESUBSCRIBE_SECONDS)
        finally:
            if stop.is_set():
                self._reason = "Draining: no more requests are taken"
                log.info("extension.draining", **self._who(), in_flight=len(self._calls.tasks))
                await close(
                    nc, subscriptions=subscriptions, tasks=self._calls.tasks, grace_s=self._settings.grace_s
                )
            else:
                self._reason = "Disconnected: the connection to NATS was closed"
                await close(nc, grace_s=2.0)

    async def _publish(
        self, subject: str, payload: bytes, *, headers: dict[str, str] | None, reply: str = ""
    ) -> None:
        assert self._nc is not None
        await self._nc.publish(subject, payload, reply, headers=headers)

    async def _on_message(self, message: Msg) -> None:
        await self._calls.accept(message)

    async def _on_control(self, message: Msg) -> None:
        self._calls.streams.heard(message.subject, message.data, message.headers)

    async def _on_cancel(self, message: Msg) -> None:
        self._calls.live.cancel(message.data)

    def _responder(self, verb: Verb) -> Callable[[Msg], Awaitable[None]]:
        async def respond(message: Msg) -> None:
            if message.reply:
                with suppress(nats_errors.Error):
                    await self._publish(message.reply, self._service.answer(verb), headers=None)

        return respond

    async def _check_health(self) -> None:
        while True:
            try:
                async with asyncio.timeout(HEALTH_TIMEOUT_SECONDS):
                    reason = await self._extension.health_check()
            except Exception as error:  # noqa: BLE001 -- an author's code may raise anything
                reason = f"the health check failed: {type(error).__name__}"
            if reason != self._unhealthy:
                self._unhealthy = reason
                if reason is not None:
                    log.warning("extension.unhealthy", **self._who(), error=reason)
                else:
                    log.info("extension.healthy", **self._who())
            await asyncio.sleep(HEALTH_INTERVAL_SECONDS)

    async def _cleanup(self) -> None:
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._extension.stop()
        except Exception as error:  # noqa: BLE001 -- the process ends either way
            log.warning(
                "extension.stop_failed", **self._who(), error=type(error).__name__, at=logs.place_of(error)
            )

    def _why_not_ready(self) -> str | None:
        if self._reason is not None:
            return self._reason
        if self._nc is None or not self._nc.is_connected:
            return f"Disconnected: no NATS server answers at {self._link.shown}"
        return None if self._unhealthy is None else f"Unhealthy: {self._unhealthy}"

    def _who(self) -> dict[str, str]:
        return {"extension_id": self._settings.extension_id, "type": self._extension.kind}


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> tuple[bool, T | None]:
    """Awaits ``work`` unless ``stop`` is set first; (False, None) then, with ``work`` cancelled and gone."""
    task, stopped = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([task, stopped], return_when=asyncio.FIRST_COMPLETED)
        return (True, task.result()) if task.done() else (False, None)
    finally:
        for one in (task, stopped):
            one.cancel()
        await asyncio.gather(task, stopped, return_exceptions=True)


async def _first_of(*events: asyncio.Event) -> None:
    tasks = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _sleep_unless(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 -- not on every platform
    except ImportError:
        return None
    return uvloop.new_event_loop
