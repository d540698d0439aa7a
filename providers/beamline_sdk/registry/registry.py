"""The provider registry: who is there, and their whole life.

What runs and what is ordered:

- Everything runs on one event loop. The table changes only between two awaits, so a look at it is always
  consistent. A name is reserved before the first await of its registration: of two that register the same
  name at the same time one gets ALREADY_EXISTS at once.
- Registering is: validate, create, initialize (bounded), read capabilities, enter the table, log, emit. Who
  fails on the way, or is cancelled, is cleaned up and leaves nothing behind, the name included.
- The phases of one provider's life are ordered by its lock; providers do not wait for each other. Leaving is
  two steps: out of the table at once, then cleaned up, and only then is the name free again.
- One task checks health, one refreshes what was discovered (:meth:`ProviderRegistry.open`).
- :meth:`ProviderRegistry.shutdown` ends both, waits for registrations under way (they find the registry
  closed and clean up after themselves), and disposes of all at the same time, within the time that is set.

A provider that was discovered gives way to one of the same name that a program registers; two programs do not
give way to each other. The breaker is :mod:`beamline_sdk.breaker`, the router's own: health checks feed it,
and :meth:`ProviderRegistry.guard` does for calls.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Literal, Self

import structlog

from ..breaker import BreakerState
from ..framework.factory import ProviderFactory
from ..framework.provider import NAME_PATTERN, ProviderConfig, ProviderHealth
from .discovery import Discovery
from .events import EventName, Events, Listener
from .health import HealthMonitor
from .lifecycle import Phase, pass_through
from .making import Making, Registrable, Wanted
from .records import (
    CircuitOpenError,
    Entry,
    RegisteredProvider,
    RegistryError,
    RegistryErrorCode,
    RegistryProvider,
    Source,
)
from .settings import RegistryConfig

log = structlog.get_logger()


class ProviderRegistry:
    """Keeps providers. ``clock`` is monotonic seconds; ``draw`` gives floats in [0, 1) for the breakers.

    ``async with`` opens it and shuts it down.
    """

    def __init__(
        self,
        config: RegistryConfig | None = None,
        *,
        factory: ProviderFactory | None = None,
        environ: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.config = config or RegistryConfig()
        self.factory = factory or ProviderFactory()
        self.events = Events()
        self._clock = clock
        self._entries: dict[str, Entry] = {}
        self._reserved: dict[str, asyncio.Event] = {}
        self._closed = False
        self._tasks: list[asyncio.Task[None]] = []
        self._monitor = HealthMonitor(self.config.health, self.events, clock)
        self._making = Making(
            self.config, self.factory, self.events, clock=clock, draw=draw, closed=lambda: self._closed
        )
        self.discovery = Discovery(self, self.config.discovery, environ)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.shutdown()

    async def open(self) -> None:
        """Discovers what is configured, and begins to check health and to refresh. Never fails for a bad
        provider: that is a warning.
        """
        if self._tasks or self._closed:
            return
        await self.discovery.refresh()
        self._tasks = [asyncio.create_task(self._monitor.run(self._entries), name="provider health")]
        if self.config.discovery.auto_refresh_interval is not None:
            self._tasks.append(asyncio.create_task(self.discovery.run(), name="provider discovery"))

    async def register(
        self,
        what: Registrable,
        *,
        kind: str | None = None,
        provider_type: str | None = None,
        source: Source = "api",
        metadata: Mapping[str, Any] | None = None,
    ) -> RegisteredProvider:
        """Registers an instance, or what the factory makes of a configuration, and initializes it.

        A mapping may hold ``kind`` and ``type`` itself; the defaults are ``sdk`` and the name. Raises
        :class:`RegistryError`.
        """
        wanted = Wanted(_name_of(what), what, kind, provider_type, source, metadata or {})
        existing = self._entries.get(wanted.name)
        gives_way = existing is not None and existing.record.source != "api" and source == "api"
        if existing is not None and not gives_way:
            raise _error("ALREADY_EXISTS", f"a provider called {wanted.name} is registered", wanted.name)
        return await self._install(wanted)

    async def replace(
        self,
        what: Registrable,
        *,
        kind: str | None = None,
        provider_type: str | None = None,
        source: Source | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> RegisteredProvider:
        """Registers ``what`` in the place of the provider of that name, which stays until the new one is
        ready, and for good where that fails. Raises :class:`RegistryError`.
        """
        name = _name_of(what)
        existing = self._entry(name).record.source
        chosen = source or existing
        if existing == "api" and chosen != "api":
            raise _error("ALREADY_EXISTS", f"{name} was registered by a program, which goes first", name)
        return await self._install(Wanted(name, what, kind, provider_type, chosen, metadata or {}))

    async def _install(self, wanted: Wanted) -> RegisteredProvider:
        name = wanted.name
        self._reserve(name)
        try:
            entry = await self._making.made(wanted)
            old, self._entries[name] = self._entries.get(name), entry
            if old is not None:
                await asyncio.shield(self._leave(old))
        finally:
            self._reserved.pop(name).set()
        source, replaced = wanted.source, old is not None
        log.info("provider.registered", provider=name, source=source, version=entry.record.config.version)
        self.events.emit("provider-registered", name, source=source, replaced=replaced)
        return entry.record

    async def unregister(self, name: str) -> None:
        """Takes a provider out and cleans it up, also where the caller is cancelled meanwhile. Raises
        :class:`RegistryError` (NOT_FOUND).
        """
        entry = self._entry(name)
        self._reserve(name)
        del self._entries[name]
        await asyncio.shield(self._removed(name, entry))

    async def _removed(self, name: str, entry: Entry) -> None:
        try:
            await self._leave(entry)
        finally:
            self._reserved.pop(name).set()
        log.info("provider.unregistered", provider=name)
        self.events.emit("provider-unregistered", name, source=entry.record.source)

    def _reserve(self, name: str) -> None:
        if self._closed:
            raise _error("REGISTRATION_FAILED", "the registry has been shut down", name)
        if name in self._reserved:
            raise _error("ALREADY_EXISTS", f"{name} is being registered or removed right now", name)
        self._reserved[name] = asyncio.Event()

    def get(self, name: str) -> RegistryProvider:
        """The provider. Raises :class:`RegistryError` (NOT_FOUND)."""
        return self._entry(name).record.provider

    def record(self, name: str) -> RegisteredProvider:
        """All that is known of it now. Raises :class:`RegistryError` (NOT_FOUND)."""
        return self._entry(name).record

    def records(self) -> tuple[RegisteredProvider, ...]:
        """All of them, by name."""
        return tuple(self._entries[name].record for name in sorted(self._entries))

    def names(self) -> tuple[str, ...]:
        """Names of all that are registered, sorted; not those that are still being registered."""
        return tuple(sorted(self._entries))

    def has(self, name: str) -> bool:
        """Whether it is registered."""
        return name in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def on(self, name: EventName | Literal["*"], listener: Listener) -> Callable[[], None]:
        """Calls ``listener`` with each such event; returns what ends that."""
        return self.events.on(name, listener)

    async def initialize(self, name: str) -> RegisteredProvider:
        """Initializes one that was disposed of, or whose restart failed. Raises :class:`RegistryError`."""
        return await self._phase(name, "initialize")

    async def start(self, name: str) -> RegisteredProvider:
        """Begins its work; once started, nothing happens. Raises :class:`RegistryError`."""
        return await self._phase(name, "start")

    async def stop(self, name: str) -> RegisteredProvider:
        """Ends its work; it stays initialized. Raises :class:`RegistryError`."""
        return await self._phase(name, "stop")

    async def restart(self, name: str) -> RegisteredProvider:
        """stop, cleanup, initialize, start. Raises :class:`RegistryError`; the status is ``error`` then."""
        return await self._phase(name, "restart")

    async def dispose(self, name: str) -> RegisteredProvider:
        """Stops it and cleans it up; it stays in the table as ``disposed``."""
        return await self._phase(name, "dispose")

    async def all(self, phase: Phase) -> dict[str, RegistryError | None]:
        """One phase for every provider at the same time; what went wrong by name, None where nothing did."""

        async def one(name: str) -> RegistryError | None:
            try:
                await self._phase(name, phase)
            except RegistryError as error:
                return error
            return None

        names = self.names()
        return dict(zip(names, await asyncio.gather(*map(one, names)), strict=True))

    async def check_health(self, name: str) -> ProviderHealth:
        """Checks one now. Raises :class:`RegistryError` (NOT_FOUND)."""
        return await self._monitor.check(self._entry(name))

    async def check_all(self) -> dict[str, ProviderHealth]:
        """Checks every one now, at the same time."""
        return await self._monitor.check_all(self._entries)

    def breaker_state(self, name: str) -> BreakerState:
        """The word of its breaker. Raises :class:`RegistryError` (NOT_FOUND)."""
        return self._entry(name).breaker.state

    @asynccontextmanager
    async def guard(self, name: str) -> AsyncIterator[RegistryProvider]:
        """The provider for one call, under its breaker: what the block raises counts as a failure.

        Raises :class:`CircuitOpenError` without a call, and :class:`RegistryError` (NOT_FOUND).
        """
        entry = self._entry(name)
        breaker = entry.breaker
        permit = breaker.acquire(self._clock())
        if permit is None:
            raise CircuitOpenError(name, max(0.0, breaker.reopens_at() - self._clock()))
        try:
            yield entry.record.provider
        except Exception:
            breaker.failure(permit, self._clock())
            raise
        except BaseException:  # cancelled: it says nothing about the provider
            breaker.release(permit)
            raise
        breaker.success(permit, self._clock())

    async def shutdown(self) -> dict[str, str]:
        """Ends everything within ``graceful_shutdown_timeout``; more than once is fine.

        Returns what did not end in time, by name, with the reason.
        """
        self._closed = True
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self.config.lifecycle.graceful_shutdown_timeout
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
        late: dict[str, str] = {}
        if self._reserved:
            waiting = {asyncio.create_task(event.wait()): name for name, event in self._reserved.items()}
            _, still = await asyncio.wait(waiting, timeout=max(0.0, (ends_at - loop.time()) / 2))
            for one in still:
                one.cancel()
                late[waiting[one]] = "its registration did not end"
        entries = dict(self._entries)
        self._entries.clear()
        leaving = {asyncio.create_task(self._leave(entry)): name for name, entry in entries.items()}
        if leaving:
            _, unfinished = await asyncio.wait(leaving, timeout=max(0.1, ends_at - loop.time() - 1.0))
            for leave in unfinished:
                leave.cancel()
                late[leaving[leave]] = "it did not end"
        for name in entries:
            self.events.emit("provider-unregistered", name, reason="shutdown")
        await self.events.settle(max(0.0, ends_at - loop.time()))
        if late:
            log.warning("registry.shutdown_incomplete", providers=sorted(late))
        return late

    async def _leave(self, entry: Entry) -> None:
        entry.gone = True
        async with entry.lock:
            await pass_through(entry, "dispose", self.config.lifecycle)

    async def _phase(self, name: str, phase: Phase) -> RegisteredProvider:
        entry = self._entry(name)
        async with entry.lock:
            if entry.gone:
                raise _error("NOT_FOUND", f"no provider is called {name!r}", name)
            failed = await pass_through(entry, phase, self.config.lifecycle)
        if failed is not None:
            context = {"phase": phase, "error": type(failed).__name__}
            self.events.emit("provider-error", name, code="REGISTRATION_FAILED", **context)
            raise _error(
                "REGISTRATION_FAILED", f"{phase} of {name} failed: {type(failed).__name__}", name, context
            ) from failed
        return entry.record

    def _entry(self, name: str) -> Entry:
        entry = self._entries.get(name)
        if entry is None:
            raise _error("NOT_FOUND", f"no provider is called {name!r}", name)
        return entry


def _name_of(what: Registrable) -> str:
    if isinstance(what, Mapping):
        name = what.get("name")
    else:
        config = what if isinstance(what, ProviderConfig) else getattr(what, "config", None)
        name = getattr(config, "name", None)
    if not isinstance(name, str) or re.fullmatch(NAME_PATTERN, name.replace("\n", " ")) is None:
        raise _error(
            "INVALID_NAME",
            "a provider's name is 1 to 253 letters, digits, '-', '_' and '.', and does not begin with '.'",
            name[:253] if isinstance(name, str) else None,
        )
    return name


def _error(
    code: str, message: str, name: str | None, context: Mapping[str, Any] | None = None
) -> RegistryError:
    return RegistryError(RegistryErrorCode(code), message, provider_name=name, context=context)
