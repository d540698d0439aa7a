"""Who listens, and what they are told: one bounded queue per listener.

Publishing never waits. A listener whose queue is full gets nothing more, is told so (``lagged``) and has to
come again; the first thing that a listener hears is how everything stands, so nothing is lost by that. Each
listener sees only what its identity may: an event is rendered once for each of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Set
from typing import Any, Final

from ..identity import Identity

TOPICS: Final = ("objects", "routers", "breakers", "canaries", "traffic", "trail")
MAX_LISTENERS: Final = 64
MAX_PER_IDENTITY: Final = 8
QUEUE: Final = 256

Render = Callable[[Identity], dict[str, Any] | None]
"""What an identity is told of an event; None is nothing."""


class FullError(Exception):
    """There are as many listeners as there may be; the message is for people."""


class Listener:
    """One client. ``lagged`` once it missed something; ``closed`` once the hub ends."""

    def __init__(self, who: Identity, topics: Set[str]) -> None:
        self.who = who
        self.topics = topics
        self.lagged = False
        self.closed = False
        self._queue: asyncio.Queue[tuple[str, dict[str, Any]] | None] = asyncio.Queue(QUEUE)

    async def next(self, seconds: float) -> tuple[str, dict[str, Any]] | None:
        """The next (topic, data); None where none came in ``seconds``, or it is over."""
        try:
            return await asyncio.wait_for(self._queue.get(), seconds)
        except TimeoutError:
            return None

    def over(self) -> bool:
        """Whether nothing will come any more."""
        return self._queue.empty() and (self.lagged or self.closed)

    def tell(self, topic: str, data: dict[str, Any]) -> None:
        """Puts an event into the queue, or notes that there was no room."""
        if self.lagged:
            return
        if self._queue.full():
            self.lagged = True
        else:
            self._queue.put_nowait((topic, data))

    def close(self) -> None:
        """Ends it after what is in its queue."""
        self.closed = True
        if not self._queue.full():
            self._queue.put_nowait(None)


class Hub:
    """All listeners."""

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()
        self._closed = False

    def join(self, who: Identity, topics: Set[str]) -> Listener:
        """A new listener. Raises :class:`FullError`."""
        if len(self._listeners) >= MAX_LISTENERS:
            raise FullError(f"{MAX_LISTENERS} clients listen already")
        if sum(one.who.subject == who.subject for one in self._listeners) >= MAX_PER_IDENTITY:
            raise FullError(f"you listen {MAX_PER_IDENTITY} times already")
        listener = Listener(who, topics)
        self._listeners.add(listener)
        if self._closed:
            listener.close()
        return listener

    def leave(self, listener: Listener) -> None:
        """Forgets a listener. More than once is fine."""
        self._listeners.discard(listener)

    def wanted(self, *topics: str) -> bool:
        """Whether anybody listens to one of ``topics``."""
        return any(not one.topics.isdisjoint(topics) for one in self._listeners)

    def publish(self, topic: str, render: Render) -> None:
        """Tells an event to everybody who listens to ``topic`` and may see it."""
        for listener in self._listeners:
            if topic in listener.topics:
                data = render(listener.who)
                if data is not None:
                    listener.tell(topic, data)

    def close(self) -> None:
        """Ends every stream, so that a shutdown waits for nobody."""
        self._closed = True
        for listener in self._listeners:
            listener.close()
