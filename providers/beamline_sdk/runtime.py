"""An extension as a process: from start to the last answer.

What runs, and in which order:

1. The health port opens first, so that probes are answered while the rest is still missing.
2. The extension is registered in this process's provider registry and started, again and again until that
   succeeds: a missing key is a reason on ``/readyz``, not a crash loop. From then on the registry owns its
   life: it checks its health on a timer, restarts it, and ends it, each phase bounded.
3. The connection, waited for without limit. Then the subscription (always in a queue group) and ``$SRV``.
4. Requests, until the stop event; beside them, without a queue group, word of calls that their caller has
   given up. A connection that the server closes for good is replaced by a new one; answers still in work go
   out over that. On SIGHUP requests wait, the registry restarts the extension, and they go on; while it can't
   be brought up again they are answered with UNAVAILABLE.
5. On stop: not ready; the subscription drains, the requests in work finish, the connection drains, within the
   grace time; then the registry stops and disposes of the extension, then the health port closes. This order
   loses nothing: work ends after its source and before its way out.

Everything runs on one event loop. With tracing on, OpenTelemetry's exporter has a thread of its own.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

import structlog
from nats import errors as nats_errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from beamline_contract.names import cancel_subject
from beamline_contract.wire import MAX_REPLY_BYTES

from . import logs, signals, tracing
from .calls import Calls
from .discovery import Service, Verb
from .extension import Extension, Setup
from .framework.hosted import HostedExtension
from .health import HealthServer, HealthServerError
from .hosting import STOP_SECONDS, hosted_config, own_registry, why_not_up
from .link import LinkError, LinkSettings, close, closed_delay, connect
from .loops import loop_factory
from .metrics import RuntimeMetrics
from .registry import RegistryError
from .registry.bounded import within
from .settings import RuntimeSettings, SettingsError
from .waiting import first_of, sleep_unless, unless

log = structlog.get_logger()

INITIALIZE_RETRY_SECONDS: Final = 5.0
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
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
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
    restart: asyncio.Event | None = None,
) -> None:
    """Serves ``extension`` until ``stop`` is set (by SIGTERM and SIGINT where none is given).

    ``ready`` is called once, when the first request can be answered; ``on_listening`` with the health port.
    Each time ``restart`` is set (by SIGHUP where no ``stop`` is given) the extension is restarted in place.
    Raises :class:`SettingsError`, :class:`HealthServerError` or :class:`LinkError` where it can't begin.
    """
    restart = restart or asyncio.Event()
    instance = _Instance(extension, settings.for_extension(extension), ready, restart)
    if stop is not None:
        await instance.run(stop, on_listening)
        return
    stop = asyncio.Event()
    with signals.handled(stop, restart.set):
        await instance.run(stop, on_listening)


class _Instance:
    """One run of one extension. ``_reason`` is why it is not ready, None while it serves; ``_restarting`` the
    same while it is restarted.
    """

    def __init__(
        self,
        extension: Extension[Any, Any],
        settings: RuntimeSettings,
        ready: Callable[[], None] | None,
        restart: asyncio.Event,
    ) -> None:
        self._extension = extension
        self._settings = settings
        self._ready = ready
        self._restart = restart
        self._reason: str | None = "Starting: not initialized yet"
        self._restarting: str | None = None
        self._nc: Client | None = None
        self._hosted_config = hosted_config(extension, settings)
        self._providers = own_registry()
        self._tracing = tracing.configure(extension.kind, settings.extension_id, extension.version)
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
            tracing=self._tracing,
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
        structlog.contextvars.bind_contextvars(extension_id=self._settings.extension_id)
        log.info("extension.starting", **self._who(), port=health.port)
        restarts: asyncio.Task[None] | None = None
        try:
            if await self._brought_up(stop):
                restarts = asyncio.create_task(self._restarts(stop))
                while not stop.is_set():
                    await self._connection(stop)
                    await sleep_unless(stop, closed_delay())  # the server may close each one
        finally:
            self._reason = "Stopping: no more requests are taken"
            if restarts is not None:
                restarts.cancel()
                await asyncio.wait([restarts])
            await self._end()
            await health.stop()
            log.info("extension.stopped", **self._who(), requests=self._calls.stats.requests)

    async def _brought_up(self, stop: asyncio.Event) -> bool:
        """Registers and starts the extension until that succeeds (True) or the process shall stop (False).
        Each new reason is one line.
        """
        said = None
        while not stop.is_set():
            try:
                done, _ = await unless(stop, self._registered())
            except RegistryError as error:
                self._reason, at = why_not_up(error)
            else:
                if done:
                    self._reason = "Connecting: no connection to NATS yet"
                    await self._providers.open()
                return done
            if self._reason != said:
                said = self._reason
                log.error("extension.not_ready", **self._who(), error=said, at=at)
            await sleep_unless(stop, INITIALIZE_RETRY_SECONDS)
        return False

    async def _registered(self) -> None:
        setup = Setup(self._settings.extension_id, self._settings.config, self._registry)
        hosted = HostedExtension(self._extension, self._hosted_config, setup=setup)
        await self._providers.register(hosted)
        try:
            await self._providers.start(hosted.name)
        except BaseException:
            await self._providers.unregister(hosted.name)
            raise

    async def _restarts(self, stop: asyncio.Event) -> None:
        """Restarts the extension whenever that is asked for, until cancelled. Requests wait meanwhile."""
        while True:
            await self._restart.wait()
            self._restart.clear()
            self._restarting = "Restarting: asked to"
            log.info("extension.restarting", **self._who(), in_flight=len(self._calls.tasks))
            try:
                await self._calls.hold(self._settings.grace_s)
                while not await self._restarted():
                    await self._calls.refuse(f"{self._settings.extension_id} can't be restarted yet")
                    await sleep_unless(stop, INITIALIZE_RETRY_SECONDS)
            except asyncio.CancelledError:
                await self._calls.refuse(f"{self._settings.extension_id} is shutting down")
                raise
            self._restarting = None
            self._calls.release()
            log.info("extension.restarted", **self._who())

    async def _restarted(self) -> bool:
        before = self._restarting
        try:
            await self._providers.restart(self._hosted_config.name)
        except RegistryError as error:
            self._restarting, at = why_not_up(error)
        else:
            return True
        if self._restarting != before:
            log.error("extension.not_ready", **self._who(), error=self._restarting, at=at)
        return False

    async def _connection(self, stop: asyncio.Event) -> None:
        """One connection: subscribe, serve, leave in order. Returns on stop, or when a new one is needed."""
        lost = asyncio.Event()

        async def on_closed() -> None:
            lost.set()

        self._reason = f"Connecting: no NATS server answers at {self._link.shown}"
        connected, nc = await unless(stop, connect(self._link, on_closed=on_closed))
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
            await first_of(stop, lost)
        except (nats_errors.Error, OSError) as error:
            log.warning("extension.subscribe_failed", **self._who(), error=type(error).__name__)
            await sleep_unless(stop, RESUBSCRIBE_SECONDS)
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

    async def _end(self) -> None:
        """Ends the extension, and its spans. An extension that never came up is stopped all the same."""
        known = self._providers.has(self._hosted_config.name)
        ending: list[Coroutine[Any, Any, Any]] = [self._providers.shutdown()]
        if not known:
            ending.append(self._stopped())
        if self._tracing is not None:
            ending.append(self._tracing.close())
        await asyncio.gather(*ending)

    async def _stopped(self) -> None:
        try:
            await within(STOP_SECONDS, self._extension.stop(), "stop")
        except Exception as error:  # noqa: BLE001 -- the process ends either way
            log.warning(
                "provider.stop_failed", **self._who(), error=type(error).__name__, at=logs.place_of(error)
            )

    def _why_not_ready(self) -> str | None:
        if self._reason is not None:
            return self._reason
        if self._nc is None or not self._nc.is_connected:
            return f"Disconnected: no NATS server answers at {self._link.shown}"
        if self._restarting is not None:
            return self._restarting
        health = self._providers.record(self._hosted_config.name).health
        return None if health is None or health.well else f"Unhealthy: {health.message}"

    def _who(self) -> dict[str, str]:
        return {"extension_id": self._settings.extension_id, "type": self._extension.kind}
