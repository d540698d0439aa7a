"""What the registry says about itself, to whoever listens.

Listeners are called in the order in which they came, while the event happens, on the event loop: the next
event is not said before all have heard this one. A listener that is a coroutine function is started as a
task, which the registry's shutdown waits for. What a listener raises is logged and harms nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal, get_args

import structlog

from ..logs import place_of

log = structlog.get_logger()

EventName = Literal[
    "provider-registered",
    "provider-unregistered",
    "provider-error",
    "health-status-changed",
    "circuit-breaker-opened",
    "circuit-breaker-closed",
]
EVENTS: Final[tuple[EventName, ...]] = get_args(EventName)


@dataclass(frozen=True, slots=True)
class RegistryEvent:
    """One event. ``details`` depend on the name: ``from`` and ``to`` of a health status, ``code`` and
    ``error`` (a type, never its text) of an error.
    """

    name: EventName
    provider_name: str
    at: datetime
    details: Mapping[str, Any] = field(default_factory=dict)


Listener = Callable[[RegistryEvent], Any]


class Events:
    """Who listens to what."""

    def __init__(self) -> None:
        self._listeners: dict[EventName, list[Listener]] = {name: [] for name in EVENTS}
        self._tasks: set[asyncio.Future[Any]] = set()

    def on(self, name: EventName | Literal["*"], listener: Listener) -> Callable[[], None]:
        """Calls ``listener`` with each event ``name`` (``*``: all); returns what ends that. Raises ValueError
        on an unknown name.
        """
        if name != "*" and name not in self._listeners:
            raise ValueError(f"no event is called {name!r}: there are {', '.join(EVENTS)}")
        names = EVENTS if name == "*" else (name,)
        for one in names:
            self._listeners[one].append(listener)

        def off() -> None:
            for one in names:
                if listener in self._listeners[one]:
                    self._listeners[one].remove(listener)

        return off

    def emit(self, name: EventName, provider_name: str, **details: Any) -> None:
        """Tells all listeners. Never raises."""
        event = RegistryEvent(name, provider_name, datetime.now(UTC), details)
        for listener in tuple(self._listeners[name]):
            try:
                heard = listener(event)
                if asyncio.iscoroutine(heard):
                    task = asyncio.ensure_future(heard)
                    self._tasks.add(task)
                    task.add_done_callback(self._heard)
            except Exception as error:  # noqa: BLE001 -- a listener must not harm what it listens to
                _failed(error)

    async def settle(self, seconds: float) -> None:
        """Waits for listeners at work; cancels those that take longer."""
        if not self._tasks:
            return
        _, late = await asyncio.wait(tuple(self._tasks), timeout=seconds)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=1.0)

    def _heard(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _failed(error)


def _failed(error: BaseException) -> None:
    log.warning("registry.listener_failed", error=type(error).__name__, at=place_of(error))
