"""Who listens, and what they are told: one bounded queue per listener.

Publishing never waits. A listener whose queue is full gets nothing more, is told so (``lagged``) and has to
come again; the first thing that a listener hears is how everything stands. Each listener sees only what its
identity may: an event is rendered once for each of them.

Events have numbers that grow over all streams of a process, and of the next process where ``first`` is its
start in microseconds. Those of topics without a state (:data:`KEPT_TOPICS`) are kept for a while, so whoever
comes again with the last number that it saw is told what it missed, or that nobody can say any more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Set
from typing import Any, Final

from ..identity import Identity

TOPICS: Final = ("objects", "routers", "breakers", "canaries", "traffic", "trail")
MAX_LISTENERS: Final = 64
MAX_PER_IDENTITY: Final = 8
QUEUE: Final = 256
KEPT: Final = 1_000
KEPT_TOPICS: Final = frozenset({"objects", "trail"})
"""Of all others a stream begins with how they stand."""

Render = Callable[[Identity], dict[str, Any] | None]
"""What an identity is told of an event; None is nothing."""


Told = tuple[int, str, dict[str, Any]]
"""Number, topic and data of an event."""


class FullError(Exception):
    """There are as many listeners as there may be; the message is for people."""


class Listener:
    """One client. ``lagged`` once it missed something; ``closed`` once the hub ends."""

    def __init__(self, who: Identity, topics: Set[str], number: int) -> None:
        self.number = number
        """The first of its own numbers: one for each topic's state, and one more."""
        self.who = who
        self.topics = topics
        self.lagged = False
        self.closed = False
        self._queue: asyncio.Queue[Told | None] = asyncio.Queue(QUEUE)

    async def next(self, seconds: float) -> Told | None:
        """The next event; None where none came in ``seconds``, or it is over."""
        try:
            return await asyncio.wait_for(self._queue.get(), seconds)
        except TimeoutError:
            return None

    def over(self) -> bool:
        """Whether nothing will come any more."""
        return self._queue.empty() and (self.lagged or self.closed)

    def tell(self, number: int, topic: str, data: dict[str, Any]) -> None:
        """Puts an event into the queue, or notes that there was no room."""
        if self.lagged:
            return
        if self._queue.full():
            self.lagged = True
        else:
            self._queue.put_nowait((number, topic, data))

    def close(self) -> None:
        """Ends it after what is in its queue."""
        self.closed = True
        if not self._queue.full():
            self._queue.put_nowait(None)


class Hub:
    """All listeners. ``first``: the number before the first event's."""

    def __init__(self, first: int = 0) -> None:
        self._number = first
        self._whole_since = first
        """From this number on everything is kept."""
        self._kept: deque[tuple[int, str, Render]] = deque()
        self._listeners: set[Listener] = set()
        self._closed = False

    def join(self, who: Identity, topics: Set[str]) -> Listener:
        """A new listener. Raises :class:`FullError`."""
        if len(self._listeners) >= MAX_LISTENERS:
            raise FullError(f"{MAX_LISTENERS} clients listen already")
        if sum(one.who.subject == who.subject for one in self._listeners) >= MAX_PER_IDENTITY:
            raise FullError(f"you listen {MAX_PER_IDENTITY} times already")
        listener = Listener(who, topics, self._number + 1)
        self._number += len(topics) + 1
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
        self._number += 1
        if topic in KEPT_TOPICS:
            self._kept.append((self._number, topic, render))
            if len(self._kept) > KEPT:
                self._whole_since = self._kept.popleft()[0]
        for listener in self._listeners:
            if topic in listener.topics:
                data = render(listener.who)
                if data is not None:
                    listener.tell(self._number, topic, data)

    def missed(self, listener: Listener, last: int) -> list[Told] | None:
        """What came after the event ``last`` and before ``listener``; None where that is not known any more.
        To be asked in the same turn in which it joined.
        """
        if not self._whole_since <= last <= self._number:
            return None
        found = []
        for number, topic, render in self._kept:
            if last < number < listener.number and topic in listener.topics:
                data = render(listener.who)
                if data is not None:
                    found.append((number, topic, data))
        return found

    def forget(self) -> None:
        """Something happened that nobody was told: whoever comes again has to look anew."""
        self._number += 1
        self._whole_since = self._number
        self._kept.clear()

    def close(self) -> None:
        """Ends every stream, so that a shutdown waits for nobody."""
        self._closed = True
        for listener in self._listeners:
            listener.close()
